import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from pygen.ops.box_muller import _fma, _sqrt64, box_muller

ROOT = Path(__file__).parents[2]
EDGES = [
    0,
    1,
    2**29 - 1,
    2**29,
    2**30,
    2**31 - 1,
    2**31,
    3 * 2**29,
    2**32 - 1,
    3037000499,
    3037000500,
]
LongDouble = np.longdouble


def words(n, seed):
    """Random words, and every pair of edges at the end."""
    generator = torch.Generator().manual_seed(seed)
    x, y, *low = (
        torch.randint(0, 2**32, (n + len(EDGES) ** 2,), generator=generator) for _ in range(4)
    )
    edges = torch.tensor(EDGES)
    x[n:], y[n:] = edges.repeat_interleave(len(EDGES)), edges.repeat(len(EDGES))
    return x, y, tuple(low)


def exact(x, y, low=None):
    """Radius, cosine and sine parts in extended precision, relative to 1 - u where u is near 1."""
    x, y = x.numpy(), y.numpy()
    fraction, turn = LongDouble(0.5), LongDouble(0)
    if low is not None:
        fraction = (low[0].numpy() + LongDouble(0.5)) / 2**32
        turn = low[1].numpy() / LongDouble(2**32)
    u = (np.where(x < 2**31, x, 1) + fraction) / 2**32
    below_one = (np.where(x < 2**31, 0, x - 2**32) + fraction) / 2**32
    r = np.sqrt(-2 * np.where(x < 2**31, np.log(u), np.log1p(below_one)))
    quadrant = (y + 2**29) >> 30
    phi = (y - (quadrant << 30) + turn) * (np.arctan(LongDouble(1)) / 2**29)
    cos, sin = np.cos(phi), np.sin(phi)
    return (
        r,
        r * np.choose(quadrant % 4, [cos, -sin, -cos, sin]),
        r * np.choose(quadrant % 4, [sin, cos, -sin, -cos]),
    )


def test_float32_is_accurate():
    # Three roundings of half an ulp in r, at most three in sin or cos, one in the product: 7 x 6e-8
    # if all agreed. Largest error met over 2**21 pairs: 2.2e-7.
    x, y, _ = words(2**20, 0)
    r, *want = exact(x, y)
    for found, wanted in zip(box_muller(x, y), want, strict=True):
        assert found.dtype == torch.float32
        assert (np.abs(found.numpy() - wanted) / r).max() < 2.5e-7


@pytest.mark.skipif(np.finfo(LongDouble).nmant < 63, reason="needs extended precision")
def test_float64_is_accurate():
    # As above with ulps of 1.1e-16.
    x, y, low = words(2**18, 1)
    r, *want = exact(x, y, low)
    for found, wanted in zip(box_muller(x, y, low), want, strict=True):
        assert found.dtype == torch.float64
        assert (np.abs(found.numpy() - wanted) / r).max() < 8e-16


def test_float64_refines_float32():
    # Away from the last 2**16 words the digits of u that float32 lacks are below 2**-17 of it: they
    # move n by at most 2**-17 / r = 1.6e-6 at r = 4.7 there, beside float32's rounding, 2.5e-7 r.
    x, y, low = words(2**20, 2)
    ordinary = (x > 2**16) & (x < 2**32 - 2**16)
    for single, double in zip(box_muller(x, y), box_muller(x, y, low), strict=True):
        error = (single - double).abs() / double.abs().clamp(min=1)
        assert error[ordinary].max() < 4e-6


def test_sqrt64_is_correctly_rounded():
    x = torch.rand(2**20, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 90
    assert np.array_equal(_sqrt64(x).numpy(), np.sqrt(x.numpy()))


def test_fma_rounds_once():
    a = torch.tensor([1 + 2.0**-12], dtype=torch.float64)
    assert _fma(a, a, -1.0).item() == 2.0**-11 + 2.0**-24
    assert (a.float() * a.float() - 1).item() != 2.0**-11 + 2.0**-24


def test_emulated_fma_equals_the_hardwares_for_every_word(tmp_path):
    """The claim in box_muller.py, in C++ since there are 2**32 of them (some 10 s)."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    cpu = Path("/proc/cpuinfo")
    if not cpu.exists() or " fma " not in cpu.read_text():
        pytest.skip("this processor is not known to have a fused multiply-add")
    program = tmp_path / "box_muller"
    flags = (
        "-O3 -std=c++17 -march=native -ffp-contract=off -fno-math-errno -fno-trapping-math -pthread"
    )
    source = ROOT / "tests" / "ops" / "box_muller.cpp"
    subprocess.run([compiler, *flags.split(), f"-I{ROOT}", source, "-o", program], check=True)
    assert subprocess.run([program], check=True, capture_output=True, text=True).stdout == "0\n"
