"""GAN and DCGAN: the step against its five parts by hand, every loss and option, refusals, codes."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import pygen
from pygen import DCGAN, GAN
from pygen.data import load
from pygen.deep.gan import spherical
from pygen.deep.losses import GAN_LOSSES
from pygen.nn import DCGANDiscriminator, MLPDiscriminator, MLPGenerator
from pygen.ops import normal
from pygen.random import new_state

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def digits():
    images, labels = load("digits")
    return images[:256], labels[:256]


def small(**parameters):
    defaults = {"max_steps": 3, "batch_size": 32, "random_state": 0, "metric": None}
    return GAN(6, **{**defaults, **parameters})


def small_dcgan(**parameters):
    defaults = {"max_steps": 3, "batch_size": 32, "random_state": 0, "metric": None, "width": 8}
    return DCGAN(6, **{**defaults, **parameters})


def task_of(model, x, y=None):
    """The task that ``fit`` would train, not trained."""
    model._validate_params()
    return model._prepared(model._take(x, y, 0), torch.device("cpu"), 0)


def same_weights(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


# The step


@pytest.mark.parametrize("loss", GAN_LOSSES)
@pytest.mark.parametrize("conditional", [False, True])
def test_a_step_is_its_five_parts(loss, conditional, digits):
    """By hand, with plain autograd and Adam's own steps."""
    x, y = digits[0][:32], digits[1][:32] if conditional else None
    options = {"gradient_penalty": 1e-12, "precision": "float32"}
    task = task_of(small(loss=loss, conditional=conditional, **options), x, digits[1][:32])
    y = None if y is None else torch.searchsorted(torch.from_numpy(task.model.classes_), y)
    generator, discriminator = (
        copy.deepcopy(task.networks[n]) for n in ("generator", "discriminator")
    )
    got = task.step(x, y)

    real = x.float() / 255 * 2 - 1
    fake = generator(normal(new_state(0), [32, 6]), y)
    of_real, of_fake = discriminator(real, y), discriminator(fake.detach(), y)
    loss_d = GAN_LOSSES[loss].discriminator(of_real, of_fake, 0.0)
    loss_d.backward()
    torch.testing.assert_close(got["discriminator"], loss_d.detach())
    torch.optim.Adam(discriminator.parameters(), 2e-4, (0.5, 0.999)).step()
    of_real = discriminator(real, y).detach()
    loss_g = GAN_LOSSES[loss].generator(discriminator(fake, y), of_real)
    loss_g.backward()
    torch.testing.assert_close(got["generator"], loss_g.detach(), rtol=1e-4, atol=1e-5)
    torch.optim.Adam(generator.parameters(), 2e-4, (0.5, 0.999)).step()
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        for ours, theirs in zip(
            task.networks[name].parameters(), network.parameters(), strict=True
        ):
            # Adam's first step is 2e-4 for any gradient, and that of a gradient near 0 is its rounding's.
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_discriminator_gets_no_gradient_in_the_generators_step(digits):
    task = task_of(small_dcgan(), digits[0])
    task.step(digits[0][:32], None)
    discriminator = task.networks["discriminator"]
    before = [parameter.grad.clone() for parameter in discriminator.parameters()]
    fake = task.made(32, None)
    task.generator_step(torch.zeros(32, *SHAPE), fake, None)
    assert all(
        torch.equal(a, parameter.grad)
        for a, parameter in zip(before, discriminator.parameters(), strict=True)
    )
    assert all(parameter.requires_grad for parameter in discriminator.parameters())


