"""The mixture operators against a float64 reference written from the definition, row by row."""

import pytest
import torch
from mixtures import TYPES, mixture, reference
from torch.library import opcheck

from pygen.ops import (
    count_categories,
    em_statistics,
    grouped_statistics,
    log_density,
    native,
    responsibilities,
)
from pygen.ops.diagonal import diagonal_em, diagonal_log_density, diagonal_log_joint
from pygen.ops.moments import moments

# Float32 rows: a few hundred roundings of 6e-8 on numbers of the size of the largest.
TOLERANCE = {
    torch.float64: {"rtol": 1e-11, "atol": 1e-10},
    torch.float32: {"rtol": 3e-5, "atol": 1e-4},
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("n", "k", "d"), [(300, 4, 5), (1, 1, 1), (7, 20, 3), (5000, 3, 130), (65, 2, 1)]
)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_operators_equal_the_definition(covariance_type, n, k, d, dtype):
    parameters = mixture(covariance_type, k, d, seed=n)
    g = torch.Generator().manual_seed(1)
    x = (2 * torch.randn(n, d, generator=g)).to(dtype)
    weights = torch.rand(n, generator=g, dtype=torch.float64)
    log_resp, norm, *sums, total = reference(x, *parameters, covariance_type, weights)

    got_resp, got_norm = responsibilities(x, *parameters, covariance_type)
    assert got_resp.dtype == got_norm.dtype == dtype
    torch.testing.assert_close(got_resp.double(), log_resp, **TOLERANCE[dtype])
    torch.testing.assert_close(got_norm.double(), norm, **TOLERANCE[dtype])

    got_norm, component = log_density(x, *parameters, covariance_type)
    assert got_norm.dtype == dtype
    torch.testing.assert_close(got_norm.double(), norm, **TOLERANCE[dtype])
    of_component = log_resp.gather(1, component[:, None])[:, 0]
    torch.testing.assert_close(of_component, log_resp.amax(1), **TOLERANCE[dtype])

    *got, got_total = em_statistics(x, *parameters, covariance_type, weights)
    for mine, wanted in zip(got, sums, strict=True):
        assert mine.dtype == torch.float64
        # A sum of n terms of size 1 to 10, each with float32's error.
        close = (
            {"rtol": 1e-9, "atol": 1e-9}
            if dtype == torch.float64
            else {"rtol": 1e-4, "atol": 1e-3 + 1e-6 * n}
        )
        torch.testing.assert_close(mine, wanted, **close)
    torch.testing.assert_close(
        got_total, total, rtol=1e-11 if dtype == torch.float64 else 1e-6, atol=1e-9
    )


