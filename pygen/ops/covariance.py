"""The four covariance types: log joint densities of a block of rows, and EM's sums over it.

Each class holds K Gaussians and turns a block ``x [n, D]`` into log joint densities ``[K, n]`` and, given the
posterior, into sums. Densities are computed in the data's own float32 or float64, sums in float64. All statistics are
about the given means: no digits are lost on data far from zero, and the statistics of parts of the data add up.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from pygen.ops.diagonal import diagonal_log_joint
from pygen.ops.moments import moments
from pygen.ops.posterior import NEGLIGIBLE, Posterior

# Columns of a triangular factor, or rows of a symmetric product, that are done at once: narrow enough to skip most
# of the empty or mirrored half, wide enough for the matrix product to run at full speed.
_STRIP = 112

# Features from which on it pays to bound full covariances by every eighth of their squares first: those are spread
# over the picture, and each tells how far a pixel is from what the pixels before it predict.
_PRUNED_FROM, _PILOT = 256, 8

Statistics = tuple[Tensor, Tensor, Tensor]


def _strips(size: int) -> list[tuple[int, int]]:
    return [(start, min(start + _STRIP, size)) for start in range(0, size, _STRIP)]


def _add_outer(total: Tensor, x: Tensor, weights: Tensor) -> None:
    """Add ``x^T diag(weights) x`` of x ``[n, D]`` to the upper triangle of total ``[D, D]``."""
    varying = x.any(0).nonzero().squeeze(1)
    x = x.index_select(1, varying)
    weighted = x * weights[:, None]
    rows = total.index_select(0, varying)
    part = rows.index_select(1, varying)
    for start, stop in _strips(len(varying)):
        part[start:stop, start:].addmm_(weighted[:, start:stop].T, x[:, start:])
    total.index_copy_(0, varying, rows.index_copy_(1, varying, part))


def _pick(x: Tensor, rows: Tensor | slice) -> Tensor:
    return x[rows] if isinstance(rows, slice) else x.index_select(0, rows)


def _mirror_(upper: Tensor) -> Tensor:
    """Copy the upper triangle of ``[D, D]`` over the lower one, in place."""
    return upper.copy_(upper.triu() + upper.triu(1).T)


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
    """

    block_elements: int  # elements of x in a block, so that its temporaries stay in cache

    def __init__(
        self,
        means: Tensor,
        dtype: torch.dtype,
        precisions_cholesky: Tensor | None = None,
        log_weights: Tensor | None = None,
    ) -> None:
        self._means = means
        self._dtype = dtype
        self._counts = means.new_zeros(len(means))
        # What rows are shifted by, in their own precision, must be known exactly.
        self._centre = means.mean(0).to(dtype).double()
        self._shift = means - self._centre
        if precisions_cholesky is not None and log_weights is not None:
            constant = log_weights - 0.5 * means.shape[1] * math.log(2 * math.pi)
            self._prepare(precisions_cholesky, constant)
        self._allocate()

    @abstractmethod
    def _prepare(self, precisions_cholesky: Tensor, constant: Tensor) -> None:
        """Precompute what ``log_joint`` needs."""

    @abstractmethod
    def _allocate(self) -> None:
        """Set the sums to zero."""

    @abstractmethod
    def log_joint(self, x: Tensor, *, prune: bool) -> tuple[Tensor, Tensor | float]:
        """Log of weight times density: ``[K, n]``, and what is to be added for all components ``[n]``.

        With ``prune``, components that have a negligible part in a row may get an upper bound that is negligible too.
        """

    @abstractmethod
    def add(self, x: Tensor, posterior: Posterior) -> None:
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

    def _allocate(self) -> None:
        self._first = torch.zeros_like(self._means)
        self._second = torch.zeros_like(self._means)

    def log_joint(self, x: Tensor, *, prune: bool) -> tuple[Tensor, Tensor | float]:
        return diagonal_log_joint(x, self._means, self._precisions, self._constant)

    def add(self, x: Tensor, posterior: Posterior) -> None:
        if posterior.resp is None:
            first, second = moments(
                x, posterior.rows, posterior.values, posterior.sizes, self._means
            )
        else:
            resp, shift, x = posterior.resp, self._shift, x - self._centre
            about_centre = resp @ x
            first = about_centre - posterior.counts[:, None] * shift
            second = (resp @ x.square_() - shift * (about_centre + first)).clamp_min_(0)
        self._counts += posterior.counts
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

    block_elements = 2**20

    def _prepare(self, precisions_cholesky: Tensor, constant: Tensor) -> None:
        # Only this part tells components apart. It is a hundredth of the work and is done in float64: in float32 an
        # ill-conditioned covariance (MNIST's) costs it four digits.
        self._linear = self._shift @ precisions_cholesky @ precisions_cholesky.T
        constant = constant + precisions_cholesky.diagonal().log().sum()
        self._constant = (constant - 0.5 * (self._shift * self._linear).sum(1))[:, None]
        self._factor = precisions_cholesky.to(self._dtype)

    def _allocate(self) -> None:
        dims = self._means.shape[1]
        self._first = torch.zeros_like(self._means)
        self._second = self._means.new_zeros(dims, dims)

    def log_joint(self, x: Tensor, *, prune: bool) -> tuple[Tensor, Tensor | float]:
        shifted = x - self._centre
        log_joint = torch.addmm(self._constant, self._linear, shifted.T)
        norms = shifted.new_zeros(len(x))
        x = shifted.to(self._dtype)
        for start, stop in _strips(len(self._factor)):
            norms += (x[:, :stop] @ self._factor[:stop, start:stop]).square_().sum(1)
        return log_joint, -0.5 * norms

    def add(self, x: Tensor, posterior: Posterior) -> None:
        x = x - self._centre
        weights = x.new_zeros(len(x))
        for k, (rows, resp) in enumerate(posterior.members()):
            self._first[k] += resp @ _pick(x, rows)
            weights[rows] += resp
        self._counts += posterior.counts
        _add_outer(self._second, x, weights)

    def statistics(self) -> Statistics:
        moved = self._first - self._counts[:, None] * self._shift
        cross = self._shift.T @ self._first + moved.T @ self._shift
        return self._counts, moved, _mirror_(self._second).sub_(cross + cross.T, alpha=0.5)


