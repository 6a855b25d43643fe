"""Sums over groups of rows: moments about given centres, and counts of categories."""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from pygen.ops.operator import operator

# Elements of x in a block: its float64 temporaries stay in cache.
_BLOCK_ELEMENTS = 2**18


def _moments_fake(
    x: Tensor, rows: Tensor, weights: Tensor, sizes: Tensor, means: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(means), torch.empty_like(means)


@operator(fake=_moments_fake)
def moments(
    x: Tensor, rows: Tensor, weights: Tensor, sizes: Tensor, means: Tensor
) -> tuple[Tensor, Tensor]:
    """Weighted sums of differences from a centre, and of their squares, for each group of rows.

    Differences, products and sums are float64 whatever the data: nothing is lost on groups that hardly vary, or vary
    far from zero.

    Parameters
    ----------
    x : Tensor
        ``[N, D]``, float32 or float64.
    rows : Tensor
        int64 ``[P]``: rows of x, those of group 0 first, then those of group 1, ...
    weights : Tensor
        ``[P]``, float64.
    sizes : Tensor
        int64 ``[K]``: how many of ``rows`` each group has; they add up to P.
    means : Tensor
        ``[K, D]``, float64: the centres.

    Returns
    -------
    first, second : Tensor
        ``[K, D]``, float64: sums over the rows n of group k of ``w (x_n - mean_k)`` and ``w (x_n - mean_k)^2``.
    """
    first, second = torch.zeros_like(means), torch.zeros_like(means)
    group = torch.repeat_interleave(torch.arange(len(means), device=x.device), sizes)
    starts = sizes.cumsum(0) - sizes
    block = max(_BLOCK_ELEMENTS // max(x.shape[1], 1), 1)
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        difference = x[rows[part]] - means[group[part]]
        weighted = difference * weights[part, None]
        every = torch.arange(len(weighted), device=x.device)
        offsets = (starts - start).clamp(0, len(weighted))
        first += embedding_bag(every, weighted, offsets, mode="sum")
        second += embedding_bag(every, weighted.mul_(difference), offsets, mode="sum")
    return first, second


def _count_categories_fake(
    x: Tensor, index: Tensor, weights: Tensor | None, n_classes: int, n_categories: int
) -> Tensor:
    return x.new_empty(n_classes, x.shape[1], n_categories, dtype=torch.float64)


@operator(fake=_count_categories_fake)
def count_categories(
    x: Tensor, index: Tensor, weights: Tensor | None, n_classes: int, n_categories: int
) -> Tensor:
    """How often each category occurs, for each feature and class.

    Parameters
    ----------
    x : Tensor
        ``[N, D]``, uint8 or int64: categories; those outside ``[0, n_categories)`` are passed over.
    index : Tensor
        int64 ``[N]``: the class of each row, in ``[0, n_classes)``.
    weights : Tensor or None
        ``[N]``, float64: what a row counts. Default: 1.
    n_classes, n_categories : int

    Returns
    -------
    Tensor
        ``[n_classes, D, n_categories]``, float64.
    """
    dims = x.shape[1]
    counts = x.new_zeros(n_classes * dims * n_categories, dtype=torch.float64)
    first = torch.arange(dims, device=x.device) * n_categories
    # Blocks as large as the table, which is added to once for each.
    rows = max(max(_BLOCK_ELEMENTS, len(counts)) // max(dims, 1), 1)
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        value = x[part].long()
        inside = (value >= 0) & (value < n_categories)
        cells = value + first + index[part, None] * (dims * n_categories)
        weight = None if weights is None else weights[part, None].expand(cells.shape)[inside]
        counts += torch.bincount(cells[inside], weight, minlength=len(counts))
    return counts.view(n_classes, dims, n_categories)
