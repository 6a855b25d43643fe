"""The CPU's kernels in bfloat16: by a matrix unit where there is one, and the same products without it; and others."""

import ctypes

import pytest
import torch
from instruction_sets import INSTRUCTION_SETS, MATRIX_UNIT
from test_conv_kernels import address, numbers
from torch import Tensor
from torch.nn import functional as F

# By file of this folder: sources, and sizes: images, sides and channels of the small picture, channels of the big one,
# parts of the batch.
SOURCES = {
    "blocks": ("blocks", "blocks_gradient"),
    "bfloat16": ("direct", "direct_gradient", "rows"),
}
SIZES = {
    "blocks": [
        (32, 4, 4, 64, 32, 1),
        (70, 3, 5, 32, 96, 2),
        (3, 1, 1, 32, 32, 1),
        (17, 1, 6, 32, 32, 1),
        (40, 8, 2, 96, 64, 1),
    ],
    "bfloat16": [
        (6, 5, 3, 64, 1, 2),
        (3, 4, 8, 33, 3, 1),
        (70, 1, 2, 32, 32, 1),
        (2, 2, 40, 7, 2, 1),
        (1, 64, 64, 32, 1, 1),
    ],
}
# In the order of `pygen.ops.strided_conv.ACTIVATIONS`.
ACTIVATIONS = (
    lambda x: x,
    F.relu,
    lambda x: F.leaky_relu(x, 0.25),
    torch.tanh,
    torch.sigmoid,
)
OTHERS = [("bfloat16", each) for each in INSTRUCTION_SETS]
BLOCKS = [("blocks", each) for each in (*INSTRUCTION_SETS, MATRIX_UNIT)]


def by(libraries):
    names = [f"{file}-{each.name}" for file, each in libraries]
    return pytest.mark.parametrize("library", libraries, ids=names, indirect=True)


@pytest.fixture(scope="module")
def library(request, tmp_path_factory):
    """Which file, and what it was compiled to."""
    file, instruction_set = request.param
    sources = (f"csrc/conv/{name}.cpp" for name in SOURCES[file])
    folder = tmp_path_factory.mktemp("kernels")
    kernels = instruction_set.compile(folder, f"{file}.cpp", *sources)
    if file == "blocks":
        kernels.ready.restype = ctypes.c_bool
        if not kernels.ready():
            pytest.skip("the system does not let this process use the matrix unit")
    return file, kernels


def pictures(*shape: int) -> Tensor:
    return torch.randn(shape).bfloat16().to(memory_format=torch.channels_last)


def assert_rounded(found: Tensor, exact: Tensor, *what: object) -> None:
    """Each to bfloat16, which keeps 8 digits, but for what sums in float lose in the scale of the result."""
    allowed = 1.05 * 2**-8 * exact.abs() + 2e-6 * exact.abs().max()
    assert ((found - exact).abs() <= allowed).all(), what


