"""The CPU's kernels over rows of channels, in bfloat16."""

import ctypes

import pytest
import torch
from instruction_sets import INSTRUCTION_SETS
from rounded import ACTIVATIONS, assert_rounded
from test_conv_kernels import address


@pytest.fixture(
    scope="module", params=INSTRUCTION_SETS, ids=[each.name for each in INSTRUCTION_SETS]
)
def kernels(request, tmp_path_factory):
    return request.param.compile(
        tmp_path_factory.mktemp("kernels"), "rows.cpp", "csrc/conv/rows.cpp"
    )


@pytest.mark.parametrize("activation", range(len(ACTIVATIONS)))
def test_rows(kernels, activation):
    """Batch norm, the activation, and their gradients by the formulas of `pygen.ops.strided_conv_bn`."""
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


def test_rounding(kernels):
    """As PyTorch rounds: ties to even, infinities, numbers that are none."""
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
    assert torch.equal(y[0].nan_to_num(7.0), x.bfloat16().nan_to_num(7.0))


def test_transpose(kernels):
    for rows, columns in ((1, 40), (17, 33), (64, 64)):
        x = torch.randn(rows, columns).bfloat16()
        out = torch.full((columns, rows), torch.nan).bfloat16()
        kernels.transpose(ctypes.c_int64(rows), ctypes.c_int64(columns), address(x), address(out))
        assert torch.equal(out, x.T)
