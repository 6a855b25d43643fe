"""Likelihoods and the losses of a GAN, against their formulas in float64."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, ContinuousBernoulli, Normal

from pygen.deep.losses import (
    GAN_LOSSES,
    gradient_penalty,
    kernel_distance,
    log_likelihood,
    mean,
    r1_penalty,
)

ZERO = torch.zeros(())


def draw(*shape, scale=1.0, seed=0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def per_row(values):
    return values.flatten(1).sum(1)


@pytest.mark.parametrize("log_variance", [-3.0, 0.0, 1.5])
def test_gaussian(log_variance):
    x, logits = draw(7, 2, 3).sigmoid(), draw(7, 2, 3, seed=1)
    deviation = math.exp(log_variance / 2)
    expected = Normal(logits.double().sigmoid(), deviation).log_prob(x.double())
    got = log_likelihood("gaussian", x, logits, torch.tensor(log_variance))
    torch.testing.assert_close(got.double(), per_row(expected), rtol=1e-5, atol=1e-5)


def test_gaussian_of_data_without_noise_stays_finite():
    x = torch.zeros(3, 5)
    got = log_likelihood("gaussian", x, torch.full((3, 5), -50.0), torch.tensor(-1000.0))
    torch.testing.assert_close(got, torch.full((3,), 2.5 * -math.log(2 * math.pi * 1e-6)))


def test_bernoulli():
    logits = draw(7, 2, 3, scale=10)
    x = (draw(7, 2, 3, seed=1) > 0).float()
    expected = Bernoulli(logits=logits.double()).log_prob(x.double())
    got = log_likelihood("bernoulli", x, logits, ZERO)
    torch.testing.assert_close(got.double(), per_row(expected), rtol=1e-5, atol=1e-5)
    assert torch.equal(mean("bernoulli", logits), logits.sigmoid())


# Around 0, where the formulas are 0 / 0, the limits of the series, and where the sigmoid is 0 or 1.
LOGITS = torch.tensor([0.0, 1e-8, -1e-4, 0.01, 0.3, -0.59, 0.6, 0.61, -2.0, 7.0, 30.0, -80.0])


def test_continuous_bernoulli():
    logits = LOGITS[LOGITS.abs() < 10]  # torch's clamps beyond
    x = torch.linspace(0, 1, 5)
    # torch's is a series in an interval about 1/2; a narrow one in float64 is exact enough to judge by.
    peer = ContinuousBernoulli(logits=logits.double(), lims=(0.49999, 0.50001))
    got = [
        log_likelihood("continuous_bernoulli", value.expand(len(logits), 1), logits[:, None], ZERO)
        for value in x
    ]
    expected = [peer.log_prob(value.double()) for value in x]
    torch.testing.assert_close(
        torch.stack(got).double(), torch.stack(expected), rtol=2e-5, atol=2e-5
    )
    torch.testing.assert_close(
        mean("continuous_bernoulli", logits).double(), peer.mean, rtol=1e-5, atol=1e-5
    )


def test_continuous_bernoulli_is_a_density():
    x = ((torch.arange(20_000) + 0.5) / 20_000).double()[:, None]
    for logit in LOGITS.double():
        log_p = log_likelihood("continuous_bernoulli", x, logit.expand_as(x), ZERO)
        assert log_p.exp().mean().item() == pytest.approx(1, abs=1e-4)
        expected = (log_p.exp() * x[:, 0]).mean().item()
        assert mean("continuous_bernoulli", logit).item() == pytest.approx(expected, abs=1e-4)


def test_continuous_bernoulli_has_the_gradient_of_its_formula():
    # d log p / d t = x - E[x], for an exponential family.
    logits = torch.cat([LOGITS, torch.tensor([500.0, -500.0])])[:, None].requires_grad_()
    x = torch.full_like(logits, 0.25)
    log_likelihood("continuous_bernoulli", x, logits, ZERO).sum().backward()
    expected = 0.25 - mean("continuous_bernoulli", logits.detach())
    torch.testing.assert_close(logits.grad, expected, rtol=1e-5, atol=1e-6)


# Formulas as the papers print them, of D's logits; s is the sigmoid.
def log_s(x):
    return x.sigmoid().log()


FORMULAS = {
    "non-saturating": (
        lambda r, f: -log_s(r).mean() - (1 - f.sigmoid()).log().mean(),
        lambda f, r: -log_s(f).mean(),
    ),
    "hinge": (
        lambda r, f: -(r - 1).clamp_max(0).mean() - (-f - 1).clamp_max(0).mean(),
        lambda f, r: -f.mean(),
    ),
    "wgan-gp": (lambda r, f: f.mean() - r.mean(), lambda f, r: -f.mean()),
    "lsgan": (
        lambda r, f: ((r - 1) ** 2).mean() / 2 + (f**2).mean() / 2,
        lambda f, r: ((f - 1) ** 2).mean() / 2,
    ),
    "relativistic": (lambda r, f: -log_s(r - f).mean(), lambda f, r: -log_s(f - r).mean()),
}


@pytest.mark.parametrize("name", GAN_LOSSES)
def test_gan_losses(name):
    loss, (discriminator, generator) = GAN_LOSSES[name], FORMULAS[name]
    real, fake = draw(9, scale=3), draw(9, scale=3, seed=1)
    torch.testing.assert_close(
        loss.discriminator(real, fake, 0.0).double(), discriminator(real.double(), fake.double())
    )
    torch.testing.assert_close(
        loss.generator(fake, real).double(), generator(fake.double(), real.double())
    )
    # Certain and wrong: softplus of large logits, where log(sigmoid) is -inf.
    assert loss.discriminator(-1e4 * real.abs(), 1e4 * fake.abs(), 0.0).isfinite()
    moved = real + 1
    assert loss.needs_real == (loss.generator(fake, moved) != loss.generator(fake, real)).item()


@pytest.mark.parametrize("name", [name for name, loss in GAN_LOSSES.items() if loss.has_labels])
def test_smoothed_labels(name):
    real, fake = draw(9).double(), draw(9, seed=1).double()
    got = GAN_LOSSES[name].discriminator(real, fake, 0.1)
    if name == "lsgan":
        expected = ((real - 0.9) ** 2).mean() / 2 + (fake**2).mean() / 2
    else:
        cross = 0.9 * log_s(real) + 0.1 * (1 - real.sigmoid()).log()
        expected = -cross.mean() - (1 - fake.sigmoid()).log().mean()
    torch.testing.assert_close(got, expected)


class Quadratic(nn.Module):
    """D(x) = x' A x / 2, whose gradient at x is A x for a symmetric A."""

    def __init__(self):
        super().__init__()
        a = draw(6, 6).double()
        self.a = nn.Parameter(a + a.T)

    def forward(self, x):
        x = x.flatten(1)
        return ((x @ self.a) * x).sum(1) / 2