@by(BLOCKS + OTHERS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_correlations(library, layout):
    file, kernels = library
    torch.manual_seed(0)
    for place, (n, height, width, small, big, parts) in enumerate(SIZES[file]):
        weight = torch.randn(small, big, 4, 4).bfloat16().to(memory_format=layout)
        sizes = numbers(n, height, width, small, big, parts)
        for is_up in (False, True):
            shape = (small, height, width) if is_up else (big, 2 * height, 2 * width)
            x = pictures(n, *shape)
            convolve = F.conv_transpose2d if is_up else F.conv2d
            z = convolve(x.double(), weight.double(), None, 2, 1)
            out = torch.full_like(z, torch.nan, dtype=torch.bfloat16)
            moments = torch.full((parts, 2, z.shape[1]), torch.nan, dtype=torch.float64)

            given = is_up, sizes, numbers(*weight.stride()), address(x), address(weight)
            bias, activation = torch.randn(z.shape[1]), place % len(ACTIVATIONS)
            kernels.correlate(*given, address(bias), ctypes.c_int64(activation), address(out), None)
            y = ACTIVATIONS[activation](z + bias[:, None, None])
            assert_rounded(out, y, is_up, n, height, width, small, big)
            kernels.correlate(*given, None, ctypes.c_int64(0), address(out), address(moments))
            assert_rounded(out, z, is_up, n, height, width, small, big)
            # They are taken before results are rounded.
            var, mean = torch.var_mean(z.unflatten(0, (parts, -1)), (1, 3, 4), correction=0)
            torch.testing.assert_close(moments[:, 0], mean, rtol=1e-5, atol=1e-5 * var.max().item())
            torch.testing.assert_close(moments[:, 1], var, rtol=1e-5, atol=0)


@by(BLOCKS + OTHERS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_weight_gradient(library, layout):
    file, kernels = library
    torch.manual_seed(1)
    for n, height, width, small, big, _ in SIZES[file]:
        x, grad = pictures(n, big, 2 * height, 2 * width), pictures(n, small, height, width)
        weight = torch.zeros(small, big, 4, 4, dtype=torch.float64, requires_grad=True)
        (exact,) = torch.autograd.grad(
            F.conv2d(x.double(), weight, None, 2, 1), weight, grad.double()
        )
        out = torch.full_like(exact, torch.nan, dtype=torch.float32).to(memory_format=layout)
        kernels.weight_gradient(
            numbers(n, height, width, small, big),
            numbers(*out.stride()),
            address(grad),
            address(x),
            address(out),
        )
        error = (out - exact).abs().max() / exact.abs().max()
        assert error < 1e-6, (n, height, width, small, big, error)


@by(OTHERS)
@pytest.mark.parametrize("activation", range(len(ACTIVATIONS)))
def test_rows(library, activation):
    """Batch norm, the activation, and their gradients by the formulas of `pygen.ops.strided_conv_bn`."""
    _, kernels = library
    torch.manual_seed(2)
    for n, channels in ((70, 64), (5, 33)):
        z, grad = (torch.randn(n, channels).bfloat16() for _ in range(2))
        mean, scale, shift = torch.randn(3, channels)
        coefficients = torch.randn(2, channels)
        centred = z.double() - mean
        u = (centred * scale + shift).requires_grad_()
        y = ACTIVATIONS[activation](u)
        (g,) = torch.autograd.grad(y, u, grad.double())
        found = torch.full((3, n, channels), torch.nan, dtype=torch.bfloat16)
        sums = torch.zeros(3, channels, dtype=torch.float64)
        kernels.rows(
            *(ctypes.c_int64(value) for value in (n, channels, activation)),
            *map(address, (mean, scale, shift, coefficients, z, grad)),
            address(found),
            address(sums),
            ctypes.c_void_p(found[1].data_ptr()),
        )
        assert_rounded(found[0], y.detach(), n, channels)
        assert_rounded(found[1], scale * g - coefficients[0] - coefficients[1] * centred, n)
        from_y = torch.autograd.grad(ACTIVATIONS[activation](u), u, grad.double())[0]
        error = (found[2] - from_y).abs().max() / from_y.abs().max()
        assert error <= 2**-6  # y is rounded, too
        exact = torch.stack((g.sum(0), (g * centred).sum(0), z.double().sum(0)))
        torch.testing.assert_close(sums, exact, rtol=0, atol=1e-5 * exact.abs().max().item())


@by(OTHERS)
def test_rounding(library):
    """As PyTorch rounds: ties to even, infinities, numbers that are none."""
    _, kernels = library
    x = torch.tensor(
        [1.0, 1 + 2**-8, 1 + 3 * 2**-8, -3e38, 3.4e38, torch.inf, -torch.inf, torch.nan]
    )
    z = torch.ones(1, len(x)).bfloat16()
    y = torch.empty_like(z)
    nothing = torch.zeros(2, len(x))
    sums, out = torch.zeros(3, len(x), dtype=torch.float64), torch.zeros(2, 1, len(x)).bfloat16()
    kernels.rows(
        *(ctypes.c_int64(value) for value in (1, len(x), 0)),
        *map(address, (nothing[0], nothing[0], x, nothing, z, z, y, sums, out)),
    )
    torch.testing.assert_close(y[0], x.bfloat16(), rtol=0, atol=0, equal_nan=True)


@by(OTHERS)
def test_transpose(library):
    _, kernels = library
    for rows, columns in ((1, 40), (17, 33), (64, 64)):
        x = torch.randn(rows, columns).bfloat16()
        out = torch.full((columns, rows), torch.nan).bfloat16()
        kernels.transpose(ctypes.c_int64(rows), ctypes.c_int64(columns), address(x), address(out))
        assert torch.equal(out, x.T)
