"""The CPU's kernels in bfloat16: by a matrix unit where there is one, and the same products without it."""

import ctypes

import pytest
import torch
from instruction_sets import INSTRUCTION_SETS, MATRIX_UNIT
from rounded import ACTIVATIONS, assert_rounded
from test_conv_kernels import address, numbers
from torch import Tensor
from torch.nn import functional as F

SETS = [*INSTRUCTION_SETS, MATRIX_UNIT]
SOURCES = [f"csrc/conv/{name}.cpp" for name in ("blocks", "blocks_gradient")]
# Images, sides and channels of the small picture, channels of the big one, parts of the batch.
SIZES = [
    (32, 4, 4, 64, 32, 1),
    (70, 3, 5, 32, 96, 2),
    (3, 1, 1, 32, 32, 1),
    (17, 1, 6, 32, 32, 1),
    (40, 8, 2, 96, 64, 1),
]


@pytest.fixture(scope="module", params=SETS, ids=[each.name for each in SETS])
def kernels(request, tmp_path_factory):
    library = request.param.compile(tmp_path_factory.mktemp("kernels"), "blocks.cpp", *SOURCES)
    library.ready.restype = ctypes.c_bool
    if not library.ready():
        pytest.skip("the system does not let this process use the matrix unit")
    return library


def pictures(*shape: int) -> Tensor:
    return torch.randn(shape).bfloat16().to(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_correlations(kernels, layout):
    torch.manual_seed(0)
    for place, (n, height, width, small, big, parts) in enumerate(SIZES):
        weight = torch.randn(small, big, 4, 4).bfloat16().to(memory_format=layout)
        for is_up in (False, True):
            x = (
                pictures(n, small, height, width)
                if is_up
                else pictures(n, big, 2 * height, 2 * width)
            )
            convolve = F.conv_transpose2d if is_up else F.conv2d
            z = convolve(x.double(), weight.double(), None, 2, 1)
            bias, activation = torch.randn(z.shape[1]), place % len(ACTIVATIONS)
            sizes = numbers(n, height, width, small, big, parts)
            strides = numbers(*weight.stride())
            y = ACTIVATIONS[activation](z + bias[:, None, None])
            out = torch.full_like(y, torch.nan, dtype=torch.bfloat16)
            given = address(x), address(weight)
            kernels.correlate(
                is_up,
                sizes,
                strides,
                *given,
                address(bias),
                ctypes.c_int64(activation),
                address(out),
                None,
            )
            assert_rounded(out, y, is_up, n, height, width, small, big)
            moments = torch.full((parts, 2, z.shape[1]), torch.nan, dtype=torch.float64)
            kernels.correlate(
                is_up,
                sizes,
                strides,
                *given,
                None,
                ctypes.c_int64(0),
                address(out),
                address(moments),
            )
            assert_rounded(out, z, is_up, n, height, width, small, big)
            var, mean = torch.var_mean(z.unflatten(0, (parts, -1)), (1, 3, 4), correction=0)
            torch.testing.assert_close(moments[:, 0], mean, rtol=1e-5, atol=1e-5 * var.max().item())
            torch.testing.assert_close(moments[:, 1], var, rtol=1e-5, atol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_weight_gradient(kernels, layout):
    torch.manual_seed(1)
    for n, height, width, small, big, _ in SIZES:
        x, grad = pictures(n, big, 2 * height, 2 * width), pictures(n, small, height, width)
        weight = torch.zeros(small, big, 4, 4, dtype=torch.float64, requires_grad=True)
        (exact,) = torch.autograd.grad(
            F.conv2d(x.double(), weight, None, 2, 1), weight, grad.double()
        )
        out = torch.full_like(exact, torch.nan, dtype=torch.bfloat16).to(memory_format=layout)
        kernels.weight_gradient(
            numbers(n, height, width, small, big),
            numbers(*out.stride()),
            address(grad),
            address(x),
            address(out),
        )
        assert_rounded(out, exact, n, height, width, small, big)
