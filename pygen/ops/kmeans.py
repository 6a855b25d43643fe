"""k-means: distances from centres, and Lloyd's algorithm."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pygen.ops.mixture import grouped_statistics
from pygen.ops.operator import operator

# Elements of x in a block: its temporaries stay in cache.
_BLOCK_ELEMENTS = 2**19


def _squared_distances(x: Tensor, centres: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows, and their squared distances ``[K, n]`` from the centres ``[K, D]`` (float64)."""
    middle = centres.mean(0).to(x.dtype)
    shifted = (centres - middle).to(x.dtype)
    norms = shifted.square().sum(1, keepdim=True)
    size = max(_BLOCK_ELEMENTS // max(x.shape[1], 1), 64)
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        part = x[rows] - middle
        distances = torch.addmm(norms, shifted, part.T, alpha=-2)
        yield rows, distances.add_(part.square_().sum(1)).clamp_min_(0)


def _closer_fake(x: Tensor, centres: Tensor, closest: Tensor, found: Tensor) -> None:
    return None


@operator(fake=_closer_fake, mutates=("found",))
def closer(x: Tensor, centres: Tensor, closest: Tensor, found: Tensor) -> None:
    """Squared distances of rows from each of some centres, or what they have where that is less.

    Written to where they are wanted: memory for all rows, taken and given back at each of many calls, would be
    scattered with what else is taken between them.

    Parameters
    ----------
    x : Tensor
        ``[N, D]``, float32 or float64.
    centres : Tensor
        ``[K, D]``, float64.
    closest : Tensor
        ``[N]``, float64: what they have.
    found : Tensor
        ``[K, N]``, float64, contiguous: becomes the smaller of both.
    """
    for rows, distances in _squared_distances(x, centres):
        torch.minimum(distances.double(), closest[rows], out=found[:, rows])


def _lloyd_fake(
    x: Tensor, centres: Tensor, weights: Tensor | None, max_iter: int, threshold: float
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], dtype=torch.int64), torch.empty_like(centres)


@operator(fake=_lloyd_fake)
def lloyd(
    x: Tensor, centres: Tensor, weights: Tensor | None, max_iter: int, threshold: float
) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm: rows to their nearest centres, centres to the means of their rows, in turn (Lloyd, 1982).

    Stops when no label changes or the squares of the centres' moves sum up to no more than ``threshold``. A centre
    that loses all its rows moves to the row farthest from its centre.

    Parameters
    ----------
    x : Tensor
        ``[N, D]``, float32 or float64; N at least 1.
    centres : Tensor
        ``[K, D]``, float64: where it begins.
    weights : Tensor or None
        ``[N]``, float64. Default: 1.
    max_iter : int
        At least 1.
    threshold : float

    Returns
    -------
    labels : Tensor
        int64 ``[N]``.
    centres : Tensor
        ``[K, D]``, float64.
    """
    labels = torch.full((len(x),), -1, device=x.device)
    for _ in range(max_iter):
        new, nearest = _nearest(x, centres)
        if torch.equal(new, labels):
            break
        labels, previous = new, centres
        counts, sums, _ = grouped_statistics(x, labels, centres, "spherical", weights)
        centres = centres + sums / counts.clamp_min(torch.finfo(counts.dtype).tiny)[:, None]
        empty = (counts == 0).nonzero().squeeze(1)
        if len(empty):
            far = nearest if weights is None else nearest * (weights > 0)
            centres[empty] = x[far.topk(len(empty)).indices].double()
        if (centres - previous).square().sum() <= threshold:
            labels, _ = _nearest(x, centres)
            break
    return labels, centres


def _nearest(x: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of each row, int64 ``[N]``, and the squared distance from it."""
    labels = torch.empty(len(x), dtype=torch.int64, device=x.device)
    nearest = x.new_empty(len(x))
    for rows, distances in _squared_distances(x, centres):
        nearest[rows], labels[rows] = distances.min(0)
    return labels, nearest
