"""The CUDA kernels of the kmeans family, executed on the CPU: what they compute and where they write."""

import pytest
import torch
from harness import RUNS, Program

from pygen.ops.kmeans import closer, lloyd
from pygen.ops.moments import moments

FUNCTIONS = MOMENTS, MOMENTS_BYTES, CLOSER, CLOSER_BYTES, LLOYD, LLOYD_BYTES = tuple(
    f"pygen::{name}"
    for operator in ("moments", "closer", "lloyd")
    for name in (f"launch_{operator}", f"{operator}_bytes")
)
PROGRAM = Program("csrc/kmeans/cuda.h", FUNCTIONS, ["csrc/kmeans/cuda.cu"])
DTYPES = [torch.float32, torch.float64]


def workspace(function, *sizes):
    *_, needed = PROGRAM.call(function, *sizes, torch.zeros(1, dtype=torch.int64))
    return torch.full((int(needed),), 255, dtype=torch.uint8)


def nan(*size, dtype=torch.float64):
    return torch.full(size, torch.nan, dtype=dtype)


def entries(n, d, k, dtype, pairs=None):
    """Rows far from zero, and groups of which one has half the entries and another none."""
    g = torch.Generator().manual_seed(n + d + k)
    x = (100 + torch.randn(n, d, generator=g, dtype=torch.float64)).to(dtype)
    means = 100 + torch.randn(k, d, generator=g, dtype=torch.float64)
    groups = torch.randint(k, (n if pairs is None else pairs,), generator=g)
    groups[groups == 1] = 0
    groups[torch.rand(len(groups), generator=g) < 0.5] = k - 1
    if pairs is None:
        return x, groups, means
    weights = torch.rand(pairs, generator=g, dtype=torch.float64)
    return x, groups, means, weights, torch.randint(n, (pairs,), generator=g)


def run_moments(program, x, groups, means, weights=None, rows=None, **options):
    (n, d), k = x.shape, len(means)
    return program.call(
        MOMENTS,
        *(x, groups, means, weights, rows, n, len(groups), k, d, int(x.dtype == torch.float64)),
        workspace(MOMENTS_BYTES, len(groups), k, d),
        *(nan(k), nan(k, d), nan(k, d)),
        None,
        **options,
    )[-3:]


def check_moments(program, n, d, k, dtype, pairs=None, **options):
    arguments = entries(n, d, k, dtype, pairs)
    found = run_moments(program, *arguments, **options)
    expected = moments.__wrapped__(arguments[0].double(), *arguments[1:])
    for mine, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-11, atol=1e-9)


def check_closer(program, n, d, k, dtype, offset=100.0, **options):
    """Centres and rows that both precisions have exactly."""
    g = torch.Generator().manual_seed(n + d + k)
    x, centres = (
        torch.randn(size, d, generator=g).mul(64).round() / 64 + offset for size in (n, k)
    )
    centres = centres.double()
    closest = 4 * d * torch.rand(n, generator=g, dtype=torch.float64)
    double = int(dtype == torch.float64)
    arguments = (x.to(dtype), centres, closest, n, d, k, double)
    scratch = workspace(CLOSER_BYTES, k, d, double)
    *_, found = program.call(CLOSER, *arguments, scratch, nan(k, n), None, **options)
    expected = torch.empty(k, n).double()
    closer.__wrapped__(x.double(), centres, closest, expected)
    # Sums of some hundred squares.
    tolerance = 1e-11 if double else 2e-6
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=1e-9)


def scattered(n, d, k, dtype):
    """Rows in six heaps, and centres of which three are so placed that no row is theirs."""
    g = torch.Generator().manual_seed(n + d + k)
    x = torch.randn(n, d, generator=g) + 3 * torch.randn(6, d, generator=g)[torch.arange(n) % 6]
    centres = x[torch.randperm(n, generator=g)[:k]].double()
    if k > 4:
        centres[2] = centres[1]
        centres[3:5] = 1000
    weights = torch.randint(0, 3, (n,), generator=g).double()
    weights[0] = 1
    return x.to(dtype), centres, weights


def run_lloyd(program, x, centres, weights, max_iter, threshold, **options):
    (n, d), k, double = x.shape, len(centres), int(x.dtype == torch.float64)
    return program.call(
        LLOYD,
        *(x, centres, weights, n, d, k, max_iter, threshold, double),
        workspace(LLOYD_BYTES, n, d, k, double),
        *(torch.full((n,), -7), nan(k, d)),
        None,
        **options,
    )[-2:]


def check_lloyd(program, n, d, k, dtype, steps=6, threshold=0.0, weighted=True, **options):
    x, centres, weights = scattered(n, d, k, dtype)
    arguments = centres, weights if weighted else None, steps, threshold
    labels, moved = run_lloyd(program, x, *arguments, **options)
    expected, where = lloyd.__wrapped__(x.double(), *arguments)
    assert torch.equal(labels, expected)
    tolerance = 1e-11 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(moved, where, rtol=tolerance, atol=tolerance)


