"""The CUDA kernels of the mixture family, executed on the CPU: what they compute and where they write."""

import pytest
import torch
from harness import RUNS, Program

from pygen.ops.diagonal import diagonal_em, diagonal_log_joint

EM, LOG_JOINT, EM_BYTES, LOG_JOINT_BYTES = (
    f"pygen::{name}"
    for name in (
        "launch_diagonal_em",
        "launch_diagonal_log_joint",
        "diagonal_em_bytes",
        "diagonal_log_joint_bytes",
    )
)
PROGRAM = Program(
    "csrc/mixture/cuda.h", [EM, LOG_JOINT, EM_BYTES, LOG_JOINT_BYTES], ["csrc/mixture/cuda.cu"]
)
DTYPES = [torch.float32, torch.float64]
# Of numbers of order 100: float32 rounds a hundred of them, and what it settles exactly is kept in float32.
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-11}


def problem(n, d, k, dtype, spread=1.0, offset=0.0):
    """Rows around components that are so far apart: those near one another share rows."""
    generator = torch.Generator().manual_seed(n + d + k)
    randn = lambda *size: torch.randn(*size, generator=generator, dtype=torch.float64)  # noqa: E731
    means, deviations = spread * randn(k, d), (0.3 * randn(k, d)).exp()
    labels = torch.randint(k, (n,), generator=generator)
    x = (means[labels] + deviations[labels] * randn(n, d) + offset).to(dtype)
    constant = randn(k).log_softmax(0) - deviations.log().sum(1)
    return x, means + offset, deviations**-2, constant


def workspace(function, *sizes):
    *_, bytes_needed = PROGRAM.call(function, *sizes, torch.zeros(1, dtype=torch.int64))
    return torch.full((int(bytes_needed),), 255, dtype=torch.uint8)


def run_em(program, x, means, precisions, constant, weights=None, rows=128, fast=False, **options):
    (n, d), k, double = x.shape, len(means), int(x.dtype == torch.float64)
    empty = (
        torch.full(size, torch.nan, dtype=torch.float64) for size in ((k,), (k, d), (k, d), ())
    )
    scratch = workspace(EM_BYTES, rows, k, d, double)
    arguments = (x, means, precisions, constant, weights, rows, n, k, d, double, int(fast))
    return program.call(EM, *arguments, scratch, *empty, None, **options)[-4:]


def run_log_joint(program, x, means, precisions, constant, settle=True, fast=False, **options):
    (n, d), k, double = x.shape, len(means), int(x.dtype == torch.float64)
    return program.call(
        LOG_JOINT,
        *(x, means, precisions, constant, n, k, d, double, int(settle), int(fast)),
        workspace(LOG_JOINT_BYTES, n, k, d, double),
        torch.full((k, n), torch.nan, dtype=x.dtype),
        torch.full((n,), torch.nan, dtype=torch.float64),
        None,
        **options,
    )[-2:]


def assert_sums(found, expected, dtype, n):
    for mine, wanted in zip(found, expected, strict=True):
        scale = 1 + wanted.abs().max().item() if wanted.numel() else 1
        torch.testing.assert_close(
            mine / scale, wanted / scale, rtol=0, atol=TOLERANCES[dtype] * n**0.5
        )


