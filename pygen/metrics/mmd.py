"""Do two sets of images come from one distribution? A permutation test."""

from typing import NamedTuple

import torch
from torch import Tensor

from pygen.metrics.features import checked_features
from pygen.random import RandomState, as_seed


class MMDTest(NamedTuple):
    """The squared maximum mean discrepancy, and how often chance alone gives as much."""

    distance: float
    p_value: float


def mmd_test(
    real: Tensor, fake: Tensor, n_permutations: int = 200, random_state: RandomState = None
) -> MMDTest:
    """Test whether real and made images differ, by the maximum mean discrepancy of their features.

    The unbiased estimate of ``E k(x, x') + E k(y, y') - 2 E k(x, y)`` with the kernel ``exp(-|a - b|^2 / (2 s^2))``,
    s the median distance of two of all points (Gretton et al., 2012, equation 3 and section 8), beside its values
    where the points are dealt out anew, as if both were of one kind.

    Parameters
    ----------
    real, fake : Tensor
        ``[N, F]`` and ``[M, F]``. All (N + M)^2 distances are held at once.
    n_permutations : int
        At least 1; the least p-value is one more than its inverse.
    random_state : optional
        See :func:`pygen.random.as_seed`.

    Returns
    -------
    MMDTest
        `distance`, 0 in expectation if both are of one distribution, and `p_value`, the share of deals, the actual
        one among them, whose distance is at least as large: if both are of one distribution, at most .05 in 5% of
        all tests.

    Raises
    ------
    ValueError
        If shapes differ, a value is not finite, there are fewer than 2 rows of either or no permutations.
    """
    if n_permutations < 1:
        raise ValueError(f"n_permutations: expected at least 1, found {n_permutations}")
    checked_features(real, fake, 2, "for a pair of each")
    kernel = _kernel(torch.cat([real, fake]).double())
    n, m = len(real), len(fake)
    generator = torch.Generator().manual_seed(as_seed(random_state))
    deals = [torch.arange(n + m)]
    deals += [torch.randperm(n + m, generator=generator) for _ in range(n_permutations)]
    # Which points count as real, a column for each deal: a @ K @ a is the sum over their pairs.
    first = torch.zeros(n + m, len(deals), dtype=torch.float64)
    for column, deal in enumerate(deals):
        first[deal[:n], column] = 1
    first = first.to(kernel.device)
    of_points = kernel @ first
    within = (first * of_points).sum(0)
    across = ((1 - first) * of_points).sum(0)
    others = kernel.sum() - within - 2 * across
    distances = within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * across / (n * m)
    # Deals that are alike sum in another order, and must not come out smaller.
    as_large = distances >= distances[0] - 1e-12
    return MMDTest(distances[0].item(), as_large.double().mean().item())


def _kernel(points: Tensor) -> Tensor:
    """``[N, N]`` of points ``[N, F]``, with zeros for a point and itself, which no mean looks at."""
    squares = torch.cdist(points, points).square()
    pairs = squares[torch.triu(torch.ones_like(squares, dtype=torch.bool), 1)]
    # Where most points are one and the same, any width tells these from the others.
    width = pairs.median().clamp_min(torch.finfo(torch.float64).tiny)
    kernel = torch.exp(squares / (-2 * width))
    return kernel.fill_diagonal_(0)
