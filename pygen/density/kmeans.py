"""k-means++ and k-means on the data's own device, for starting mixtures."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from pygen.ops import grouped_statistics, uniform

_BLOCK_ELEMENTS = 2**19


def _blocks(x: Tensor) -> Iterator[slice]:
    rows = max(_BLOCK_ELEMENTS // x.shape[1], 64)
    return (slice(start, start + rows) for start in range(0, len(x), rows))


def _squared_distances(x: Tensor, centres: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows, and their squared distances ``[K, n]`` to the centres ``[K, D]`` (float64)."""
    middle = centres.mean(0).to(x.dtype)
    shifted = (centres - middle).to(x.dtype)
    norms = shifted.square().sum(1, keepdim=True)
    for rows in _blocks(x):
        part = x[rows] - middle
        distances = torch.addmm(norms, shifted, part.T, alpha=-2)
        yield rows, distances.add_(part.square_().sum(1)).clamp_min_(0)


def kmeans_plusplus(x: Tensor, n_clusters: int, state: Tensor, weights: Tensor | None) -> Tensor:
    """Indices ``[K]`` of rows far apart: greedy k-means++ (Arthur and Vassilvitskii, 2007).

    Each centre is the best of ``2 + log K`` rows drawn with probability proportional to weight times squared distance
    from the centres so far, as in scikit-learn. A row of weight 2 is drawn as two equal rows would be.

    Parameters
    ----------
    x : Tensor
        ``[N, D]``.
    n_clusters : int
        At most N.
    state : Tensor
        State of the random stream; advanced.
    weights : Tensor, optional
        ``[N]``.

    Returns
    -------
    Tensor
        int64 ``[K]``.
    """
    trials = 2 + int(math.log(n_clusters))
    mass = x.new_ones(len(x), dtype=torch.float64) if weights is None else weights.double()
    chosen = [_draw(mass, state, 1)[0]]
    closest = torch.empty_like(mass)
    for rows, distances in _squared_distances(x, x[chosen[0]][None].double()):
        closest[rows] = distances[0].double()
    for _ in range(1, n_clusters):
        candidates = _draw(closest * mass, state, trials)
        nearer = torch.empty(trials, len(x), dtype=torch.float64, device=x.device)
        for rows, distances in _squared_distances(x, x[candidates].double()):
            torch.minimum(distances.double(), closest[rows], out=nearer[:, rows])
        best = (nearer @ mass).argmin()
        closest = nearer[best]
        chosen.append(candidates[best])
    return torch.stack(chosen)


def _draw(mass: Tensor, state: Tensor, n: int) -> Tensor:
    """Indices drawn with replacement, by inverse CDF; always of a row that has mass, if any has."""
    total = mass.cumsum(0)
    drawn = torch.searchsorted(total, uniform(state, [n], torch.float64) * total[-1], right=True)
    return drawn.clamp_max(len(mass) - 1)


def kmeans(
    x: Tensor,
    n_clusters: int,
    state: Tensor,
    weights: Tensor | None = None,
    *,
    max_iter: int = 300,
    tol: float = 1e-4,
) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from a k-means++ start.

    Stops when no label changes or the centres move by less than ``tol`` times the mean variance of the features. A
    cluster that loses all its rows moves to the row farthest from its centre.

    Parameters
    ----------
    x : Tensor
        ``[N, D]``, float32 or float64.
    n_clusters : int
        At most N.
    state : Tensor
        State of the random stream; advanced.
    weights : Tensor, optional
        ``[N]``.
    max_iter : int
    tol : float

    Returns
    -------
    labels : Tensor
        int64 ``[N]``.
    centres : Tensor
        ``[K, D]``, float64.
    """
    centres = x[kmeans_plusplus(x, n_clusters, state, weights)].double()
    threshold = tol * _variances(x, weights).mean()
    labels = torch.full((len(x),), -1, device=x.device)
    for _ in range(max_iter):
        new, distances = _assign(x, centres)
        if torch.equal(new, labels):
            break
        labels = new
        centres, previous = _update(x, labels, distances, centres, weights), centres
        if (centres - previous).square().sum() <= threshold:
            labels, _ = _assign(x, centres)
            break
    return labels, centres


def _variances(x: Tensor, weights: Tensor | None) -> Tensor:
    zeros = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    counts, sums, scatter = grouped_statistics(x, zeros, x[:1].double(), "diag", weights)
    step = sums[0] / counts[0]
    return scatter[0] / counts[0] - step.square()


def _assign(x: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    labels = torch.empty(len(x), dtype=torch.int64, device=x.device)
    nearest = x.new_empty(len(x))
    for rows, distances in _squared_distances(x, centres):
        nearest[rows], labels[rows] = distances.min(0)
    return labels, nearest


def _update(
    x: Tensor, labels: Tensor, distances: Tensor, centres: Tensor, weights: Tensor | None
) -> Tensor:
    counts, sums, _ = grouped_statistics(x, labels, centres, "spherical", weights)
    empty = (counts == 0).nonzero().squeeze(1)
    moved = centres + sums / counts.clamp_min(torch.finfo(counts.dtype).tiny)[:, None]
    if len(empty):
        far = distances if weights is None else distances * (weights > 0)
        moved[empty] = x[far.topk(len(empty)).indices].double()
    return moved
