"""Who is responsible for which rows of a block: dense, or only the pairs that matter."""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad, threshold

# A responsibility below this adds nothing to a float64 sum over fewer than 1e6 rows, and dropping it keeps denormal
# numbers, which are slow on many processors, out of the matrix products.
NEGLIGIBLE = 1e-18
# Share of non-negligible responsibilities below which taking them one by one beats a dense product (MNIST has 1.1
# such components a row).
_SPARSE_BELOW = 0.25


class Posterior:
    """Weighted responsibilities of K components for n rows.

    In high dimension nearly every row belongs to one component; then only the pairs that matter are kept.

    Parameters
    ----------
    resp : Tensor
        ``[K, n]``: responsibilities.

    Attributes
    ----------
    resp : Tensor or None
        float64 ``[K, n]``, unless only pairs are kept:
    groups : Tensor
        int64 ``[P]``: the component of each pair.
    values, rows : Tensor or None
        float64 and int64 ``[P]``: responsibility and row of each pair. Default: 1, and 0 to n - 1.
    """

    groups: Tensor
    values: Tensor | None
    rows: Tensor | None

    def __init__(self, resp: Tensor) -> None:
        self.resp: Tensor | None = threshold(resp.double(), NEGLIGIBLE, 0.0)
        self._components = len(resp)

    @classmethod
    def of_pairs(
        cls, components: int, groups: Tensor, values: Tensor | None, rows: Tensor | None = None
    ) -> "Posterior":
        """The posterior of pairs; of labels where ``rows`` is left out."""
        self = cls.__new__(cls)
        self._components, self.resp = components, None
        self.groups, self.values, self.rows = groups, values, rows
        return self

    def members(self) -> list[tuple[Tensor | slice, Tensor]]:
        """For each component the rows that it is responsible for, and by how much (float64)."""
        if self.resp is not None:
            return [(slice(None), resp) for resp in self.resp]
        order = self.groups.argsort(stable=True)
        sizes = torch.bincount(self.groups, minlength=self._components).tolist()
        rows = order if self.rows is None else self.rows[order]
        values = torch.ones_like(order, dtype=torch.float64)
        if self.values is not None:
            values = self.values[order]
        return list(zip(rows.split(sizes), values.split(sizes), strict=True))


def _sums_of_runs(values: Tensor, sizes: Tensor) -> Tensor:
    """Sums of consecutive runs, float64: differences of running sums, whose order no device changes."""
    return pad(pad(values.cumsum(0), (1, 0))[sizes.cumsum(0)], (1, 0)).diff()


def posterior(log_joint: Tensor, weights: Tensor | None) -> tuple[Posterior, Tensor]:
    """Bayes' rule over components.

    Parameters
    ----------
    log_joint : Tensor
        ``[K, n]``, log of weight times density, up to a constant for each row.
    weights : Tensor, optional
        ``[n]``, sample weights.

    Returns
    -------
    Posterior
    log_sum : Tensor
        ``[n]``, float64: log of the sum over components of ``exp(log_joint)``.
    """
    components, n = log_joint.shape
    top = log_joint.amax(0)
    matters = log_joint > top + math.log(NEGLIGIBLE)
    pairs = matters.view(-1).nonzero().squeeze(1)
    if len(pairs) >= _SPARSE_BELOW * matters.numel():
        resp = log_joint.softmax(0).double()
        # The largest responsibility is exp(largest log joint - log of the sum).
        log_sum = top.double() - resp.amax(0).log()
        return Posterior(resp if weights is None else resp * weights), log_sum
    component = torch.div(pairs, n, rounding_mode="floor")
    rows = pairs - component * n
    values = (log_joint.view(-1)[pairs] - top[rows]).double().exp_()
    by_row = rows.argsort(stable=True)
    totals = _sums_of_runs(values[by_row], torch.bincount(rows, minlength=n))
    values /= totals[rows]
    if weights is not None:
        values *= weights[rows]
    return Posterior.of_pairs(components, component, values, rows), top.double() + totals.log()
