"""DCGAN's layers beside PyTorch's own: in float32, and each in the precision that is its fastest on this CPU."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

import pygen
from pygen.ops import native

LATENT, WIDTH = 100, 64
# The kernels' fastest precision: with a matrix unit bfloat16, else float32.
FASTEST = "bfloat16" if native and native.cpu_matrix_unit else "float32"
needs_unit = pytest.mark.skipif(FASTEST == "float32", reason="no matrix unit: float32 is fastest")


def generator() -> nn.Sequential:
    """For 1x32x32, of the usual form."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.ConvTranspose2d(LATENT, 4 * WIDTH, 4, bias=False)]
    for channels in (4 * WIDTH, 2 * WIDTH):
        layers += [
            nn.BatchNorm2d(channels),
            nn.ReLU(True),
            nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False),
        ]
    last = nn.ConvTranspose2d(WIDTH, 1, 4, 2, 1, bias=False)
    return nn.Sequential(*layers, nn.BatchNorm2d(WIDTH), nn.ReLU(True), last, nn.Tanh()).eval()


def close(ours: Tensor, peers: Tensor) -> None:
    torch.testing.assert_close(ours, peers, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("n", "layout", "target"),
    [
        (256, torch.contiguous_format, 1.3),
        (256, torch.channels_last, 1.3),
        (16, torch.contiguous_format, 1.3),
        (1, torch.contiguous_format, 1.0),
    ],
)
def test_inference(
    versus: Callable[..., None], n: int, layout: torch.memory_format, target: float
) -> None:
    network = generator()
    network.to(memory_format=layout)  # type: ignore[call-overload]
    ours = pygen.accelerate(network, copy=True, verbose=False)
    z = torch.randn(n, LATENT, 1, 1)
    with torch.no_grad():
        versus(
            f"conv, inference of DCGAN's generator, {n} x 1x32x32, {layout}".replace("torch.", ""),
            lambda: ours(z),
            lambda: network(z),
            close,
            peer_name="eager",
            target=target,
        )


def half(
    function: Callable[[], Tensor], dtype: torch.dtype = torch.bfloat16
) -> Callable[[], Tensor]:
    """Under autocast."""

    def run() -> Tensor:
        with torch.autocast("cpu", dtype):
            return function()

    return run


