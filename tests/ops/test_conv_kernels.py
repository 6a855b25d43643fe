"""The CPU's kernels with every instruction set: the operators, which test_conv.py tests, run the best one only."""

import ctypes

import pytest
import torch
from instruction_sets import INSTRUCTION_SETS
from torch.nn import functional as F

SOURCES = [
    f"csrc/conv/{name}.cpp"
    for name in ("tiled", "direct", "tiled_gradient", "direct_gradient", "rows")
]
# Images, sides and channels of the small picture, channels of the big one.
SIZES = [
    (3, 4, 4, 32, 16),
    (5, 7, 3, 24, 40),
    (70, 4, 4, 72, 9),
    (2, 8, 12, 20, 3),
    (1, 5, 4, 8, 70),
    (3, 6, 8, 32, 1),
    (1, 64, 64, 32, 1),
    # The big picture is larger than what is left in the caches, and not of whole tiles.
    (6, 37, 42, 16, 64),
]


def numbers(*values: int) -> ctypes.Array:
    return (ctypes.c_int64 * len(values))(*values)


def address(x: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


def pictures(*shape: int) -> torch.Tensor:
    return torch.randn(shape).to(memory_format=torch.channels_last)


@pytest.fixture(scope="module", params=INSTRUCTION_SETS, ids=[e.name for e in INSTRUCTION_SETS])
def kernels(request, tmp_path_factory):
    return request.param.compile(tmp_path_factory.mktemp("kernels"), "strided_conv.cpp", *SOURCES)


def test_strided_conv(kernels):
    """Errors are in the scale of the result."""
    torch.manual_seed(0)
    for n, height, width, small, big in SIZES:
        for layout in (torch.contiguous_format, torch.channels_last):
            weight = torch.randn(small, big, 4, 4).to(memory_format=layout)
            x_small, x_big = (
                pictures(n, small, height, width),
                pictures(n, big, 2 * height, 2 * width),
            )
            w, s, b = (t.double() for t in (weight, x_small, x_big))
            w.requires_grad_()
            down, up = F.conv2d(b, w, None, 2, 1), F.conv_transpose2d(s, w, None, 2, 1)
            (gradient,) = torch.autograd.grad(down, w, s)
            sizes = numbers(n, height, width, small, big, 1)
            strides = numbers(*weight.stride())
            for tiled in (True, False):
                found = [torch.full_like(t, torch.nan) for t in (x_small, x_big, weight)]
                for is_up, x, out in ((False, x_big, found[0]), (True, x_small, found[1])):
                    kernels.correlate(
                        tiled, is_up, sizes, strides, address(x), address(weight), address(out)
                    )
                kernels.weight_gradient(
                    tiled, sizes, strides, address(x_small), address(x_big), address(found[2])
                )
                for out, exact in zip(found, (down, up, gradient), strict=True):
                    error = (out - exact).abs().max() / exact.abs().max()
                    assert error < 3e-6, (n, height, width, small, big, layout, tiled, error)


def test_transpose(kernels):
    for rows, columns in ((1, 40), (3, 1024), (17, 33), (64, 64), (70, 1)):
        x, out = torch.randn(rows, columns), torch.full((columns, rows), torch.nan)
        kernels.transpose(ctypes.c_int64(rows), ctypes.c_int64(columns), address(x), address(out))
        assert torch.equal(out, x.T)
