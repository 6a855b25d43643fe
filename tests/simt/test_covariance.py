"""The CUDA kernels of full covariances, executed on the CPU: what they compute and where they write."""

import pytest
import torch
from harness import RUNS, Program

from pygen.ops.covariance import full_em
from pygen.ops.dense import add_scatter, whitened_norms
from pygen.ops.triangular import inverse_factors

# A launch under a sanitizer takes its time.
# In the order of pygen::Real.
DTYPES = [torch.float32, torch.float64]
FUNCTIONS = NORMS, SCATTER, EM, FACTORS = [
    f"pygen::launch_{name}"
    for name in ("whitened_norms", "add_scatter", "full_em", "inverse_factors")
]
PROGRAM = Program("csrc/covariance/cuda.h", FUNCTIONS, ["csrc/covariance/cuda.cu"])
PARTS = 264  # blocks that scatter_parts aims at
# Of the largest magnitude. float: three products in TF32 keep 22 bits of each number.
ERRORS = {torch.float32: 1e-6, torch.float64: 1e-14}


def nan(*size, dtype=torch.float64):
    return torch.full(size, torch.nan, dtype=dtype)


def close(found, expected, error):
    scale = expected.abs().max() if expected.numel() else 1
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=error * scale)


def data(n, d, dtype):
    g = torch.Generator().manual_seed(n + 1000 * d)
    x = (100 + torch.randn(n, d, generator=g, dtype=torch.float64)).to(dtype)
    return x, g


