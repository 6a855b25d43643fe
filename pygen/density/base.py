"""What all density estimators share: scoring, sampling from what is asked for, saving."""

import numbers
import os
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pygen import io
from pygen.ops import pick
from pygen.random import RandomState, as_seed

# Offset of the draws that choose classes or components: a stream apart from whatever is drawn of each.
_CHOICES = 2**62
# Rows for which [rows, K] intermediates are made at a time when all rows are scored.
CHUNK = 2**14


class DensityEstimator(BaseEstimator):
    """Base of the density models: ``score_samples`` gives log p(x) in nats."""

    n_features_in_: int
    feature_shape_: tuple[int, ...]

    def score_samples(self, X: Any) -> Any:
        raise NotImplementedError

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-density of the rows.

        Parameters
        ----------
        X : array-like or Tensor
            ``[N, ...]``.
        y : ignored

        Returns
        -------
        float
            In nats.
        """
        return float(self.score_samples(X).mean())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to a folder, ``config.json`` and ``model.safetensors``; :func:`pygen.load` brings it back.

        Parameters
        ----------
        path : str or path
            The folder; made where it is missing.

        Raises
        ------
        OSError
            If the files cannot be written. An earlier save in the folder then is as it was.
        """
        io.save(self, path)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "density_estimator"
        return tags

    def _seed(self, random_state: RandomState) -> int:
        if random_state is None:
            random_state = getattr(self, "random_state", None)
        return as_seed(random_state)


class ClassDensityEstimator(ClassifierMixin, DensityEstimator):
    """Base of the density models with classes: ``predict`` is Bayes' rule."""

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean log-density of the rows in nats; with ``y`` the accuracy of ``predict``, as scikit-learn has it."""
        if y is None:
            return super(ClassifierMixin, self).score(X)
        predicted, y = (
            np.asarray(v.cpu() if isinstance(v, Tensor) else v) for v in (self.predict(X), y)
        )
        return float(np.average(predicted == y, weights=sample_weight))


def check_n_samples(estimator: BaseEstimator, n_samples: Any) -> int:
    """``n_samples`` of an estimator that is fitted, or an error."""
    check_is_fitted(estimator)
    if not isinstance(n_samples, numbers.Integral) or n_samples < 1:
        raise ValueError(
            f"Invalid value for 'n_samples': {n_samples}. The sampling requires at least one sample."
        )
    return int(n_samples)


def choose(weights: Tensor, n_samples: int, seed: int) -> Tensor:
    """int64 ``[n]`` drawn with probability proportional to ``weights [K]``; the first m do not depend on n."""
    return pick(torch.tensor([seed, _CHOICES], device=weights.device), weights, n_samples)