class Full(Covariance):
    """A covariance per component: ``precisions_cholesky [K, D, D]``, upper triangular U, precision = U U^T."""

    block_elements = 2**22

    def _prepare(self, precisions_cholesky: Tensor, constant: Tensor) -> None:
        diagonals = precisions_cholesky.diagonal(dim1=1, dim2=2)
        self._constant = (constant + diagonals.log().sum(1)).tolist()
        self._components = [
            self._split(shift, factor.to(self._dtype), diagonal)
            for shift, factor, diagonal in zip(
                self._shift, precisions_cholesky, diagonals, strict=True
            )
        ]

    def _split(self, mean: Tensor, factor: Tensor, diagonal: Tensor) -> tuple[Tensor, ...]:
        """Features that depend on others, and those that do not: a pixel that never varied costs a square, no row."""
        mean = mean.to(self._dtype)[:, None]
        nonzero = factor != 0
        linked = (nonzero.sum(0) > 1) | (nonzero.sum(1) > 1)
        coupled, free = linked.nonzero().squeeze(1), (~linked).nonzero().squeeze(1)
        precisions = diagonal[free].square().to(self._dtype)
        return (
            coupled,
            mean[coupled],
            factor.index_select(0, coupled).index_select(1, coupled),
            free,
            mean[free],
            precisions,
        )

    def _allocate(self) -> None:
        dims = self._means.shape[1]
        self._first = torch.zeros_like(self._means)
        self._second = self._means.new_zeros(len(self._means), dims, dims)

    def log_joint(self, x: Tensor, *, prune: bool) -> tuple[Tensor, Tensor | float]:
        x = x - self._centre.to(x.dtype)
        columns = x.T.contiguous()  # [D, n]: to pick features is to copy rows
        components = range(len(self._means))
        if not prune or x.shape[1] < _PRUNED_FROM or len(components) == 1:
            return torch.stack([self._exact(k, columns) for k in components]), 0.0
        # A part of the squares bounds a component from above. The component with the best bound is done in full, and
        # after it only those that might still have a part in the row (on MNIST one of nine).
        bounds = torch.stack([self._bound(k, columns) for k in components])
        best = bounds.argmax(0)
        for k in components:
            self._refine(k, best == k, x, bounds)
        least = bounds.gather(0, best[None])[0] + math.log(NEGLIGIBLE)
        for k in components:
            self._refine(k, (bounds[k] > least) & (best != k), x, bounds)
        return bounds, 0.0

    def _refine(self, k: int, which: Tensor, x: Tensor, bounds: Tensor) -> None:
        rows = which.nonzero().squeeze(1)
        if len(rows):
            bounds[k, rows] = self._exact(k, x.index_select(0, rows).T.contiguous())

    def _bound(self, k: int, x: Tensor) -> Tensor:
        factor = self._components[k][2]
        pilot = factor[:, len(factor) % _PILOT :: _PILOT]
        return self._log_joint_of(k, x, lambda difference: [pilot.T @ difference])

    def _exact(self, k: int, x: Tensor) -> Tensor:
        factor = self._components[k][2]

        def strips(difference: Tensor) -> Iterator[Tensor]:
            for start, stop in _strips(len(factor)):
                yield factor[:stop, start:stop].T @ difference[:stop]

        return self._log_joint_of(k, x, strips)

    def _log_joint_of(
        self, k: int, x: Tensor, whiten: Callable[[Tensor], Iterable[Tensor]]
    ) -> Tensor:
        """``[n]`` for rows x ``[D, n]``; ``whiten`` gives parts of ``U^T (x - mean)``."""
        coupled, mean, _, free, free_mean, precisions = self._components[k]
        norms = precisions @ (x.index_select(0, free) - free_mean).square_()
        for part in whiten(x.index_select(0, coupled).sub_(mean)):
            norms += part.square_().sum(0)
        return norms.mul_(-0.5).add_(self._constant[k])

    def add(self, x: Tensor, posterior: Posterior) -> None:
        self._counts += posterior.counts
        for k, (rows, resp) in enumerate(posterior.members()):
            difference = _pick(x, rows) - self._means[k]
            self._first[k] += resp @ difference
            _add_outer(self._second[k], difference, resp)

    def statistics(self) -> Statistics:
        for scatter in self._second:
            _mirror_(scatter)
        return self._counts, self._first, self._second


COVARIANCES: dict[str, type[Covariance]] = {
    "spherical": Spherical,
    "diag": Diagonal,
    "tied": Tied,
    "full": Full,
}
