"""Distances and steps of k-means: every kernel against the definition in float64."""

import pytest
import torch
from torch.library import opcheck

from pygen.ops import native
from pygen.ops.kmeans import closer, kmeans_step

SHAPES = [(1, 1, 1), (30, 3, 2), (203, 17, 7), (9000, 300, 5)]


def problem(n, d, k, dtype=torch.float64):
    g = torch.Generator().manual_seed(n)
    x = (100 + torch.randn(n, d, generator=g, dtype=torch.float64)).to(dtype)
    centres = 100 + torch.randn(k, d, generator=g, dtype=torch.float64)
    return x, centres, torch.rand(n, generator=g).double()


def squared_distances(x, centres):
    return (x.double()[:, None] - centres).square().sum(2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES)
def test_closer_equals_its_definition_in_every_kernel(shape, dtype):
    x, centres, share = problem(*shape, dtype)
    closest = 4 * share * shape[1]
    expected = torch.minimum(squared_distances(x, centres).T, closest)
    # float32 knows centres to 4e-6 here, squared distances to some 5e-4 of a few hundred.
    tolerance = (
        {"rtol": 1e-10, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 1e-4}
    )
    for kernel in (closer, closer.__wrapped__):
        torch.testing.assert_close(kernel(x, centres, closest), expected, **tolerance)
    if len(x) < 1000:
        opcheck(torch.ops.pygen.closer, (x, centres, closest))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_step_equals_its_definition_in_every_kernel(shape, weighted, dtype):
    x, centres, share = problem(*shape, dtype)
    distances = squared_distances(x, centres)
    weights = share if weighted else None
    for kernel in (kmeans_step, kmeans_step.__wrapped__):
        labels, nearest, counts, sums = kernel(x, centres, weights)
        chosen = distances.gather(1, labels[:, None])[:, 0]
        slack = 1e-10 if dtype == torch.float64 else 2e-5
        assert (chosen <= distances.amin(1) * (1 + slack) + slack).all()
        torch.testing.assert_close(nearest, chosen, rtol=slack, atol=10 * slack)
        member = torch.nn.functional.one_hot(labels, len(centres)).double()
        member = member * (share[:, None] if weighted else 1)
        torch.testing.assert_close(counts, member.sum(0))
        expected = member.T @ x.double() - counts[:, None] * centres
        torch.testing.assert_close(sums, expected, rtol=1e-9, atol=1e-8)
    if len(x) < 1000:
        opcheck(torch.ops.pygen.kmeans_step, (x, centres, weights))


def test_bits_do_not_depend_on_threads():
    x, centres, share = problem(9000, 300, 5, torch.float32)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append((closer(x, centres, share), *kmeans_step(x, centres, share)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.skipif(native is None, reason="pygen._C was not built")
def test_refuse_what_would_read_outside():
    x, centres = torch.zeros(4, 3), torch.zeros(2, 3).double()
    for bad in (centres.float(), centres[:, :2], centres[:0], centres[0]):
        with pytest.raises(RuntimeError, match="centres must be float64"):
            kmeans_step(x, bad)
    with pytest.raises(RuntimeError, match="x must be"):
        kmeans_step(x.half(), centres)
    with pytest.raises(RuntimeError, match="weights must be"):
        kmeans_step(x, centres, torch.ones(3).double())
    with pytest.raises(RuntimeError, match="closest must be"):
        closer(x, centres, torch.ones(3).double())
