"""Operators of the gaussian family: normals and uniforms.

Each takes a state, int64 ``[2]`` of (seed, offset), and advances the offset by the blocks of four
draws it used (``pygen.random.new_state`` makes one). Draw i of a call depends on (seed, offset, i)
alone: not on the device, the number of threads or how the work is cut. So a ``[rows, 4 m]`` draw
equals the draws of any split of its rows.
"""

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

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


def _empty(
    state: Tensor, size: Sequence[int], dtype: torch.dtype = torch.float32, fast: bool = False
) -> Tensor:
    return state.new_empty(size, dtype=dtype)


@operator(fake=_empty, mutates=("state",))
def normal(
    state: Tensor, size: Sequence[int], dtype: torch.dtype = torch.float32, fast: bool = False
) -> Tensor:
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
    fast : bool
        Whether a GPU may take its own approximations of logarithm, sine and cosine: the same draws
        within 1e-5, but not bit for bit, nor those of another kind of GPU. Elsewhere, and in
        float64, it changes nothing.

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
