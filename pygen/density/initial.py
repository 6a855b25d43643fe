"""Where EM starts: from the user's parameters, from k-means, or at random."""

from typing import Any

import torch
from torch import Tensor

from pygen.density.kmeans import kmeans, kmeans_plusplus
from pygen.density.parameters import Parameters, factor_precisions, m_step
from pygen.density.rows import Rows, to_tensor
from pygen.ops import grouped_statistics, uniform

# A stream is not kept in memory: at most so many of its rows are, to start from.
STREAM_ROWS = 2**16
_BLOCK = 2**14


def parameters(
    rows: Rows,
    n_components: int,
    covariance_type: str,
    reg_covar: float,
    init_params: str,
    given: tuple[Any, Any, Any],
    state: Tensor,
) -> Parameters:
    """First parameters of a mixture.

    Parameters
    ----------
    rows : Rows
    n_components, covariance_type, reg_covar, init_params
        As :class:`pygen.GaussianMixture`'s.
    given : tuple
        Weights ``[K]``, means ``[K, D]`` and precisions (shape by covariance type), each may be None.
    state : Tensor
        State of the random stream; advanced.

    Returns
    -------
    Parameters

    Raises
    ------
    ValueError
        If what is given has the wrong shape or is no weights, no precision.
    """
    d = rows.n_features
    weights, means, precisions = (
        None if value is None else to_tensor(value, rows.device, torch.float64) for value in given
    )
    _check(weights, means, precisions, n_components, d, covariance_type, rows.dtype)
    if weights is not None and means is not None and precisions is not None:
        factors = factor_precisions(precisions, covariance_type)
        return Parameters(weights, means, _invert(precisions, covariance_type), factors)
    found = _estimate(rows, n_components, covariance_type, reg_covar, init_params, state)
    found = Parameters(*(value.to(rows.device) for value in found))
    if weights is not None:
        found = found._replace(weights=weights)
    if means is not None:
        found = found._replace(means=means)
    if precisions is not None:
        found = found._replace(
            covariances=_invert(precisions, covariance_type),
            precisions_cholesky=factor_precisions(precisions, covariance_type),
        )
    return found


def _estimate(
    rows: Rows,
    n_components: int,
    covariance_type: str,
    reg_covar: float,
    init_params: str,
    state: Tensor,
) -> Parameters:
    keys = state.clone()
    state[1] += 2**40  # a stream's keys are drawn by position, whatever its chunks

    def key(start: int, n: int) -> Tensor:
        skipped = start % 4
        at = torch.stack([keys[0], keys[1] + start // 4])
        return uniform(at, [skipped + n], torch.float64)[skipped:]

    x, weights = rows.sample(STREAM_ROWS, key)
    state = state.to(x.device)
    if len(x) < n_components:
        raise ValueError(
            "Expected n_samples >= n_components but got"
            f" n_components = {n_components}, n_samples = {len(x)}"
        )
    centre = x[:1024].mean(0, dtype=torch.float64)
    if init_params == "kmeans":
        groups, about = kmeans(x, n_components, state, weights)
    elif init_params == "random":
        groups, about = None, centre.expand(n_components, -1)
    else:
        if init_params == "k-means++":
            index = kmeans_plusplus(x, n_components, state, weights)
        else:
            index = _distinct(len(x), n_components, state, weights)
        groups = torch.arange(n_components, device=x.device)
        about, x = x[index].double(), x[index]
        weights = None if weights is None else weights[index]
    if groups is not None:
        sums = grouped_statistics(x, groups, about, covariance_type, weights)
        return m_step(*sums, about, covariance_type, reg_covar)
    counts, first, scatter = (torch.zeros((), device=x.device, dtype=torch.float64),) * 3
    wide = 4 * ((n_components + 3) // 4)
    for start in range(0, len(x), _BLOCK):
        part = x[start : start + _BLOCK]
        resp = uniform(state, [len(part), wide], torch.float64)[:, :n_components]
        resp = resp / resp.sum(1, keepdim=True)
        weight = None if weights is None else weights[start : start + _BLOCK]
        more = grouped_statistics(part, resp, about, covariance_type, weight)
        counts, first, scatter = counts + more[0], first + more[1], scatter + more[2]
    return m_step(counts, first, scatter, about, covariance_type, reg_covar)


def _distinct(n: int, k: int, state: Tensor, weights: Tensor | None) -> Tensor:
    """``k`` different rows at random, by weight: the largest of ``log(u) / weight`` (Efraimidis and Spirakis)."""
    keys = (1 - uniform(state, [n], torch.float64)).log()
    if weights is not None:
        keys = torch.where(weights > 0, keys / weights, -torch.inf)
    return keys.topk(k).indices


def _invert(precisions: Tensor, covariance_type: str) -> Tensor:
    if covariance_type in ("full", "tied"):
        return torch.linalg.inv(precisions)
    return precisions.reciprocal()


def _check(
    weights: Tensor | None,
    means: Tensor | None,
    precisions: Tensor | None,
    k: int,
    d: int,
    covariance_type: str,
    dtype: torch.dtype,
) -> None:
    shape = {"spherical": (k,), "diag": (k, d), "tied": (d, d), "full": (k, d, d)}[covariance_type]
    for name, value, wanted in (
        ("weights", weights, (k,)),
        ("means", means, (k, d)),
        (f"{covariance_type} precision", precisions, shape),
    ):
        if value is not None and tuple(value.shape) != wanted:
            raise ValueError(
                f"The parameter '{name}' should have the shape of {wanted}, but got"
                f" {tuple(value.shape)}"
            )
    if weights is not None:
        if weights.min() < 0 or weights.max() > 1:
            raise ValueError(
                "The parameter 'weights' should be in the range [0, 1], but got max value"
                f" {weights.max():.5f}, min value {weights.min():.5f}"
            )
        if (weights.sum() - 1).abs() > (1e-6 if dtype == torch.float32 else 1e-8):
            raise ValueError(
                "The parameter 'weights' should be normalized, but got"
                f" sum(weights) = {weights.sum():.5f}"
            )
    if precisions is None:
        return
    if covariance_type in ("diag", "spherical"):
        if (precisions <= 0).any():
            raise ValueError(f"'{covariance_type} precision' should be positive")
    elif not precisions.allclose(precisions.mT) or (torch.linalg.eigvalsh(precisions) <= 0).any():
        raise ValueError(f"'{covariance_type} precision' should be symmetric, positive-definite")
