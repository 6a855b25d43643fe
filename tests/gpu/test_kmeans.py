"""What only a GPU can show of k-means and of sums over groups; tests/ops/test_kmeans.py has their definitions."""

import pytest
import torch

from pygen.ops.kmeans import closer, lloyd
from pygen.ops.moments import moments

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

FLOAT = [torch.float32, torch.float64]


def problem(n, d, k, dtype, seed, weighted=True):
    """Rows around centres, the group of each, the centres, and weights of which some are 0."""
    g = torch.Generator("cuda").manual_seed(seed)
    options = {"generator": g, "device": "cuda", "dtype": torch.float64}
    centres = 10 + torch.randn(k, d, **options)
    groups = torch.randint(k, (n,), generator=g, device="cuda")
    x = torch.randn(n, d, generator=g, device="cuda", dtype=dtype) + centres[groups].to(dtype)
    weights = torch.randint(0, 3, (n,), generator=g, device="cuda").double() if weighted else None
    return x, groups, centres, weights


def nearer(x, centres, closest, kernel=closer):
    found = closest.new_full((len(centres), len(x)), torch.nan)
    kernel(x, centres, closest, found)
    return found


def assert_close(found, expected, error):
    scale = 1 + (expected.abs().max().item() if expected.numel() else 0)
    torch.testing.assert_close(found, expected, rtol=0, atol=error * scale)


def test_cuda_kernels_are_the_ones_that_run(kernels):
    for name in ("moments", "closer", "lloyd"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"pygen::{name}", "CUDA")


# One group; more groups than rows; more columns than a block sums; more entries than the segments of one pass.
SIZES = [(1, 1, 1), (100_003, 3, 1), (500, 5, 2000), (70_000, 64, 130), (3000, 1501, 7)]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", FLOAT)
@pytest.mark.parametrize(("n", "d", "k"), SIZES)
def test_moments_against_float64(dtype, n, d, k, seed):
    x, groups, centres, weights = problem(n, d, k, dtype, seed)
    found = moments(x, groups, centres, weights)
    expected = moments.__wrapped__(x.double(), groups, centres, weights)
    for mine, wanted in zip(found, expected, strict=True):
        assert_close(mine, wanted, 1e-11)
    rows = torch.randint(n, (2 * n + 1,), device="cuda")
    found = moments(x, groups[rows], centres, rows=rows)
    expected = moments.__wrapped__(x.double(), groups[rows], centres, rows=rows)
    for mine, wanted in zip(found, expected, strict=True):
        assert_close(mine, wanted, 1e-11)


# float32: sums of as many squares as columns.
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", FLOAT)
@pytest.mark.parametrize(("n", "d", "k"), SIZES)
def test_closer_against_float64(dtype, n, d, k, seed):
    x, _, centres, _ = problem(n, d, k, dtype, seed)
    centres = centres.to(dtype).double()
    closest = 4 * d * torch.rand(n, device="cuda", dtype=torch.float64)
    expected = nearer(x.double(), centres, closest, closer.__wrapped__)
    assert_close(nearer(x, centres, closest), expected, 1e-5 if dtype == torch.float32 else 1e-12)


# Heaps far apart, so that no label is a close call.
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", FLOAT)
@pytest.mark.parametrize("steps", [1, 30])
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (70_000, 64, 130), (3000, 1501, 7)])
def test_lloyd_against_float64(dtype, n, d, k, steps, seed):
    x, groups, centres, weights = problem(n, d, k, dtype, seed)
    heaps = torch.arange(n, device="cuda") % k
    x += (10 * centres[heaps] - centres[groups]).to(dtype)
    weights[:k] = 1
    labels, moved = lloyd(x, x[:k].double(), weights, steps, 0.0)
    expected, where = lloyd.__wrapped__(x.double(), x[:k].double(), weights, steps, 0.0)
    assert torch.equal(labels, expected)
    assert_close(moved, where, 1e-10)


