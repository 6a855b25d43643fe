"""EM of several mixtures at once: on small data an iteration of one is mostly calls that do little."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pygen.density.em import Run
from pygen.density.parameters import Parameters, Sums, m_step, n_parameters
from pygen.density.rows import Rows
from pygen.ops.together import em_statistics_of_each

if TYPE_CHECKING:
    from pygen.density.mixture import GaussianMixture

# A pass that one core does in a millisecond or two, in multiplications: up to there mixtures beside each other are
# faster than the threads on each in turn (measured: by 1.4 to 3.5 on 2 cores), and so few threads cannot lose much on
# more. Of a matrix product a core does four times as many.
_WORK, _PRODUCT = 2**23, 4
# Rows that a mixture counts as at least, since its parameters have to be moved as well; and elements of all that then
# is in memory at once: rows, which are copied to lie in one tensor, and a few times the parameters.
_LEAST_ROWS, _ELEMENTS, _COPIES = 512, 2**24, 4


def pays(model: "GaussianMixture", lengths: Sequence[int | None], n_features: int) -> bool:
    """Whether mixtures of so many rows are fitted faster at once than one after the other, and may be.

    Parameters
    ----------
    model : GaussianMixture
        Whose parameters all of them have.
    lengths : sequence of B int or None
        Rows of each; None for a stream.
    n_features : int
    """
    if len(lengths) < 2 or model.verbose or model.batch_size or None in lengths:
        return False
    components, rows = model.n_components, [length or 0 for length in lengths]
    work = {
        "spherical": components * n_features,
        "diag": components * n_features,
        "tied": (components + n_features) * n_features,
        "full": components * n_features**2 // _PRODUCT,
    }[model.covariance_type]
    own = n_parameters(components, n_features, model.covariance_type)
    held = sum(rows) * n_features + _COPIES * len(rows) * own
    return max(*rows, _LEAST_ROWS) * work <= _WORK and held <= _ELEMENTS


def run(model: "GaussianMixture", rows: Sequence[Rows], firsts: Sequence[Parameters]) -> list[Run]:
    """EM of B mixtures, each until it converges.

    Parameters
    ----------
    model : GaussianMixture
        Whose parameters all of them have.
    rows : sequence of B Rows
        Data of each, in memory as a whole; may be the same for several.
    firsts : sequence of B Parameters
        Where each starts.

    Returns
    -------
    list of B Run
        To rounding what each comes to alone.

    Raises
    ------
    ValueError
        If a covariance is not positive definite.
    """
    x, weights, ranges = _gather(rows)
    current = Parameters(*(torch.stack(values) for values in zip(*firsts, strict=True)))
    found = list(firsts)
    courses: list[list[float]] = [[] for _ in firsts]
    converged = [False] * len(firsts)
    active = list(range(len(firsts)))
    for iteration in range(1, model.max_iter + 1):
        sums = Sums(
            *em_statistics_of_each(
                x,
                current.weights.log(),
                current.means,
                current.precisions_cholesky,
                model.covariance_type,
                [end for one in active for end in ranges[one]],
                weights,
                model.precision,
            )
        )
        current = m_step(*sums[:3], current.means, model.covariance_type, model.reg_covar)
        going = []
        for place, bound in enumerate((sums.log_likelihood / sums.counts.sum(-1)).tolist()):
            one = active[place]
            previous = courses[one][-1] if courses[one] else -math.inf
            courses[one].append(bound)
            converged[one] = abs(bound - previous) < model.tol
            if converged[one] or iteration == model.max_iter:
                # A copy, which does not keep all of them in memory.
                found[one] = Parameters(*(values[place].clone() for values in current))
            else:
                going.append(place)
        if not going:
            break
        if len(going) < len(active):
            active = [active[place] for place in going]
            current = Parameters(*(values[going] for values in current))
    bounds = [course[-1] if course else -math.inf for course in courses]
    return [Run(*values) for values in zip(found, bounds, courses, converged, strict=True)]


def _gather(rows: Sequence[Rows]) -> tuple[Tensor, Tensor | None, list[tuple[int, int]]]:
    """All rows ``[N, D]``, their weights, and which of them each mixture has."""
    places: dict[int, tuple[int, int]] = {}
    parts: list[Tensor] = []
    weights: list[Tensor] = []
    start = 0
    for own in rows:
        if id(own) in places:
            continue
        (part, weight), *_ = own.chunks()
        parts.append(part)
        if weight is not None:
            weights.append(weight)
        places[id(own)] = start, start + len(part)
        start += len(part)
    x = parts[0] if len(parts) == 1 else torch.cat(parts)
    return x, torch.cat(weights) if weights else None, [places[id(own)] for own in rows]
