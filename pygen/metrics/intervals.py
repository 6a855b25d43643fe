"""How far a figure may be off because it is of so many images and not of more."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pygen.random import RandomState, as_seed

# Standard deviations to either side that hold 95% of a normal distribution.
_NORMAL_95 = 1.96


class Estimate(NamedTuple):
    """A figure and its 95% confidence interval, None on both sides where there is none."""

    value: float
    low: float | None = None
    high: float | None = None


def half_samples(n: int, n_resamples: int, random_state: RandomState = None) -> Iterator[Tensor]:
    """Positions of half of n rows, drawn without replacement, again and again.

    A bootstrap draws rows twice, and figures of neighbours, of kernels and of covariances take two equal rows for
    what they are not. Half of the rows, each once, have no such bias, and their figures spread about as much around
    the figure of all as that does around the truth: the variance of a mean of half of the rows, given all, is
    s2 / (n / 2) * (1 - 1 / 2) = s2 / n (the delete-d jackknife with d = n / 2; Shao and Wu, 1989). Distances of two
    sets of one distribution spread more than that: their intervals are up to twice too wide.

    Parameters
    ----------
    n : int
    n_resamples : int
    random_state : optional
        See :func:`pygen.random.as_seed`.

    Yields
    ------
    Tensor
        int64 ``[n // 2]``, ascending.
    """
    generator = torch.Generator().manual_seed(as_seed(random_state))
    for _ in range(n_resamples):
        yield torch.randperm(n, generator=generator)[: n // 2].sort().values


def estimate(
    value: float,
    of_halves: Sequence[float],
    *,
    least: float = -math.inf,
    most: float = math.inf,
) -> Estimate:
    """A figure of all rows with the interval that those of its half samples give.

    ``value +- 1.96 s`` with their standard deviation s. Their mean has no part in it: half of the rows may give
    another figure on average, as with the Frechet distance.

    Parameters
    ----------
    value : float
    of_halves : sequence of float
        The same figure of :func:`half_samples`; with fewer than two, or infinite ones, there is no interval.
    least, most : float
        Between which the figure lies in any case.
    """
    if len(of_halves) < 2 or not all(map(math.isfinite, [value, *of_halves])):
        return Estimate(value)
    margin = _NORMAL_95 * torch.tensor(of_halves, dtype=torch.float64).std().item()
    return Estimate(value, max(value - margin, least), min(value + margin, most))
