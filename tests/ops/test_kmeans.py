"""Distances of k-means, and Lloyd's algorithm: every kernel against the definition in float64."""

import pytest
import torch
from torch.library import opcheck

from pygen.ops import native
from pygen.ops.kmeans import closer, lloyd

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
    found = torch.empty(expected.shape).double()
    for kernel in (closer, closer.__wrapped__):
        kernel(x, centres, closest, found.fill_(torch.nan))
        torch.testing.assert_close(found, expected, **tolerance)
    if len(x) < 1000:
        opcheck(torch.ops.pygen.closer, (x, centres, closest, found))


def test_bits_do_not_depend_on_threads():
    x, centres, share = problem(9000, 300, 5, torch.float32)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            closer(x, centres, share, found := torch.empty(len(centres), len(x)).double())
            results.append((found, *lloyd(x, centres, share, 20, 0.0)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.skipif(native is None, reason="pygen._C was not built")
def test_refuse_what_would_read_outside():
    x, centres = torch.zeros(4, 3), torch.zeros(2, 3).double()
    for bad in (centres.float(), centres[:, :2], centres[:0], centres[0]):
        with pytest.raises(RuntimeError, match="centres must be float64"):
            lloyd(x, bad, None, 9, 0.0)
    with pytest.raises(RuntimeError, match="x must be"):
        lloyd(x.half(), centres, None, 9, 0.0)
    with pytest.raises(RuntimeError, match="weights must be"):
        lloyd(x, centres, torch.ones(3).double(), 9, 0.0)
    with pytest.raises(RuntimeError, match="must have a row"):
        lloyd(x[:0], centres, None, 9, 0.0)
    with pytest.raises(RuntimeError, match="closest must be"):
        closer(x, centres, torch.ones(3).double(), torch.zeros(2, 4).double())
    for bad in (torch.zeros(2, 4), torch.zeros(4, 2).double(), torch.zeros(4, 2).double().T):
        with pytest.raises(RuntimeError, match="found must be float64"):
            closer(x, centres, torch.ones(4).double(), bad)


def plain_lloyd(x, centres, weights, max_iter, threshold):
    """The definition, in float64: labels and centres."""
    labels = None
    for _ in range(max_iter):
        distances = torch.cdist(x.double(), centres, compute_mode="donot_use_mm_for_euclid_dist")
        new = distances.argmin(1)
        if labels is not None and torch.equal(new, labels):
            break
        labels, previous = new, centres
        member = torch.nn.functional.one_hot(labels, len(centres)) * weights[:, None]
        centres = member.T @ x.double() / member.sum(0)[:, None].clamp_min(1e-300)
        empty = (member.sum(0) == 0).nonzero().squeeze(1)
        far = distances.amin(1) * (weights > 0)
        centres[empty] = x[far.topk(len(empty)).indices].double()
        if (centres - previous).square().sum() <= threshold:
            distances = torch.cdist(x.double(), centres)
            labels = distances.argmin(1)
            break
    return labels, centres


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("offset", [0, 1e4])
@pytest.mark.parametrize(
    ("n", "d", "k"), [(1, 1, 1), (50, 2, 5), (2000, 20, 10), (1500, 3, 60), (4000, 40, 50)]
)
def test_lloyd_equals_its_definition_in_every_kernel(n, d, k, offset, dtype):
    g = torch.Generator().manual_seed(n + k)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    x += 2 * torch.randn(7, d, generator=g, dtype=torch.float64)[torch.arange(n) % 7]
    # On a grid, so that float32 has them exactly, and ties are ties in both.
    x = ((x * 64).round() / 64 + offset).to(dtype)
    centres = x[torch.randperm(n, generator=g)[:k]].double()
    weights = torch.randint(0, 3, (n,), generator=g).double()
    weights[0] = 1
    expected, where = plain_lloyd(x, centres, weights, 100, 1e-9)
    for kernel in (lloyd, lloyd.__wrapped__):
        labels, moved = kernel(x, centres, weights, 100, 1e-9)
        # Rounding may decide a tie otherwise, and what follows from it.
        spread = [
            (weights * (x.double() - c[label]).square().sum(1)).sum()
            for c, label in ((where, expected), (moved, labels))
        ]
        torch.testing.assert_close(spread[1], spread[0], rtol=1e-2, atol=1e-9)
        assert (labels == expected).double().mean() > 0.97


def test_lloyd_is_an_operator_in_good_standing():
    x, centres, weights = problem(203, 17, 7)
    opcheck(torch.ops.pygen.lloyd, (x, centres, weights, 20, 0.0))


def test_lloyd_skips_no_nearer_centre():
    """The bounds spare distances, but no row keeps a centre that is not its nearest."""
    x, centres, weights = problem(9000, 30, 40, torch.float32)
    for steps in (1, 2, 3, 5, 10, 30):
        labels, _ = lloyd(x, centres, weights, steps, 0.0)
        before = centres if steps == 1 else lloyd(x, centres, weights, steps - 1, 0.0)[1]
        distances = squared_distances(x, before)
        chosen = distances.gather(1, labels[:, None])[:, 0]
        assert (chosen <= distances.amin(1) * (1 + 2e-5)).all()


def test_lloyd_in_groups_of_centres_and_without_gaps():
    """More centres than there is room for bounds of, or than it pays to measure among themselves."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200_000, 2, generator=g)
    centres = x[:60].double()
    labels, moved = lloyd(x, centres, None, 8, 0.0)
    expected, where = lloyd.__wrapped__(x, centres, None, 8, 0.0)
    assert (labels == expected).double().mean() > 0.999
    torch.testing.assert_close(moved, where, rtol=1e-3, atol=1e-3)
