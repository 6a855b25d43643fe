"""What only a GPU can show of full covariances; tests/ops/test_dense.py and test_full_em.py have their definitions."""

import pytest
import torch

from pygen.ops.covariance import full_em
from pygen.ops.dense import add_scatter, whitened_norms
from pygen.ops.mixture import em_statistics
from pygen.ops.triangular import inverse_factors

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

FLOAT = [torch.float32, torch.float64]
# Of the largest magnitude expected.
ERRORS = {torch.float32: 3e-6, torch.float64: 1e-12}


def mixture(n, d, k, dtype, seed, apart=1.0):
    """Rows of a random mixture far from 0, and what `full_em` takes beside them."""
    g = torch.Generator("cuda").manual_seed(seed)

    def rand(*size):
        return torch.randn(*size, generator=g, dtype=torch.float64, device="cuda")

    means = 100 + apart * rand(k, d)
    x = means[torch.randint(k, (n,), generator=g, device="cuda")] + rand(n, d)
    eye = torch.eye(d, dtype=torch.float64, device="cuda")
    factors = (eye + rand(k, d, d) / (5 * d**0.5)).triu()
    constant = factors.diagonal(dim1=1, dim2=2).log().sum(1) + rand(k)
    return x.to(dtype), means, factors, constant, rand(n).abs()


def close(found, expected, error):
    scale = expected.abs().max().item()
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=error * scale)


def test_cuda_kernels_are_the_ones_that_run(kernels):
    for name in ("whitened_norms", "add_scatter", "full_em", "inverse_factors"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"pygen::{name}", "CUDA")


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", FLOAT)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (1000, 33), (70_001, 64), (5000, 784), (300, 4096)])
def test_norms_and_scatter_against_float64(dtype, n, d, seed):
    x, means, factors, _, weights = mixture(n, d, 1, dtype, seed)
    centre, factor = means[0].to(dtype), factors[0].to(dtype)
    difference = x.double() - centre.double()
    expected = (difference @ factor.double()).square().sum(1)
    close(whitened_norms(x, centre, factor), expected, ERRORS[dtype])
    first, second = torch.zeros_like(means[0]), torch.zeros_like(factors[0])
    add_scatter(x, means[0], weights, first, second)
    difference = x.double() - means[0]
    close(first, weights @ difference, 1e-12)
    close(second, (difference.T * weights) @ difference, 1e-12)
    assert torch.equal(second, second.T)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("k", "d"), [(1, 1), (1000, 5), (100, 64), (10, 784), (1, 1500)])
def test_factors_of_the_inverse(k, d, seed):
    g = torch.Generator("cuda").manual_seed(seed)
    rows = torch.randn(k, 2 * d + 5, d, generator=g, dtype=torch.float64, device="cuda")
    matrices = rows.mT @ rows
    matrices[-1, 0, 0] = -1
    factors, positive = inverse_factors(matrices)
    assert torch.equal(positive.cpu(), torch.arange(k) < k - 1)
    found = factors[:-1].mT @ matrices[:-1] @ factors[:-1]
    eye = torch.eye(d, dtype=torch.float64, device="cuda").expand(k - 1, d, d)
    torch.testing.assert_close(found, eye, rtol=0, atol=1e-11)
    assert torch.equal(factors[:-1], factors[:-1].triu())


# The last are of several chunks of rows.
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", FLOAT)
@pytest.mark.parametrize("apart", [0.1, 3.0], ids=["overlapping", "apart"])
@pytest.mark.parametrize(
    ("n", "d", "k"), [(1, 1, 1), (999, 5, 300), (200_001, 64, 20), (15_000, 784, 3)]
)
def test_em_against_float64(dtype, n, d, k, apart, seed):
    x, means, factors, constant, weights = mixture(n, d, k, dtype, seed, apart)
    difference = [x.double() - mean for mean in means]
    norms = [
        (rows @ factor).square().sum(1) for rows, factor in zip(difference, factors, strict=True)
    ]
    joint = constant[:, None] - 0.5 * torch.stack(norms)
    resp = joint.softmax(0) * weights
    counts, first, second, log_likelihood = full_em(x, means, factors, constant, weights)
    # An error in nats is one of the responsibilities, of rows of d squares.
    error = ERRORS[dtype] * (1 + d)
    close(counts, resp.sum(1), error)
    close(log_likelihood, (joint.logsumexp(0) * weights).sum(), ERRORS[dtype])
    close(first, torch.stack([r @ rows for r, rows in zip(resp, difference, strict=True)]), error)
    scatters = [(rows.T * r) @ rows for r, rows in zip(resp, difference, strict=True)]
    close(second, torch.stack(scatters), error)


def test_fast_is_a_product_in_tf32(kernels, seed):
    x, means, factors, constant, weights = mixture(5000, 300, 3, torch.float32, seed)
    exact = full_em(x.double(), means, factors, constant, weights)[3]
    for fast, least, most in ((False, 0, 1e-6), (True, 1e-6, 1e-3)):
        found = full_em(x, means, factors, constant, weights, fast)[3]
        assert least <= abs(found / exact - 1) < most


@pytest.mark.parametrize("dtype", FLOAT)
def test_bits_are_the_same_at_each_run_and_in_other_memory(dtype, seed):
    x, *others = mixture(30_000, 262, 5, dtype, seed, 0.1)
    results = full_em(x, *others)
    buffer = torch.empty(x.numel() + 1, dtype=dtype, device="cuda")
    for rows in (x, x.T.contiguous().T, buffer[1:].view_as(x).copy_(x)):
        assert all(map(torch.equal, full_em(rows, *others), results))


def test_no_host_synchronisation(kernels, seed):
    x, means, factors, constant, weights = mixture(5000, 260, 3, torch.float32, seed)
    first, second = torch.zeros_like(means[0]), torch.zeros_like(factors[0])
    # What the solver sets up at its first call.
    inverse_factors(factors.mT @ factors)
    inverse_factors(factors[:1].mT @ factors[:1])
    torch.cuda.set_sync_debug_mode("error")
    try:
        whitened_norms(x, means[0].float(), factors[0].float())
        add_scatter(x, means[0], weights, first, second)
        full_em(x, means, factors, constant, weights)
        tied = em_statistics(x, constant, means, factors[0], "tied", weights)
        inverse_factors(factors.mT @ factors)
        inverse_factors(tied[2][None])
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_captured_graph_reads_the_rows_of_each_replay(kernels, seed):
    x, *others = mixture(3000, 300, 4, torch.float32, seed)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        full_em(x, *others)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = full_em(x, *others)
    for _ in range(3):
        x.add_(torch.randn_like(x))
        graph.replay()
        assert all(map(torch.equal, results, full_em(x, *others)))


def test_components_in_memory_bounded_by_the_second_level_cache(kernels, seed):
    n, d, k = 2_000_000, 8, 100
    arguments = mixture(n, d, k, torch.float32, seed)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    full_em(*arguments)
    assert torch.cuda.max_memory_allocated() - before < 64 << 20