def check_norms(program, n, size, columns, dtype, triangular=True, fast=False, **options):
    x, g = data(n, size, dtype)
    factor = torch.randn(size, columns, generator=g, dtype=torch.float64).to(dtype)
    if triangular:
        factor = factor.triu()
        factor[:, 1::3] = 0
    centre = torch.full((size,), 99.5, dtype=dtype)
    heights = torch.full((-(-columns // 32),), -1)
    *_, heights, norms = program.call(
        NORMS,
        *(x, n, size, centre, factor, columns, heights, DTYPES.index(dtype), int(fast)),
        *(nan(n, dtype=dtype), None),
        **options,
    )
    ends = (factor != 0).int().mul(torch.arange(1, size + 1)[:, None])
    assert heights.tolist() == [
        int(strip.max()) if size else 0 for strip in ends.split(32, 1) if columns
    ]
    exact = x.double(), centre.double(), factor.double()
    error = 1e-3 if fast and dtype == torch.float32 else ERRORS[dtype]
    close(norms, whitened_norms.__wrapped__(*exact), error)


def check_scatter(program, n, d, dtype, chosen=None, **options):
    x, g = data(n, d, dtype)
    mean = 100 + torch.randn(d, generator=g, dtype=torch.float64)
    rows = None if chosen is None else torch.randint(n, (chosen,), generator=g)
    number = n if chosen is None else chosen
    weights = torch.rand(number, generator=g, dtype=torch.float64)
    tiles = -(-d // 64) * (-(-d // 64) + 1) // 2
    parts = max(1, PARTS // tiles) if tiles else 1
    first, second = torch.ones(d).double(), torch.ones(d, d).double()
    *_, first_sums, second_sums = program.call(
        SCATTER,
        *(x, n, d, mean, weights, rows, number, DTYPES.index(dtype), nan(parts * (d * d + d))),
        *(first, second, None),
        **options,
    )
    add_scatter.__wrapped__(x, mean, weights, first, second, rows)
    close(first_sums, first, 1e-14)
    close(second_sums, second, 1e-14)
    assert torch.equal(second_sums, second_sums.T)


def check_factors(program, k, d, **options):
    g = torch.Generator().manual_seed(d)
    rows = torch.randn(k, d + 5, d, generator=g, dtype=torch.float64)
    matrices = rows.mT @ rows
    positive = torch.zeros(k, dtype=torch.bool)
    *_, factors, positive = program.call(
        FACTORS, matrices.triu(), k, d, nan(k, d, d), positive, None, **options
    )
    assert positive.all()
    assert torch.equal(factors, factors.triu())
    close(factors, inverse_factors.__wrapped__(matrices)[0], 1e-11)


def exercise(program, **options):
    check_factors(program, 1, 66, **options)
    check_norms(program, 70, 70, 70, torch.float32, **options)
    check_norms(program, 70, 20, 70, torch.float64, **options)
    check_scatter(program, 2, 5, torch.float32, **options)
    check_em(program, 3, 2, 1, torch.float64, 3, **options)


@pytest.mark.parametrize(("mode", "backwards"), RUNS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "size", "columns", "triangular"),
    [(130, 33, 7, False), (30, 72, 72, True)],
)
def test_norms_are_the_operators(n, size, columns, triangular, dtype, backwards, mode):
    options = {"mode": mode, "backwards": backwards}
    check_norms(PROGRAM, n, size, columns, dtype, triangular, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_of_nothing_and_of_one(dtype):
    for n, size, columns in [(0, 5, 5), (5, 0, 0), (5, 3, 0), (1, 1, 1)]:
        check_norms(PROGRAM, n, size, columns, dtype, False, mode="address")


@pytest.mark.parametrize(("mode", "backwards"), RUNS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "d", "chosen"), [(1, 1, None), (20, 3, 30), (20, 65, None)])
def test_scatter_is_the_operators(n, d, chosen, dtype, backwards, mode):
    check_scatter(PROGRAM, n, d, dtype, chosen, mode=mode, backwards=backwards)


@pytest.mark.parametrize(("n", "d"), [(0, 5), (5, 0), (40, 200), (9000, 1)])
def test_scatter_of_nothing_of_several_tiles_and_of_several_slices(n, d):
    check_scatter(PROGRAM, n, d, torch.float32)


@pytest.mark.parametrize(("mode", "backwards"), RUNS)
@pytest.mark.parametrize(("k", "d"), [(3, 1), (2, 65), (1, 140)])
def test_factors_are_the_operators(k, d, backwards, mode):
    check_factors(PROGRAM, k, d, mode=mode, backwards=backwards)


def test_factors_of_nothing_and_of_whole_tiles():
    for k, d in [(0, 3), (2, 0), (2, 128), (1, 200)]:
        check_factors(PROGRAM, k, d)


@pytest.mark.parametrize("at", [0, 4, 63, 64, 69])
@pytest.mark.parametrize("value", [0, -1, torch.nan, torch.inf])
def test_a_matrix_that_is_not_positive_definite_is_named(value, at):
    matrices = torch.eye(70).double().repeat(3, 1, 1)
    matrices[:, 3, 5] = matrices[:, 5, 3] = 0.5
    matrices[1, at, at] = value
    *_, positive = PROGRAM.call(
        FACTORS, matrices, 3, 70, nan(3, 70, 70), torch.zeros(3, dtype=torch.bool), None
    )
    assert positive.tolist() == [True, False, True]


def test_norms_of_several_tiles_of_rows_and_columns():
    check_norms(PROGRAM, 130, 140, 140, torch.float32)
    check_norms(PROGRAM, 70, 8, 132, torch.float64, False)


def test_a_row_out_of_range_shows():
    for row in (-1, 4, 2**62):
        x, one = torch.ones(4, 3), torch.ones(3).double()
        *_, first, second = PROGRAM.call(
            SCATTER,
            *(x, 4, 3, one, torch.ones(2).double(), torch.tensor([0, row]), 2, 0),
            *(nan(PARTS * 12), one, torch.ones(3, 3).double(), None),
            mode="address",
        )
        assert first.isnan().all()
        assert second.isnan().all()


def bytes_needed(chunk, d, k, dtype):
    """As Layout of csrc/covariance/cuda.cu has it."""
    split = dtype == torch.float32
    tiles = k * (-(-d // 64) * (-(-d // 64) + 1) // 2)
    parts = max(1, PARTS // tiles)
    sums = parts * k * d * 8 if parts > 1 else 0
    sizes = [k * d * d * 4, k * d * 4, k * d * 4] if split else []
    sizes += [k * -(-d // 32) * 8, k * chunk * 8, k * chunk * 8, k * 8, -(-chunk // 128) * 8]
    columns = bounding_columns(d, k)
    bounding = [k * d * columns * dtype.itemsize, k * columns // 32 * 8, chunk * 4 * (columns > 0)]
    return sum(-(-size // 16) * 16 for size in [*sizes, sums, sums * d, *bounding])


def bounding_columns(d, k):
    return 0 if k == 1 or d < 256 else (d // 8 + 32) // 64 * 64


def problem(n, d, k, dtype, apart):
    """Rows of a random mixture far from 0, and what `full_em` takes beside them."""
    g = torch.Generator().manual_seed(n + d + k)

    def rand(*size):
        return torch.randn(*size, generator=g, dtype=torch.float64)

    means = 100 + apart * rand(k, d)
    x = (means[torch.randint(k, (n,), generator=g)] + rand(n, d)).to(dtype)
    factors = (torch.eye(d).double() + rand(k, d, d) / (5 * d**0.5)).triu()
    constant = factors.diagonal(dim1=1, dim2=2).log().sum(1) + rand(k)
    return x, means, factors, constant, rand(n).abs()


def run_em(program, x, means, factors, constant, weights, chunk, fast=False, **options):
    (n, d), k = x.shape, len(means)
    workspace = torch.full((bytes_needed(chunk, d, k, x.dtype),), 255, dtype=torch.uint8)
    return program.call(
        EM,
        *(x, n, d, means, factors, constant, weights, k, DTYPES.index(x.dtype), int(fast)),
        *(workspace, chunk, nan(k), nan(k, d), nan(k, d, d), nan(1), None),
        **options,
    )[-4:]


def check_em(program, n, d, k, dtype, chunk, weighted=True, apart=1.0, **options):
    x, means, factors, constant, weights = problem(n, d, k, dtype, apart)
    weights = weights if weighted else None
    results = run_em(program, x, means, factors, constant, weights, chunk, **options)
    *expected, log_likelihood = full_em.__wrapped__(x.double(), means, factors, constant, weights)
    error = 3e-6 if dtype == torch.float32 else 1e-13
    for found, wanted in zip(results, [*expected, log_likelihood[None]], strict=True):
        close(found, wanted, error)
    assert torch.equal(results[2], results[2].mT)


# One chunk and several; rows of one component and of all; more rows than a block takes at a time.
@pytest.mark.parametrize(("mode", "backwards"), RUNS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "d", "k", "chunk", "apart"),
    [(1, 1, 1, 1, 1), (40, 5, 3, 16, 0.1), (30, 70, 2, 30, 9)],
)
def test_em_is_the_operator(n, d, k, chunk, apart, dtype, backwards, mode):
    check_em(PROGRAM, n, d, k, dtype, chunk, True, apart, mode=mode, backwards=backwards)


def test_em_of_many_rows_without_weights_and_of_several_tiles():
    check_em(PROGRAM, 4100, 1, 1, torch.float32, 4100, weighted=False)
    check_em(PROGRAM, 9, 150, 45, torch.float32, 9)


# Bounds tell all components apart; they tell some; they tell none.
@pytest.mark.parametrize(("apart", "chunk"), [(1, 9), (0.2, 5), (0.01, 9)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_em_where_bounds_pay(dtype, apart, chunk):
    check_em(PROGRAM, 9, 258, 3, dtype, chunk, True, apart)


@pytest.mark.parametrize("mode", ["address", "thread"])
def test_em_where_bounds_pay_touches_nothing_else(mode):
    check_em(PROGRAM, 3, 256, 2, torch.float32, 3, True, 0.1, mode=mode, backwards=True)


def test_what_cannot_matter_is_not_computed():
    x, means, factors, constant, weights = problem(20, 260, 3, torch.float32, 1)
    means[0] += 10
    expected = full_em.__wrapped__(x.double(), means, factors, constant, weights)
    factors[0, :, 1] = torch.nan  # no bound is made of this column
    found = run_em(PROGRAM, x, means, factors, constant, weights, 20)
    close(found[3], expected[3][None], 3e-6)
    close(found[0], expected[0], 3e-6)


def test_fast_is_a_product_in_tf32():
    arguments = problem(70, 40, 3, torch.float32, 0.5)
    exact = full_em.__wrapped__(arguments[0].double(), *arguments[1:])[3]
    errors = [
        float((run_em(PROGRAM, *arguments, 70, fast=fast)[3] / exact - 1).abs())
        for fast in (False, True)
    ]
    assert errors[0] < 1e-6
    assert 1e-6 < errors[1] < 1e-3
    check_norms(PROGRAM, 130, 66, 66, torch.float32, fast=True)
    check_norms(PROGRAM, 130, 20, 40, torch.float32, fast=True, mode="address")
