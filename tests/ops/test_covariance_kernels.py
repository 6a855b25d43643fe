"""The CPU's kernels of full covariances, in every instruction set, against their definition in float64."""

import ctypes

import pytest
import torch

# Features in runs of many lengths, as those of pictures that vary are.
FEATURES = {5: [0, 1, 2, 4], 70: [j for j in range(70) if j % 9 and j not in (31, 33)]}


def called(library, name, dtype, n, dims, *arguments):
    """A C function of x [n, dims]; tensors, numbers and truths as they come."""
    function = getattr(library, f"{name}_{'float' if dtype == torch.float32 else 'double'}")
    x, *others = arguments
    values = [
        ctypes.c_void_p(a.data_ptr())
        if isinstance(a, torch.Tensor)
        else ctypes.c_bool(a)
        if isinstance(a, bool)
        else ctypes.c_int64(a)
        for a in (x, n, dims, *others)
    ]
    function(*values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_instruction_set_whitens(compiled, dtype):
    library = compiled("covariance.cpp")
    tolerance = {torch.float32: 2e-5, torch.float64: 1e-12}[dtype]
    for dims, chosen in FEATURES.items():
        g = torch.Generator().manual_seed(dims)
        n, size, numbers = 29, len(chosen), torch.tensor(chosen)
        shift = torch.full((dims,), 100, dtype=dtype)
        x = shift + torch.randn(n, dims, generator=g).to(dtype)
        centre = torch.randn(size, generator=g).to(dtype)
        factor = torch.randn(size, size, generator=g).to(dtype).triu()
        rows = (x.double() - shift.double())[:, numbers] - centre.double()
        expected = (rows @ factor.double()).square().sum(1)
        for twice in (False, True):
            found = torch.full((n,), torch.nan, dtype=torch.float64)
            arguments = x, shift, numbers, size, centre, factor, twice, found
            called(library, "norms", dtype, n, dims, *arguments)
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_instruction_set_scatters(compiled, dtype):
    library = compiled("covariance.cpp")
    for dims, chosen in FEATURES.items():
        g = torch.Generator().manual_seed(dims)
        n, size, numbers = 53, len(chosen), torch.tensor(chosen)
        x = (100 + torch.randn(n, dims, generator=g)).to(dtype)
        mean = 100 + torch.randn(dims, generator=g, dtype=torch.float64)
        roots = torch.rand(n, generator=g, dtype=torch.float64)
        first = torch.zeros(dims, dtype=torch.float64)
        second = torch.full((size, size), torch.nan, dtype=torch.float64)
        called(library, "scatter", dtype, n, dims, x, roots, numbers, size, mean, first, second)
        rows = (x.double() - mean)[:, numbers] * roots[:, None]
        torch.testing.assert_close(first[numbers], roots @ rows, rtol=1e-11, atol=1e-11)
        upper = (rows.T @ rows).triu()
        torch.testing.assert_close(second.triu(), upper, rtol=1e-11, atol=1e-11)
