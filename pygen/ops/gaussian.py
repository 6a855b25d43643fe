"""Operators of the gaussian family: normals, uniforms, and rows from a batch of Gaussians.

Each takes a state, int64 ``[2]`` of (seed, offset), and advances the offset by the blocks of four
draws it used (``pygen.random.new_state`` makes one). Draw i of a call depends on (seed, offset, i)
alone: not on the device, the number of threads or how the work is cut. So a ``[rows, 4 m]`` draw
equals the draws of any split of its rows.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from pygen.ops.box_muller import box_muller
from pygen.ops.operator import operator
from pygen.ops.philox import LOW_DIGITS, NORMAL, UNIFORM, random_words

# Blocks of four draws at a time: a temporary of int64 then is 64 KB, and a dozen of them stay in a
# core's cache.
_CHUNK = 8192


def _check(state: Tensor, dtype: torch.dtype, dtypes: Sequence[torch.dtype]) -> None:
    if state.dtype != torch.int64 or state.shape != (2,):
        raise RuntimeError(
            "state must be an int64 tensor of shape [2], (seed, offset), as pygen.random.new_state makes"
            f" it; got {state.dtype} of shape {list(state.shape)}."
        )
    if dtype not in dtypes:
        raise RuntimeError(f"dtype must be one of {', '.join(map(str, dtypes))}; got {dtype}.")


def _draw(
    state: Tensor,
    size: Sequence[int],
    dtype: torch.dtype,
    lanes: Callable[[int, int], tuple[Tensor, Tensor, Tensor, Tensor]],
) -> Tensor:
    """Fill a tensor with ``lanes(start, stop)``, four draws a block, and advance the state."""
    if min(size, default=0) < 0:
        raise RuntimeError(f"size must not be negative, got {list(size)}.")
    n = prod(size)
    blocks = (n + 3) // 4
    out = torch.empty(n, dtype=dtype, device=state.device)
    for start in range(0, blocks, _CHUNK):
        stop = min(start + _CHUNK, blocks)
        draws = torch.stack(lanes(start, stop), 1).view(-1)
        out[4 * start : 4 * stop] = draws[: n - 4 * start]
    state[1] += blocks
    return out.view(size)


def _empty(state: Tensor, size: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    return state.new_empty(size, dtype=dtype)


@operator(fake=_empty, mutates=("state",))
def normal(state: Tensor, size: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal draws from the counter-based generator Philox4x32-10.

    Box-Muller on lanes (0, 1) and (2, 3) of each block; the same bits on every device.

    Parameters
    ----------
    state : Tensor
        int64 ``[2]``: (seed, offset). The offset is advanced in place by ``ceil(n / 4)`` for n
        draws.
    size : sequence of int
        Shape of the result.
    dtype : torch.dtype
        float32; float64 (the same draws with more digits); float16 or bfloat16 (the float32 draws,
        rounded).

    Returns
    -------
    Tensor
        ``size``, on the state's device.

    Raises
    ------
    RuntimeError
        If the state is not int64 ``[2]`` or the dtype is another.
    """
    _check(state, dtype, (torch.float32, torch.float64, torch.float16, torch.bfloat16))

    def lanes(start: int, stop: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x0, x1, x2, x3 = random_words(state, start, stop, NORMAL)
        if dtype != torch.float64:
            return *box_muller(x0, x1), *box_muller(x2, x3)
        y0, y1, y2, y3 = random_words(state, start, stop, NORMAL + LOW_DIGITS)
        return *box_muller(x0, x1, (y0, y1)), *box_muller(x2, x3, (y2, y3))

    return _draw(state, size, dtype, lanes)


@operator(fake=_empty, mutates=("state",))
def uniform(state: Tensor, size: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform draws in [0, 1) from the counter-based generator Philox4x32-10.

    Parameters
    ----------
    state : Tensor
        int64 ``[2]``: (seed, offset). The offset is advanced in place by ``ceil(n / 4)`` for n
        draws.
    size : sequence of int
        Shape of the result.
    dtype : torch.dtype
        float32 (multiples of 2**-24) or float64 (the same draws with more digits, multiples of
        2**-53).

    Returns
    -------
    Tensor
        ``size``, on the state's device.

    Raises
    ------
    RuntimeError
        If the state is not int64 ``[2]`` or the dtype is another.
    """
    _check(state, dtype, (torch.float32, torch.float64))

    def lanes(start: int, stop: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        high = random_words(state, start, stop, UNIFORM)
        if dtype == torch.float32:
            w, x, y, z = ((word >> 8).float() * 2.0**-24 for word in high)
        else:
            low = random_words(state, start, stop, UNIFORM + LOW_DIGITS)
            w, x, y, z = (
                ((top << 21) | (rest >> 11)).double() * 2.0**-53
                for top, rest in zip(high, low, strict=True)
            )
        return w, x, y, z

    return _draw(state, size, dtype, lanes)


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
    _check(state, means.dtype, (torch.float32, torch.float64))
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


def _empty_rows(state: Tensor, index: Tensor, means: Tensor, scales: Tensor) -> Tensor:
    return means.new_empty(index.shape[0], means.shape[1])


@operator(fake=_empty_rows, mutates=("state",))
def sample_gaussians(state: Tensor, index: Tensor, means: Tensor, scales: Tensor) -> Tensor:
    """Draw row i from the Gaussian ``index[i]`` of a batch.

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

    Returns
    -------
    Tensor
        ``[N, D]``, dtype and device of ``means``.

    Raises
    ------
    ValueError
        If shapes or dtypes do not fit.
    IndexError
        If an index is outside ``[0, K)`` (standard deviations: on the CPU only).
    """
    _check_gaussians(state, index, means, scales)
    out = _empty_rows(state, index, means, scales)
    sample = _sample_diagonal if scales.dim() == 2 else _sample_cholesky
    sample(state, index, means, scales, out)
    return out