@pytest.mark.parametrize("covariance_type", TYPES)
def test_statistics_of_parts_add_up(covariance_type):
    parameters = mixture(covariance_type)
    x = torch.randn(1000, 5, dtype=torch.float64)
    whole = em_statistics(x, *parameters, covariance_type)
    parts = [em_statistics(part, *parameters, covariance_type) for part in x.split(137)]
    for mine, *others in zip(whole, *parts, strict=True):
        torch.testing.assert_close(mine, sum(others), rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_repeated_runs_give_the_same_bits(covariance_type):
    parameters = mixture(covariance_type, 30, 40)
    x = torch.randn(3000, 40)
    first = em_statistics(x, *parameters, covariance_type)
    assert all(map(torch.equal, first, em_statistics(x, *parameters, covariance_type)))


def test_close_components_are_told_apart_far_from_zero_in_float32():
    # Two components 1e-3 apart, at a distance of 1e3: expanded squares in float32 would be off by whole nats.
    means = torch.tensor([[1000.0, -1000.0], [1000.001, -1000.0]], dtype=torch.float64)
    deviation = torch.full((2, 2), 2e-3, dtype=torch.float64)
    x = (means[0] + 0.5 * (means[1] - means[0])).float().repeat(4, 1)
    log_resp, _ = responsibilities(x, torch.tensor([0.5, 0.5]).log(), means, 1 / deviation, "diag")
    expected = reference(x, torch.tensor([0.5, 0.5]).double().log(), means, 1 / deviation, "diag")[
        0
    ]
    torch.testing.assert_close(log_resp.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_component_without_weight_gets_nothing(covariance_type):
    log_weights, means, factors = mixture(covariance_type)
    log_weights[1] = -torch.inf
    x = torch.randn(50, 5)
    counts, sums, _, total = em_statistics(x, log_weights, means, factors, covariance_type)
    assert counts[1] == 0
    assert not sums[1].any()
    assert total.isfinite()


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_grouped_statistics_equal_their_definition(covariance_type, dtype):
    g = torch.Generator().manual_seed(3)
    x = torch.randn(500, 6, generator=g).to(dtype)
    means = torch.randn(3, 6, generator=g, dtype=torch.float64)
    labels = torch.randint(0, 3, (500,), generator=g)
    weights = torch.rand(500, generator=g, dtype=torch.float64)
    resp = torch.nn.functional.one_hot(labels, 3).double() * weights[:, None]
    diff = x.double()[:, None] - means
    outer = torch.einsum("nk,nkd,nke->kde", resp, diff, diff)
    scatter = {
        "full": outer,
        "tied": outer.sum(0),
        "diag": outer.diagonal(dim1=1, dim2=2),
        "spherical": outer.diagonal(dim1=1, dim2=2).sum(1),
    }[covariance_type]
    close = (
        {"rtol": 1e-10, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-3}
    )
    for groups in (labels, resp / weights[:, None]):
        got = grouped_statistics(
            x, groups.to(dtype) if groups.dim() > 1 else groups, means, covariance_type, weights
        )
        for mine, wanted in zip(
            got, (resp.sum(0), torch.einsum("nk,nkd->kd", resp, diff), scatter), strict=True
        ):
            torch.testing.assert_close(mine, wanted, **close)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("apart", [0.01, 0.5, 3], ids=["overlapping", "touching", "apart"])
@pytest.mark.parametrize("k", [1, 3, 40])
def test_densities_by_bounds_equal_the_definition_in_every_kernel(k, apart, dtype):
    """Of rows with so many features that bounds pay; one component is empty."""
    g = torch.Generator().manual_seed(k)
    n, d = 203, 150
    means = 1000 + apart * torch.randn(k, d, generator=g, dtype=torch.float64)
    noise = torch.randn(n, d, generator=g, dtype=torch.float64)
    x = (means[torch.randint(k, (n,), generator=g)] + noise).to(dtype)
    precisions = (0.1 * torch.randn(k, d, generator=g, dtype=torch.float64)).exp()
    constant = torch.randn(k, generator=g, dtype=torch.float64)
    constant[1:2] = -torch.inf
    joint = constant - 0.5 * ((x.double()[:, None] - means).square() * precisions).sum(2)
    for kernel in (diagonal_log_density, diagonal_log_density.__wrapped__):
        found, component = kernel(x, means, precisions, constant)
        torch.testing.assert_close(found, joint.logsumexp(1), **TOLERANCE[dtype])
        of_component = joint.gather(1, component[:, None])[:, 0]
        torch.testing.assert_close(of_component, joint.amax(1), **TOLERANCE[dtype])


def test_bits_of_densities_do_not_depend_on_threads():
    g = torch.Generator().manual_seed(0)
    means = torch.randn(20, 200, generator=g, dtype=torch.float64)
    # Rows of which some are far from all but one, and some as far from each component.
    x = torch.cat([means.repeat(30, 1).float(), torch.zeros(600, 200)])
    x += 0.1 * torch.randn(x.shape, generator=g)
    arguments = x, means, torch.ones_like(means), torch.zeros(20).double()
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(diagonal_log_density(*arguments))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_opcheck(covariance_type):
    x = torch.randn(20, 5)
    parameters = mixture(covariance_type)
    for precision in ("high", "fast", "exact"):
        arguments = (x, *parameters, covariance_type)
        opcheck(torch.ops.pygen.responsibilities, (*arguments, precision))
        opcheck(torch.ops.pygen.log_density, (*arguments, precision))
        opcheck(torch.ops.pygen.em_statistics, (*arguments, torch.rand(20), precision))


def test_compiles_into_one_graph():
    parameters = mixture("diag")
    x = torch.randn(20, 5)
    compiled = torch.compile(
        lambda x: responsibilities(x, *parameters, "diag")[1] + 1, fullgraph=True, backend="eager"
    )
    assert torch.equal(compiled(x), responsibilities(x, *parameters, "diag")[1] + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"covariance_type": "round"}, "covariance_type must be one of"),
        ({"precision": "double"}, "precision must be one of"),
        ({"x": torch.zeros(3)}, "x must be float32 or float64"),
        ({"x": torch.zeros(3, 5).half()}, "x must be float32 or float64"),
        ({"x": torch.zeros(3, 4)}, "means must be"),
        ({"log_weights": torch.zeros(3)}, "log_weights must be"),
        ({"precisions_cholesky": torch.ones(4)}, "precisions_cholesky must be"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    log_weights, means, factors = mixture("diag")
    arguments = {
        "x": torch.zeros(3, 5),
        "log_weights": log_weights,
        "means": means,
        "precisions_cholesky": factors,
        "covariance_type": "diag",
    }
    with pytest.raises(ValueError, match=message):
        em_statistics(**{**arguments, **change})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(300, 5, 7), (50, 3, 1), (2000, 4, 300), (10, 6, 64)])