def check_em(program, n, d, k, dtype, weighted=False, rows=128, spread=1.0, **options):
    x, *parameters = problem(n, d, k, dtype, spread)
    weights = None
    if weighted:
        weights = torch.rand(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        weights[::3] = 0
    found = run_em(program, x, *parameters, weights, rows, **options)
    assert_sums(found, diagonal_em(x.double(), *parameters, weights), dtype, n)


def check_log_joint(program, n, d, k, dtype, settle=True, spread=1.0, **options):
    x, *parameters = problem(n, d, k, dtype, spread)
    relative, largest = run_log_joint(program, x, *parameters, settle, **options)
    wanted, top = diagonal_log_joint(x.double(), *parameters)
    error = TOLERANCES[dtype] * (1 + wanted.abs().max().item()) if wanted.numel() else 1
    torch.testing.assert_close(largest, top, rtol=0, atol=error)
    torch.testing.assert_close(relative.double(), wanted, rtol=0, atol=2 * error)
    return relative, wanted


def exercise(program, **options):
    check_em(program, 40, 34, 3, torch.float32, spread=0.3, **options)
    check_em(program, 20, 34, 2, torch.float64, **options)
    # Those that are screened, without close calls and with too many.
    for spread in (1.0, 0.05):
        check_em(program, 40, 130, 17, torch.float32, spread=spread, **options)


# Rows over several chunks and tiles, components over several tiles, columns over several blocks, odd sizes.
CASES = [(1, 1, 1), (300, 5, 4), (129, 64, 70), (20, 1030, 2), (5, 3, 130), (0, 3, 2), (3, 0, 2)]
SOME = [(1, 1, 1), (129, 40, 9), (3, 0, 2)]


def in_modes(*cases):
    """Under ThreadSanitizer, which is slow, two that keep all warps and stages busy."""
    racy = (300, 5, 4), (40, 66, 9)
    return [(*run, *case) for run in RUNS for case in (racy if run[0] == "thread" else cases)]


@pytest.mark.parametrize(("mode", "backwards", "n", "d", "k"), in_modes(*CASES))
@pytest.mark.parametrize("dtype", DTYPES)
def test_em_is_the_operators(n, d, k, dtype, backwards, mode):
    check_em(PROGRAM, n, d, k, dtype, weighted=n % 2 == 1, mode=mode, backwards=backwards)


@pytest.mark.parametrize(("mode", "backwards", "n", "d", "k"), in_modes(*SOME))
@pytest.mark.parametrize("dtype", DTYPES)
def test_log_joint_is_the_operators(n, d, k, dtype, backwards, mode):
    check_log_joint(PROGRAM, n, d, k, dtype, mode=mode, backwards=backwards)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_over_segments_do_not_depend_on_the_order_of_blocks(dtype):
    """More rows in a chunk than a block lists at a time."""
    x, *parameters = problem(4100, 3, 2, dtype)
    found = run_em(PROGRAM, x, *parameters, rows=4096)
    assert_sums(found, diagonal_em(x.double(), *parameters), dtype, 4100)
    again = run_em(PROGRAM, x, *parameters, rows=4096, backwards=True)
    for mine, other in zip(found, again, strict=True):
        assert torch.equal(mine, other)


def test_what_float32_cannot_tell_is_settled_in_float64():
    """Components that hardly vary, far from each other and from the centre: terms of 1e10 nats cancel."""
    n, d, k = 150, 12, 3
    x, means, precisions, constant = problem(n, d, k, torch.float32, spread=100.0)
    means[2] = means[1]
    precisions *= 1e6
    x[:] = means[torch.arange(n) % k].float()
    x += 1e-3 * torch.randn(n, d, generator=torch.Generator().manual_seed(1))
    parameters = means, precisions, constant
    expected = diagonal_em(x.double(), *parameters)
    found = run_em(PROGRAM, x, *parameters)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=0)
    torch.testing.assert_close(found[3], expected[3], rtol=1e-6, atol=0)
    wanted, top = diagonal_log_joint(x.double(), *parameters)
    errors = []
    for settle in (True, False):
        relative, largest = run_log_joint(PROGRAM, x, *parameters, settle)
        errors.append((largest - top).abs().max().item())
        if settle:
            close = wanted > -20
            torch.testing.assert_close(relative.double()[close], wanted[close], rtol=0, atol=1e-5)
    assert errors[0] < 1e-5
    assert errors[1] > 1


def test_data_far_from_zero():
    x, *parameters = problem(300, 12, 4, torch.float32, offset=1000.0)
    found = run_em(PROGRAM, x, *parameters)
    assert_sums(found, diagonal_em(x.double(), *parameters), torch.float32, 300)


