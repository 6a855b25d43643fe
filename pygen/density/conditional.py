"""What a Gaussian mixture says of unobserved features, given the observed ones."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pygen.arrays import like
from pygen.density.base import CHUNK
from pygen.density.parameters import Parameters, precisions_cholesky, scales
from pygen.density.rows import to_tensor
from pygen.ops import responsibilities, sample_gaussians, uniform
from pygen.random import RandomState, new_state


class ConditionalMixture:
    """The exact mixture of unobserved given observed features, a different one for each row.

    Made by :meth:`pygen.GaussianMixture.condition`. Rows that observe the same features share their matrices. With o
    the observed and m the other features, component k has the mean ``mean_m + G (x_o - mean_o)``,
    ``G = cov_mo cov_oo^-1``, and its weight is its responsibility for x_o (Bishop, *Pattern Recognition and Machine
    Learning*, eqs. 2.81 and 2.82, for each component).

    Attributes
    ----------
    log_weights : array or Tensor
        ``[N, K]``: log of the conditional mixtures' weights.
    """

    def __init__(
        self,
        mixture: Parameters,
        covariance_type: str,
        X: Any,
        observed_mask: Any,
        feature_shape: tuple[int, ...],
        seed: Callable[[RandomState], int],
    ) -> None:
        self._mixture, self._type = mixture, covariance_type
        self._shape, self._like, self._seed = feature_shape, X, seed
        device = mixture.means.device
        self._x, self._observed = _check(X, observed_mask, feature_shape, device)
        self._log_weights = mixture.weights.log().repeat(len(self._x), 1)
        self._log_prob = self._x.new_zeros(len(self._x))
        for rows, observed, _ in self._patterns():
            if len(observed):
                self._log_weights[rows], self._log_prob[rows] = self._posterior(rows, observed)
        self.log_weights = self._output(self._log_weights)

    def score_samples(self) -> Any:
        """Log-density ``[N]``, in nats, of what is observed in each row."""
        return self._output(self._log_prob)

    def mean(self) -> Any:
        """X ``[N, ...]`` with its unobserved features replaced by their expectation."""
        result = self._x.clone()
        weights = self._log_weights.exp()
        for rows, observed, missing in self._patterns():
            total = self._x.new_zeros(len(rows), len(missing))
            for k in range(weights.shape[1]):
                mean = self._mixture.means[k]
                shift = self._x[rows][:, observed] - mean[observed]
                part = mean[missing] + self._carry(k, shift, observed, missing)
                total += weights[rows, k, None] * part
            result[rows[:, None], missing] = total
        return self._output(result.unflatten(1, self._shape))

    def sample(self, n_samples: int = 1, *, random_state: RandomState = None) -> tuple[Any, Any]:
        """Draw completions of each row.

        Parameters
        ----------
        n_samples : int, default=1
            Completions per row.
        random_state : optional
            Default: the mixture's.

        Returns
        -------
        X : array or Tensor
            ``[n_samples, N, ...]``, observed features as they were.
        components : array or Tensor
            int64 ``[n_samples, N]``.
        """
        if n_samples < 1:
            raise ValueError(f"n_samples must be at least 1, got {n_samples}.")
        seed, device = self._seed(random_state), self._x.device
        n = len(self._x)
        draws = uniform(new_state(seed, device), [n_samples, n], torch.float64)
        totals = self._log_weights.exp().cumsum(1)
        index = torch.searchsorted(totals, (draws.T * totals[:, -1:]).contiguous(), right=True)
        index = index.clamp_max_(totals.shape[1] - 1).T.contiguous()  # [n_samples, N]
        # A joint draw z, moved by what is known, is a conditional draw: z_m + G (x_o - z_o) (Matheron's rule).
        z = sample_gaussians(
            new_state(seed, device),
            index.view(-1),
            self._mixture.means,
            scales(self._mixture, self._type),
        ).view(n_samples, n, -1)
        for rows, observed, missing in self._patterns():
            for k in range(totals.shape[1]):
                draw, row = (index[:, rows] == k).nonzero(as_tuple=True)
                if len(draw) == 0:
                    continue
                row = rows[row]
                joint = z[draw, row]
                shift = self._x[row][:, observed] - joint[:, observed]
                part = joint[:, missing] + self._carry(k, shift, observed, missing)
                z[draw[:, None], row[:, None], missing] = part
            z[:, rows[:, None], observed] = self._x[rows[:, None], observed]
        return self._output(z.unflatten(2, self._shape)), like(index, self._like)

    def _patterns(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Rows that observe the same features; those features; the others."""
        masks, pattern = torch.unique(self._observed, dim=0, return_inverse=True)
        for number, mask in enumerate(masks):
            rows = (pattern == number).nonzero().squeeze(1)
            yield rows, mask.nonzero().squeeze(1), (~mask).nonzero().squeeze(1)

    def _covariance(self, k: int) -> Tensor:
        """``[D, D]`` of component k, full or tied."""
        covariances = self._mixture.covariances
        return covariances[k] if self._type == "full" else covariances

    def _carry(self, k: int, shift: Tensor, observed: Tensor, missing: Tensor) -> Tensor:
        """``G shift``: what a shift ``[n, o]`` of the observed features of component k does to the others."""
        if self._type in ("diag", "spherical"):
            return shift.new_zeros(len(shift), len(missing))
        covariance = self._covariance(k)
        lower = torch.linalg.cholesky(covariance[observed][:, observed])
        return (covariance[missing][:, observed] @ torch.cholesky_solve(shift.T, lower)).T

    def _posterior(self, rows: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        mixture = self._mixture
        if self._type == "spherical":
            factors = mixture.precisions_cholesky
        elif self._type == "diag":
            factors = mixture.precisions_cholesky[:, observed]
        else:
            covariances = mixture.covariances[..., observed, :][..., observed]
            factors = precisions_cholesky(covariances, self._type)
        means, log_weights = mixture.means[:, observed], mixture.weights.log()
        parts = [
            responsibilities(self._x[part][:, observed], log_weights, means, factors, self._type)
            for part in rows.split(CHUNK)
        ]
        log_resp, log_prob = zip(*parts, strict=True)
        return torch.cat(log_resp), torch.cat(log_prob)

    def _output(self, value: Tensor) -> Any:
        dtype = getattr(self._like, "dtype", None)
        if dtype in (torch.float32, np.dtype(np.float32)):
            value = value.float()
        return like(value, self._like)


def _check(
    X: Any, observed_mask: Any, feature_shape: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    x = to_tensor(X, device, torch.float64)
    mask = to_tensor(observed_mask, device)
    dims = int(np.prod(feature_shape))
    if x.dim() < 2 or x[0].numel() != dims:
        raise ValueError(
            f"X must be [N, {dims}] or [N, ...] of that many features, got {list(x.shape)}."
        )
    if mask.dtype != torch.bool:
        raise ValueError(
            f"observed_mask must be boolean, True where X is observed; got {mask.dtype}."
        )
    x = x.flatten(1)
    if mask.shape == x.shape[:1] + mask.shape[1:] and mask.numel() == x.numel():
        mask = mask.reshape(x.shape)
    elif mask.numel() == dims:
        mask = mask.reshape(1, dims).expand(len(x), dims)
    else:
        raise ValueError(
            f"observed_mask must have the shape of X or of one row, {feature_shape}, got"
            f" {tuple(mask.shape)}."
        )
    x = torch.where(mask, x, 0.0)
    if not x.isfinite().all():
        raise ValueError(
            "X has NaN or infinity where observed_mask is True; mark such values as not observed."
        )
    return x, mask
