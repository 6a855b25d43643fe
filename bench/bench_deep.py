"""Training deep models beside the loop one would write by hand, of the same networks in the same precision."""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, TypeAlias

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pygen import DCGAN, GAN, VAE, Autoencoder
from pygen.deep.precision import resolve_precision
from pygen.nn import (
    ConvDecoder,
    ConvEncoder,
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDecoder,
    MLPDiscriminator,
    MLPEncoder,
    MLPGenerator,
    restore,
)

ROWS = 4096
ROUNDS = 5
PAUSE_SECONDS = 0.3
# What is trained in both: nothing held out and nothing looked at, as in the loops.
ALONE: dict[str, Any] = {"metric": None, "random_state": 0}
# torch multiplies bf16 fast on CPUs with these tiles only.
TILES = resolve_precision(None, "cpu") == torch.bfloat16

# Seconds of the loop, and its mean losses.
Run: TypeAlias = tuple[float, list[float]]


def images(*shape: int) -> Tensor:
    """uint8 ``[4096, *shape]``."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (ROWS, *shape), dtype=torch.uint8, generator=generator)


def batches(x: Tensor, n_steps: int, size: int) -> Iterator[Tensor]:
    """Batches in [0, 1]; each epoch in another order."""
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(n_steps):
        if len(order) < size:
            order = torch.randperm(len(x))
        rows, order = order[:size], order[size:]
        yield x[rows].float() / 255


def result(losses: list[Tensor], begin: float) -> Run:
    means = torch.stack(losses).mean(0).tolist()
    return time.perf_counter() - begin, means


def autocast() -> Any:
    return torch.autocast("cpu", torch.bfloat16) if TILES else nullcontext()


def copies(networks: dict[str, nn.Module], layout: torch.memory_format) -> list[nn.Module]:
    """Networks of a loop, of PyTorch's layers, which begins with the weights that ``fit`` begins with."""
    return [
        restore(copy.deepcopy(network)).to(memory_format=layout) for network in networks.values()
    ]


def autoencoder_loop(networks: dict[str, nn.Module], x: Tensor, n_steps: int, size: int) -> Run:
    encoder, decoder = copies(networks, torch.channels_last)
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 5e-4)
    losses, begin = [], time.perf_counter()
    for real in batches(x, n_steps, size):
        with autocast():
            logits = decoder(encoder(real))
        loss = functional.mse_loss(logits.float().sigmoid(), real)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.detach()[None])
    return result(losses, begin)


def vae_loop(networks: dict[str, nn.Module], x: Tensor, n_steps: int, size: int) -> Run:
    encoder, decoder = copies(networks, torch.contiguous_format)
    adam = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3)
    losses, begin = [], time.perf_counter()
    for real in batches(x, n_steps, size):
        with autocast():
            mu, logvar = encoder(real).chunk(2, 1)
        mu, logvar = mu.float(), logvar.float()
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1).mean()
        with autocast():
            logits = decoder(mu + (logvar / 2).exp() * torch.randn_like(mu))
        error = functional.binary_cross_entropy_with_logits(logits.float(), real, reduction="sum")
        loss = error / len(real) + kl
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.detach()[None])
    return result(losses, begin)


def gan_loop(
    networks: dict[str, nn.Module],
    x: Tensor,
    n_steps: int,
    size: int,
    layout: torch.memory_format = torch.channels_last,
    context: Callable[[], Any] = autocast,
) -> Run:
    """The made images of the discriminator's step serve the generator's, too."""
    generator, discriminator = copies(networks, layout)
    average = AveragedModel(
        generator, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True
    ).eval()
    players = (generator, discriminator)
    adam_g, adam_d = (torch.optim.Adam(n.parameters(), 2e-4, betas=(0.5, 0.999)) for n in players)
    losses, begin = [], time.perf_counter()
    for unit in batches(x, n_steps, size):
        real = 2 * unit - 1
        with context():
            fake = generator(torch.randn(size, 100))
            of_real, of_fake = discriminator(real), discriminator(fake.detach())
        loss_d = functional.softplus(-of_real.float()).mean()
        loss_d = loss_d + functional.softplus(of_fake.float()).mean()
        adam_d.zero_grad()
        loss_d.backward()
        adam_d.step()
        discriminator.requires_grad_(False)
        with context():
            of_fake = discriminator(fake)
        loss_g = functional.softplus(-of_fake.float()).mean()
        adam_g.zero_grad()
        loss_g.backward()
        adam_g.step()
        discriminator.requires_grad_(True)
        average.update_parameters(generator)
        losses.append(torch.stack([loss_d.detach(), loss_g.detach()]))
    return result(losses, begin)


