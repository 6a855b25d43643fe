"""Sums over groups of rows: moments about given centres, and counts of categories."""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from pygen.ops.operator import operator

# Elements of x in a block: its float64 temporaries stay in cache.
_BLOCK_ELEMENTS = 2**18


def _moments_fake(
    x: Tensor,
    groups: Tensor,
    means: Tensor,
    weights: Tensor | None = None,
    rows: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    return means.new_empty(means.shape[0]), torch.empty_like(means), torch.empty_like(means)


@operator(fake=_moments_fake)
def moments(
    x: Tensor,
    groups: Tensor,
    means: Tensor,
    weights: Tensor | None = None,
    rows: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted sums of differences from a centre, and of their squares, for each group of rows.

    Differences, products and sums are float64 whatever the data: nothing is lost on groups that hardly vary, or vary
    far from zero.

    Parameters
    ----------
    x : Tensor
        ``[N, D]``, float32 or float64.
    groups : Tensor
        int64 ``[P]``, in ``[0, K)``.
    means : Tensor
        ``[K, D]``, float64: the centres.
    weights : Tensor, optional
        ``[P]``, float64. Default: 1.
    rows : Tensor, optional
        int64 ``[P]``: the row of x that each entry of ``groups`` is about; fastest if they ascend. Default: 0 to N - 1.

    Returns
    -------
    counts : Tensor
        ``[K]``: sums of weights. All three are float64.
    first, second : Tensor
        ``[K, D]``: sums over the rows n of group k of ``w (x_n - mean_k)`` and ``w (x_n - mean_k)^2``.
    """
    order = groups.argsort(stable=True)
    groups, rows = groups[order], order if rows is None else rows[order]
    weights = means.new_ones(len(rows)) if weights is None else weights[order]
    starts = torch.searchsorted(groups, torch.arange(len(means), device=x.device))
    counts, first, second = _moments_fake(x, groups, means)
    for sums in (counts, first, second):
        sums.zero_()
    block = max(_BLOCK_ELEMENTS // max(x.shape[1], 1), 1)
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        difference = x[rows[part]] - means[groups[part]]
        weight = weights[part, None]
        weighted = difference * weight
        every = torch.arange(len(weighted), device=x.device)
        offsets = (starts - start).clamp(0, len(weighted))
        counts += embedding_bag(every, weight, offsets, mode="sum")[:, 0]
        first += embedding_bag(every, weighted, offsets, mode="sum")
        second += embedding_bag(every, weighted.mul_(difference), offsets, mode="sum")
    return counts, first, second


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
