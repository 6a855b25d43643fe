"""Independent normal features, for all rows or for each class."""

from numbers import Real
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor

from pygen.arrays import like
from pygen.density.bayes import ClassBayes
from pygen.density.rows import Rows, check_finite, to_tensor
from pygen.ops import grouped_statistics, responsibilities, sample_gaussians


class GaussianBayes(ClassBayes):
    """Independent normal features: ``fit(X)`` is a density of X, ``fit(X, y)`` one for each class.

    With labels it is Gaussian naive Bayes and agrees with scikit-learn's ``GaussianNB``.

    Parameters
    ----------
    var_smoothing : float, default=1e-9
        Share of the largest feature's variance that is added to all variances.
    device : str or torch.device, optional
        Where to compute. Default: where a tensor lives; for other data CUDA where there is one, else the CPU.

    Attributes
    ----------
    classes_ : ``[C]``
        If fitted with labels.
    class_count_, class_prior_ : ``[C]``
        Weight and share of each class; C is 1 without labels.
    theta_, var_ : ``[C, D]``
        Means and variances, float64.
    epsilon_ : float
        What was added to the variances.
    n_features_in_ : int
    feature_shape_ : tuple of int
    dtype_ : torch.dtype
        Of samples: the data's.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "var_smoothing": [Interval(Real, 0, None, closed="left")],
        "device": [str, torch.device, None],
    }

    def __init__(
        self, *, var_smoothing: float = 1e-9, device: str | torch.device | None = None
    ) -> None:
        self.var_smoothing = var_smoothing
        self.device = device

    def _rows(self, X: Any, sample_weight: Any, *, reset: bool, fitting: bool) -> Rows:
        # The sums show what is not finite: one pass over the data less.
        return Rows(self, X, sample_weight, reset=reset, device=self.device, finite=not fitting)

    def _begin(self, rows: Rows, n_classes: int) -> None:
        zeros = torch.zeros(n_classes, rows.n_features, dtype=torch.float64)
        self.class_count_ = like(zeros[:, 0], rows.source)
        self.theta_, self.var_ = like(zeros, rows.source), like(zeros.clone(), rows.source)
        self.epsilon_ = 0.0
        self.dtype_ = rows.dtype

    def _add(self, x: Tensor, weights: Tensor | None, index: Tensor, n_classes: int) -> None:
        old_counts = to_tensor(self.class_count_, x.device)
        old_means = to_tensor(self.theta_, x.device)
        old_scatter = (to_tensor(self.var_, x.device) - self.epsilon_) * old_counts[:, None]
        # The sums are about the means so far: about a few rows' mean where a class is new.
        about = torch.where(old_counts[:, None] > 0, old_means, x[:64].mean(0, dtype=torch.float64))
        counts, sums, scatter = grouped_statistics(x, index, about, "diag", weights)
        if not sums.isfinite().all():
            check_finite(self, x)
        total = old_counts + counts
        safe = total.clamp_min(torch.finfo(total.dtype).tiny)[:, None]
        step = sums / safe
        variances = ((old_scatter + scatter) / safe - step.square()).clamp_min(0)
        means = torch.where(total[:, None] > 0, about + step, 0.0)
        # Chan, Golub and LeVeque (1983): the variance of all rows from those of its groups.
        share = total / total.sum()
        overall = share @ means
        spread = share @ (variances + (means - overall).square())
        self.epsilon_ = float(self.var_smoothing * spread.max())
        self.class_count_, self.theta_, self.var_ = total, means, variances + self.epsilon_

    def _finish(self, rows: Rows) -> None:
        if not (self.class_count_ > 0).any():
            raise ValueError("No row has a positive weight.")
        self.class_prior_ = self.class_count_ / self.class_count_.sum()
        for name in ("class_count_", "class_prior_", "theta_", "var_"):
            setattr(self, name, like(getattr(self, name), rows.source))

    def _joint(self, x: Tensor) -> Tensor:
        log_prior = to_tensor(self.class_prior_, x.device, torch.float64).log()
        means, variances = (to_tensor(v, x.device) for v in (self.theta_, self.var_))
        if not (variances[log_prior > -torch.inf] > 0).all():
            raise ValueError(
                "A feature does not vary in some class, so its density is infinite; set"
                f" var_smoothing above 0 (it is {self.var_smoothing})."
            )
        variances = torch.where(log_prior[:, None] > -torch.inf, variances, 1.0)
        log_resp, log_prob = responsibilities(x, log_prior, means, variances.rsqrt(), "diag")
        return log_resp + log_prob[:, None]

    def _draw(self, index: Tensor, state: Tensor) -> Tensor:
        means, variances = (
            to_tensor(v, index.device, torch.float64) for v in (self.theta_, self.var_)
        )
        dtype = self.dtype_
        return sample_gaussians(state, index, means.to(dtype), variances.sqrt().to(dtype))
