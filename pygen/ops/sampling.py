"""Operators of the sampling family: components by their weights, and rows from a batch of Gaussians.

Each draws from a state as ``pygen.ops.gaussian`` has it, and advances it.
"""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import pad

from pygen.ops.gaussian import normal, uniform
from pygen.ops.operator import operator


def _empty_picks(state: Tensor, weights: Tensor, n: int) -> Tensor:
    return state.new_empty(n)


@operator(fake=_empty_picks, mutates=("state",))
def pick(state: Tensor, weights: Tensor, n: int) -> Tensor:
    """Draw components with probability proportional to their weights, by the inverse of their CDF.

    Draw i is the first component at which the running sum of the weights, added up in order in
    float64, exceeds a uniform draw of [0, sum): the same on every device that has a kernel for it.

    Parameters
    ----------
    state : Tensor
        int64 ``[2]``: (seed, offset). The offset is advanced in place by ``ceil(n / 4)``: the draws
        are those of ``uniform(state, [n], torch.float64)``.
    weights : Tensor
        ``[K]``, float32 or float64, not negative; they need not add up to one. A component of
        weight 0 is never drawn.
    n : int
        Number of draws.

    Returns
    -------
    Tensor
        int64 ``[n]``, each in ``[0, K)``.

    Raises
    ------
    ValueError
        If ``weights`` is no such tensor, or, on the CPU, has a weight that is negative or not
        finite, or none above 0; on a GPU, which is not waited for, the draws then mean nothing.
    """
    if (
        weights.dim() != 1
        or not len(weights)
        or weights.dtype not in (torch.float32, torch.float64)
    ):
        raise ValueError(
            f"weights must be float32 or float64 [K], got {weights.dtype} {list(weights.shape)}."
        )
    totals = weights.double().cumsum(0)
    if weights.device.type == "cpu" and not (
        (weights >= 0).all() and totals[-1].isfinite() and totals[-1] > 0
    ):
        raise ValueError("weights must be finite, not negative, and not all 0.")
    # u T < T for every u below 1, rounded or not: a component beyond the last weight is not found.
    drawn = uniform(state, [n], torch.float64) * totals[-1]
    return torch.searchsorted(totals, drawn, right=True).clamp_max_(len(weights) - 1)


# Rows of a chunk times columns: its few float32 temporaries stay in a core's second-level cache.
_CHUNK_ELEMENTS = 2**17
# Rows of one component that enter one matrix product, at most, and columns of a block of the
# triangular factor.
_CHOLESKY_ROWS, _CHOLESKY_COLUMNS = 2048, 128
# Rows and columns are padded to a multiple of this: a library's matrix product takes the last few
# of an odd shape another way, and a sample would be rounded differently with other samples beside
# it or with more threads.
_CHOLESKY_MULTIPLE = 64


def _check_gaussians(state: Tensor, index: Tensor, means: Tensor, scales: Tensor) -> None:
    if means.dtype not in (torch.float32, torch.float64):
        raise RuntimeError(f"dtype must be one of torch.float32, torch.float64; got {means.dtype}.")
    if index.dim() != 1 or index.dtype != torch.int64:
        raise ValueError(f"index must be int64 [N], got {index.dtype} {list(index.shape)}.")
    if means.dim() != 2:
        raise ValueError(f"means must be [K, D], got {list(means.shape)}.")
    k, d = means.shape
    columns = ((d, d),) if scales.dim() == 3 else ((d,), (1,))
    if (
        scales.dim() not in (2, 3)
        or scales.shape[0] not in (k, 1)
        or scales.shape[1:] not in columns
    ):
        raise ValueError(
            f"scales must be standard deviations [{k} or 1, {d} or 1] or Cholesky factors"
            f" [{k} or 1, {d}, {d}] for means [{k}, {d}], got {list(scales.shape)}."
        )
    if scales.dtype != means.dtype:
        raise ValueError(f"scales must have the dtype of means, {means.dtype}, got {scales.dtype}.")