@pytest.mark.parametrize("penalty", [gradient_penalty, r1_penalty])
def test_penalties_of_a_quadratic_discriminator(penalty):
    discriminator, x = Quadratic(), draw(5, 2, 3).double()
    got = penalty(discriminator, x)
    a = discriminator.a.detach().clone().requires_grad_()
    norms = (x.flatten(1) @ (a + a.T) / 2).norm(dim=1)
    expected = ((norms - 1) ** 2).mean() if penalty is gradient_penalty else (norms**2).mean() / 2
    torch.testing.assert_close(got, expected)
    got.backward()
    expected.backward()
    torch.testing.assert_close(discriminator.a.grad, a.grad)


def test_kernel_distance_is_the_unbiased_estimate():
    x, y = draw(6, 4).double(), draw(5, 4, seed=1).double() + 0.5

    def kernel(a, b):
        return (float(a @ b) / 4 + 1) ** 3

    within_x = sum(kernel(x[i], x[j]) for i in range(6) for j in range(6) if i != j) / 30
    within_y = sum(kernel(y[i], y[j]) for i in range(5) for j in range(5) if i != j) / 20
    across = sum(kernel(a, b) for a in x for b in y) / 30
    expected = within_x + within_y - 2 * across
    assert kernel_distance(x, y).item() == pytest.approx(expected, rel=1e-9)
    assert kernel_distance(draw(400, 4), draw(400, 4, seed=2)).abs() < 0.1
    assert kernel_distance(draw(400, 4), draw(400, 4, seed=2) + 1) > 1
