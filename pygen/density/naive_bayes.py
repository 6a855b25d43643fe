"""Independent categorical features, for all rows or for each class."""

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor
from torch.nn.functional import embedding_bag

from pygen.arrays import like
from pygen.density.bayes import ClassBayes
from pygen.density.rows import Rows, to_tensor
from pygen.ops import count_categories, uniform

# Table look-ups at a time: their indices then take 8 MB.
_BLOCK_ELEMENTS = 2**20


class NaiveBayes(ClassBayes):
    """Independent categorical features, P(X) = prod_i theta_{i, x_i}: ``fit(X)`` is a density of X, ``fit(X, y)`` one
    for each class.

    theta_il = (n_il + alpha) / (N + alpha L_i) for feature i and category l: the maximum-likelihood share for alpha=0,
    Laplace's rule for alpha=1. With labels it agrees with scikit-learn's ``CategoricalNB``.

    Parameters
    ----------
    n_categories : int or array-like of int ``[D]``, optional
        Categories of all or of each feature, which must lie in ``0 .. n_categories - 1``: 256 for the bytes of images.
        Default: one more than the largest value seen, for each feature; needed for ``partial_fit``.
    alpha : float, default=1.0
        Smoothing: rows of each category added to what was counted.
    device : str or torch.device, optional
        Where to compute. Default: where a tensor lives; for other data CUDA where there is one, else the CPU.

    Attributes
    ----------
    classes_ : ``[C]``
        If fitted with labels.
    class_count_, class_prior_, class_log_prior_ : ``[C]``
        Weight and share of each class; C is 1 without labels.
    category_count_ : ``[C, D, L]``
        Weight of each category; L is the largest number of categories.
    feature_log_prob_ : ``[C, D, L]``
        log theta; -inf beyond a feature's categories.
    n_categories_ : ``[D]``
    n_features_in_ : int
    feature_shape_ : tuple of int
    dtype_ : torch.dtype
        Of samples: the data's.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_categories": [Interval(Integral, 1, None, closed="left"), "array-like", Tensor, None],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "device": [str, torch.device, None],
    }

    def __init__(
        self,
        n_categories: Any = None,
        *,
        alpha: float = 1.0,
        device: str | torch.device | None = None,
    ) -> None:
        self.n_categories = n_categories
        self.alpha = alpha
        self.device = device

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.positive_only = True
        return tags

    def _rows(self, X: Any, sample_weight: Any, *, reset: bool, fitting: bool) -> Rows:
        return Rows(self, X, sample_weight, reset=reset, device=self.device, categorical=True)

    def _begin(self, rows: Rows, n_classes: int) -> None:
        if self.n_categories is None:
            largest = torch.stack([_integers(x).amax(0) for x, _ in rows.chunks()]).amax(0)
            sizes = largest.long() + 1
        else:
            sizes = to_tensor(self.n_categories, rows.device, torch.int64)
            if sizes.dim() > 0 and sizes.numel() != rows.n_features:
                raise ValueError(
                    f"n_categories must be one number or one for each of the {rows.n_features}"
                    f" features, got {sizes.numel()}."
                )
            sizes = sizes.flatten().expand(rows.n_features)
        self.n_categories_ = like(sizes.contiguous(), rows.source)
        counts = torch.zeros(n_classes, rows.n_features, int(sizes.max()), dtype=torch.float64)
        self.category_count_ = like(counts, rows.source)
        self.class_count_ = like(counts[:, 0, 0].clone(), rows.source)
        self.dtype_ = rows.dtype

    def _add(self, x: Tensor, weights: Tensor | None, index: Tensor, n_classes: int) -> None:
        x = self._categories(x)
        x = x if x.dtype == torch.uint8 else x.long()
        counts = to_tensor(self.category_count_, x.device)
        more = count_categories(x, index, weights, n_classes, counts.shape[2])
        self.category_count_ = more.add_(counts)
        classes = torch.bincount(index, weights, minlength=n_classes)
        self.class_count_ = to_tensor(self.class_count_, x.device) + classes

    def _finish(self, rows: Rows) -> None:
        counts = to_tensor(self.category_count_, rows.device)
        class_count = to_tensor(self.class_count_, rows.device)
        sizes = to_tensor(self.n_categories_, rows.device, torch.float64)
        total = counts.sum(2, keepdim=True) + self.alpha * sizes[:, None]
        theta = (counts + self.alpha).div_(total.clamp_min_(1e-300))
        if int(sizes.min()) < counts.shape[2]:
            levels = torch.arange(counts.shape[2], device=rows.device)
            theta.masked_fill_(levels >= sizes[:, None], 0.0)
        prior = class_count / class_count.sum()
        for name, value in (
            ("category_count_", counts),
            ("class_count_", class_count),
            ("class_prior_", prior),
            ("class_log_prior_", prior.log()),
            ("feature_log_prob_", theta.log_()),
        ):
            setattr(self, name, like(value, rows.source))

    def _categories(self, x: Tensor) -> Tensor:
        """``x`` if its values are categories that the model knows."""
        sizes = to_tensor(self.n_categories_, x.device)
        x = _integers(x)
        if x.dtype == torch.uint8 and int(sizes.min()) > 255:
            return x
        largest = x.amax(0)
        outside = largest >= sizes
        if outside.any():
            feature = int(outside.nonzero()[0])
            raise ValueError(
                f"Feature {feature} has the value {int(largest[feature])}, but the model knows"
                f" {int(sizes[feature])} categories there, 0 to {int(sizes[feature]) - 1}; set"
                " n_categories to cover all that may come."
            )
        return x

    def _joint(self, x: Tensor) -> Tensor:
        table = to_tensor(self.feature_log_prob_, x.device)
        prior = to_tensor(self.class_log_prior_, x.device)
        first = torch.arange(x.shape[1], device=x.device) * table.shape[2]
        table = table.permute(1, 2, 0).flatten(0, 1).contiguous()  # [D L, C]
        x = self._categories(x)
        parts = [
            embedding_bag(part.long() + first, table, mode="sum")
            for part in x.split(max(_BLOCK_ELEMENTS // x.shape[1], 1))
        ]
        return torch.cat(parts) + prior

    def _draw(self, index: Tensor, state: Tensor) -> Tensor:
        table = to_tensor(self.feature_log_prob_, index.device).exp().cumsum(2)  # [C, D, L]
        n, dims = len(index), table.shape[1]
        width = 4 * (
            (dims + 3) // 4
        )  # whole blocks of draws a row: rows do not depend on how they are cut
        out = torch.empty(n, dims, dtype=self.dtype_, device=index.device)
        for start in range(0, n, max(_BLOCK_ELEMENTS // width, 1)):
            part = index[start : start + max(_BLOCK_ELEMENTS // width, 1)]
            draws = uniform(state, [len(part), width], torch.float64)[:, :dims]
            values = torch.empty(len(part), dims, dtype=torch.int64, device=index.device)
            for label in part.unique().tolist():
                of = (part == label).nonzero().squeeze(1)
                totals = table[label]
                drawn = draws[of].T * totals[:, -1:]
                values[of] = torch.searchsorted(totals, drawn.contiguous(), right=True).T
            out[start : start + len(part)] = values.clamp_max_(table.shape[2] - 1).to(self.dtype_)
        return out


def _integers(x: Tensor) -> Tensor:
    """``x`` as categories 0, 1, 2, ...; other numbers lose their fraction, as in scikit-learn, but not silently."""
    if x.dtype == torch.uint8 or x.dtype == torch.bool:
        return x
    if x.min() < 0:
        raise ValueError(
            f"Negative values in data passed to NaiveBayes: categories start at 0, got {x.min():g}."
        )
    whole = x.long()
    if x.is_floating_point() and not torch.equal(whole.to(x.dtype), x):
        warnings.warn(
            "NaiveBayes takes categories 0, 1, 2, ... and dropped the fractions in its data, such as"
            f" {float(x[x != whole][0]):g}. Cut grey levels into categories with"
            " pygen.data.quantize, or use GaussianBayes for real values.",
            stacklevel=2,
        )
    return whole