def test_a_row_far_from_everything_has_a_density():
    x, *parameters = problem(40, 8, 3, torch.float32)
    x[7] = 1e6
    found = run_em(PROGRAM, x, *parameters)
    wanted = diagonal_em(x.double(), *parameters)
    assert all(f.isfinite().all() for f in found)
    torch.testing.assert_close(found[3], wanted[3], rtol=1e-6, atol=0)
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-5, atol=0)


@pytest.mark.parametrize(("mode", "backwards"), RUNS[:2])
@pytest.mark.parametrize(
    "spread", [pytest.param(1.0, id="few close"), pytest.param(0.05, id="many close")]
)
def test_screened_em_is_the_operators(spread, backwards, mode):
    check_em(
        PROGRAM, 150, 133, 20, torch.float32, True, spread=spread, mode=mode, backwards=backwards
    )


def test_rows_with_many_close_components_beside_rows_with_few():
    """Of four groups of 32 rows in a tile, two lie where components overlap."""
    n, d, k = 128, 144, 30
    x, means, precisions, constant = problem(n, d, k, torch.float32)
    means[10:] = means[10] + 0.02 * means[10:]
    precisions[10:] = precisions[10]
    labels = torch.arange(n) % 10 + 10 * (torch.arange(n) // 32 % 2)
    generator = torch.Generator().manual_seed(3)
    x = (means[labels] + torch.randn(n, d, generator=generator) / precisions[labels].sqrt()).float()
    parameters = means, precisions, constant
    close = (diagonal_log_joint(x.double(), *parameters)[0] > -20).sum(0).view(4, 32).sum(1)
    assert (close > 64).tolist() == [False, True, False, True]
    expected = diagonal_em(x.double(), *parameters)
    assert_sums(run_em(PROGRAM, x, *parameters), expected, torch.float32, n)


@pytest.mark.parametrize("spread", [0.2, 3.0])
def test_fast_densities_are_as_good_as_is_claimed(spread):
    n, d, k = 70, 200, 9
    x, means, precisions, constant = problem(n, d, k, torch.float32, spread)
    precisions *= torch.logspace(-2, 4, d, dtype=torch.float64)
    parameters = means, precisions, constant
    relative, largest = run_log_joint(PROGRAM, x, *parameters, settle=False, fast=True)
    wanted, top = diagonal_log_joint(x.double(), *parameters)
    exact, centre = wanted + top, (precisions * means).sum(0) / precisions.sum(0)
    terms = 3 * (constant[:, None] - exact)
    terms += 2.5 * (precisions * (means - centre).square()).sum(1)[:, None]
    share = ((relative + largest - exact).abs() / terms).max().item()
    # 2^-10 and what the additions lose; far less would mean that more than one product is taken.
    assert 2**-16 < share < 2**-10 + 208 * 2**-21


def test_close_calls_of_fast_densities_are_settled_where_that_is_asked_for():
    x, *parameters = problem(60, 130, 3, torch.float32, spread=0.2)
    relative, largest = run_log_joint(PROGRAM, x, *parameters, fast=True)
    wanted, top = diagonal_log_joint(x.double(), *parameters)
    close = wanted > -20
    rows = close.sum(0) > 1
    assert 0 < rows.sum() < 60
    torch.testing.assert_close(largest[rows], top[rows], rtol=0, atol=1e-10)
    close &= rows
    torch.testing.assert_close(relative[close].double(), wanted[close], rtol=0, atol=1e-4)


def test_fast_em_is_nearly_as_good():
    x, *parameters = problem(200, 133, 6, torch.float32, spread=0.3)
    found = run_em(PROGRAM, x, *parameters, fast=True)
    expected = diagonal_em(x.double(), *parameters)
    torch.testing.assert_close(found[3], expected[3], rtol=1e-6, atol=0)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=0.1)
