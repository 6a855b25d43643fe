"""One pass of EM for each of several mixtures: small ones are worth no calls of their own."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pygen.ops.covariance import full_em
from pygen.ops.diagonal import diagonal_em
from pygen.ops.mixture import em_statistics
from pygen.ops.operator import operator

EmSums = tuple[Tensor, Tensor, Tensor, Tensor]


def _em_fake(
    x: Tensor,
    means: Tensor,
    precisions: Tensor,
    constant: Tensor,
    ranges: Sequence[int],
    sample_weight: Tensor | None = None,
    fast: bool = False,
) -> EmSums:
    counts, sums = means.new_empty(constant.shape), means.new_empty(means.shape)
    return counts, sums, means.new_empty(precisions.shape), means.new_empty(len(means))


def _each(
    one: Callable[..., EmSums],
    ranges: Sequence[int],
    x: Tensor,
    sample_weight: Tensor | None,
    *parameters: Tensor,
    **options: object,
) -> EmSums:
    first, last = ranges[::2], ranges[1::2]
    fits = len(first) == len(last) == len(parameters[0])
    if not fits or not all(0 <= a <= b <= len(x) for a, b in zip(first, last, strict=True)):
        raise ValueError(
            f"ranges must be a first row and one past the last, in [0, {len(x)}], for each of"
            f" {len(parameters[0])} mixtures; got {list(ranges)}."
        )
    found = []
    for start, stop, *own in zip(first, last, *parameters, strict=True):
        weights = None if sample_weight is None else sample_weight[start:stop]
        found.append(one(x[start:stop], *own, sample_weight=weights, **options))
    counts, sums, scatter, log_likelihood = map(torch.stack, zip(*found, strict=True))
    return counts, sums, scatter, log_likelihood


@operator(fake=_em_fake)
def diagonal_em_of_each(
    x: Tensor,
    means: Tensor,
    precisions: Tensor,
    constant: Tensor,
    ranges: Sequence[int],
    sample_weight: Tensor | None = None,
    fast: bool = False,
) -> EmSums:
    """:func:`pygen.ops.diagonal.diagonal_em` for each of B mixtures.

    Parameters
    ----------
    x : Tensor
        ``[N, D]``, float32 or float64.
    means, precisions, constant : Tensor
        ``[B, K, D]``, ``[B, K, D]`` and ``[B, K]``, float64.
    ranges : sequence of int
        2 B: the first row of each mixture and one past its last; they may overlap.
    sample_weight : Tensor, optional
        ``[N]``, float64, non-negative.
    fast : bool

    Returns
    -------
    counts, sums, scatter, log_likelihood : Tensor
        ``[B, K]``, ``[B, K, D]``, ``[B, K, D]`` and ``[B]``: bit for bit what each has alone.
    """
    return _each(diagonal_em, ranges, x, sample_weight, means, precisions, constant, fast=fast)


@operator(fake=_em_fake)
def full_em_of_each(
    x: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    constant: Tensor,
    ranges: Sequence[int],
    sample_weight: Tensor | None = None,
    fast: bool = False,
) -> EmSums:
    """:func:`pygen.ops.covariance.full_em` for each of B mixtures.

    Parameters
    ----------
    x, ranges, sample_weight, fast
        See :func:`diagonal_em_of_each`.
    means, precisions_cholesky, constant : Tensor
        ``[B, K, D]``, ``[B, K, D, D]`` and ``[B, K]``, float64.

    Returns
    -------
    counts, sums, scatter, log_likelihood : Tensor
        ``[B, K]``, ``[B, K, D]``, ``[B, K, D, D]`` and ``[B]``: bit for bit what each has alone.
    """
    parameters = means, precisions_cholesky, constant
    return _each(full_em, ranges, x, sample_weight, *parameters, fast=fast)


def em_statistics_of_each(
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    covariance_type: str,
    ranges: Sequence[int],
    sample_weight: Tensor | None = None,
    precision: str = "high",
) -> EmSums:
    """:func:`pygen.ops.em_statistics` for each of B mixtures, which see all rows or their own.

    Parameters
    ----------
    x : Tensor
        ``[N, D]``, float32 or float64.
    log_weights, means, precisions_cholesky : Tensor
        As ``em_statistics`` takes them, each with a dimension B before the others; float64.
    covariance_type : {"spherical", "diag", "tied", "full"}
    ranges : sequence of int
        2 B: the first row of each mixture and one past its last; they may overlap.
    sample_weight : Tensor, optional
        ``[N]``, float64, non-negative.
    precision : {"high", "fast", "exact"}
        See :mod:`pygen.ops.mixture`.

    Returns
    -------
    counts, sums, scatter, log_likelihood : Tensor
        As ``em_statistics`` returns them, each with the dimension B before the others.
    """
    if covariance_type == "tied" or precision == "exact":
        parameters = log_weights, means, precisions_cholesky
        options = {"covariance_type": covariance_type, "precision": precision}
        return _each(em_statistics, ranges, x, sample_weight, *parameters, **options)
    fast = precision == "fast"
    constant = log_weights - 0.5 * means.shape[-1] * math.log(2 * math.pi)
    if covariance_type == "full":
        diagonals = precisions_cholesky.diagonal(dim1=-2, dim2=-1)
        constant = constant + diagonals.log().sum(-1)
        return full_em_of_each(x, means, precisions_cholesky, constant, ranges, sample_weight, fast)
    if covariance_type == "spherical":
        precisions_cholesky = precisions_cholesky[..., None].expand_as(means)
    constant = constant + precisions_cholesky.log().sum(-1)
    precisions = precisions_cholesky.square()
    sums = diagonal_em_of_each(x, means, precisions, constant, ranges, sample_weight, fast)
    if covariance_type == "spherical":
        return sums[0], sums[1], sums[2].sum(-1), sums[3]
    return sums
