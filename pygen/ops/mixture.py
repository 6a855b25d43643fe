"""Operators of the mixture family: responsibilities, densities, and the sums of one EM pass.

Rows are taken in blocks that fit the cache: nothing of size [N, K, D] exists, and ``em_statistics`` never holds
[N, K] either. The covariance types are scikit-learn's, with its ``precisions_cholesky``:

=========  ===================  ==========================================
type       precisions_cholesky  precision of component k
=========  ===================  ==========================================
spherical  ``[K]``              ``precisions_cholesky[k]**2 I``
diag       ``[K, D]``           ``diag(precisions_cholesky[k]**2)``
tied       ``[D, D]``           ``U U^T``, U upper triangular
full       ``[K, D, D]``        ``U_k U_k^T``, U_k upper triangular
=========  ===================  ==========================================

Densities of float32 rows have one of three precisions; sums over rows are float64 in all of them, and float64 rows
always get float64:

=========  =========================================================================================
precision  densities
=========  =========================================================================================
high       float32; where components compete for a row, and each counts, as good as float64
fast       float32 alone; on a GPU one product in TF32 may stand for a float32 product
exact      float64; rows are converted a block at a time
=========  =========================================================================================
"""

import torch
from torch import Tensor

from pygen.ops.covariance import COVARIANCES, Covariance
from pygen.ops.operator import operator
from pygen.ops.posterior import Posterior

PRECISIONS = ("high", "fast", "exact")
# Elements of x that are converted to float64 together: 16 MB.
_CONVERTED = 2**21


def _check(
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    covariance_type: str,
    precision: str,
) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {list(PRECISIONS)}, got {precision!r}.")
    if covariance_type not in COVARIANCES:
        raise ValueError(
            f"covariance_type must be one of {sorted(COVARIANCES)}, got {covariance_type!r}."
        )
    if x.dim() != 2 or x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x must be float32 or float64 [N, D], got {x.dtype} {list(x.shape)}.")
    if means.dim() != 2 or means.shape[1] != x.shape[1]:
        raise ValueError(f"means must be [K, {x.shape[1]}] as x is, got {list(means.shape)}.")
    k, d = means.shape
    shape = {"spherical": [k], "diag": [k, d], "tied": [d, d], "full": [k, d, d]}[covariance_type]
    for name, tensor, wanted in (
        ("log_weights", log_weights, [k]),
        ("precisions_cholesky", precisions_cholesky, shape),
    ):
        if list(tensor.shape) != wanted:
            raise ValueError(
                f"{name} must be {wanted} for covariance_type={covariance_type!r}"
                f" and means {[k, d]}, got {list(tensor.shape)}."
            )


def _gaussians(
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    covariance_type: str,
    precision: str,
) -> Covariance:
    return COVARIANCES[covariance_type](
        means.double(),
        torch.float64 if precision == "exact" else x.dtype,
        precisions_cholesky.double(),
        log_weights.double(),
        precision == "fast",
    )


def _responsibilities_fake(
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    covariance_type: str,
    precision: str = "high",
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], means.shape[0]), x.new_empty(x.shape[0])


@operator(fake=_responsibilities_fake)
def responsibilities(
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    covariance_type: str,
    precision: str = "high",
) -> tuple[Tensor, Tensor]:
    """E-step of a Gaussian mixture (Bishop, *Pattern Recognition and Machine Learning*, eq. 9.23).

    Parameters
    ----------
    x : Tensor
        ``[N, D]``, float32 or float64.
    log_weights : Tensor
        ``[K]``, log of the mixture weights; -inf for an empty component.
    means : Tensor
        ``[K, D]``.
    precisions_cholesky : Tensor
        Shape by covariance type, see the module. Parameters are best given in float64, whatever the data.
    covariance_type : {"spherical", "diag", "tied", "full"}
    precision : {"high", "fast", "exact"}
        See the module.

    Returns
    -------
    log_resp : Tensor
        ``[N, K]``: log p(component | x), in nats, dtype of x.
    log_prob_norm : Tensor
        ``[N]``: log p(x), in nats, dtype of x.

    Raises
    ------
    ValueError
        If shapes, the covariance type or the precision do not fit.
    """
    _check(x, log_weights, means, precisions_cholesky, covariance_type, precision)
    gaussians = _gaussians(x, log_weights, means, precisions_cholesky, covariance_type, precision)
    log_resp, log_prob_norm = x.new_empty(len(x), len(means)), x.new_empty(len(x))
    for rows in gaussians.blocks(x):
        block = x[rows].double() if precision == "exact" else x[rows]
        log_joint, common = gaussians.log_joint(block)
        log_resp[rows] = log_joint.log_softmax(0).T
        log_prob_norm[rows] = (log_joint.logsumexp(0).double() + common).to(x.dtype)
    return log_resp, log_prob_norm


def _log_density_fake(
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    covariance_type: str,
    precision: str = "high",
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0]), x.new_empty(x.shape[0], dtype=torch.int64)


