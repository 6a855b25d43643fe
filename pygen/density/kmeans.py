"""k-means++ and k-means on the data's own device, for starting mixtures."""

import math

import torch
from torch import Tensor

from pygen.ops import grouped_statistics, uniform
from pygen.ops.kmeans import closer, lloyd


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
    # All numbers at once, whole blocks of four for each centre: on small data drawing them took most of the time.
    wide = 4 * ((trials + 3) // 4)
    draws = uniform(state, [4 + wide * (n_clusters - 1)], torch.float64)
    total = mass.cumsum(0)
    first = _draw(total, draws[:1])
    chosen = [first]
    nearer, closest = mass.new_empty(trials, len(x)), torch.empty_like(mass)
    infinite = torch.full_like(mass, torch.inf)
    closer(x, x.index_select(0, first).double(), infinite, closest[None])
    # The host waits for nothing in here: an index that is a number would be read from the device.
    for numbers in draws[4:].split(wide) if n_clusters > 1 else ():
        torch.mul(closest, mass, out=total).cumsum_(0)
        candidates = _draw(total, numbers[:trials])
        closer(x, x.index_select(0, candidates).double(), closest, nearer)
        best = (nearer @ mass).argmin(0, keepdim=True)
        torch.index_select(nearer, 0, best, out=closest[None])
        chosen.append(candidates.index_select(0, best))
    return torch.cat(chosen)


def _draw(total: Tensor, numbers: Tensor) -> Tensor:
    """Indices by inverse CDF, mass summed up, of uniform numbers; always of a row that has mass, if any has."""
    drawn = torch.searchsorted(total, numbers * total[-1], right=True)
    return drawn.clamp_max(len(total) - 1)


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
        ``[N]``, float64.
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
    threshold = tol * float(_variances(x, weights).mean())
    return lloyd(x, centres, weights, max_iter, threshold)


def _variances(x: Tensor, weights: Tensor | None) -> Tensor:
    zeros = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    counts, sums, scatter = grouped_statistics(x, zeros, x[:1].double(), "diag", weights)
    step = sums[0] / counts[0]
    return scatter[0] / counts[0] - step.square()