def _sample_diagonal(
    state: Tensor, index: Tensor, means: Tensor, scales: Tensor, out: Tensor
) -> None:
    n, d = out.shape
    width = 4 * ((d + 3) // 4)
    rows = max(1, _CHUNK_ELEMENTS // max(1, width))
    for start in range(0, n, rows):
        part = index[start : start + rows]
        eps = normal(state, [len(part), width], means.dtype)[:, :d]
        scale = scales if len(scales) == 1 else scales.index_select(0, part)
        torch.add(means.index_select(0, part), eps.mul_(scale), out=out[start : start + rows])


def _sample_cholesky(
    state: Tensor, index: Tensor, means: Tensor, scales: Tensor, out: Tensor
) -> None:
    """Fills ``out`` with eps, then each component replaces its rows: no other [N, D]."""
    n, d = out.shape
    width = 4 * ((d + 3) // 4)
    rows = max(1, _CHUNK_ELEMENTS // max(1, width))
    for start in range(0, n, rows):
        part = out[start : start + rows]
        part.copy_(normal(state, [len(part), width], means.dtype)[:, :d])
    component, order = index.sort(stable=True)
    if n and not 0 <= component[0] <= component[-1] < len(means):
        raise IndexError(
            f"index must lie in [0, {len(means)}), got {component[0]} to {component[-1]}."
        )
    ends = torch.searchsorted(
        component, torch.arange(len(means), device=index.device), right=True
    ).tolist()
    columns = d + -d % 16
    noise = out.new_zeros(min(_CHOLESKY_ROWS, n + -n % _CHOLESKY_MULTIPLE), columns)
    product = torch.empty_like(noise)
    for k, (begin, end) in enumerate(pairwise([0, *ends])):
        if begin == end:
            continue
        factor = pad(scales[k if len(scales) > 1 else 0], (0, columns - d, 0, columns - d))
        for start in range(begin, end, _CHOLESKY_ROWS):
            members = order[start : min(start + _CHOLESKY_ROWS, end)]
            rows = len(members) + -len(members) % _CHOLESKY_MULTIPLE
            eps, x = noise[:rows], product[:rows]
            eps[: len(members), :d] = out.index_select(0, members)
            for left in range(0, columns, _CHOLESKY_COLUMNS):
                right = min(left + _CHOLESKY_COLUMNS, columns)
                torch.mm(eps[:, :right], factor[left:right, :right].T, out=x[:, left:right])
            out.index_copy_(0, members, x[: len(members), :d].add_(means[k]))


def _empty_rows(
    state: Tensor, index: Tensor, means: Tensor, scales: Tensor, fast: bool = False
) -> Tensor:
    return means.new_empty(index.shape[0], means.shape[1])


@operator(fake=_empty_rows, mutates=("state",))
def sample_gaussians(
    state: Tensor, index: Tensor, means: Tensor, scales: Tensor, fast: bool = False
) -> Tensor:
    """Draw row i from the Gaussian ``index[i]`` of a batch.

    With standard deviations the kernels of all devices give the same bits. With factors they sum in
    orders of their own, and agree within float32's or float64's rounding; a row's bits do not
    depend on the rows beside it.

    Parameters
    ----------
    state : Tensor
        int64 ``[2]``: (seed, offset). The offset is advanced in place by ``N ceil(D / 4)``: the
        noise of row i is row i of ``normal(state, [N, 4 ceil(D / 4)])[:, :D]``, however the rows
        are cut into calls.
    index : Tensor
        int64 ``[N]``, each in ``[0, K)``.
    means : Tensor
        ``[K, D]``, float32 or float64.
    scales : Tensor
        Same dtype. Standard deviations ``[K or 1, D or 1]``: row i is ``mean + scale * eps``; or
        lower Cholesky factors of the covariances ``[K or 1, D, D]``, of which only the lower
        triangle should be non-zero: row i is ``mean + L eps``.
    fast : bool
        As in ``normal``: whether a GPU may draw float32 noise by its own approximations.

    Returns
    -------
    Tensor
        ``[N, D]``, dtype and device of ``means``.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit.
    IndexError
        If an index is outside ``[0, K)``, on the CPU; on a GPU, which is not waited for, such a row
        is NaN.
    """
    _check_gaussians(state, index, means, scales)
    out = _empty_rows(state, index, means, scales)
    sample = _sample_diagonal if scales.dim() == 2 else _sample_cholesky
    sample(state, index, means, scales, out)
    return out