@pytest.mark.parametrize("steps", [1, 9])
def test_centres_without_rows(steps, seed):
    x, _, centres, weights = problem(300_001, 20, 40, torch.float64, seed)
    centres[15:] = centres[0]
    labels, moved = lloyd(x, centres, weights, steps, 0.0)
    expected, where = lloyd.__wrapped__(x, centres, weights, steps, 0.0)
    assert torch.equal(labels, expected)
    assert_close(moved, where, 1e-10)


def test_lloyd_stops_where_the_definition_does(seed):
    x, _, centres, _ = problem(20_000, 8, 12, torch.float64, seed)
    for steps, threshold in ((1, 1e9), (5, 0.1), (300, 1e-4), (300, 0.0)):
        labels, moved = lloyd(x, centres, None, steps, threshold)
        expected, where = lloyd.__wrapped__(x, centres, None, steps, threshold)
        assert torch.equal(labels, expected)
        assert_close(moved, where, 1e-10)


def calls(n, d, k, dtype, seed):
    """Arguments, and each operator as a function of them."""
    arguments = problem(n, d, k, dtype, seed)
    operators = (
        lambda x, groups, centres, weights: moments(x, groups, centres, weights),
        lambda x, groups, centres, weights: (nearer(x, centres, weights * d),),
        lambda x, groups, centres, weights: lloyd(x, x[:k].double(), weights, 9, 0.0),
    )
    return arguments, operators


@pytest.mark.parametrize("dtype", FLOAT)
def test_bits_are_the_same_at_each_run_and_in_other_memory(kernels, dtype, seed):
    (x, *others), operators = calls(30_000, 66, 40, dtype, seed)
    buffer = torch.empty(x.numel() + 1, dtype=dtype, device="cuda")
    for call in operators:
        results = call(x, *others)
        for rows in (x, x.T.contiguous().T, buffer[1:].view_as(x).copy_(x)):
            assert all(map(torch.equal, call(rows, *others), results))


def test_no_host_synchronisation(kernels, seed):
    arguments, operators = calls(5000, 65, 10, torch.float32, seed)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for call in operators:
            call(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_captured_graph_reads_the_rows_of_each_replay(kernels, seed):
    arguments, operators = calls(3000, 40, 12, torch.float32, seed)
    for call in operators:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            call(*arguments)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = call(*arguments)
        for _ in range(3):
            arguments[0].add_(torch.randn_like(arguments[0]))
            graph.replay()
            assert all(map(torch.equal, results, call(*arguments)))


def test_memory_beside_the_results(kernels, seed):
    (x, groups, centres, weights), _ = calls(400_000, 32, 500, torch.float32, seed)
    moments(x, groups, centres, weights)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    moments(x, groups, centres, weights)
    assert torch.cuda.max_memory_allocated() - before < 16e6


def test_more_than_two_to_the_31_elements(kernels):
    d, k = 1024, 3
    n = 2**31 // d + 1001
    if torch.cuda.mem_get_info()[0] < 1.3 * 4 * n * d:
        pytest.skip("not enough device memory")
    few, groups, centres, weights = problem(1000, d, k, torch.float32, 5)
    x = torch.zeros(n, d, device="cuda")
    x[:500], x[-500:] = few[:500], few[500:]
    labels = torch.zeros(n, dtype=torch.int64, device="cuda")
    labels[:500], labels[-500:] = groups[:500], groups[500:]
    heavy = torch.zeros(n, dtype=torch.float64, device="cuda")
    heavy[:500], heavy[-500:] = weights[:500], weights[500:]
    for mine, wanted in zip(
        moments(x, labels, centres, heavy), moments(few, groups, centres, weights), strict=True
    ):
        assert_close(mine, wanted, 1e-11)
    closest = torch.full((n,), torch.inf, dtype=torch.float64, device="cuda")
    assert torch.equal(
        nearer(x, centres, closest)[:, -500:], nearer(few, centres, closest[:1000])[:, 500:]
    )
