"""The mixture operators on rows of any number and layout, against float64 from the definition."""

import math

import pytest
import torch
from mixtures import TYPES, mixture, reference

from pygen.ops import em_statistics, grouped_statistics, responsibilities

DTYPES = [torch.float64, torch.float32]
# By the largest magnitude expected; float32 rows: some roundings of 6e-8 each.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 3e-5}


def assert_close(found, expected, dtype):
    for mine, wanted in zip(found, expected, strict=True):
        error = TOLERANCE[dtype] * (1 + wanted.abs().max().item())
        torch.testing.assert_close(mine.double(), wanted.double(), rtol=0, atol=error)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 19])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_any_number_of_rows(covariance_type, d, dtype):
    parameters = mixture(covariance_type, 5, d)
    x = 2 * torch.randn(1025, d, generator=torch.Generator().manual_seed(0)).to(dtype)
    for n in (1, 2, 3, 7, 8, 9, 31, 33, 63, 65, 127, 129, 511, 513, 1025):
        log_resp, norm, *sums = reference(x[:n], *parameters, covariance_type)
        found = responsibilities(x[:n], *parameters, covariance_type)
        assert_close(found, (log_resp, norm), dtype)
        assert_close(em_statistics(x[:n], *parameters, covariance_type), sums, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_many_features(covariance_type, dtype):
    d = 4096
    log_weights, means, factors = mixture("diag", 2, d)
    x = means[[0, 1, 1]].to(dtype) + torch.randn(3, d, dtype=dtype)
    if covariance_type == "spherical":
        factors = factors[:, 0].clone()
    elif covariance_type in ("tied", "full"):
        factors = factors.diag_embed() if covariance_type == "full" else factors[0].diag()
        # Each feature depends on the one before; some on none.
        factors[..., torch.arange(2000), torch.arange(1, 2001)] = 0.5
    parameters = log_weights, means, factors
    joint = torch.empty(3, 2, dtype=torch.float64)
    for k in range(2):
        factor = factors if covariance_type == "tied" else factors[k]
        difference = x.double() - means[k]
        white = difference @ factor if factor.dim() == 2 else difference * factor
        log_determinant = (factor.diagonal() if factor.dim() == 2 else factor.expand(d)).log().sum()
        constant = log_weights[k] + log_determinant - 0.5 * d * math.log(2 * math.pi)
        joint[:, k] = constant - 0.5 * white.square().sum(1)
    log_resp, norm = responsibilities(x, *parameters, covariance_type)
    # Float32: thousands of nats, each known to 3e-7 of itself.
    relative = 1e-12 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(norm.double(), joint.logsumexp(1), rtol=relative, atol=0)
    assert torch.equal(log_resp.argmax(1), joint.argmax(1))
    counts, sums, scatter, total = em_statistics(x, *parameters, covariance_type)
    torch.testing.assert_close(total, joint.logsumexp(1).sum(), rtol=relative, atol=0)
    labels = grouped_statistics(x, joint.argmax(1), means, covariance_type)
    for mine, wanted in zip((counts, sums, scatter), labels, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-9, atol=1e-9)


def layouts(tensor):
    """The same numbers in memory of other layouts."""
    yield torch.cat([tensor, tensor], 1)[:, : tensor.shape[1]]
    yield tensor.T.contiguous().T
    yield tensor.repeat_interleave(2, 0)[::2]
    yield torch.cat([tensor.new_zeros(1), tensor.flatten()])[1:].view_as(tensor)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_rows_of_any_layout(covariance_type, dtype):
    parameters = mixture(covariance_type, 4, 21)
    x = torch.randn(131, 21, generator=torch.Generator().manual_seed(0)).to(dtype)
    weights = torch.rand(262, dtype=torch.float64)[::2]
    statistics = em_statistics(x, *parameters, covariance_type, weights.contiguous())
    densities = responsibilities(x, *parameters, covariance_type)
    for other in layouts(x):
        before = other.clone()
        found = em_statistics(other, *parameters, covariance_type, weights)
        assert_close(found, statistics, dtype)
        assert_close(responsibilities(other, *parameters, covariance_type), densities, dtype)
        assert torch.equal(other, before)
    equal = x[:1].expand(40, -1)
    found = em_statistics(equal, *parameters, covariance_type)
    assert_close(found, em_statistics(equal.contiguous(), *parameters, covariance_type), dtype)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_parameters_of_any_layout(covariance_type):
    log_weights, means, factors = mixture(covariance_type, 4, 21)
    x = torch.randn(50, 21)
    expected = em_statistics(x, log_weights, means, factors, covariance_type)
    last = factors.dim() - 1
    moved = (
        log_weights.repeat_interleave(2)[::2],
        means.T.contiguous().T,
        factors.transpose(0, last).contiguous().transpose(0, last),
    )
    assert_close(em_statistics(x, *moved, covariance_type), expected, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_rows_without_weight_do_not_count(covariance_type, dtype):
    parameters = mixture(covariance_type)
    x = torch.randn(60, 5, dtype=dtype)
    weights = torch.zeros(60)
    for sums in em_statistics(x, *parameters, covariance_type, weights):
        assert not sums.any()
    weights[10:30] = 1
    found = em_statistics(x, *parameters, covariance_type, weights)
    assert_close(found, em_statistics(x[10:30], *parameters, covariance_type), dtype)


@pytest.mark.parametrize("precision", ["high", "fast", "exact"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_million_deviations_away(covariance_type, dtype, precision):
    log_weights, means, factors = mixture(covariance_type)
    x = torch.full((2, 5), 1e6, dtype=dtype)
    x[1] = -x[1]
    arguments = x, log_weights, means, factors, covariance_type
    log_resp, norm = responsibilities(*arguments, precision=precision)
    assert norm.isfinite().all()
    torch.testing.assert_close(log_resp.exp().sum(1), torch.ones(2, dtype=dtype), rtol=1e-5, atol=0)
    for sums in em_statistics(*arguments, precision=precision):
        assert sums.isfinite().all()
