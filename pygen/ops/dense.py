"""Gaussians with dense covariances: norms of whitened rows, and scatter matrices."""

import torch
from torch import Tensor

from pygen.ops.operator import operator

# Columns of a triangular factor, or rows of a symmetric product, that are done at once: narrow enough to skip most
# of the empty or mirrored half, wide enough for the matrix product to run at full speed.
_STRIP = 112
# Elements of x in a block, so that its float64 temporaries are bounded.
_BLOCK_ELEMENTS = 2**21


def _strips(size: int) -> list[tuple[int, int]]:
    return [(start, min(start + _STRIP, size)) for start in range(0, size, _STRIP)]


def _whitened_norms_fake(
    x: Tensor,
    centre: Tensor,
    factor: Tensor,
    features: Tensor | None = None,
    rows: Tensor | None = None,
    fast: bool = False,
) -> Tensor:
    return x.new_empty(x.shape[0] if rows is None else rows.shape[0])


@operator(fake=_whitened_norms_fake)
def whitened_norms(
    x: Tensor,
    centre: Tensor,
    factor: Tensor,
    features: Tensor | None = None,
    rows: Tensor | None = None,
    fast: bool = False,
) -> Tensor:
    """``|(x_n - centre) U|^2`` for rows of x.

    Parameters
    ----------
    x : Tensor
        ``[N, D]``, float32 or float64.
    centre : Tensor
        ``[C]``, dtype of x.
    factor : Tensor
        ``[C, P]``, dtype of x: the columns U. Fastest where each is zero from somewhere on, as those of an upper
        triangular matrix are.
    features : Tensor, optional
        int64 ``[C]``: the features of x that are meant. Default: all.
    rows : Tensor, optional
        int64 ``[M]``. Default: all.
    fast : bool
        Whether one product in TF32 may stand for a float32 product where a device multiplies it so.

    Returns
    -------
    Tensor
        ``[M]``, dtype of x.
    """
    if rows is not None:
        x = x.index_select(0, rows)
    if features is not None:
        x = x.index_select(1, features)
    difference = x - centre
    norms = x.new_zeros(len(x))
    ends = (factor != 0).int().mul(torch.arange(1, len(factor) + 1, device=x.device)[:, None])
    for start, stop in _strips(factor.shape[1]):
        height = int(ends[:, start:stop].max()) if ends.numel() else 0
        norms += (difference[:, :height] @ factor[:height, start:stop]).square_().sum(1)
    return norms


def _add_scatter_fake(
    x: Tensor,
    mean: Tensor,
    weights: Tensor,
    first: Tensor,
    second: Tensor,
    rows: Tensor | None = None,
) -> None:
    return None


@operator(fake=_add_scatter_fake, mutates=("first", "second"))
def add_scatter(
    x: Tensor,
    mean: Tensor,
    weights: Tensor,
    first: Tensor,
    second: Tensor,
    rows: Tensor | None = None,
) -> None:
    """Add weighted sums of differences from a centre, and of their outer products, in place.

    Differences, products and sums are float64: small variances are what is left of large squares.

    Parameters
    ----------
    x : Tensor
        ``[N, D]``, float32 or float64.
    mean : Tensor
        ``[D]``, float64.
    weights : Tensor
        ``[M]``, float64, non-negative.
    first, second : Tensor
        ``[D]`` and ``[D, D]``, float64: added to them are the sums over rows of ``w (x_n - mean)`` and
        ``w (x_n - mean) (x_n - mean)^T``. ``second`` is symmetric, before and after.
    rows : Tensor, optional
        int64 ``[M]``. Default: all.
    """
    size = max(_BLOCK_ELEMENTS // max(x.shape[1], 1), 64)
    for start in range(0, len(weights), size):
        part = slice(start, start + size)
        chosen = x[part] if rows is None else x.index_select(0, rows[part])
        roots = weights[part].sqrt()
        scaled = (chosen - mean).mul_(roots[:, None])
        first += roots @ scaled
        for begin, end in _strips(len(second)):
            second[begin:end, begin:].addmm_(scaled[:, begin:end].T, scaled[:, begin:])
    second.copy_(second.triu() + second.triu(1).T)
