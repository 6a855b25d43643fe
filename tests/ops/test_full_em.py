"""EM with full covariances, and the factors of its M-step: every kernel against the definition in float64."""

import pytest
import torch
from torch.library import opcheck

from pygen.ops import native
from pygen.ops.covariance import full_em, full_log_density
from pygen.ops.triangular import inverse_factors, invert_lower

KERNELS = (full_em, full_em.__wrapped__)


def problem(n, d, k, dtype=torch.float64, apart=0.1, seed=0):
    """Rows of a random mixture, some features of which depend on no other."""
    g = torch.Generator().manual_seed(seed)

    def rand(*size):
        return torch.randn(*size, generator=g, dtype=torch.float64)

    means = 1000 + apart * rand(k, d)
    x = means[torch.randint(k, (n,), generator=g)] + rand(n, d)
    factors = (torch.eye(d, dtype=torch.float64) + rand(k, d, d) / (5 * d**0.5)).triu()
    for j in range(1, d, 4):
        factors[:, j, :] = factors[:, :, j] = 0
        factors[:, j, j] = 3
    x[:, 1::8] = means[:, 1::8] = 1000
    constant = factors.diagonal(dim1=1, dim2=2).log().sum(1) + rand(k)
    return x.to(dtype), means, factors, constant, rand(n).abs()


def reference(x, means, factors, constant, weight):
    difference = x.double()[:, None] - means
    whitened = torch.einsum("nkd,kde->nke", difference, factors)
    joint = constant - 0.5 * whitened.square().sum(2)
    resp = joint.softmax(1) * weight[:, None]
    first = torch.einsum("nk,nkd->kd", resp, difference)
    second = torch.einsum("nk,nkd,nke->kde", resp, difference, difference)
    return resp.sum(0), first, second, (joint.logsumexp(1) * weight).sum()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("apart", [0.1, 0.7, 10], ids=["overlapping", "touching", "apart"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (40, 3, 2), (700, 40, 5), (500, 300, 4)])
def test_em_equals_its_definition_in_every_kernel(shape, apart, dtype):
    arguments = problem(*shape, dtype, apart)
    expected = reference(*arguments)
    tolerance = 1e-11 if dtype == torch.float64 else 2e-5
    for kernel in KERNELS:
        found = kernel(*arguments)
        for part, wanted in zip(found, expected, strict=True):
            assert (part - wanted).norm() <= tolerance * wanted.norm()
        assert torch.equal(found[2], found[2].mT)
        unweighted = kernel(*arguments[:4])
        ones = kernel(*arguments[:4], torch.ones(shape[0], dtype=torch.float64))
        assert all(map(torch.equal, unweighted, ones))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("apart", [0.1, 0.7, 10], ids=["overlapping", "touching", "apart"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1100, 3, 2), (700, 40, 5), (500, 300, 4)])
def test_log_densities_equal_their_definition_in_every_kernel(shape, apart, dtype):
    x, means, factors, constant, _ = problem(*shape, dtype, apart)
    constant[0] = -torch.inf if shape[2] > 2 else constant[0]
    difference = x.double()[:, None] - means
    joint = constant - 0.5 * torch.einsum("nkd,kde->nke", difference, factors).square().sum(2)
    tolerance = 1e-11 if dtype == torch.float64 else 3e-5
    for kernel in (full_log_density, full_log_density.__wrapped__):
        density, component = kernel(x, means, factors, constant)
        torch.testing.assert_close(density, joint.logsumexp(1), rtol=tolerance, atol=tolerance)
        of_component = joint.gather(1, component[:, None])[:, 0]
        torch.testing.assert_close(of_component, joint.amax(1), rtol=tolerance, atol=tolerance)
    nothing, none = full_log_density(x[:0], means, factors, constant)
    assert nothing.shape == none.shape == (0,)


def test_em_is_an_operator_in_good_standing():
    opcheck(torch.ops.pygen.full_em, problem(30, 5, 2))
    opcheck(torch.ops.pygen.full_log_density, problem(30, 5, 2)[:4])
    opcheck(torch.ops.pygen.inverse_factors, (torch.eye(5).double().expand(2, 5, 5),))


