"""A pass of EM of each of several mixtures: what each has alone, bit for bit."""

import pytest
import torch
from torch.library import opcheck

from pygen.ops import em_statistics
from pygen.ops.covariance import full_em
from pygen.ops.diagonal import diagonal_em
from pygen.ops.mixture import PRECISIONS
from pygen.ops.together import diagonal_em_of_each, em_statistics_of_each, full_em_of_each

B, K, D, N = 4, 3, 7, 150
# Overlapping, all, none, and one row.
RANGES = [0, 90, 0, N, 40, 40, 149, 150]
EACH = {diagonal_em_of_each: diagonal_em, full_em_of_each: full_em}


def problem(operator, dtype, device="cpu", seed=0):
    g = torch.Generator().manual_seed(seed)

    def rand(*size):
        return torch.randn(*size, generator=g, dtype=torch.float64)

    shape = rand(B, K, D).exp() if operator is diagonal_em_of_each else torch.eye(D).double()
    if operator is full_em_of_each:
        shape = shape + 0.2 * rand(B, K, D, D).triu(1)
    x, means, constant, weights = rand(N, D).to(dtype), rand(B, K, D), rand(B, K), rand(N).abs()
    return *(a.to(device) for a in (x, means, shape, constant)), RANGES, weights.to(device)


def alone(operator, x, means, shape, constant, ranges, weights=None):
    for b in range(B):
        rows = slice(ranges[2 * b], ranges[2 * b + 1])
        weight = None if weights is None else weights[rows]
        yield EACH[operator](x[rows], means[b], shape[b], constant[b], weight)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("operator", EACH, ids=lambda each: each.__name__)
def test_each_as_alone(device, operator, dtype, weighted):
    arguments = problem(operator, dtype, device)
    arguments = arguments if weighted else arguments[:-1]
    threads = torch.get_num_threads()
    for n_threads in (1, 3):
        try:
            torch.set_num_threads(n_threads)
            found = operator(*arguments)
        finally:
            torch.set_num_threads(threads)
        for b, expected in enumerate(alone(operator, *arguments)):
            for mine, wanted in zip(found, expected, strict=True):
                assert torch.equal(mine[b], wanted)


@pytest.mark.parametrize("operator", EACH, ids=lambda each: each.__name__)
def test_kernel_equals_plain_pytorch(device, operator):
    arguments = problem(operator, torch.float64, device)
    strided = [
        a.mT.contiguous().mT if isinstance(a, torch.Tensor) and a.dim() > 1 else a
        for a in arguments
    ]
    for mine, wanted in zip(operator(*strided), operator.__wrapped__(*arguments), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("operator", EACH, ids=lambda each: each.__name__)
def test_opcheck(device, operator, dtype):
    opcheck(getattr(torch.ops.pygen, operator.__name__).default, problem(operator, dtype, device))


@pytest.mark.parametrize(
    "ranges", [[0, 5], [0, N + 1] * B, [-1, 5] * B, [7, 5] * B, [0, 5] * B + [1]]
)
@pytest.mark.parametrize("operator", EACH, ids=lambda each: each.__name__)
def test_ranges_that_do_not_fit(operator, ranges):
    x, means, shape, constant, _, weights = problem(operator, torch.float32)
    with pytest.raises((RuntimeError, ValueError), match="ranges"):
        operator(x, means, shape, constant, ranges, weights)
    with pytest.raises(ValueError, match="ranges"):
        operator.__wrapped__(x, means, shape, constant, ranges, weights)


@pytest.mark.parametrize("operator", EACH, ids=lambda each: each.__name__)
def test_bad_arguments(operator):
    x, means, shape, constant, ranges, weights = problem(operator, torch.float32)
    with pytest.raises(RuntimeError):
        operator(x, means.float(), shape, constant, ranges, weights)
    with pytest.raises(RuntimeError):
        operator(x[:, 1:], means, shape, constant, ranges, weights)
    with pytest.raises(RuntimeError):
        operator(x, means, shape, constant, ranges, weights[1:])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("covariance_type", ["spherical", "diag", "tied", "full"])
def test_statistics(device, covariance_type, precision):
    x, means, factors, constant, ranges, weights = problem(full_em_of_each, torch.float32, device)
    factors = {
        "spherical": factors[..., 0, 0],
        "diag": factors.diagonal(dim1=-2, dim2=-1),
        "tied": factors[:, 0],
        "full": factors,
    }[covariance_type]
    ranges = [0, 90, 0, N, 40, 41, 149, 150]
    log_weights = constant.log_softmax(1)
    found = em_statistics_of_each(
        x, log_weights, means, factors, covariance_type, ranges, weights, precision
    )
    for b in range(B):
        rows = slice(ranges[2 * b], ranges[2 * b + 1])
        own = log_weights[b], means[b], factors[b], covariance_type
        expected = em_statistics(x[rows], *own, weights[rows], precision)
        for mine, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(mine[b], wanted, rtol=1e-12, atol=1e-12)
