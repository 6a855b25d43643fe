"""Triangular factors: of the inverse of a covariance, and the inverse of one."""

import torch
from torch import Tensor

from pygen.ops.operator import operator

# Below this, halving costs more than it saves.
_WHOLE = 96


def _inverse_factors_fake(matrices: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(matrices), matrices.new_empty(len(matrices), dtype=torch.bool)


@operator(fake=_inverse_factors_fake)
def inverse_factors(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Upper-triangular U with ``U U^T`` the inverse of a symmetric matrix, of each of a batch.

    From the Cholesky factorisation ``L L^T`` of the matrix, U is the inverse of ``L^T``.

    Parameters
    ----------
    matrices : Tensor
        ``[K, D, D]``, float64.

    Returns
    -------
    factors : Tensor
        ``[K, D, D]``, float64.
    positive : Tensor
        bool ``[K]``: whether the matrix is positive definite; the factor of one that is not means nothing.
    """
    factors = torch.zeros_like(matrices)
    positive = [
        _factor_inverse(matrix, factor) for matrix, factor in zip(matrices, factors, strict=True)
    ]
    return factors, torch.tensor(positive, dtype=torch.bool, device=matrices.device)


def _factor_inverse(matrix: Tensor, factor: Tensor) -> bool:
    """Write U into ``factor``, which is zero."""
    variances = matrix.diagonal()
    if not (variances > 0).all():
        return False
    # Features that depend on no other, such as pixels that are always black, need no matrix algebra. On MNIST they are
    # a third of the features, and leaving them out saves two thirds of the time.
    linked = (matrix.count_nonzero(0) > 1).nonzero().squeeze(1)
    factor.diagonal().copy_(variances.rsqrt())
    if len(linked) == 0:
        return True
    part = matrix.index_select(0, linked).index_select(1, linked)
    lower, info = torch.linalg.cholesky_ex(part)
    if info.item() != 0 or not lower.diagonal().isfinite().all():
        return False
    factor.T[linked[:, None], linked] = invert_lower(lower)
    return True


def invert_lower(lower: Tensor) -> Tensor:
    """Inverse of a lower-triangular matrix ``[D, D]``, by halves: all its work is matrix products."""
    inverse = torch.zeros_like(lower)
    _invert_into(lower, inverse)
    return inverse


def _invert_into(lower: Tensor, inverse: Tensor) -> None:
    n = len(lower)
    if n <= _WHOLE:
        eye = torch.eye(n, dtype=lower.dtype, device=lower.device)
        inverse.copy_(torch.linalg.solve_triangular(lower, eye, upper=False))
        return
    half = n // 2
    _invert_into(lower[:half, :half], inverse[:half, :half])
    _invert_into(lower[half:, half:], inverse[half:, half:])
    corner = lower[half:, :half] @ inverse[:half, :half]
    torch.mm(inverse[half:, half:], corner.neg_(), out=inverse[half:, :half])
