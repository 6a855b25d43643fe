"""The M-step: from the sums of one EM pass to the parameters of a mixture."""

from typing import NamedTuple

import torch
from torch import Tensor

from pygen.ops.triangular import inverse_factors, invert_lower

_ILL_DEFINED = (
    "Fitting the mixture model failed because some components have ill-defined empirical covariance"
    " (for instance caused by singleton or collapsed samples). Try to decrease the number of"
    " components, increase reg_covar, or scale the input data."
)


class Sums(NamedTuple):
    """What ``pygen.ops.em_statistics`` returns; sums over parts of the data add up."""

    counts: Tensor
    sums: Tensor
    scatter: Tensor
    log_likelihood: Tensor

    def plus(self, other: "Sums") -> "Sums":
        return Sums(*(mine.add_(theirs) for mine, theirs in zip(self, other, strict=True)))


class Parameters(NamedTuple):
    """A mixture in float64: weights ``[K]``, means ``[K, D]``, and both of scikit-learn's covariance forms."""

    weights: Tensor
    means: Tensor
    covariances: Tensor
    precisions_cholesky: Tensor


def m_step(
    counts: Tensor,
    sums: Tensor,
    scatter: Tensor,
    means: Tensor,
    covariance_type: str,
    reg_covar: float,
) -> Parameters:
    """Parameters that maximise the expected log-likelihood, from sums about ``means``; may reuse ``scatter``.

    A component that nothing belongs to keeps its mean, has weight 0 and covariance ``reg_covar I``. Several mixtures
    have a dimension B before all others.

    Parameters
    ----------
    counts, sums, scatter : Tensor
        As :func:`pygen.ops.em_statistics` returns them, contiguous.
    means : Tensor
        ``[K, D]``, what the sums are about.
    covariance_type : {"spherical", "diag", "tied", "full"}
    reg_covar : float
        Added to the variances.

    Returns
    -------
    Parameters

    Raises
    ------
    ValueError
        If a covariance is not positive definite.
    """
    safe = counts.clamp_min(torch.finfo(counts.dtype).tiny)
    step = sums / safe[..., None]
    if covariance_type == "full":
        # In place and one by one: matrices of all components together are too large for the cache.
        covariances = scatter
        each = zip(
            covariances.flatten(0, -3), safe.flatten().tolist(), step.flatten(0, -2), strict=True
        )
        for covariance, count, shift in each:
            covariance.addr_(shift, shift, beta=1 / count, alpha=-1)
    elif covariance_type == "tied":
        moved = (step * counts[..., None]).mT @ step
        covariances = (scatter - moved) / counts.sum(-1)[..., None, None]
    elif covariance_type == "diag":
        covariances = (scatter / safe[..., None] - step.square()).clamp_min_(0) + reg_covar
    else:
        variances = (scatter / safe - step.square().sum(-1)) / means.shape[-1]
        covariances = variances.clamp_min_(0) + reg_covar
    if covariance_type in ("full", "tied"):
        covariances.diagonal(dim1=-2, dim2=-1).add_(reg_covar)
    factors = precisions_cholesky(covariances, covariance_type)
    weights = counts / counts.sum(-1, keepdim=True)
    return Parameters(weights, means + step, covariances, factors)


def precisions_cholesky(covariances: Tensor, covariance_type: str) -> Tensor:
    """Upper-triangular U with ``U U^T`` the inverse covariance; reciprocal deviations for diag and spherical."""
    if covariance_type in ("diag", "spherical"):
        if not (covariances > 0).all():
            raise ValueError(_ILL_DEFINED)
        return covariances.rsqrt()
    factors, positive = inverse_factors(covariances.view(-1, *covariances.shape[-2:]))
    if not positive.all():
        raise ValueError(_ILL_DEFINED)
    return factors.view(covariances.shape)


def precisions(factors: Tensor, covariance_type: str) -> Tensor:
    """Inverse covariances, from their Cholesky factors."""
    return factors @ factors.mT if covariance_type in ("full", "tied") else factors.square()


def factor_precisions(precisions: Tensor, covariance_type: str) -> Tensor:
    """``precisions_cholesky`` from precisions ``U U^T`` themselves: a Cholesky factorisation from the far corner."""
    if covariance_type in ("diag", "spherical"):
        return precisions.sqrt()
    return torch.linalg.cholesky(precisions.flip(-1, -2)).flip(-1, -2)


def scales(parameters: Parameters, covariance_type: str) -> Tensor:
    """What ``pygen.ops.sample_gaussians`` scales noise by: deviations, or lower Cholesky factors ``U^-T``."""
    factors = parameters.precisions_cholesky
    if covariance_type == "spherical":
        return factors.reciprocal()[:, None]
    if covariance_type == "diag":
        return factors.reciprocal()
    if covariance_type == "tied":
        factors = factors[None]
    lower = torch.zeros_like(factors)
    for factor, inverse in zip(factors, lower, strict=True):
        inverse.diagonal().copy_(factor.diagonal().reciprocal())
        linked = (
            ((factor.count_nonzero(0) > 1) | (factor.count_nonzero(1) > 1)).nonzero().squeeze(1)
        )
        if len(linked):
            part = factor.index_select(0, linked).index_select(1, linked)
            inverse[linked[:, None], linked] = invert_lower(part.T)
    return lower


def n_parameters(n_components: int, n_features: int, covariance_type: str) -> int:
    """Free parameters of a mixture, for the information criteria."""
    per_covariance = {
        "spherical": n_components,
        "diag": n_components * n_features,
        "tied": n_features * (n_features + 1) // 2,
        "full": n_components * n_features * (n_features + 1) // 2,
    }[covariance_type]
    return per_covariance + n_components * n_features + n_components - 1


def as_sums(old: Parameters, covariance_type: str, reg_covar: float) -> tuple[Tensor, Tensor]:
    """Counts and scatter, about its own means, of a data set of weight 1 whose M-step gives ``old``."""
    weights, covariances = old.weights, old.covariances.clone()
    if covariance_type in ("full", "tied"):
        covariances.diagonal(dim1=-2, dim2=-1).sub_(reg_covar)
    else:
        covariances -= reg_covar
    if covariance_type == "tied":
        return weights, covariances
    if covariance_type == "spherical":
        covariances *= old.means.shape[1]
    return weights, covariances * weights.view(-1, *[1] * (covariances.dim() - 1))