def exercise(program, **options):
    check_moments(program, 100, 9, 3, torch.float32, **options)
    check_closer(program, 20, 70, 3, torch.float32, **options)
    check_lloyd(program, 300, 20, 65, torch.float32, steps=2, weighted=False, **options)


# Several blocks, runs that end in them, columns over several blocks, odd sizes.
MOMENTS_CASES = [
    (1, 1, 1, None),
    (1100, 5, 4, None),
    (600, 64, 70, 1300),
    (20, 1030, 2, None),
    (40, 3, 200, 60),
    (0, 3, 2, None),
    (5, 0, 3, 9),
]


def in_modes(cases, racy):
    """Under ThreadSanitizer, which is slow, those that keep all warps busy."""
    return [(*run, *case) for run in RUNS for case in (racy if run[0] == "thread" else cases)]


@pytest.mark.parametrize(
    ("mode", "backwards", "n", "d", "k", "pairs"),
    in_modes(MOMENTS_CASES, [(700, 5, 4, None), (100, 66, 3, 600)]),
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_moments_are_the_operators(n, d, k, pairs, dtype, backwards, mode):
    check_moments(PROGRAM, n, d, k, dtype, pairs, mode=mode, backwards=backwards)


def test_more_groups_than_the_scan_takes_at_once():
    check_moments(PROGRAM, 40, 3, 5000, torch.float32, 60)


def test_moments_do_not_depend_on_the_order_of_blocks():
    arguments = entries(5000, 7, 3, torch.float32, 9000)
    first = run_moments(PROGRAM, *arguments)
    assert all(map(torch.equal, first, run_moments(PROGRAM, *arguments, backwards=True)))


def test_what_lies_outside_is_not_read_and_shows():
    x, groups, means, weights, rows = entries(40, 3, 4, torch.float32, 50)
    groups[:] = 1
    groups[3], rows[7] = 9, 40
    groups[7] = 0
    counts, *_ = run_moments(PROGRAM, x, groups, means, weights, rows, mode="address")
    assert counts.isnan().tolist() == [True, False, False, True]
    assert counts[2] == 0


@pytest.mark.parametrize(
    ("mode", "backwards", "n", "d", "k"),
    in_modes(
        [(1, 1, 1), (300, 5, 9), (150, 68, 70), (20, 130, 33), (0, 3, 2), (3, 0, 2)],
        [(140, 66, 3), (130, 68, 35)],
    ),
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_closer_is_the_operators(n, d, k, dtype, backwards, mode):
    check_closer(PROGRAM, n, d, k, dtype, mode=mode, backwards=backwards)


def test_distances_of_data_far_from_zero():
    check_closer(PROGRAM, 40, 20, 3, torch.float32, offset=1e4)


@pytest.mark.parametrize(
    ("mode", "backwards", "n", "d", "k"),
    in_modes(
        [(1, 1, 1), (1100, 2, 9), (150, 68, 70), (80, 130, 40), (3, 0, 2)],
        [(140, 17, 6), (130, 5, 40)],
    ),
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_lloyd_is_the_operators(n, d, k, dtype, backwards, mode):
    steps = {"plain": 30, "address": 3, "thread": 3}[mode]
    check_lloyd(PROGRAM, n, d, k, dtype, steps, weighted=n % 2 == 0, mode=mode, backwards=backwards)


@pytest.mark.parametrize("steps", [1, 2, 3, 9])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 50.0, 1e9])
def test_lloyd_stops_where_the_operator_does(steps, threshold):
    check_lloyd(PROGRAM, 300, 3, 8, torch.float64, steps, threshold)


def test_of_centres_at_the_same_distance_the_first_is_a_rows():
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    centres = torch.tensor([[3.0], [-1.0], [-1.0], [3.0]]).double()
    labels, _ = run_lloyd(PROGRAM, x, centres, None, 1, 0.0)
    assert labels.tolist() == [1, 0, 0, 0]


def test_more_empty_centres_than_rows_that_count():
    x, weights = torch.arange(6.0)[:, None], torch.tensor([1, 0, 2, 0, 0, 1]).double()
    centres = torch.full((5, 1), 9.0, dtype=torch.float64)
    centres[0] = 1
    labels, moved = run_lloyd(PROGRAM, x, centres, weights, 1, 0.0, mode="address")
    assert labels.tolist() == [0, 0, 0, 0, 0, 0]
    assert moved.flatten().tolist() == [9 / 4, 5, 0, 2, 9]


def test_what_barriers_are_tested_by_is_right():
    exercise(PROGRAM)
