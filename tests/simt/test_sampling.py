"""The CUDA kernels of the sampling family, executed on the CPU: what they compute and where they write."""

import pytest
import torch
from harness import MODES, RUNS, Program

from pygen import ops

# In the order of pygen::Real.
DTYPES = [torch.float32, torch.float64]

DIAGONAL, FACTOR, PICK = (
    f"pygen::launch_{name}" for name in ("sample_diagonal", "sample_factor", "pick")
)
PROGRAM = Program("csrc/sampling/sampling.h", [DIAGONAL, FACTOR, PICK], ["csrc/sampling/cuda.cu"])
SEED, OFFSET = 77, 2**32 - 5
FAST_ERROR = 1e-5  # of a normal draw, as the operator documents it


def parameters(n, d, k, dtype, scales):
    generator = torch.Generator().manual_seed(d)
    index = torch.randint(0, k, (n,), generator=generator)
    means = torch.randn(k, d, generator=generator, dtype=dtype)
    return index, means, torch.randn(scales, generator=generator, dtype=dtype)


def expected_rows(index, means, scales):
    state = torch.tensor([SEED, OFFSET])
    inside = (index >= 0) & (index < len(means))
    rows = ops.sample_gaussians.__wrapped__(state, index * inside, means, scales)
    return rows.where(inside[:, None], torch.nan), state


def check_diagonal(program, n, d, dtype, scales, unknown=(), fast=False, **options):
    index, means, scales = parameters(n, d, scales[0] if scales[0] > 1 else 3, dtype, scales)
    for place, value in unknown:
        index[place] = value
    stride = 0 if len(scales) == 1 else scales.shape[1]
    state, *_, out = program.call(
        DIAGONAL,
        torch.tensor([SEED, OFFSET]),
        *(index, means, scales, n, d, len(means), stride, int(scales.shape[1] == 1)),
        *(DTYPES.index(dtype), int(fast), torch.full((n, d), torch.inf, dtype=dtype), None),
        **options,
    )
    expected, after = expected_rows(index, means, scales)
    assert torch.equal(state, after)
    error = FAST_ERROR * scales.abs().max().item() if fast and dtype == torch.float32 else 0
    torch.testing.assert_close(out, expected, rtol=0, atol=error, equal_nan=True)