@pytest.fixture
def step_versus(benchmark: BenchmarkFixture, record: Callable[..., None]) -> Callable[..., None]:
    """``step_versus(case, model, x, loop, ...)``: time the steps of ``model.fit(x)`` and those of a loop, in turn.

    ``rel`` is how far the mean losses may differ: the same is learned at the same pace.
    """

    def compare(
        case: str,
        model: Any,
        x: Tensor,
        loop: Callable[[], Run],
        *,
        rel: float,
        peer_name: str = "eager loop",
        target: float | None = 1.0,
    ) -> None:
        def fit() -> Run:
            (line,) = model.fit(x).history_
            losses = [line[name] for name in ("loss", "discriminator", "generator") if name in line]
            return line["seconds"], losses

        assert fit()[1] == pytest.approx(loop()[1], rel=rel)
        ours: list[float] = []
        peer: list[float] = []

        def before() -> None:
            time.sleep(PAUSE_SECONDS)
            peer.append(loop()[0] / model.max_steps)
            time.sleep(PAUSE_SECONDS)

        benchmark.pedantic(
            lambda: ours.append(fit()[0] / model.max_steps), setup=before, rounds=ROUNDS
        )
        if benchmark.enabled:
            record(f"a step of {case}", "s", ours, peer, peer_name, ratio=target)

    return compare


def test_autoencoder(step_versus: Callable[..., None]) -> None:
    x, shape = images(1, 28, 28), (1, 28, 28)
    networks = {"encoder": ConvEncoder(shape, 2), "decoder": ConvDecoder(2, shape)}
    model = Autoencoder(batch_size=32, max_steps=50, validation_fraction=0, **networks, **ALONE)
    case = "Autoencoder, 32 x 28x28, convolutions"
    step_versus(case, model, x, lambda: autoencoder_loop(networks, x, 50, 32), rel=0.1)


def test_vae(step_versus: Callable[..., None]) -> None:
    x, shape = images(1, 28, 28), (1, 28, 28)
    networks = {"encoder": MLPEncoder(shape, 40), "decoder": MLPDecoder(20, shape)}
    model = VAE(
        20,
        likelihood="bernoulli",
        learning_rate=1e-3,
        batch_size=128,
        max_steps=50,
        validation_fraction=0,
        **networks,
        **ALONE,
    )
    case = "VAE, 128 x 784-400-20"
    step_versus(case, model, x, lambda: vae_loop(networks, x, 50, 128), rel=0.1)


def test_gan(step_versus: Callable[..., None]) -> None:
    x, shape = images(1, 28, 28), (1, 28, 28)
    networks = {"generator": MLPGenerator(100, shape), "discriminator": MLPDiscriminator(shape)}
    model = GAN(batch_size=128, max_steps=50, **networks, **ALONE)
    case = "GAN, 128 x 28x28"
    step_versus(case, model, x, lambda: gan_loop(networks, x, 50, 128), rel=0.3)


def dcgan(shape: tuple[int, int, int], width: int) -> dict[str, nn.Module]:
    return {
        "generator": DCGANGenerator(100, shape, width),
        "discriminator": DCGANDiscriminator(shape, width),
    }


@pytest.mark.parametrize(("shape", "width", "n"), [((1, 8, 8), 32, 50), ((3, 32, 32), 64, 10)])
def test_dcgan(
    step_versus: Callable[..., None], shape: tuple[int, int, int], width: int, n: int
) -> None:
    x, networks = images(*shape), dcgan(shape, width)
    model = DCGAN(batch_size=128, max_steps=n, **networks, **ALONE)
    case = f"DCGAN, 128 x {'x'.join(map(str, shape))}"
    step_versus(case, model, x, lambda: gan_loop(networks, x, n, 128), rel=0.3)


def test_dcgan_beside_its_plain_form(step_versus: Callable[..., None]) -> None:
    """What layout and precision give: the plain form is NCHW in float32."""
    x, networks = images(3, 32, 32), dcgan((3, 32, 32), 64)

    def plain() -> Run:
        return gan_loop(networks, x, 10, 128, torch.contiguous_format, nullcontext)

    step_versus(
        "DCGAN, 128 x 3x32x32, beside NCHW float32",
        DCGAN(batch_size=128, max_steps=10, **networks, **ALONE),
        x,
        plain,
        rel=0.3,
        peer_name="plain eager loop",
        target=1.8 if TILES else None,
    )
