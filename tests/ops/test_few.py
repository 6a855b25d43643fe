"""Mixtures with few features on the CPU: the kernels in every instruction set, and where they meet the others."""

import ctypes
import math

import pytest
import torch
from mixtures import mixture, reference

from pygen.ops import em_statistics, log_density, native

# Rows, components and features; rows in vectors of any width, and some beyond.
SIZES = [(1, 1, 1), (33, 3, 2), (100, 5, 7), (257, 30, 3), (64, 2, 20)]


def address(x):
    return None if x is None else ctypes.c_void_p(x.data_ptr())


def constants(log_weights, factors, covariance_type):
    diagonal = factors if covariance_type == "diag" else factors.diagonal(dim1=1, dim2=2)
    half_log_two_pi = 0.5 * math.log(2 * math.pi)
    return log_weights + diagonal.log().sum(1) - diagonal.shape[1] * half_log_two_pi


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("covariance_type", ["diag", "full"])
def test_every_instruction_set(compiled, covariance_type, dtype):
    library = compiled("few.cpp", "csrc/mixture/few.cpp")
    function = library.all_float if dtype == torch.float32 else library.all_double
    for n, k, d in SIZES:
        log_weights, means, factors = mixture(covariance_type, k, d, seed=n)
        g = torch.Generator().manual_seed(n)
        x = (2 * torch.randn(n, d, generator=g)).to(dtype)
        shape = factors.square() if covariance_type == "diag" else factors
        constant = constants(log_weights, factors, covariance_type)
        for weights in (None, torch.rand(n, generator=g, dtype=torch.float64)):
            log_resp, norm, counts, first, second, total = reference(
                x, log_weights, means, factors, covariance_type, weights
            )
            sums = torch.full((1 + k + k * d + shape.numel(),), torch.nan, dtype=torch.float64)
            relative = torch.full((k, n), torch.nan, dtype=dtype)
            largest, density = torch.full((2, n), torch.nan, dtype=torch.float64)
            component = torch.full((n,), -1)
            tensors = (weights, sums, relative, largest, density, component)
            function(
                covariance_type == "full",
                *map(address, (x, means, shape, constant)),
                *map(ctypes.c_int64, (n, k, d)),
                *map(address, tensors),
            )
            close = {"rtol": 1e-10, "atol": 1e-10}
            got = sums.split([1, k, k * d, shape.numel()])
            lower = (
                torch.ones_like(second) if covariance_type == "diag" else torch.ones(d, d).tril()
            )
            for mine, wanted in zip(got, (total, counts, first, second * lower), strict=True):
                torch.testing.assert_close(mine, wanted.reshape(-1), **close)
            torch.testing.assert_close(density, norm, **close)
            joint = log_resp + norm[:, None]
            torch.testing.assert_close(largest, joint.amax(1), **close)
            rounding = {"rtol": 1e-6, "atol": 1e-9} if dtype == torch.float32 else close
            torch.testing.assert_close(
                relative, (joint - joint.amax(1, keepdim=True)).T.to(dtype), **rounding
            )
            assert torch.equal(component, joint.argmax(1))


@pytest.mark.skipif(native is None, reason="no compiled kernels")
@pytest.mark.parametrize(
    ("covariance_type", "k", "d"),
    [("diag", 10, 127), ("diag", 10, 128), ("diag", 164, 100), ("full", 16, 16), ("full", 17, 16)],
)
def test_both_sides_of_where_others_take_over(covariance_type, k, d):
    parameters = mixture(covariance_type, k, d)
    x = torch.randn(700, d, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    _, norm, *sums, total = reference(x, *parameters, covariance_type)
    *got, got_total = em_statistics(x, *parameters, covariance_type)
    for mine, wanted in zip([*got, got_total], [*sums, total], strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        log_density(x, *parameters, covariance_type)[0], norm, rtol=1e-10, atol=1e-9
    )


@pytest.mark.parametrize("covariance_type", ["diag", "full"])
def test_rows_far_from_all_and_components_of_no_weight(covariance_type):
    log_weights, means, factors = mixture(covariance_type, 4, 3)
    log_weights = torch.tensor([0.0, 1.0, -torch.inf, 0.5], dtype=torch.float64).log_softmax(0)
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x[7] = 1e6
    _, _, *sums, total = reference(x, log_weights, means, factors, covariance_type)
    *got, got_total = em_statistics(x, log_weights, means, factors, covariance_type)
    assert got[0][2] == 0
    for mine, wanted in zip([*got, got_total], [*sums, total], strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
@pytest.mark.parametrize("covariance_type", ["diag", "full"])
def test_rows_that_are_not_finite_are_in_no_moment(covariance_type, value):
    parameters = mixture(covariance_type, 4, 3)
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    _, _, *sums, _ = reference(x[1:], *parameters, covariance_type)
    x[0, 1] = value
    *got, total = em_statistics(x, *parameters, covariance_type)
    assert not total.isfinite()
    for mine, wanted in zip(got, sums, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("covariance_type", ["diag", "full"])
def test_the_same_bits_with_any_number_of_threads(covariance_type):
    parameters = mixture(covariance_type, 6, 5)
    x = torch.randn(5000, 5, generator=torch.Generator().manual_seed(4))
    threads = torch.get_num_threads()
    try:
        found = []
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found.append(em_statistics(x, *parameters, covariance_type))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))
