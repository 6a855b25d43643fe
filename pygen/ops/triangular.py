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
    # The whole batch at once, and no result is looked at: nothing here waits for a GPU.
    lower, info = torch.linalg.cholesky_ex(matrices)
    finite = lower.diagonal(dim1=1, dim2=2).isfinite().all(1)
    return invert_lower(lower).mT.contiguous(), (info == 0) & finite


def invert_lower(lower: Tensor) -> Tensor:
    """Inverse of lower-triangular matrices ``[..., D, D]``, by halves: all its work is matrix products."""
    inverse = torch.zeros_like(lower)
    _invert_into(lower, inverse)
    return inverse


def _invert_into(lower: Tensor, inverse: Tensor) -> None:
    n = lower.shape[-1]
    if n <= _WHOLE:
        eye = torch.eye(n, dtype=lower.dtype, device=lower.device)
        inverse.copy_(torch.linalg.solve_triangular(lower, eye, upper=False))
        return
    half = n // 2
    _invert_into(lower[..., :half, :half], inverse[..., :half, :half])
    _invert_into(lower[..., half:, half:], inverse[..., half:, half:])
    corner = lower[..., half:, :half] @ inverse[..., :half, :half]
    torch.matmul(inverse[..., half:, half:], corner.neg_(), out=inverse[..., half:, :half])
