"""Judges that look at nearest neighbours: are images made where there are real ones, and are they everywhere?"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pygen.metrics.features import checked_features

# Distances that are held at a time, 128 MiB of float64.
_HELD = 2**24
# Of a squared distance that is a sum of products in float64, relative to the largest product.
_ROUNDING = 1e-13


class PRDC(NamedTuple):
    """Where made images lie: `precision` and `density` say how real, `recall` and `coverage` how diverse they are."""

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: Tensor, fake: Tensor, k: int = 5) -> PRDC:
    """Precision, recall, density and coverage of made images.

    A point's ball reaches to its k-th nearest neighbour of its own kind. Precision is the share of made points in any
    real ball, recall that of real points in any made ball (Kynkaanniemi et al., 2019, section 3). Density is the mean
    number of real balls around a made point, over k; coverage the share of real balls that hold a made point (Naeem
    et al., 2020, section 3).

    Parameters
    ----------
    real, fake : Tensor
        ``[N, F]`` and ``[M, F]``. As many of both, for coverage grows with M.
    k : int
        Neighbours, without the point itself.

    Returns
    -------
    PRDC
        All in [0, 1] but density, which may exceed 1; near 1 if both have one distribution.

    Raises
    ------
    ValueError
        If shapes differ, a value is not finite, `k` is below 1, or there are not more than k rows of both.
    """
    if k < 1:
        raise ValueError(f"k: expected at least 1, found {k}")
    checked_features(real, fake, k + 1, f"for {k} neighbours of each")
    real_radii, fake_radii = _radii(real, k), _radii(fake, k)
    held_by_real = torch.zeros(len(fake), dtype=torch.int64, device=fake.device)
    recalled, covered = [], []
    for rows, distances in _distances(real, fake):
        in_real = distances <= real_radii[rows, None]
        held_by_real += in_real.sum(0)
        covered.append(in_real.any(1))
        recalled.append((distances <= fake_radii).any(1))
    return PRDC(
        precision=_share(held_by_real > 0),
        recall=_share(torch.cat(recalled)),
        density=held_by_real.double().mean().item() / k,
        coverage=_share(torch.cat(covered)),
    )


def two_sample_accuracy(real: Tensor, fake: Tensor) -> float:
    """How often a point's nearest other point, of both kinds together, is of its own kind.

    The leave-one-out accuracy of a 1-nearest-neighbour classifier (Lopez-Paz and Oquab, 2017, section 4).

    Parameters
    ----------
    real, fake : Tensor
        ``[N, F]`` each.

    Returns
    -------
    float
        In [0, 1]. About 1/2 if both have one distribution; 1 if they lie apart; below 1/2 if real points were copied.

    Raises
    ------
    ValueError
        If shapes differ, or in number, or a value is not finite.
    """
    checked_features(real, fake, 2, "for a nearest neighbour")
    if len(real) != len(fake):
        raise ValueError(
            f"Features: expected as many real as made rows, chance is 1/2 only then; found"
            f" {len(real)} and {len(fake)}."
        )
    points = torch.cat([real, fake])
    is_fake = torch.arange(len(points), device=points.device) >= len(real)
    right = []
    for rows, distances in _distances(points, points):
        distances[torch.arange(len(distances)), torch.arange(rows.start, rows.stop)] = torch.inf
        right.append(is_fake[distances.argmin(1)] == is_fake[rows])
    return _share(torch.cat(right))


def _radii(points: Tensor, k: int) -> Tensor:
    """Squared distance ``[N]`` of each point to its k-th nearest other one, float64."""
    # The nearest of all is the point itself, at 0.
    parts = [d.topk(k + 1, largest=False).values[:, k] for _, d in _distances(points, points)]
    return torch.cat(parts)


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances ``[n, M]`` of rows of x ``[N, F]`` to all of y ``[M, F]``, some rows at a time, float64."""
    centre = y.double().mean(0)
    x, y = x.double() - centre, y.double() - centre
    lengths, others = x.square().sum(1, keepdim=True), y.square().sum(1)
    # What rounding leaves between equal points.
    zero = _ROUNDING * max(lengths.max().item(), others.max().item())
    step = max(1, _HELD // len(y))
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        squares = torch.addmm(lengths[rows] + others, x[rows], y.T, alpha=-2)
        yield rows, functional.threshold(squares, zero, 0.0, inplace=True)


def _share(flags: Tensor) -> float:
    return flags.double().mean().item()