def test_moments_equal_their_definition_in_every_kernel(shape, dtype):
    n, k, d = shape
    g = torch.Generator().manual_seed(n)
    x = (100 + torch.randn(n, d, generator=g, dtype=torch.float64)).to(dtype)
    pairs = int(torch.randint(n, 3 * n, (), generator=g))
    groups = torch.randint(0, k, (pairs,), generator=g)
    groups[groups == 1] = 0
    rows = torch.randint(0, n, (pairs,), generator=g)
    weights = torch.rand(pairs, generator=g, dtype=torch.float64)
    means = 100 + torch.randn(k, d, generator=g, dtype=torch.float64)
    for kernel in (moments, moments.__wrapped__):
        every = kernel(x, groups[:n], means)
        chosen = kernel(x, groups, means, weights, rows)
        for group in range(k):
            for sums, of, weight, row in (
                (every, groups[:n], torch.ones(n).double(), torch.arange(n)),
                (chosen, groups, weights, rows),
            ):
                weight, difference = (
                    weight[of == group],
                    x[row[of == group]].double() - means[group],
                )
                expected = weight.sum(), weight @ difference, weight @ difference**2
                for found, wanted in zip(sums, expected, strict=True):
                    torch.testing.assert_close(found[group], wanted, rtol=1e-12, atol=1e-11)
    opcheck(torch.ops.pygen.moments, (x, groups, means, weights, rows))


def test_moments_do_not_depend_on_threads_or_memory_layout():
    x = torch.randn(500, 300)
    arguments = (
        torch.randint(2, (500,)),
        torch.zeros(2, 300).double(),
        torch.rand(500).double(),
    )
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(moments(x, *arguments))
    finally:
        torch.set_num_threads(threads)
    results.append(moments(x.T.contiguous().T, *arguments))
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.skipif(native is None, reason="pygen._C was not built")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(4, 3).half()}, "x must be"),
        ({"means": torch.zeros(2, 2).double()}, "means must be"),
        ({"rows": torch.tensor([0, 1, 4])}, "must lie in"),
        ({"rows": torch.tensor([0, 1])}, "as many as groups"),
        ({"rows": None}, "as many as rows of x"),
        ({"groups": torch.tensor([1, 0, 2])}, "must lie in"),
        ({"groups": torch.tensor([1, 0, -1])}, "must lie in"),
        ({"weights": torch.ones(2).double()}, "weights must be"),
    ],
)
def test_moments_refuse_what_would_read_outside(change, message):
    arguments = {
        "x": torch.zeros(4, 3),
        "groups": torch.tensor([0, 1, 1]),
        "means": torch.zeros(2, 3).double(),
        "weights": torch.ones(3).double(),
        "rows": torch.tensor([0, 1, 2]),
    }
    with pytest.raises(RuntimeError, match=message):
        moments(**{**arguments, **change})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(300, 5, 7), (9, 1, 1), (1003, 40, 300), (10, 6, 64)])