@operator(fake=_log_density_fake)
def log_density(
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    covariance_type: str,
    precision: str = "high",
) -> tuple[Tensor, Tensor]:
    """Log-density of a Gaussian mixture, and the most probable component.

    :func:`responsibilities` knows both, too; here components that a bound shows to matter little are passed over.

    Parameters
    ----------
    x, log_weights, means, precisions_cholesky, covariance_type, precision
        See :func:`responsibilities`.

    Returns
    -------
    log_prob_norm : Tensor
        ``[N]``: log p(x), in nats, dtype of x.
    component : Tensor
        int64 ``[N]``.

    Raises
    ------
    ValueError
        If shapes, the covariance type or the precision do not fit.
    """
    _check(x, log_weights, means, precisions_cholesky, covariance_type, precision)
    gaussians = _gaussians(x, log_weights, means, precisions_cholesky, covariance_type, precision)
    if precision != "exact":
        log_prob_norm, component = gaussians.log_density(x)
        return log_prob_norm.to(x.dtype), component
    log_prob_norm, component = _log_density_fake(
        x, log_weights, means, precisions_cholesky, covariance_type
    )
    for rows in gaussians.blocks(x):
        found, component[rows] = gaussians.log_density(x[rows].double())
        log_prob_norm[rows] = found.to(x.dtype)
    return log_prob_norm, component


def _em_statistics_fake(
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    covariance_type: str,
    sample_weight: Tensor | None = None,
    precision: str = "high",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    double = torch.float64
    return (
        means.new_empty(means.shape[0], dtype=double),
        means.new_empty(means.shape, dtype=double),
        means.new_empty(precisions_cholesky.shape, dtype=double),
        means.new_empty((), dtype=double),
    )


@operator(fake=_em_statistics_fake)
def em_statistics(
    x: Tensor,
    log_weights: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    covariance_type: str,
    sample_weight: Tensor | None = None,
    precision: str = "high",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One pass of EM over the rows: everything that the M-step needs, and nothing of size ``[N, K]``.

    With r_nk = weight_n p(k | x_n), all sums are about the given means, so that results for parts of the data, each
    added to the same of the others, are the result for all of it: shards of the data, on whatever device or machine,
    make one step of EM (Bishop, *Pattern Recognition and Machine Learning*, eqs. 9.24-9.28).

    Parameters
    ----------
    x, log_weights, means, precisions_cholesky, covariance_type, precision
        See :func:`responsibilities`.
    sample_weight : Tensor, optional
        ``[N]``, non-negative: a row of weight 2 counts as two rows.

    Returns
    -------
    counts : Tensor
        ``[K]``: sum_n r_nk. All four are float64.
    sums : Tensor
        ``[K, D]``: sum_n r_nk (x_n - mean_k).
    scatter : Tensor
        Shape of ``precisions_cholesky``: sum_n r_nk (x_n - mean_k)(x_n - mean_k)^T for full; its sum over k for tied;
        its diagonal for diag; its trace for spherical.
    log_likelihood : Tensor
        ``[]``: sum_n weight_n log p(x_n), in nats.

    Raises
    ------
    ValueError
        If shapes, the covariance type or the precision do not fit.
    """
    _check(x, log_weights, means, precisions_cholesky, covariance_type, precision)
    arguments = log_weights, means, precisions_cholesky, covariance_type, precision
    weights = None if sample_weight is None else sample_weight.double()
    if precision != "exact" or x.dtype == torch.float64:
        return _gaussians(x, *arguments).em(x, weights)

    def part(start: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows = slice(start, start + size)
        weight = None if weights is None else weights[rows]
        return _gaussians(x, *arguments).em(x[rows].double(), weight)

    size = max(_CONVERTED // max(x.shape[1], 1), 1)
    total = part(0)
    for start in range(size, len(x), size):
        for sums, more in zip(total, part(start), strict=True):
            sums += more
    return total


def grouped_statistics(
    x: Tensor,
    groups: Tensor,
    means: Tensor,
    covariance_type: str,
    sample_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The sums of :func:`em_statistics` where it is known who is responsible: labels, or given responsibilities.

    Parameters
    ----------
    x : Tensor
        ``[N, D]``, float32 or float64.
    groups : Tensor
        int64 ``[N]``, the component of each row; or floating ``[N, K]``, responsibilities, which need not sum to 1.
    means : Tensor
        ``[K, D]``, what the sums are about.
    covariance_type : {"spherical", "diag", "tied", "full"}
    sample_weight : Tensor, optional
        ``[N]``, non-negative.

    Returns
    -------
    counts, sums, scatter : Tensor
        float64, as :func:`em_statistics` returns them.
    """
    gaussians = COVARIANCES[covariance_type](means.double(), x.dtype)
    weights = None if sample_weight is None else sample_weight.double()
    if groups.dim() == 1:
        gaussians.add_labelled(x, groups, weights)
        return gaussians.statistics()
    for rows in gaussians.blocks(x):
        resp = groups[rows].T
        gaussians.add(x[rows], Posterior(resp if weights is None else resp * weights[rows]))
    return gaussians.statistics()
