"""The VAE: bounds by hand in float64, weights of its parts, importance weighting, samples."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from pygen import VAE
from pygen.data import load
from pygen.nn import MLPDecoder, MLPEncoder
from pygen.ops import normal

SHAPE = (1, 8, 8)
LIKELIHOODS = ["gaussian", "bernoulli", "continuous_bernoulli"]


@pytest.fixture(scope="module")
def digits():
    images, labels = load("digits")
    return images[:600].float() / 255, labels[:600]


def small(latent_dim=4, **parameters):
    networks = {
        "encoder": MLPEncoder(SHAPE, 2 * latent_dim, (64,)),
        "decoder": MLPDecoder(latent_dim, SHAPE, (64,)),
    }
    defaults = {"max_steps": 300, "learning_rate": 2e-3, "random_state": 0}
    return VAE(latent_dim, **{**networks, **defaults, **parameters})


@pytest.fixture(scope="module")
def fitted(digits):
    return {name: small(likelihood=name, keep="last").fit(digits[0]) for name in LIKELIHOODS}


class ContinuousBernoulli:
    """C s^x (1 - s)^(1 - x), s = sigmoid(t), C = t / tanh(t / 2); torch's own clamps t."""

    def __init__(self, t):
        self.t = t
        self.mean = 1 / (1 - torch.exp(-t)) - 1 / t

    def log_prob(self, x):
        t = self.t
        return x * t - torch.nn.functional.softplus(t) + (t / torch.tanh(t / 2)).log()


def distribution(name, logits, log_variance):
    """Of a pixel, in float64."""
    logits = logits.double()
    if name == "gaussian":
        return Normal(logits.sigmoid(), math.exp(log_variance / 2))
    if name == "bernoulli":
        return Bernoulli(logits=logits, validate_args=False)
    return ContinuousBernoulli(logits)


def parts_by_hand(model, x, eps):
    """log p(x | z) and KL of rows, in float64, for given noise."""
    with torch.no_grad():
        mu, logvar = model.encoder_(x).double().chunk(2, 1)
        z = mu + (logvar / 2).exp() * eps.double()
        logits = model.decoder_(z.float())
    pixels = distribution(model.likelihood, logits, model.log_variance_.item())
    posterior = Normal(mu, (logvar / 2).exp())
    standard = Normal(torch.zeros_like(mu), torch.ones_like(mu))
    log_p = pixels.log_prob(x.double()).flatten(1).sum(1)
    weight = log_p + (standard.log_prob(z) - posterior.log_prob(z)).sum(1)
    return log_p, kl_divergence(posterior, standard).sum(1), weight


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_bounds_by_hand(fitted, digits, likelihood):
    model, x = fitted[likelihood], digits[0][:64]
    state = torch.tensor([5, 2**61 + 2**60])
    log_p, kl, _ = parts_by_hand(model, x, normal(state, [64, 4]))
    got = model.score_samples(x, random_state=5)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, log_p - kl, rtol=1e-5, atol=1e-4)
    state = torch.tensor([5, 2**61 + 2**60])
    weights = [parts_by_hand(model, x, normal(state, [64, 4]))[2] for _ in range(3)]
    expected = torch.stack(weights).logsumexp(0) - math.log(3)
    got = model.score_samples(x, n_importance=3, random_state=5)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_importance_weighting_rises_from_the_bound(fitted, digits, likelihood):
    model, x = fitted[likelihood], digits[0]
    elbo, two, many = (
        model.score_samples(x, n_importance=k, random_state=1).mean() for k in (None, 2, 30)
    )
    # Both are unbiased for what they bound: one code more or less per row is noise of a few hundredths.
    one = model.score_samples(x, n_importance=1, random_state=1).mean()
    assert abs(one - elbo) < 0.3
    assert elbo < two < many
    assert model.score(x) == pytest.approx(elbo.item(), abs=0.5)
    for wrong in (0, 1.5):
        with pytest.raises(ValueError, match="n_importance"):
            model.score_samples(x, n_importance=wrong)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_the_loss_is_minus_the_bound(digits, likelihood):
    x = digits[0][:100]
    options = {"max_steps": 1, "batch_size": 100, "validation_fraction": 0, "precision": "float32"}
    model = small(likelihood=likelihood, metric=None, **options)
    encoder, decoder = model.encoder, model.decoder
    line = model.fit(x).history_[0]
    model.encoder_, model.decoder_ = encoder, decoder  # before the step
    model.log_variance_ = torch.tensor(-3.0 if likelihood == "gaussian" else 0.0)
    # Rows come in another order, and so does the noise: parts agree in expectation.
    bounds = [parts_by_hand(model, x, torch.randn(100, 4)) for _ in range(50)]
    assert line["kl"] == pytest.approx(bounds[0][1].mean().item(), rel=1e-4)
    reconstruction = -torch.stack([log_p.mean() for log_p, _, _ in bounds])
    assert abs(line["reconstruction"] - reconstruction.mean()) < 6 * reconstruction.std()
    assert line["loss"] == pytest.approx(line["reconstruction"] + line["kl"])


