"""What only a GPU can show of EM with independent features; tests/ops/test_mixture.py runs on it too."""

import pytest
import torch

from pygen.ops.diagonal import diagonal_em, diagonal_log_joint

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

FLOAT = [torch.float32, torch.float64]
# By the largest magnitude expected: sums over rows whose densities float32 knows to 1e-6 of a few hundred nats.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}


def problem(n, d, k, dtype, seed, spread=1.0):
    generator = torch.Generator("cuda").manual_seed(seed)
    options = {"generator": generator, "device": "cuda", "dtype": torch.float64}
    means, deviations = spread * torch.randn(k, d, **options), 0.3 * torch.randn(k, d, **options)
    labels = torch.randint(k, (n,), generator=generator, device="cuda")
    x = means[labels].to(dtype) + torch.randn(n, d, generator=generator, device="cuda", dtype=dtype)
    constant = torch.randn(k, **options) - deviations.sum(1)
    return x, means, (-2 * deviations).exp(), constant


def assert_close(found, expected, dtype):
    for mine, wanted in zip(found, expected, strict=True):
        error = TOLERANCE[dtype] * (1 + wanted.abs().max().item())
        torch.testing.assert_close(mine.double(), wanted.double(), rtol=0, atol=error)


def test_cuda_kernels_are_the_ones_that_run(kernels):
    for name in ("diagonal_em", "diagonal_log_joint"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"pygen::{name}", "CUDA")


# Several chunks; one component; many; more columns than a block sums; two that are screened.
SIZES = [
    *((1, 1, 1), (300_001, 3, 40), (70_000, 64, 130), (20_000, 784, 10), (3000, 1501, 7)),
    *((70_001, 200, 100), (5000, 131, 16)),
]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", FLOAT)
@pytest.mark.parametrize("spread", [0.1, 3.0])
@pytest.mark.parametrize(("n", "d", "k"), SIZES)
def test_em_against_float64(dtype, spread, n, d, k, seed):
    x, *parameters = problem(n, d, k, dtype, seed, spread)
    generator = torch.Generator("cuda").manual_seed(seed)
    weights = torch.rand(n, generator=generator, device="cuda", dtype=torch.float64)
    found = diagonal_em(x, *parameters, weights)
    expected = diagonal_em.__wrapped__(x.double(), *parameters, weights)
    assert_close(found, expected, dtype)
    torch.testing.assert_close(found[3], expected[3], rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", FLOAT)
@pytest.mark.parametrize(("n", "d", "k"), SIZES)
def test_log_joint_against_float64(dtype, n, d, k, seed):
    x, *parameters = problem(n, d, k, dtype, seed)
    expected = diagonal_log_joint.__wrapped__(x.double(), *parameters)
    assert_close(diagonal_log_joint(x, *parameters), expected, dtype)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_fast_densities_are_as_good_as_is_claimed(spread, seed):
    x, means, precisions, constant = problem(20_000, 784, 40, torch.float32, seed, spread)
    relative, largest = diagonal_log_joint(x, means, precisions, constant, False, True)
    wanted, top = diagonal_log_joint.__wrapped__(x.double(), means, precisions, constant)
    exact, centre = wanted + top, (precisions * means).sum(0) / precisions.sum(0)
    terms = 3 * (constant[:, None] - exact)
    terms += 2.5 * (precisions * (means - centre).square()).sum(1)[:, None]
    share = ((relative + largest - exact).abs() / terms).max().item()
    # Far less would mean that more than one product is taken.
    assert 2**-16 < share < 2**-10 + 784 * 2**-21


def test_fast_em_is_nearly_as_good(seed):
    x, *parameters = problem(50_000, 300, 20, torch.float32, seed, spread=0.2)
    found = diagonal_em(x, *parameters, None, True)
    expected = diagonal_em.__wrapped__(x.double(), *parameters)
    torch.testing.assert_close(found[3], expected[3], rtol=1e-5, atol=0)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-2, atol=0)


@pytest.mark.parametrize("dtype", FLOAT)
@pytest.mark.parametrize("d", [64, 200])
def test_bits_repeat(kernels, d, dtype, seed):
    arguments = problem(200_000, d, 100, dtype, seed, spread=0.2)
    first = diagonal_em(*arguments)
    for _ in range(5):
        for mine, other in zip(first, diagonal_em(*arguments), strict=True):
            assert torch.equal(mine, other)


def test_memory_and_host_are_left_alone(kernels, seed):
    arguments = problem(400_000, 32, 1000, torch.float32, seed)
    diagonal_em(*arguments)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_sync_debug_mode("error")
    try:
        diagonal_em(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.max_memory_allocated() - before < 64e6


def test_in_a_captured_graph(kernels, seed):
    arguments = problem(5000, 33, 7, torch.float32, seed)
    other = problem(5000, 33, 7, torch.float32, seed + 1)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        diagonal_em(*arguments)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = diagonal_em(*arguments)
    for argument, new in zip(arguments, other, strict=True):
        argument.copy_(new)
    graph.replay()
    for mine, wanted in zip(found, diagonal_em(*other), strict=True):
        assert torch.equal(mine, wanted)


def test_rows_that_are_not_contiguous_or_aligned(seed):
    x, *parameters = problem(3000, 64, 5, torch.float32, seed)
    expected = diagonal_em(x, *parameters)
    moved = torch.empty(x.numel() + 1, device="cuda")[1:].view_as(x).copy_(x)
    assert_close(diagonal_em(moved, *parameters), expected, torch.float32)
    wide = torch.cat([x, x], 1)[:, :64]
    assert_close(diagonal_em(wide, *parameters), expected, torch.float32)


def test_more_than_two_to_the_31_elements(kernels):
    d, k = 1024, 3
    n = 2**31 // d + 1001
    if torch.cuda.mem_get_info()[0] < 1.2 * 4 * n * d:
        pytest.skip("not enough device memory")
    few, *parameters = problem(1000, d, k, torch.float32, 5)
    x = torch.zeros(n, d, device="cuda")
    x[:500], x[-500:] = few[:500], few[500:]
    weights = torch.zeros(n, device="cuda", dtype=torch.float64)
    weights[:500] = weights[-500:] = 1
    assert_close(diagonal_em(x, *parameters, weights), diagonal_em(few, *parameters), torch.float32)
