"""Are made images copies of those a model has learned from?"""

from typing import NamedTuple

import torch
from torch import Tensor

# Rows of images compared at a time: 128 MiB of float64 for images of 32x32 pixels in colour, 32 MiB of distances.
_QUERIES, _POINTS = 1024, 4096


class Nearest(NamedTuple):
    """The nearest of other images: `distances` float64 ``[N]``, and `indices` int64 ``[N]``, which they are."""

    distances: Tensor
    indices: Tensor


def nearest(images: Tensor, others: Tensor) -> Nearest:
    """Find for each image the nearest of others.

    Parameters
    ----------
    images, others : Tensor
        ``[N, ...]`` and ``[M, ...]``, of any numeric dtype: images, or features of them.

    Returns
    -------
    Nearest
        Euclidean distances in the images' unit, of uint8 in grey levels; of several as near the first.

    Raises
    ------
    ValueError
        If there are none, or their shapes differ.
    """
    if images.shape[1:] != others.shape[1:] or images.dim() < 2 or not len(images) * len(others):
        raise ValueError(
            f"images: expected [N, ...] and [M, ...] of one shape, N and M >= 1, found"
            f" {list(images.shape)} and {list(others.shape)}"
        )
    distances, indices = [], []
    for part in images.split(_QUERIES):
        rows = part.flatten(1).double()
        index = _nearest(rows, others)
        # Once more without the rounding of sums of products, so that a copy is at 0.
        distances.append((rows - others[index].flatten(1).to(rows)).norm(dim=1))
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


def _nearest(rows: Tensor, others: Tensor) -> Tensor:
    """Which of others is nearest to each of rows, float64 ``[n, D]``: int64 ``[n]``."""
    best = torch.full((len(rows),), torch.inf, dtype=torch.float64, device=rows.device)
    index = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    for start in range(0, len(others), _POINTS):
        points = others[start : start + _POINTS].flatten(1).to(rows)
        found, position = torch.cdist(rows, points).min(1)
        is_nearer = found < best
        best = torch.where(is_nearer, found, best)
        index = torch.where(is_nearer, start + position, index)
    return index
