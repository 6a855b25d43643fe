"""Expectation-maximisation of one mixture, from one start."""

import time
from typing import TYPE_CHECKING, NamedTuple

from pygen.density.parameters import Parameters, Sums, m_step
from pygen.density.rows import Rows
from pygen.ops import em_statistics

if TYPE_CHECKING:
    from pygen.density.mixture import GaussianMixture


class Run(NamedTuple):
    """What EM came to from one start."""

    found: Parameters
    bound: float
    bounds: list[float]
    converged: bool


def sums(model: "GaussianMixture", rows: Rows, current: Parameters) -> Sums:
    """The statistics of all rows, chunk by chunk."""
    total: Sums | None = None
    for x, weights in rows.chunks():
        part = Sums(
            *em_statistics(
                x,
                current.weights.log(),
                current.means,
                current.precisions_cholesky,
                model.covariance_type,
                weights,
                model.precision,
            )
        )
        total = part if total is None else total.plus(part)
    assert total is not None
    return total


def run(model: "GaussianMixture", rows: Rows, current: Parameters, bound: float, start: int) -> Run:
    """EM from ``current``, of which ``bound`` is the lower bound as far as it is known; start number ``start``."""
    bounds: list[float] = []
    converged = False
    begun = lap = time.perf_counter()
    if model.verbose:
        print(f"Initialization {start}")
    for iteration in range(1, model.max_iter + 1):
        total = sums(model, rows, current)
        current = m_step(*total[:3], current.means, model.covariance_type, model.reg_covar)
        previous, bound = bound, float(total.log_likelihood / total.counts.sum())
        bounds.append(bound)
        if model.verbose and iteration % model.verbose_interval == 0:
            now = time.perf_counter()
            more = f"\t time lapse {now - lap:.5f}s\t ll change {bound - previous:.5f}"
            print(f"  Iteration {iteration}{more if model.verbose > 1 else ''}")
            lap = now
        if abs(bound - previous) < model.tol:
            converged = True
            break
    if model.verbose and model.max_iter > 0:
        took = f" time lapse {time.perf_counter() - begun:.5f}s\t lower bound {bound:.5f}."
        outcome = "converged" if converged else "did not converge"
        print(f"Initialization {outcome}.{took if model.verbose > 1 else ''}")
    return Run(current, bound, bounds, converged)
