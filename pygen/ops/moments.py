"""First and second moments of groups of rows, about given centres."""

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