def fastest(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    return half(function) if FASTEST == "bfloat16" else function


def roughly_close(ours: Tensor, peers: Tensor) -> None:
    """As far as bfloat16 goes."""
    torch.testing.assert_close(ours.float(), peers.float(), rtol=0.1, atol=0.05)


@pytest.mark.parametrize("compiled", [False, True])
def test_inference_beside_half_precision(versus: Callable[..., None], compiled: bool) -> None:
    network = generator().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ours = pygen.accelerate(network, copy=True, verbose=False)
    peer = torch.compile(network) if compiled else network
    z = torch.randn(256, LATENT, 1, 1)
    name = "compile, bfloat16" if compiled else "eager, bfloat16"
    with torch.no_grad():
        versus(
            "conv, inference of DCGAN's generator, 256 x 1x32x32, channels_last,"
            f" {FASTEST} beside {name}",
            fastest(lambda: ours(z)),
            half(lambda: peer(z)),
            roughly_close,
            peer_name=name,
            target=1.25,
        )


@needs_unit
def test_fastest_inference(versus: Callable[..., None]) -> None:
    network = generator()
    ours = pygen.accelerate(network, copy=True, verbose=False)
    z = torch.randn(256, LATENT, 1, 1)
    with torch.no_grad():
        versus(
            "conv, inference of DCGAN's generator, 256 x 1x32x32, contiguous_format,"
            f" {FASTEST} beside float32",
            fastest(lambda: ours(z)),
            lambda: network(z),
            roughly_close,
            peer_name="eager, float32",
            target=5.0,
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_inference_in_half_precision(versus: Callable[..., None], dtype: torch.dtype) -> None:
    """Both under autocast: few pictures, as float16 takes PyTorch seconds on CPUs without instructions for it."""
    network = generator().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ours = pygen.accelerate(network, copy=True, verbose=False)
    z = torch.randn(16, LATENT, 1, 1)
    name = str(dtype).removeprefix("torch.")
    with torch.no_grad():
        versus(
            f"conv, inference of DCGAN's generator, 16 x 1x32x32, channels_last, both in {name}",
            half(lambda: ours(z), dtype),
            half(lambda: network(z), dtype),
            roughly_close,
            peer_name=f"eager, {name}",
            target=1.0,
        )


def discriminator() -> nn.Sequential:
    """For 1x32x32, of the usual form."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(1, WIDTH, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    for channels in (WIDTH, 2 * WIDTH):
        layers += [
            nn.Conv2d(channels, 2 * channels, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.LeakyReLU(0.2, True),
        ]
    return nn.Sequential(*layers, nn.Conv2d(4 * WIDTH, 1, 4, bias=False), nn.Flatten(0))


class Step:
    """A training step of a GAN of 64 pictures, by hand; called, it gives the logits of made ones."""

    def __init__(self, layout: torch.memory_format, accelerates: bool) -> None:
        self.networks = generator().train(), discriminator()
        for network in self.networks:
            network.to(memory_format=layout)  # type: ignore[call-overload]
            if accelerates:
                pygen.accelerate(network, verbose=False)
        self.adams = [
            torch.optim.Adam(network.parameters(), 2e-4, betas=(0.5, 0.999))
            for network in self.networks
        ]
        numbers = torch.Generator().manual_seed(0)
        self.real = torch.randn(64, 1, 32, 32, generator=numbers).contiguous(memory_format=layout)
        self.codes = torch.randn(64, LATENT, 1, 1, generator=numbers)

    def __call__(self) -> Tensor:
        (made_by, judge), (adam_g, adam_d) = self.networks, self.adams
        fake = made_by(self.codes)
        adam_d.zero_grad()
        (softplus(-judge(self.real)).mean() + softplus(judge(fake.detach())).mean()).backward()
        adam_d.step()
        adam_g.zero_grad()
        judge.requires_grad_(False)
        logits = judge(fake)
        softplus(-logits).mean().backward()
        judge.requires_grad_(True)
        adam_g.step()
        return logits.detach()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_step(versus: Callable[..., None], layout: torch.memory_format) -> None:
    def close_at_first(ours: Tensor, peers: Tensor) -> None:
        torch.testing.assert_close(ours, peers, rtol=0.02, atol=0.02)

    versus(
        f"conv, training step of DCGAN, 64 x 1x32x32, {layout}".replace("torch.", ""),
        Step(layout, accelerates=True),
        Step(layout, accelerates=False),
        close_at_first,
        peer_name="eager",
        target=2.3 if layout == torch.contiguous_format and FASTEST == "float32" else 1.1,
    )


def roughly_close_at_first(ours: Tensor, peers: Tensor) -> None:
    torch.testing.assert_close(ours.float(), peers.float(), rtol=0.2, atol=0.2)


@needs_unit
def test_fastest_step(versus: Callable[..., None]) -> None:
    versus(
        f"conv, training step of DCGAN, 64 x 1x32x32, contiguous_format, {FASTEST} beside float32",
        fastest(Step(torch.contiguous_format, accelerates=True)),
        Step(torch.contiguous_format, accelerates=False),
        roughly_close_at_first,
        peer_name="eager, float32",
        target=2.3,
    )


def test_step_beside_half_precision(versus: Callable[..., None]) -> None:
    versus(
        f"conv, training step of DCGAN, 64 x 1x32x32, channels_last, {FASTEST} beside bfloat16",
        fastest(Step(torch.channels_last, accelerates=True)),
        half(Step(torch.channels_last, accelerates=False)),
        roughly_close_at_first,
        peer_name="eager, bfloat16",
        target=1.1,
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_last_layer(versus: Callable[..., None], layout: torch.memory_format) -> None:
    network = nn.Sequential(*generator()[-2:])
    network.to(memory_format=layout)  # type: ignore[call-overload]
    ours = pygen.accelerate(network, copy=True, verbose=False)
    x = torch.randn(256, WIDTH, 16, 16).contiguous(memory_format=layout)
    with torch.no_grad():
        versus(
            f"conv, last layer of DCGAN's generator, 256 x 1x32x32, {layout}".replace("torch.", ""),
            lambda: ours(x),
            lambda: network(x),
            close,
            peer_name="eager",
            target=2.5,
        )
