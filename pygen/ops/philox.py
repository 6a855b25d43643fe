"""Philox4x32-10, the counter-based generator, in plain PyTorch.

J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC
2011).

A 32-bit word is held in an int64. The 128-bit counter of a block is

    =======  ==================================  ========================================
    bits     holds                               so that
    =======  ==================================  ========================================
    0..63    offset + index of the block         draw i of a call depends on (seed, offset, i)
    64..127  the stream (``NORMAL``, ...)        draws of different kinds are independent
    =======  ==================================  ========================================

and the key is the 64-bit seed; low words first. Draw i of a call is lane i % 4 of block i // 4.
"""

import torch
from torch import Tensor

NORMAL, UNIFORM = 0, 1
LOW_DIGITS = 2
"""Added to a stream: the low 32 bits of the same draws, for float64."""

_WORD = 0xFFFFFFFF
_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def _multiply(word: Tensor, constant: int) -> tuple[Tensor, Tensor]:
    """High and low word of a 64-bit product, which int64 holds modulo 2**64."""
    product = word * constant
    return (product >> 32) & _WORD, product & _WORD


def philox4x32(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Four random words for each counter.

    Parameters
    ----------
    counter : four int64 tensors of shapes that broadcast
        Words 0..3 of the counters, each in ``[0, 2**32)``.
    key : two int64 tensors
        Words 0 and 1 of the key.

    Returns
    -------
    four int64 tensors
        In ``[0, 2**32)``.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def random_words(state: Tensor, start: int, stop: int, stream: int) -> Words:
    """The words of blocks ``start..stop`` of a call that begins at ``state``.

    Parameters
    ----------
    state : Tensor
        int64 ``[2]``: (seed, offset), both read as 64 unsigned bits.
    start, stop : int
        Range of block indices.
    stream : int
        ``NORMAL`` or ``UNIFORM``, plus ``LOW_DIGITS`` for the low words of float64 draws.

    Returns
    -------
    four int64 tensors ``[stop - start]``
        One per lane.
    """
    seed, offset = state.unbind()
    block = torch.arange(start, stop, device=state.device) + offset
    zero = torch.zeros_like(seed)
    counter = block & _WORD, (block >> 32) & _WORD, zero + stream, zero
    return philox4x32(counter, (seed & _WORD, (seed >> 32) & _WORD))