def test_an_empty_component_gets_nothing():
    x, means, factors, constant, weight = problem(300, 260, 3)
    constant[1] = -torch.inf
    for kernel in KERNELS:
        counts, first, second, log_likelihood = kernel(x, means, factors, constant, weight)
        for sums in (counts, first, second):
            assert not sums[1].any()
        assert log_likelihood.isfinite()


@pytest.mark.parametrize("features", [12, 260])
def test_bits_do_not_depend_on_threads(features):
    arguments = problem(5000, features, 3, torch.float32, 0.5)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            sums = full_em(*arguments)
            results.append((*sums, *inverse_factors(sums[2] / 1000), *inverse_factors(sums[2][:1])))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("size", [0, 1, 2, 23, 24, 25, 130])
def test_factors_of_the_inverse_in_every_kernel(size):
    g = torch.Generator().manual_seed(size)
    data = torch.randn(3, size + 5, size, generator=g, dtype=torch.float64)
    matrices = data.mT @ data
    if size > 3:
        matrices[1, 3, :] = matrices[1, :, 3] = 0
        matrices[1, 3, 3] = 4
    for kernel in (inverse_factors, inverse_factors.__wrapped__):
        factors, positive = kernel(matrices)
        assert positive.all()
        assert torch.equal(factors, factors.triu())
        identity = factors.mT @ matrices @ factors
        torch.testing.assert_close(identity, torch.eye(size).double().expand(3, size, size))


@pytest.mark.parametrize("wrong", ["indefinite", "nan", "infinite", "zero", "negative"])
def test_a_matrix_that_is_not_positive_definite_is_named(wrong):
    matrices = torch.eye(30, dtype=torch.float64).repeat(3, 1, 1)
    matrices[:, 4, 5] = matrices[:, 5, 4] = 0.5
    if wrong == "indefinite":
        matrices[1, 4, 5] = matrices[1, 5, 4] = 2
    else:
        value = {"nan": torch.nan, "infinite": torch.inf, "zero": 0, "negative": -1}[wrong]
        matrices[1, 4, 4] = value
    for kernel in (inverse_factors, inverse_factors.__wrapped__):
        assert kernel(matrices)[1].tolist() == [True, False, True]


def test_inverse_of_a_lower_triangle():
    lower = torch.randn(300, 300, generator=torch.Generator().manual_seed(0)).double().tril()
    lower.diagonal().copy_(20)
    torch.testing.assert_close(invert_lower(lower) @ lower, torch.eye(300).double())


@pytest.mark.skipif(native is None, reason="pygen._C was not built")
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, torch.zeros(4, 3).half(), "x must be"),
        (0, torch.zeros(4, 2), "means must be"),
        (1, torch.zeros(2, 3), "means must be"),
        (2, torch.zeros(2, 3, 4).double(), "precisions_cholesky must be"),
        (3, torch.zeros(0).double(), "of a component"),
        (3, torch.zeros(3).double(), "means must be"),
        (4, torch.zeros(3).double(), "sample_weight must be"),
    ],
)
def test_em_refuses_what_would_read_outside(place, value, message):
    x, means = torch.zeros(4, 3), torch.zeros(2, 3).double()
    factors, constant = torch.eye(3).double().repeat(2, 1, 1), torch.zeros(2).double()
    arguments = [x, means, factors, constant, torch.ones(4).double()]
    arguments[place] = value
    with pytest.raises(RuntimeError, match=message):
        full_em(*arguments)


@pytest.mark.skipif(native is None, reason="pygen._C was not built")
@pytest.mark.parametrize(
    "matrices", [torch.eye(3)[None], torch.eye(3).double(), torch.ones(1, 2, 3).double()]
)
def test_factors_refuse_what_would_read_outside(matrices):
    with pytest.raises(RuntimeError, match="matrices must be float64"):
        inverse_factors(matrices)
