"""What only a GPU can show of `sample_gaussians` and `pick`; tests/ops/test_sampling.py runs on it too."""

import pytest
import torch

from pygen import ops
from pygen.random import new_state

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

FLOAT = [torch.float32, torch.float64]


def problem(n, d, k, dtype, kind, seed):
    generator = torch.Generator("cuda").manual_seed(seed)
    options = {"generator": generator, "device": "cuda", "dtype": dtype}
    index = torch.randint(k, (n,), generator=generator, device="cuda")
    means = torch.randn(k, d, **options)
    if kind == "diag":
        return new_state(seed, "cuda"), index, means, torch.rand(k, d, **options) + 0.5
    return new_state(seed, "cuda"), index, means, torch.randn(k, d, d, **options).tril() / d**0.5


def test_cuda_kernels_are_the_ones_that_run(kernels):
    for name in ("sample_gaussians", "pick"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"pygen::{name}", "CUDA")


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", FLOAT)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (100_003, 3), (70_000, 64), (5000, 784), (3, 50_001)])
def test_diagonal_samples_have_the_cpus_bits(kernels, dtype, n, d, seed):
    arguments = problem(n, d, 7, dtype, "diag", seed)
    others = [x.cpu() for x in arguments]
    for _ in range(2):
        found, expected = ops.sample_gaussians(*arguments), ops.sample_gaussians(*others)
        assert torch.equal(found.cpu(), expected)
        assert arguments[0].tolist() == others[0].tolist()


# The last has noise for more tiles than are drawn at a time.
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", FLOAT)
@pytest.mark.parametrize(
    ("n", "d", "k"), [(7, 784, 3), (20_000, 65, 300), (30_000, 16, 2), (90_000, 784, 3)]
)
def test_samples_by_factors_against_float64(dtype, n, d, k, seed):
    state, index, means, factors = problem(n, d, k, dtype, "full", seed)
    start = state.cpu()
    x = ops.sample_gaussians(state, index, means, factors)
    eps = ops.normal(start, [n, d + -d % 4], dtype)[:, :d]
    assert state.tolist() == start.tolist()
    for component in range(k):
        rows = (index == component).nonzero()[:500, 0]
        own = eps[rows.cpu()].to("cuda", torch.float64)
        expected = means[component].double() + own @ factors[component].double().T
        # Ten times what plain float32 products of this length are off, of numbers of order 1.
        error = 10 * torch.finfo(dtype).eps * d**0.5
        torch.testing.assert_close(x[rows].double(), expected, rtol=0, atol=error)


@pytest.mark.parametrize("dtype", FLOAT)
def test_a_rows_bits_do_not_depend_on_the_rows_beside_it(kernels, dtype, seed):
    state, index, means, factors = problem(3000, 130, 5, dtype, "full", seed)
    whole = ops.sample_gaussians(state.clone(), index, means, factors)
    for _ in range(5):
        assert torch.equal(ops.sample_gaussians(state.clone(), index, means, factors), whole)
    others = (index + 1) % 5
    others[::7] = index[::7]
    assert torch.equal(ops.sample_gaussians(state, others, means, factors)[::7], whole[::7])


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_fast_noise_is_the_exact_one_within_its_error(kernels, kind, seed):
    state, index, means, scales = problem(5000, 64, 5, torch.float32, kind, seed)
    exact = ops.sample_gaussians(state.clone(), index, means, scales)
    fast = ops.sample_gaussians(state, index, means, scales, fast=True)
    torch.testing.assert_close(fast, exact, rtol=0, atol=1e-4)
    assert not torch.equal(fast, exact)


def test_addresses_that_are_not_aligned(seed):
    for kind in ("diag", "full"):
        state, index, means, scales = problem(500, 64, 5, torch.float32, kind, seed)
        expected = ops.sample_gaussians(state.clone(), index, means, scales)
        moved = []
        for x in (means, scales):
            buffer = torch.empty(x.numel() + 1, device="cuda")
            moved.append(buffer[1:].view_as(x).copy_(x))
        assert torch.equal(ops.sample_gaussians(state, index, *moved), expected)


@pytest.mark.parametrize("kind", ["diag", "full"])
@pytest.mark.parametrize("dtype", FLOAT)
def test_rows_of_no_component_are_nan(kernels, dtype, kind, seed):
    state, index, means, scales = problem(1000, 33, 3, dtype, kind, seed)
    expected = ops.sample_gaussians(state.clone(), index, means, scales)
    unknown = torch.tensor([0, 500, 999], device="cuda")
    index[unknown] = torch.tensor([-1, 3, 2**62], device="cuda")
    expected[unknown] = torch.nan
    found = ops.sample_gaussians(state, index, means, scales)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_no_host_synchronisation(kernels, seed):
    problems = [problem(1000, 33, 3, torch.float32, kind, seed) for kind in ("diag", "full")]
    state, weights = new_state(seed, "cuda"), torch.ones(7, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for arguments in problems:
            ops.sample_gaussians(*arguments)
        ops.pick(state, weights, 1000)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_more_than_two_to_the_31_elements(kernels, kind):
    d = 256
    n = 2**31 // d + 1001
    if torch.cuda.mem_get_info()[0] < 1.5 * 4 * n * d:
        pytest.skip("not enough device memory")
    _, index, means, scales = problem(n, d, 3, torch.float32, kind, 5)
    x = ops.sample_gaussians(new_state(5, "cuda"), index, means, scales)
    for start in (0, n // 2, n - 1000):
        later = torch.tensor([5, start * d // 4])
        part = index[start : start + 1000].cpu()
        expected = ops.sample_gaussians(later, part, means.cpu(), scales.cpu())
        torch.testing.assert_close(x[start : start + 1000].cpu(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("n", [1, 3, 1_000_003])
def test_picks_are_the_cpus(kernels, n, seed):
    weights = torch.rand(1000, generator=torch.Generator().manual_seed(seed))
    state, other = new_state(seed, "cuda"), new_state(seed)
    for _ in range(2):
        found = ops.pick(state, weights.cuda(), n)
        assert torch.equal(found.cpu(), ops.pick(other, weights, n))
        assert state.tolist() == other.tolist()