def check_factor(
    program, n, d, k, dtype, tied=False, unknown=(), noise_tiles=3, fast=False, **options
):
    index, means, factors = parameters(n, d, k, dtype, (1 if tied else k, d, d))
    factors = factors.tril() * torch.logspace(-3, 3, d, dtype=dtype)[:, None]
    for place, value in unknown:
        index[place] = value
    sorted_index, order = index.sort(stable=True)
    # As Layout of csrc/sampling/cuda.cu has it.
    split = dtype == torch.float32
    depth = -(-d // 32) * 32 if split else -(-d // 16) * 16
    parts = (k + 1) * 8, (n // 128 + k) * 16
    parts += (len(factors) * d * 4, len(factors) * d * depth * 4) if split else ()
    bytes_needed = sum(-(-p // 16) * 16 for p in parts) + noise_tiles * 128 * depth * dtype.itemsize
    state, *_, out = program.call(
        FACTOR,
        torch.tensor([SEED, OFFSET]),
        *(sorted_index, order, means, factors, n, d, k, len(factors)),
        *(DTYPES.index(dtype), int(fast)),
        torch.full((bytes_needed,), 255, dtype=torch.uint8),
        *(noise_tiles, torch.full((n, d), torch.inf, dtype=dtype), None),
        **options,
    )
    expected, after = expected_rows(index, means, factors)
    assert torch.equal(state, after)
    # Relative to what a row's numbers add up to.
    size = factors.abs().sum((0, 2)) + 1
    error = 4 * torch.finfo(dtype).eps
    if fast and dtype == torch.float32:
        error += FAST_ERROR
    torch.testing.assert_close(out / size, expected / size, rtol=0, atol=error, equal_nan=True)


def check_pick(program, n, k, **options):
    weights = torch.rand(k, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
    weights[1::3] = 0
    state, _, totals, out = program.call(
        PICK,
        torch.tensor([SEED, OFFSET]),
        *(weights, k, n, torch.full((k,), torch.nan, dtype=torch.float64)),
        *(torch.full((n,), -1), None),
        **options,
    )
    after = torch.tensor([SEED, OFFSET])
    assert torch.equal(out, ops.pick.__wrapped__(after, weights, n))
    assert torch.equal(state, after)
    assert torch.equal(totals, weights.cumsum(0)) or n == 0


def exercise(program, **options):
    check_factor(program, 130, 70, 1, torch.float32, **options)
    check_factor(program, 20, 40, 1, torch.float64, **options)


DIAGONAL_CASES = [
    (1, 1, (3, 1)),
    (50, 4, (3, 4)),
    (70, 7, (3, 7)),
    (9, 33, (1, 33)),
    (300, 12, (1, 1)),
    (30, 260, (3, 260)),
    (0, 5, (3, 5)),
    (5, 0, (3, 0)),
    (2500, 3, (3, 3)),
]


# One multiprocessor is filled by 8 blocks of 256 threads: 2500 rows of one block of draws stride over them.
@pytest.mark.parametrize(
    ("mode", "backwards", "n", "d", "scales"),
    [
        (*run, *case)
        for run in RUNS
        for case in DIAGONAL_CASES
        if run[0] != "thread" or case[0] < 99
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_diagonal_samples_have_the_operators_bits(n, d, scales, dtype, backwards, mode):
    options = {"mode": mode, "backwards": backwards, "multiprocessors": 1}
    check_diagonal(PROGRAM, n, d, dtype, scales, **options)


FACTOR_CASES = [
    (1, 1, 1),
    (300, 5, 4),
    (260, 33, 2),
    (40, 129, 3),
    (9, 150, 3),
    (0, 3, 2),
    (3, 0, 2),
]


@pytest.mark.parametrize(
    ("mode", "n", "d", "k"),
    [(mode, *case) for mode in MODES for case in FACTOR_CASES if mode != "thread" or case[1] < 99],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_samples_by_factors_are_the_operators(n, d, k, dtype, mode):
    check_factor(PROGRAM, n, d, k, dtype, mode=mode)
    if mode == "plain":
        check_factor(PROGRAM, n, d, k, dtype, mode=mode, backwards=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_factor_for_all_components_and_one_tile_at_a_time(dtype):
    check_factor(PROGRAM, 300, 20, 3, dtype, tied=True, noise_tiles=1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_fast_noise_is_the_exact_one_within_its_error(dtype):
    check_diagonal(PROGRAM, 20, 8, dtype, (3, 8), fast=True)
    check_diagonal(PROGRAM, 20, 9, dtype, (3, 9), fast=True)
    check_factor(PROGRAM, 20, 33, 3, dtype, fast=True)


@pytest.mark.parametrize("mode", ["plain", "address"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_no_component_are_nan(dtype, mode):
    unknown = (0, -1), (7, 3), (8, 2**40), (19, -(2**60))
    check_diagonal(PROGRAM, 20, 8, dtype, (3, 8), unknown, mode=mode)
    check_diagonal(PROGRAM, 20, 9, dtype, (3, 9), unknown, mode=mode)
    check_factor(PROGRAM, 20, 8, 3, dtype, unknown=unknown, mode=mode)


def test_factors_of_any_size_are_split():
    """Zeros, numbers below the smallest normal one and large ones; what is not finite stays so, in its row."""
    d = 8
    index, means = torch.zeros(3, dtype=torch.int64), torch.zeros(1, d)
    factor = torch.eye(d) * torch.tensor([0, 1e-42, 1e-30, 1.0, 1e30, 3e38, torch.inf, torch.nan])
    factor = factor.nan_to_num(0, torch.inf, -torch.inf)
    factor[7, 7] = torch.nan
    sorted_index, order = index.sort(stable=True)
    workspace = torch.zeros(2**17, dtype=torch.uint8)
    *_, out = PROGRAM.call(
        FACTOR,
        torch.tensor([SEED, OFFSET]),
        *(
            sorted_index,
            order,
            means,
            factor,
            3,
            d,
            1,
            1,
            0,
            0,
            workspace,
            1,
            torch.empty(3, d),
            None,
        ),
    )
    eps = ops.normal(torch.tensor([SEED, OFFSET]), [3, d])
    expected = eps * factor.diagonal()
    torch.testing.assert_close(out[:, :6], expected[:, :6], rtol=1e-6, atol=1e-43)
    assert not out[:, 6:].isfinite().any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(("n", "k"), [(0, 3), (1, 1), (7, 5), (1030, 300)])
def test_picks_are_the_operators(n, k, backwards, mode):
    check_pick(PROGRAM, n, k, mode=mode, backwards=backwards)
