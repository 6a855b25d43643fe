"""The four covariance types: log joint densities of a block of rows, and EM's sums over it.

Each class holds K Gaussians and turns a block ``x [n, D]`` into log joint densities ``[K, n]`` and, given the
posterior, into sums. Densities are computed in the data's own float32 or float64, sums in float64. All statistics are
about the given means: no digits are lost on data far from zero, and the statistics of parts of the data add up.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from pygen.ops.dense import add_scatter, linear_em, whitened_norms
from pygen.ops.diagonal import (
    diagonal_em,
    diagonal_log_density,
    diagonal_log_joint,
    diagonal_sums,
)
from pygen.ops.moments import moments
from pygen.ops.operator import operator
from pygen.ops.posterior import NEGLIGIBLE, Posterior, posterior

# Features from which on it pays to bound full covariances by about a fifth of their squares first, as many as fill
# panels of the kernel: those are spread over the picture, and each tells how far a pixel is from what the pixels before
# it predict.
_PRUNED_FROM, _PILOT, _PANEL = 256, 5, 32

# Rows of known components that are summed together: sorting them by component takes memory for each.
_LABELLED = 2**16

Statistics = tuple[Tensor, Tensor, Tensor]


def _coupled(factor: Tensor) -> Tensor:
    """int64: features that depend on others, by the Cholesky factor ``[D, D]`` of their precision."""
    nonzero = factor != 0
    return ((nonzero.sum(0) > 1) | (nonzero.sum(1) > 1)).nonzero().squeeze(1)


def _spread(size: int) -> Tensor:
    """int64: the columns of a factor of ``size`` features that bound a density."""
    number = min(max(size // _PILOT // _PANEL, 1) * _PANEL, size)
    return torch.arange(1, number + 1) * size // max(number, 1) - 1


class Covariance(ABC):
    """K Gaussians ready for rows of one dtype.

    Parameters
    ----------
    means : Tensor
        ``[K, D]``, float64.
    dtype : torch.dtype
        Of the rows to come.
    precisions_cholesky, log_weights : Tensor, optional
        float64; shape by covariance type, and ``[K]``. Without them there are no densities, only sums.
    fast : bool
        Whether densities may be less exact than their dtype: the operators' ``fast``.
    """

    block_elements: int  # elements of x in a block, so that its temporaries stay in cache

    def __init__(
        self,
        means: Tensor,
        dtype: torch.dtype,
        precisions_cholesky: Tensor | None = None,
        log_weights: Tensor | None = None,
        fast: bool = False,
    ) -> None:
        self._means = means
        self._dtype = dtype
        self._fast = fast
        self._counts = means.new_zeros(len(means))
        # What rows are shifted by, in their own precision, must be known exactly.
        self._centre = means.mean(0).to(dtype).double()
        self._shift = means - self._centre
        if precisions_cholesky is not None and log_weights is not None:
            constant = log_weights - 0.5 * means.shape[1] * math.log(2 * math.pi)
            self._prepare(precisions_cholesky, constant)

    @abstractmethod
    def _prepare(self, precisions_cholesky: Tensor, constant: Tensor) -> None:
        """Precompute what ``log_joint`` needs."""

    @cached_property
    def _first(self) -> Tensor:
        return torch.zeros_like(self._means)

    @abstractmethod
    def log_joint(self, x: Tensor) -> tuple[Tensor, Tensor | float]:
        """Log of weight times density: ``[K, n]``, and what is to be added for all components ``[n]``."""

    def log_density(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of any number of rows log-density ``[N]``, float64, and most probable component ``[N]``, int64."""
        parts = [self._log_density(x[rows]) for rows in self.blocks(x)]
        if not parts:
            return x.new_empty(0, dtype=torch.float64), x.new_empty(0, dtype=torch.int64)
        density, component = zip(*parts, strict=True)
        return torch.cat(density), torch.cat(component)

    def _log_density(self, x: Tensor) -> tuple[Tensor, Tensor]:
        joint, common = self.log_joint(x)
        return joint.logsumexp(0).double() + common, joint.argmax(0)

    @abstractmethod
    def em(self, x: Tensor, sample_weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Statistics of rows ``[N, D]`` by their posterior, and their log-likelihood ``[]``, float64."""

    def add_labelled(self, x: Tensor, labels: Tensor, weights: Tensor | None) -> None:
        """Take rows ``[N, D]`` of known components into the sums."""
        for rows in self.blocks(x):
            weight = None if weights is None else weights[rows]
            self.add(x[rows], Posterior.of_pairs(len(self._means), labels[rows], weight))

    def blocks(self, x: Tensor) -> Iterator[slice]:
        """Rows that are taken together."""
        size = min(max(self.block_elements // max(x.shape[1], 1), 64), 2**12)
        return (slice(start, start + size) for start in range(0, len(x), size))

    @abstractmethod
    def add(self, x: Tensor, resp: Posterior) -> None:
        """Take a block ``[n, D]`` into the sums, in float64: small variances are what is left of large squares."""

    @abstractmethod
    def statistics(self) -> Statistics:
        """Counts ``[K]``, sums ``[K, D]`` and scatter of what was added, about the means."""


class Diagonal(Covariance):
    """One variance per component and feature: ``precisions_cholesky [K, D]``."""

    block_elements = 2**21

    def _prepare(self, precisions_cholesky: Tensor, constant: Tensor) -> None:
        self._precisions = precisions_cholesky.square()
        self._constant = constant + precisions_cholesky.log().sum(1)

    @cached_property
    def _second(self) -> Tensor:
        return torch.zeros_like(self._means)

    def log_joint(self, x: Tensor) -> tuple[Tensor, Tensor | float]:
        return diagonal_log_joint(
            x, self._means, self._precisions, self._constant, not self._fast, self._fast
        )

    def _log_density(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return diagonal_log_density(x, self._means, self._precisions, self._constant, self._fast)

    def em(self, x: Tensor, sample_weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        *sums, log_likelihood = diagonal_em(
            x, self._means, self._precisions, self._constant, sample_weight, self._fast
        )
        self._add(*sums)
        return *self.statistics(), log_likelihood

    def add_labelled(self, x: Tensor, labels: Tensor, weights: Tensor | None) -> None:
        for start in range(0, len(x), _LABELLED):
            rows = slice(start, start + _LABELLED)
            weight = None if weights is None else weights[rows]
            self._add(*moments(x[rows], labels[rows], self._means, weight))

    def add(self, x: Tensor, resp: Posterior) -> None:
        self._add(*diagonal_sums(x, resp, self._means))

    def _add(self, counts: Tensor, first: Tensor, second: Tensor) -> None:
        self._counts += counts
        self._first += first
        self._second += second

    def statistics(self) -> Statistics:
        return self._counts, self._first, self._second


class Spherical(Diagonal):
    """One variance per component: ``precisions_cholesky [K]``."""

    def _prepare(self, precisions_cholesky: Tensor, constant: Tensor) -> None:
        super()._prepare(precisions_cholesky[:, None].expand_as(self._means), constant)

    def statistics(self) -> Statistics:
        return self._counts, self._first, self._second.sum(1)


class Tied(Covariance):
    """One covariance for all: ``precisions_cholesky [D, D]``, upper triangular U, precision = U U^T."""

    block_elements = 2**18

    def _prepare(self, precisions_cholesky: Tensor, constant: Tensor) -> None:
        # Only this part tells components apart. It is a hundredth of the work and is done in float64: in float32 an
        # ill-conditioned covariance (MNIST's) costs it four digits.
        self._linear = self._shift @ precisions_cholesky @ precisions_cholesky.T
        constant = constant + precisions_cholesky.diagonal().log().sum()
        self._constant = (constant - 0.5 * (self._shift * self._linear).sum(1))[:, None]
        self._factor = precisions_cholesky.to(self._dtype)

    @cached_property
    def _second(self) -> Tensor:
        dims = self._means.shape[1]
        return self._means.new_zeros(dims, dims)

    def log_joint(self, x: Tensor) -> tuple[Tensor, Tensor | float]:
        relative = torch.addmm(self._constant, self._linear, (x - self._centre).T)
        return relative, self._common(x)

    def _common(self, x: Tensor) -> Tensor:
        norms = whitened_norms(x, self._centre.to(x.dtype), self._factor, fast=self._fast)
        return -0.5 * norms.double()

    def em(self, x: Tensor, sample_weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # Norms and scatter have nothing to do with components: they are taken at once.
        counts, first, log_likelihood = linear_em(
            x, self._centre, self._linear, self._constant[:, 0], self._common(x), sample_weight
        )
        self._counts += counts
        self._first += first
        self._add_second(x, sample_weight)
        return *self.statistics(), log_likelihood

    def add(self, x: Tensor, resp: Posterior) -> None:
        if resp.resp is None:
            centres = self._centre.expand_as(self._means)
            counts, first, _ = moments(x, resp.groups, centres, resp.values, resp.rows)
        else:
            counts, first = resp.resp.sum(1), resp.resp @ (x - self._centre)
        self._counts += counts
        self._first += first
        self._add_second(x, resp.values if resp.resp is None else resp.resp.sum(0))

    def _add_second(self, x: Tensor, weights: Tensor | None) -> None:
        if weights is None:
            weights = self._means.new_ones(len(x))
        add_scatter(x, self._centre, weights, torch.zeros_like(self._centre), self._second)

    def statistics(self) -> Statistics:
        moved = self._first - self._counts[:, None] * self._shift
        cross = self._shift.T @ self._first + moved.T @ self._shift
        return self._counts, moved, self._second.sub_(cross + cross.T, alpha=0.5)


class _Part(NamedTuple):
    """A component: features that depend on others, their factor ``[C, C]``, and the columns of it that bound."""

    coupled: Tensor
    factor: Tensor
    pilot: Tensor


class Full(Covariance):
    """A covariance per component: ``precisions_cholesky [K, D, D]``, upper triangular U, precision = U U^T."""

    block_elements = 2**22

    def _prepare(self, precisions_cholesky: Tensor, constant: Tensor) -> None:
        self._precisions_cholesky = precisions_cholesky
        diagonals = precisions_cholesky.diagonal(dim1=1, dim2=2)
        self._constant = constant + diagonals.log().sum(1)

    @classmethod
    def of_constant(
        cls, x: Tensor, means: Tensor, precisions_cholesky: Tensor, constant: Tensor, fast: bool
    ) -> "Full":
        """From the log joint densities of rows that are the means."""
        gaussians = cls(means, x.dtype, fast=fast)
        gaussians._precisions_cholesky, gaussians._constant = precisions_cholesky, constant
        return gaussians

    @cached_property
    def _second(self) -> Tensor:
        dims = self._means.shape[1]
        return self._means.new_zeros(len(self._means), dims, dims)

    @cached_property
    def _parts(self) -> list[_Part]:
        parts = []
        for factor in self._precisions_cholesky:
            coupled = _coupled(factor)
            part = factor.index_select(0, coupled).index_select(1, coupled).to(self._dtype)
            pilot = part.index_select(1, _spread(len(coupled)).to(part.device))
            parts.append(_Part(coupled, part, pilot))
        return parts

    @cached_property
    def _free(self) -> Tensor:
        """``[K, D]``: precisions of the features that depend on no other."""
        free = self._precisions_cholesky.diagonal(dim1=1, dim2=2).square()
        for precisions, part in zip(free, self._parts, strict=True):
            precisions[part.coupled] = 0
        return free

    def em(self, x: Tensor, sample_weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return full_em(
            x, self._means, self._precisions_cholesky, self._constant, sample_weight, self._fast
        )

    def log_joint(self, x: Tensor, *, prune: bool = False) -> tuple[Tensor, Tensor | float]:
        """With ``prune``, components that matter little to a row may get an upper bound that is negligible, too."""
        x = x - self._centre.to(x.dtype)
        # A pixel that never varied costs a square, no row of a factor.
        relative, largest = diagonal_log_joint(
            x, self._shift, self._free, self._constant, settle=False, fast=self._fast
        )
        joint = relative + largest.to(x.dtype)
        components = range(len(joint))
        if not prune or x.shape[1] < _PRUNED_FROM or len(joint) == 1:
            for k in components:
                joint[k] -= self._half_norms(k, x)
            return joint, 0.0
        # A part of the squares bounds a component from above. The component with the best bound is done in full, and
        # after it only those that might still have a part in the row (on MNIST one of nine).
        bounds = torch.stack([joint[k] - self._half_norms(k, x, pilot=True) for k in components])
        best = bounds.argmax(0)
        for k in components:
            self._refine(k, best == k, x, joint, bounds)
        least = bounds.gather(0, best[None])[0] + math.log(NEGLIGIBLE)
        for k in components:
            self._refine(k, (bounds[k] > least) & (best != k), x, joint, bounds)
        return bounds, 0.0

    def log_density(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return full_log_density(
            x, self._means, self._precisions_cholesky, self._constant, self._fast
        )

    def _refine(self, k: int, which: Tensor, x: Tensor, joint: Tensor, bounds: Tensor) -> None:
        rows = which.nonzero().squeeze(1)
        if len(rows):
            bounds[k, rows] = joint[k, rows] - self._half_norms(k, x, rows)

    def _half_norms(
        self, k: int, x: Tensor, rows: Tensor | None = None, *, pilot: bool = False
    ) -> Tensor:
        part = self._parts[k]
        centre = self._shift[k, part.coupled].to(x.dtype)
        factor = part.pilot if pilot else part.factor
        return whitened_norms(x, centre, factor, part.coupled, rows, self._fast).mul_(0.5)

    def add(self, x: Tensor, resp: Posterior) -> None:
        for k, (rows, values) in enumerate(resp.members()):
            self._counts[k] += values.sum()
            chosen = None if isinstance(rows, slice) else rows
            add_scatter(x, self._means[k], values, self._first[k], self._second[k], chosen)

    def statistics(self) -> Statistics:
        return self._counts, self._first, self._second


def _full_em_fake(
    x: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    constant: Tensor,
    sample_weight: Tensor | None = None,
    fast: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sums = torch.empty_like(means), torch.empty_like(precisions_cholesky)
    return torch.empty_like(constant), *sums, constant.new_empty(())


@operator(fake=_full_em_fake)
def full_em(
    x: Tensor,
    means: Tensor,
    precisions_cholesky: Tensor,
    constant: Tensor,
    sample_weight: Tensor | None = None,
    fast: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One pass of EM over the rows: :func:`pygen.ops.em_statistics` for full covariances.

    Parameters
    ----------
    x : Tensor
        ``[N, D]``, float32 or float64.
    means, precisions_cholesky : Tensor
        ``[K, D]`` and ``[K, D, D]``, float64.
    constant : Tensor
        ``[K]``, float64, in nats: the log joint density of a row that is the mean.
    sample_weight : Tensor, optional
        ``[N]``, float64, non-negative.
    fast : bool
        Whether one product in TF32 may stand for a float32 product where a device multiplies it so.

    Returns
    -------
    counts, sums, scatter, log_likelihood : Tensor
        ``[K]``, ``[K, D]``, ``[K, D, D]`` about the means and ``[]``, float64.
    """
    gaussians = Full.of_constant(x, means, precisions_cholesky, constant, fast)
    log_likelihood, pairs = means.new_zeros(()), []
    for rows in gaussians.blocks(x):
        weights = None if sample_weight is None else sample_weight[rows]
        log_joint, _ = gaussians.log_joint(x[rows], prune=True)
        resp, log_prob = posterior(log_joint, weights)
        log_likelihood += (log_prob if weights is None else log_prob * weights).sum()
        if resp.resp is None:
            # They wait until all are known: each component's sums are taken at once.
            pairs.append((resp.groups, resp.values, resp.rows + rows.start))
        else:
            gaussians.add(x[rows], resp)
    if pairs:
        every = [torch.cat(parts) for parts in zip(*pairs, strict=True)]
        gaussians.add(x, Posterior.of_pairs(len(means), *every))
    return *gaussians.statistics(), log_likelihood


def _full_log_density_fake(
    x: Tensor, means: Tensor, precisions_cholesky: Tensor, constant: Tensor, fast: bool = False
) -> tuple[Tensor, Tensor]:
    return x.new_empty(len(x), dtype=torch.float64), x.new_empty(len(x), dtype=torch.int64)


@operator(fake=_full_log_density_fake)
def full_log_density(
    x: Tensor, means: Tensor, precisions_cholesky: Tensor, constant: Tensor, fast: bool = False
) -> tuple[Tensor, Tensor]:
    """:func:`pygen.ops.log_density` for full covariances.

    Parameters
    ----------
    x, means, precisions_cholesky, constant, fast
        See :func:`full_em`.

    Returns
    -------
    log_density : Tensor
        ``[N]``, float64, in nats.
    component : Tensor
        int64 ``[N]``: the most probable one.
    """
    gaussians = Full.of_constant(x, means, precisions_cholesky, constant, fast)
    density, component = _full_log_density_fake(x, means, precisions_cholesky, constant)
    for rows in gaussians.blocks(x):
        joint, _ = gaussians.log_joint(x[rows], prune=True)
        density[rows], component[rows] = joint.logsumexp(0).double(), joint.argmax(0)
    return density, component


COVARIANCES: dict[str, type[Covariance]] = {
    "spherical": Spherical,
    "diag": Diagonal,
    "tied": Tied,
    "full": Full,
}