def test_the_loss_with_a_weight_is_fosters(digits):
    """r mean((x - x^)^2) + KL has the gradient of minus the bound at the variance D / (2 r)."""
    x, r = digits[0][:50], 200.0
    model = small(
        reconstruction_weight=r, max_steps=1, batch_size=50, validation_fraction=0, metric=None
    )
    line = model.fit(x).history_[0]
    variance = 64 / (2 * r)
    assert model.log_variance_.item() == pytest.approx(math.log(variance))
    with torch.no_grad():
        mu, logvar = model.encoder(x).chunk(2, 1)
        errors = [
            (x - model.decoder(mu + (logvar / 2).exp() * torch.randn(50, 4)).sigmoid())
            .square()
            .mean()
            for _ in range(50)
        ]
    errors = r * torch.stack(errors).double()
    constant = 32 * math.log(2 * math.pi * variance)
    assert abs(line["reconstruction"] - constant - errors.mean()) < 6 * errors.std()


def test_the_variance_is_learned(fitted, digits):
    x = digits[0]
    model = fitted["gaussian"]
    error = (model.reconstruct(x) - x).square().mean().item()
    # The best variance is the error of decoded draws, somewhat above that of decoded means.
    assert error < model.log_variance_.exp().item() < 2 * error
    assert fitted["bernoulli"].log_variance_ == 0


def test_a_larger_weight_buys_sharper_reconstructions(digits):
    x = digits[0]
    models = [small(reconstruction_weight=r).fit(x) for r in (10.0, 1000.0)]
    errors = [(model.reconstruct(x) - x).square().mean() for model in models]
    lengths = [model.history_[-1]["kl"] for model in models]
    assert errors[0] > 1.3 * errors[1]
    assert lengths[0] < 0.7 * lengths[1]


def test_warmup_weighs_the_kl_from_zero_up(digits):
    x = digits[0][:64]
    decoder = MLPDecoder(4, SHAPE)
    # A decoder of constants: the encoder's only gradient is that of the KL.
    nn.init.zeros_(decoder.layers[0].weight)
    networks = {"encoder": MLPEncoder(SHAPE, 8), "decoder": decoder.requires_grad_(False)}
    before = networks["encoder"].layers[0].weight

    def moved(**parameters):
        model = small(max_steps=1, metric=None, **networks, **parameters).fit(x)
        return not torch.equal(model.encoder_.layers[0].weight, before)

    assert moved()
    assert not moved(kl_warmup_steps=10)
    model = small(kl_warmup_steps=4)
    task = model._prepared(model._take(x, None, 0), torch.device("cpu"), 0)
    assert [float(task._kl_weight()) for _ in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]


def test_samples_are_means_of_the_likelihood(fitted, digits):
    codes = torch.randn(5, 4)
    for name, model in fitted.items():
        with torch.no_grad():
            logits = model.decoder_(codes)
        expected = distribution(name, logits, 0.0).mean
        torch.testing.assert_close(model.decode(codes).double(), expected, rtol=1e-4, atol=1e-5)
    made, origin = model.sample(2000)
    assert made.shape == (2000, 1, 8, 8)
    assert origin.mean(0).abs().max() < 5 / 2000**0.5
    assert (origin.std(0) - 1).abs().max() < 5 / 4000**0.5
    assert torch.equal(model.decode(origin[:9]), made[:9])


def test_encode_gives_means_and_interpolate_is_linear(fitted, digits):
    model, x = fitted["bernoulli"], digits[0][:4]
    with torch.no_grad():
        mu = model.encoder_(x)[:, :4]
    torch.testing.assert_close(model.encode(x), mu)
    steps = model.interpolate(x[:2].numpy(), x[2:].numpy(), 4)
    assert isinstance(steps, np.ndarray)
    third = torch.lerp(mu[:2], mu[2:], 1 / 3)
    torch.testing.assert_close(torch.from_numpy(steps[:, 1]), model.decode(third))


def test_bounds_of_a_conditional_model_are_given_the_class(digits):
    x, y = digits
    model = VAE(2, conditional=True, max_steps=150, learning_rate=2e-3, random_state=0).fit(x, y)
    assert model.score(x, y) > model.score(x, (y + 1) % 10)
    assert model.sample(6, y=7)[1].tolist() == [7] * 6
    with pytest.raises(ValueError, match="conditional"):
        model.score_samples(x)


def test_the_best_weights_are_those_of_the_best_bound(digits):
    model = small(max_steps=600).fit(digits[0])
    metrics = [line["metric"] for line in model.history_ if "metric" in line]
    assert len(metrics) == 3
    assert min(metrics) < metrics[0]


def test_a_weight_needs_the_gaussian_likelihood(digits):
    with pytest.raises(ValueError, match=r"reconstruction_weight.*Gaussian"):
        small(likelihood="bernoulli", reconstruction_weight=10.0).fit(digits[0])