def test_diagonal_log_joint_equals_its_definition_in_every_kernel(shape, dtype):
    n, k, d = shape
    g = torch.Generator().manual_seed(n)
    x = torch.randn(n, d, generator=g, dtype=torch.float64).to(dtype)
    means = torch.randn(k, d, generator=g, dtype=torch.float64)
    precisions = torch.randn(k, d, generator=g, dtype=torch.float64).exp()
    constant = torch.randn(k, generator=g, dtype=torch.float64)
    difference = x.double()[:, None] - means
    wanted = (constant - 0.5 * (difference**2 * precisions).sum(2)).T
    for kernel in (diagonal_log_joint, diagonal_log_joint.__wrapped__):
        relative, largest = kernel(x, means, precisions, constant)
        assert relative.dtype == dtype
        assert (relative <= 0).all()
        close = wanted > wanted.amax(0) - 15
        # Where components compete the result is float64's, rounded once.
        tolerance = (
            {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 2e-6, "atol": 2e-6}
        )
        expected = wanted - wanted.amax(0)
        torch.testing.assert_close(relative.double()[close], expected[close], **tolerance)
        torch.testing.assert_close(relative.double(), expected, rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(largest, wanted.amax(0), rtol=1e-6, atol=1e-6)
    opcheck(torch.ops.pygen.diagonal_log_joint, (x, means, precisions, constant))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("weighted", [False, True])
def test_count_categories_equals_its_definition_in_every_kernel(dtype, weighted):
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 12, (500, 130), generator=g).to(dtype)  # two categories are passed over
    index = torch.randint(0, 3, (500,), generator=g)
    weights = torch.rand(500, generator=g, dtype=torch.float64) if weighted else None
    one_hot = (x[..., None] == torch.arange(10)).double() * (
        1 if weights is None else weights[:, None, None]
    )
    wanted = torch.zeros(3, 130, 10, dtype=torch.float64).index_add_(0, index, one_hot)
    for kernel in (count_categories, count_categories.__wrapped__):
        torch.testing.assert_close(kernel(x, index, weights, 3, 10), wanted, rtol=1e-12, atol=0)
    opcheck(torch.ops.pygen.count_categories, (x, index, weights, 3, 10))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "shape", [(0, 2, 3), (700, 3, 5), (333, 40, 70), (50, 1, 9), (203, 3, 128), (301, 37, 200)]
)
# Components that share rows, that may by some of their columns, that do not; and, on rows without noise, pairs of which
# a part of the columns says less than all.
@pytest.mark.parametrize(("distance", "noise"), [(0.3, 1.0), (2.0, 1.0), (30.0, 1.0), (30.0, 0.0)])
def test_diagonal_em_equals_its_definition_in_every_kernel(shape, dtype, distance, noise):
    n, k, d = shape
    g = torch.Generator().manual_seed(n)
    means = 100 + distance * torch.randn(k, d, generator=g, dtype=torch.float64)
    if not noise:
        means[1::2] = means[: k // 2 * 2 : 2] + 4 * torch.randn(k // 2, d, generator=g) / d**0.5
    x = means[torch.randint(k, (n,), generator=g)]
    x = (x + noise * torch.randn(n, d, generator=g)).to(dtype)
    precisions = 0.5 + torch.rand(k, d, generator=g).double()
    constant = torch.randn(k, generator=g).double()
    constant[1:2] = -torch.inf  # weight 0
    weight = torch.rand(n, generator=g).double()
    difference = x.double()[:, None] - means
    joint = constant - 0.5 * (difference.square() * precisions).sum(2)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-6
    for weights in (None, weight):
        weighting = torch.ones(n).double() if weights is None else weights
        resp = joint.softmax(1) * weighting[:, None]
        expected = (
            resp.sum(0),
            torch.einsum("nk,nkd->kd", resp, difference),
            torch.einsum("nk,nkd->kd", resp, difference.square()),
            (joint.logsumexp(1) * weighting).sum(),
        )
        for kernel in (diagonal_em, diagonal_em.__wrapped__):
            found = kernel(x, means, precisions, constant, weights)
            for mine, theirs in zip(found, expected, strict=True):
                torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=10 * tolerance)
    opcheck(torch.ops.pygen.diagonal_em, (x, means, precisions, constant, weight))


def test_diagonal_em_does_not_depend_on_threads():
    g = torch.Generator().manual_seed(0)
    means = torch.randn(7, 300, generator=g).double()
    x = torch.randn(9000, 300, generator=g)
    arguments = (x, means, torch.ones(7, 300).double(), torch.zeros(7).double())
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(diagonal_em(*arguments))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))
