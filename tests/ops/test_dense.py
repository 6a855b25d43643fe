"""Whitened norms and scatter matrices: every kernel against its definition in float64."""

import pytest
import torch
from torch.library import opcheck

from pygen.ops import native
from pygen.ops.dense import add_scatter, linear_em, whitened_norms

SHAPES = [(1, 1), (30, 5), (200, 33), (450, 130), (64, 257)]


def problem(n, d, dtype=torch.float64):
    g = torch.Generator().manual_seed(n + d)
    x = (100 + torch.randn(n, d, generator=g, dtype=torch.float64)).to(dtype)
    x[:, ::7] = 100
    rows = torch.randint(n, (n + 3,), generator=g)
    return x, rows, g


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("columns", ["triangular", "some", "full"])
def test_whitened_norms_equal_their_definition_in_every_kernel(shape, dtype, columns):
    x, rows, g = problem(*shape, dtype)
    features = torch.arange(0, shape[1], 2)
    size = len(features)
    factor = torch.randn(size, size, generator=g).to(dtype)
    if columns != "full":
        factor.triu_()
    if columns == "some":
        factor = factor[:, ::3].contiguous()
    centre = torch.full((size,), 99.5, dtype=dtype)
    tolerance = {"rtol": 2e-5, "atol": 1e-4} if dtype == torch.float32 else {}
    for kernel in (whitened_norms, whitened_norms.__wrapped__):
        for chosen in (None, rows):
            part = (x if chosen is None else x[chosen])[:, features].double()
            expected = ((part - centre.double()) @ factor.double()).square().sum(1)
            found = kernel(x, centre, factor, features, chosen)
            torch.testing.assert_close(found, expected.to(dtype), **tolerance)
    opcheck(torch.ops.pygen.whitened_norms, (x, centre, factor, features, rows))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_scatter_equals_its_definition_in_every_kernel(shape, dtype):
    x, rows, g = problem(*shape, dtype)
    d = shape[1]
    mean = 100 + torch.randn(d, generator=g, dtype=torch.float64).mul_(torch.arange(d) % 7 > 0)
    for kernel in (add_scatter, add_scatter.__wrapped__):
        for chosen in (None, rows):
            weights = torch.rand(len(x if chosen is None else chosen), generator=g).double()
            first, second = torch.ones(d).double(), torch.ones(d, d).double()
            difference = (x if chosen is None else x[chosen]).double() - mean
            kernel(x, mean, weights, first, second, chosen)
            torch.testing.assert_close(first, 1 + weights @ difference)
            torch.testing.assert_close(second, 1 + (difference.T * weights) @ difference)
            assert torch.equal(second, second.T)
    first, second = torch.zeros(d).double(), torch.zeros(d, d).double()
    opcheck(torch.ops.pygen.add_scatter, (x, mean, weights, first, second, rows))


# More rows than a block has; more components than features.
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(0, 3, 2), (1, 1, 1), (30, 5, 3), (40_000, 8, 20)])
def test_linear_em_equals_its_definition(shape, dtype, weighted):
    n, d, k = shape
    g = torch.Generator().manual_seed(n)
    x = (100 + torch.randn(n, d, generator=g)).to(dtype)
    centre = torch.full((d,), 99.5).double()
    linear, constant = torch.randn(k, d, generator=g).double(), torch.randn(k, generator=g).double()
    common = torch.randn(n, generator=g).double()
    weights = torch.rand(n, generator=g).double() if weighted else None
    difference = x.double() - centre
    joint = constant + difference @ linear.T + common[:, None]
    each = torch.ones(n).double() if weights is None else weights
    resp = joint.softmax(1) * each[:, None]
    expected = resp.sum(0), resp.T @ difference, (joint.logsumexp(1) * each).sum()
    arguments = x, centre, linear, constant, common, weights
    torch.testing.assert_close(linear_em(*arguments), expected)
    if n < 100:
        opcheck(torch.ops.pygen.linear_em, arguments)


def test_linear_em_takes_larger_blocks_on_a_gpu():
    assert torch._C._dispatch_has_kernel_for_dispatch_key("pygen::linear_em", "CUDA")


def test_bits_do_not_depend_on_threads_or_memory_layout():
    x, rows, g = problem(700, 150, torch.float32)
    factor = torch.randn(150, 150, generator=g).triu()
    weights = torch.rand(len(rows), generator=g).double()
    threads = torch.get_num_threads()
    results = []
    try:
        for number, data in ((1, x), (2, x), (3, x), (2, x.T.contiguous().T)):
            torch.set_num_threads(number)
            sums = torch.zeros(150).double(), torch.zeros(150, 150).double()
            add_scatter(data, torch.full((150,), 100.0).double(), weights, *sums, rows)
            results.append((whitened_norms(data, x[0], factor, None, rows), *sums))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.skipif(native is None, reason="pygen._C was not built")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(4, 3).half()}, "x must be"),
        ({"rows": torch.tensor([0, 4])}, "rows must be"),
        ({"rows": torch.tensor([-1, 0])}, "rows must be"),
        ({"features": torch.tensor([0, 3])}, "features must be"),
        ({"centre": torch.zeros(3)}, "centre must be"),
        ({"factor": torch.zeros(3, 3)}, "factor must be"),
    ],
)
def test_whitened_norms_refuse_what_would_read_outside(change, message):
    arguments = {
        "x": torch.zeros(4, 3),
        "centre": torch.zeros(2),
        "factor": torch.zeros(2, 2),
        "features": torch.tensor([0, 2]),
        "rows": torch.tensor([0, 1]),
    }
    with pytest.raises(RuntimeError, match=message):
        whitened_norms(**{**arguments, **change})


@pytest.mark.skipif(native is None, reason="pygen._C was not built")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": torch.tensor([0, 4])}, "rows must be"),
        ({"weights": torch.ones(3).double()}, "weights must be"),
        ({"mean": torch.zeros(3)}, "mean and first"),
        ({"first": torch.zeros(2).double()}, "mean and first"),
        ({"second": torch.zeros(3, 2).double()}, "second must be"),
        ({"second": torch.zeros(6, 3).double()[::2]}, "must be contiguous"),
    ],
)
def test_scatter_refuses_what_would_write_outside(change, message):
    arguments = {
        "x": torch.zeros(4, 3),
        "mean": torch.zeros(3).double(),
        "weights": torch.ones(2).double(),
        "first": torch.zeros(3).double(),
        "second": torch.zeros(3, 3).double(),
        "rows": torch.tensor([0, 1]),
    }
    with pytest.raises(RuntimeError, match=message):
        add_scatter(**{**arguments, **change})
