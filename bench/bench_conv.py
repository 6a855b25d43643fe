"""DCGAN's generator beside PyTorch's layers: inference in float32."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import pygen

LATENT, WIDTH = 100, 64


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
