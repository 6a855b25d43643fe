"""Images as features and back."""

from __future__ import annotations

import math

import pytest
import torch

from pygen.cli.pixels import Pixels

EVERY = torch.arange(256, dtype=torch.uint8).reshape(4, 1, 8, 8)


@pytest.mark.parametrize("kind", ["levels", "dequantized"])
@pytest.mark.parametrize("levels", [2, 16, 17, 64, 256])
def test_decode_gives_the_grey_levels_back(kind: str, levels: int) -> None:
    pixels = Pixels(kind, levels)
    decoded = pixels.decode(pixels.encode(EVERY))
    assert decoded.dtype == torch.uint8
    # Half a level's width, and the rounding of a picture.
    assert (decoded.int() - EVERY.int()).abs().max() <= 255 / levels + 1
    assert torch.equal(pixels.decode(pixels.encode(decoded)), decoded)
    assert decoded.unique().tolist() == [round(255 * g / (levels - 1)) for g in range(levels)]


def test_unit_is_lossless_and_clips() -> None:
    pixels = Pixels("unit", None)
    assert torch.equal(pixels.decode(pixels.encode(EVERY)), EVERY)
    assert pixels.decode(torch.tensor([-3.0, 7.0])).tolist() == [0, 255]
    assert Pixels("dequantized", 17).decode(torch.tensor([-3.0, 7.0])).tolist() == [0, 255]


def test_bytes_stay_as_they_are() -> None:
    pixels = Pixels("bytes", None)
    assert torch.equal(pixels.encode(EVERY), EVERY)
    assert torch.equal(pixels.decode(EVERY), EVERY)


def test_dequantized_noise_is_uniform_and_fixed_by_the_seed() -> None:
    pixels = Pixels("dequantized", 16)
    black = torch.zeros(1000, 1, 8, 8, dtype=torch.uint8)
    x = pixels.encode(black, 1)
    assert x.dtype == torch.float32
    assert 0 <= x.min() < x.max() < 1 / 16
    n = x.numel()
    assert abs(float(x.double().mean()) - 1 / 32) < 5 * (1 / 16) / math.sqrt(12 * n)
    assert torch.equal(pixels.encode(black, 1), x)
    assert not torch.equal(pixels.encode(black, 2), x)


def test_log_volume_makes_a_uniform_mass_a_density_of_one() -> None:
    assert Pixels("levels", 17).log_volume(64) == pytest.approx(-64 * math.log(1 / 17))
    assert Pixels("dequantized", 17).log_volume(64) == 0
    assert Pixels("unit", None).log_volume(64) == 0


@pytest.mark.parametrize(
    ("kind", "levels"),
    [
        ("levels", None),
        ("levels", 1),
        ("levels", 257),
        ("levels", 2.0),
        ("unit", 5),
        ("bytes", 5),
        ("x", 5),
    ],
)
def test_nonsense_is_refused(kind: str, levels: int | None) -> None:
    with pytest.raises(ValueError, match="expected"):
        Pixels(kind, levels)
