"""Are made images copies of those a model has learned from?"""

from typing import NamedTuple

import torch
from torch import Tensor

# Rows of images compared at a time: 128 MiB of float64 for images of 32x32 pixels in colour, 32 MiB of distances.
_QUERIES, _POINTS = 1024, 4096


class Nearest(NamedTuple):
    """The nearest of other images: `distances` float64 ``[N, k]``, and `indices` int64 ``[N, k]``, which they are."""

    distances: Tensor
    indices: Tensor


def nearest(images: Tensor, others: Tensor, k: int = 1) -> Nearest:
    """Find for each image the nearest of others.

    Parameters
    ----------
    images, others : Tensor
        ``[N, ...]`` and ``[M, ...]``, of any numeric dtype: images, or features of them.
    k : int
        How many of them, from 1 to M.

    Returns
    -------
    Nearest
        Euclidean distances in the images' unit, of uint8 in grey levels, the least first; of several as near the first.

    Raises
    ------
    ValueError
        If there are none, or not k, or their shapes differ.
    """
    if images.shape[1:] != others.shape[1:] or images.dim() < 2 or not len(images) * len(others):
        raise ValueError(
            f"images: expected [N, ...] and [M, ...] of one shape, N and M >= 1, found"
            f" {list(images.shape)} and {list(others.shape)}"
        )
    if not 1 <= k <= len(others):
        raise ValueError(f"k: expected 1 to {len(others)}, as many as there are others, found {k}")
    distances, indices = [], []
    for part in images.split(_QUERIES):
        rows = part.flatten(1).double()
        index = _nearest(rows, others, k)
        # Once more without the rounding of sums of products, so that a copy is at 0.
        distances.append((rows[:, None] - others[index].flatten(2).to(rows)).norm(dim=2))
        indices.append(index)
    return Nearest(torch.cat(distances), torch.cat(indices))


def memorisation(made: Tensor, held_out: Tensor) -> float:
    """How often a made image lies nearer to the training images than a real one that is none of them.

    The share of all pairs, ties counting half: the statistic of Mann and Whitney, by which Meehan, Chaudhuri and
    Dasgupta (2020, section 3) test for copying.

    Parameters
    ----------
    made, held_out : Tensor
        ``[M]`` and ``[N]``: distances to the nearest training image, see :func:`nearest`.

    Returns
    -------
    float
        In [0, 1]: 1/2 if made images are as near to the training images as new real ones are, 1 if all are nearer:
        copies, or only blurred, for an average is near to everything. 0 if all are farther.

    Raises
    ------
    ValueError
        If there are none.
    """
    if not len(made) * len(held_out):
        raise ValueError("distances: expected at least one of made and of held-out images")
    held_out = held_out.sort().values
    # Of each made image: held-out ones that are farther, and those no nearer.
    farther = len(held_out) - torch.searchsorted(held_out, made, right=True)
    no_nearer = len(held_out) - torch.searchsorted(held_out, made)
    return ((farther + no_nearer).double().mean() / (2 * len(held_out))).item()


def _nearest(rows: Tensor, others: Tensor, k: int) -> Tensor:
    """Which k of others are nearest to each of rows, float64 ``[n, D]``: int64 ``[n, k]``."""
    best, index = rows.new_empty(len(rows), 0), rows.new_empty(len(rows), 0, dtype=torch.int64)
    for start in range(0, len(others), _POINTS):
        points = others[start : start + _POINTS].flatten(1).to(rows)
        numbers = torch.arange(start, start + len(points), device=rows.device)
        distances = torch.cat([best, torch.cdist(rows, points)], 1)
        known = torch.cat([index, numbers.expand(len(rows), -1)], 1)
        found, columns = [], []
        for _ in range(min(k, distances.shape[1])):  # `topk` does not say which of equals it takes
            least, column = distances.min(1, keepdim=True)
            distances.scatter_(1, column, torch.inf)
            found.append(least)
            columns.append(column)
        best, index = torch.cat(found, 1), known.gather(1, torch.cat(columns, 1))
    return index
