"""Who is responsible for which rows of a block: dense, or only the pairs that matter."""

import torch
from torch import Tensor
from torch.nn.functional import threshold

# A responsibility below this adds nothing to a float64 sum over fewer than 1e6 rows, and dropping it keeps denormal
# numbers, which are slow on many processors, out of the matrix products.
NEGLIGIBLE = 1e-18
# Share of non-negligible responsibilities below which taking them one by one beats a dense product (MNIST has 1.1
# such components a row).
_SPARSE_BELOW = 0.25


class Posterior:
    """Weighted responsibilities of K components for n rows.

    In high dimension nearly every row belongs to one component; then only the pairs that matter are kept, sorted by
    component.

    Attributes
    ----------
    counts : Tensor
        ``[K]``, float64: sum of each component's responsibilities.
    resp : Tensor or None
        ``[K, n]``, unless only pairs are kept:
    rows, values, sizes : Tensor
        int64 and float64 ``[P]``, rows and responsibilities by component, and how many each component has, ``[K]``.
    """

    def __init__(self, resp: Tensor) -> None:
        resp = threshold(resp.contiguous(), NEGLIGIBLE, 0.0)
        self.counts = resp.sum(1, dtype=torch.float64)
        self.resp: Tensor | None = resp
        pairs = (resp.view(-1) > 0).nonzero().squeeze(1)
        if len(pairs) < _SPARSE_BELOW * resp.numel():
            components, n = resp.shape
            component = torch.div(pairs, n, rounding_mode="floor")
            self.rows = pairs - component * n
            self.values = resp.view(-1)[pairs].double()
            self.sizes = torch.bincount(component, minlength=components)
            self.resp = None

    @classmethod
    def of_labels(cls, labels: Tensor, weights: Tensor | None, components: int) -> "Posterior":
        """The posterior of rows that are known to belong to ``labels [n]``."""
        self = cls.__new__(cls)
        self.resp = None
        self.rows = labels.argsort(stable=True)
        self.sizes = torch.bincount(labels, minlength=components)
        if weights is None:
            self.counts = self.sizes.double()
            self.values = torch.ones_like(labels, dtype=torch.float64)
        else:
            self.values = weights.double()[self.rows]
            self.counts = torch.stack(
                [part.sum() for part in self.values.split(self.sizes.tolist())]
            )
        return self

    def members(self) -> list[tuple[Tensor | slice, Tensor]]:
        """For each component the rows that it is responsible for, and by how much (float64)."""
        if self.resp is not None:
            return [(slice(None), resp) for resp in self.resp.double()]
        sizes = self.sizes.tolist()
        return list(zip(self.rows.split(sizes), self.values.split(sizes), strict=True))
