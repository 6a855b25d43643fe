"""Frechet distance of two sets of features."""

import torch
from torch import Tensor

from pygen.metrics.features import checked_features

# Rows that become float64 at a time.
_CHUNK = 4096


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    """Squared Frechet (2-Wasserstein) distance of the normal distributions fitted to two sets of features.

    ``|m - n|^2 + tr(A + B - 2 (A B)^(1/2))`` for means m, n and covariances A, B. With Inception features it is the
    FID of Heusel et al. (2017). It depends on the features' scale and, being biased, on the number of rows: compare
    only figures of the same features and numbers.

    Parameters
    ----------
    real, fake : Tensor
        ``[N, F]`` and ``[M, F]``, more rows than features.

    Returns
    -------
    float
        At least 0, in squared units of the features; computed in float64.

    Raises
    ------
    ValueError
        If shapes differ, a value is not finite, or there are too few rows for a covariance.
    """
    checked_features(real, fake, real.shape[-1] + 1, "one more than features for a covariance")
    mean, covariance = _moments(real)
    other_mean, other_covariance = _moments(fake)
    # The eigenvalues of A B are those of the symmetric A^(1/2) B A^(1/2), which rounding leaves real.
    root = _square_root(covariance)
    cross = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp_min(0).sqrt().sum()
    distance = (mean - other_mean).square().sum() + covariance.trace() + other_covariance.trace()
    return max((distance - 2 * cross).item(), 0.0)


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``[F]`` and unbiased covariance ``[F, F]``, float64."""
    parts = features.split(_CHUNK)
    mean = torch.stack([part.double().sum(0) for part in parts]).sum(0) / len(features)
    products = features.new_zeros(2 * features.shape[1:], dtype=torch.float64)
    for part in parts:
        centred = part.double() - mean
        products.addmm_(centred.T, centred)
    return mean, products / (len(features) - 1)


def _square_root(matrix: Tensor) -> Tensor:
    """The positive square root of a positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T