class Watched(nn.Module):
    """A discriminator that notes what it sees, and in which mode."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(64), nn.Linear(64, 1)
        self.seen = []

    def forward(self, x):
        self.seen.append((len(x), self.norm.training))
        return self.layer(self.norm(x.flatten(1)))[:, 0]


@pytest.mark.parametrize(
    ("d_batch", "expected"),
    [
        ("separate", [(32, True), (32, True), (32, True)]),
        ("concat", [(64, True), (32, False)]),
    ],
)
def test_batches_of_the_discriminator(d_batch, expected, digits):
    task = task_of(small(d_batch=d_batch, discriminator=Watched()), digits[0])
    watched = task.networks["discriminator"]
    watched.seen.clear()
    task.step(digits[0][:32], None)
    assert watched.seen == expected
    assert watched.norm.training


@pytest.mark.parametrize("make", [small, small_dcgan])
@pytest.mark.parametrize("conditional", [False, True])
def test_real_and_made_rows_go_through_together_as_if_they_did_not(make, conditional, digits):
    task = task_of(make(conditional=conditional), *digits)
    assert task.may_join
    real, fake = torch.rand(32, *SHAPE), torch.rand(32, *SHAPE)
    y = torch.arange(32) % 10 if conditional else None
    discriminator = task.discriminator
    other = copy.deepcopy(discriminator)
    got = torch.cat(task.judged(real, fake, y))
    arguments = () if y is None else (y,)
    expected = torch.cat([other(rows, *arguments) for rows in (real, fake)])
    torch.testing.assert_close(got, expected)
    (got * torch.arange(64.0)).sum().backward()
    (expected * torch.arange(64.0)).sum().backward()
    for ours, theirs in zip(discriminator.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-3)
    for ours, theirs in zip(discriminator.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "parameters",
    [
        {"spectral_norm": True},
        {"discriminator": pygen.restore(DCGANDiscriminator(SHAPE, 8))},
        {"discriminator": nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Flatten(0))},
    ],
)
def test_what_may_see_that_it_is_given_both_gets_one_after_the_other(parameters, digits):
    task = task_of(small_dcgan(**parameters), digits[0])
    assert not task.may_join
    seen = []
    task.discriminator.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    task.step(digits[0][:32], None)
    assert seen == [32, 32, 32]


def test_each_step_of_the_discriminator_has_rows_of_its_own(digits):
    model = small(d_steps=3, batch_size=16, discriminator=Watched())
    task = task_of(model, digits[0])
    watched = task.networks["discriminator"]
    watched.seen.clear()
    task.step(digits[0][: model._step_rows()], None)
    assert [n for n, _ in watched.seen] == [16] * 7
    assert model.fit(digits[0]).n_steps_ == 3


# Options


@pytest.mark.parametrize(
    "parameters",
    [
        {"label_smoothing": 0.1},
        {"instance_noise": 0.1},
        {"spectral_norm": True},
        {"r1": 1.0},
        {"gradient_penalty": 10.0},
        {"d_learning_rate": 1e-3},
        {"betas": (0.0, 0.9)},
        {"d_steps": 2},
        {"d_batch": "concat"},
        *[{"loss": loss} for loss in GAN_LOSSES if loss != "non-saturating"],
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [small, small_dcgan])
def test_every_option_changes_what_is_learned(make, parameters, digits):
    if make is small_dcgan:
        parameters = {**parameters, "d_norm": "instance"}
    plain = make(**({"d_norm": "instance"} if make is small_dcgan else {})).fit(digits[0])
    other = make(**parameters).fit(digits[0])
    # Without batch norm a batch in two parts is the same as one; everything else is not.
    alike = parameters.get("d_batch") == "concat"
    a, b = (torch.cat([p.flatten() for p in m.generator_.parameters()]) for m in (plain, other))
    assert torch.allclose(a, b, atol=1e-5) == alike
    assert torch.isfinite(b).all()


def test_the_generator_is_the_moving_average(digits):
    averaged, last = (small(ema_decay=decay, max_steps=20).fit(digits[0]) for decay in (0.999, 0))
    assert not same_weights(averaged.generator_, last.generator_)
    assert same_weights(averaged.discriminator_, last.discriminator_)
    # By hand: the warm-up of pygen.deep.ema.
    task = task_of(small(), digits[0])
    average = copy.deepcopy(task.networks["generator"])
    for t in range(20):
        task.step(digits[0][32 * (t % 8) :][:32], None)
        decay = min(0.999, (1 + t) / (10 + t))
        for a, b in zip(average.parameters(), task.networks["generator"].parameters(), strict=True):
            a.data = decay * a.data + (1 - decay) * b.data
    for a, b in zip(
        average.parameters(), task.averages["generator"].module.parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_metric_sees_a_better_generator(digits):
    model = small_dcgan(metric="auto", max_steps=300, learning_rate=1e-3, width=16).fit(digits[0])
    metrics = [line["metric"] for line in model.history_ if "metric" in line]
    assert len(metrics) == 2
    untrained = small_dcgan(metric="auto", max_steps=1, learning_rate=1e-9).fit(digits[0])
    assert min(metrics) < 0.2 * untrained.history_[-1]["metric"]


# Codes


def test_the_arc_between_codes():
    a, b = torch.randn(5, 9), torch.randn(5, 9)
    torch.testing.assert_close(spherical(a, b, 0.0), a)
    torch.testing.assert_close(spherical(a, b, 1.0), b)
    torch.testing.assert_close(spherical(a, a, 0.3), a)
    torch.testing.assert_close(spherical(a, 2 * a, 0.5), 1.5 * a)
    b *= a.norm(dim=1, keepdim=True) / b.norm(dim=1, keepdim=True)
    angle = torch.cosine_similarity(a, b).acos()
    for share in (0.1, 0.5, 0.8):
        on = spherical(a, b, share)
        torch.testing.assert_close(on.norm(dim=1), a.norm(dim=1))
        found = torch.cosine_similarity(a, on).acos()
        torch.testing.assert_close(found, share * angle, rtol=1e-3, atol=1e-3)


def test_interpolate_goes_from_code_to_code(digits):
    model = small().fit(digits[0])
    made, codes = model.sample(4)
    steps = model.interpolate(codes[:2], codes[2:], 7)
    assert steps.shape == (2, 7, *SHAPE)
    assert torch.equal(steps[:, 0], made[:2])
    assert torch.equal(steps[:, -1], made[2:])
    conditional = small(conditional=True).fit(*digits)
    codes = conditional._codes(4, 0).numpy()
    steps = conditional.interpolate(codes[:2], codes[2:], 3, y=[4, 5])
    assert isinstance(steps, np.ndarray)
    np.testing.assert_array_equal(steps[:, 0], conditional.decode(codes[:2], [4, 5]))
    with pytest.raises(ValueError, match="equally many"):
        model.interpolate(codes[:1], codes[:2])


# Refusals


@pytest.mark.parametrize(
    ("make", "parameters", "message"),
    [
        (small, {"label_smoothing": 0.1, "loss": "hinge"}, "'hinge' has no labels"),
        (small, {"label_smoothing": 0.1, "loss": "wgan-gp"}, "'wgan-gp' has no labels"),
        (small, {"loss": "wgan-gp", "gradient_penalty": 0}, "needs a gradient_penalty"),
        (small_dcgan, {"loss": "wgan-gp"}, "gradient_penalty needs.*batch norm.*d_norm='instance'"),
        (small_dcgan, {"gradient_penalty": 1.0}, "gradient_penalty needs.*batch norm"),
        (small_dcgan, {"r1": 1.0}, "r1 needs.*batch norm.*d_norm='instance'"),
        (small, {"r1": 1.0, "discriminator": Watched()}, "r1 needs.*batch norm.*or none.$"),
        (
            small,
            {
                "discriminator": nn.Sequential(
                    nn.Flatten(), nn.Linear(64, 1), nn.Flatten(0), nn.Sigmoid()
                )
            },
            "expected logits, but it ends with a Sigmoid",
        ),
        (
            small,
            {
                "generator": nn.Sequential(
                    nn.Linear(6, 64), nn.Unflatten(1, SHAPE), nn.Threshold(9, 9)
                )
            },
            r"rows in \[-1, 1\], got 9 to 9.*Tanh",
        ),
        (
            small,
            {"spectral_norm": True, "discriminator": MLPDiscriminator(SHAPE)},
            "spectral_norm is of",
        ),
        (
            small_dcgan,
            {"d_norm": "none", "discriminator": DCGANDiscriminator(SHAPE, 8)},
            "d_norm='none' is of",
        ),
        (small, {"betas": (0.5, 1.0)}, "two numbers in"),
        (small, {"betas": (0.5,)}, "two numbers in"),
    ],
    ids=range(13),
)
def test_what_cannot_work_is_refused_with_the_reason(make, parameters, message, digits):
    with pytest.raises(ValueError, match=message) as caught:
        make(**parameters).fit(digits[0])
    assert "\n" not in str(caught.value)


def test_batch_norm_needs_two_rows(digits):
    with pytest.raises(ValueError, match="n_samples=1, but batch norm in the generator"):
        small(batch_size=1).fit(digits[0])
    alone = MLPGenerator(6, SHAPE, norm="none")
    assert small(batch_size=1, generator=alone).fit(digits[0]).n_steps_ == 3


def test_dcgan_needs_images(digits):
    with pytest.raises(ValueError, match=r"DCGAN needs images.*\[64\]"):
        small_dcgan().fit(digits[0].flatten(1))


def test_networks_of_the_user(digits):
    generator = MLPGenerator(6, SHAPE, (8,), n_classes=10)
    discriminator = MLPDiscriminator(SHAPE, (8,), n_classes=10)
    model = small(generator=generator, discriminator=discriminator, conditional=True).fit(*digits)
    assert model.generator_.arguments == generator.arguments
    assert model.sample(3, y=4)[0].shape == (3, *SHAPE)
    with pytest.raises(ValueError, match=r"MLPGenerator.*needs labels"):
        small(generator=generator).fit(digits[0])
