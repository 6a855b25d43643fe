"""One density model per class, and Bayes' rule."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pygen.arrays import asked_for, encode_labels, like
from pygen.density import together
from pygen.density.base import ClassDensityEstimator, check_n_samples, choose
from pygen.density.bayes import labelled
from pygen.density.mixture import GaussianMixture
from pygen.density.rows import Rows, resolve_device, to_tensor
from pygen.random import RandomState


class ClassConditional(MetaEstimatorMixin, ClassDensityEstimator):
    """One clone of a density model for each class, with the class prior.

    Parameters
    ----------
    estimator : density model
        With ``fit``, ``score_samples`` and ``sample``, such as ``GaussianMixture(10, covariance_type="diag")``.

    Attributes
    ----------
    classes_ : ``[C]``
    class_count_, class_prior_ : ``[C]``
        Weight and share of each class.
    estimators_ : list of C estimators
    n_features_in_ : int
    feature_shape_ : tuple of int
    """

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "ClassConditional":
        """Fit a clone of the estimator to the rows of each class.

        Parameters
        ----------
        X : array-like or Tensor
            ``[N, ...]``.
        y : array-like or Tensor
            ``[N]``, class labels.
        sample_weight : array-like or Tensor, optional
            ``[N]``, non-negative.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the data does not fit, or the estimator refuses a class: the error names it.
        """
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: without"
                " labels, fit the estimator itself."
            )
        rows = Rows(self, X, sample_weight, reset=True, device="cpu", categorical=True)
        if rows.length is None:
            raise ValueError("ClassConditional needs all rows at once, not a stream.")
        self.classes_, index = encode_labels(y, rows.length)
        x = X if isinstance(X, Tensor) else np.asarray(X)
        weights = None if rows.weights is None else rows.weights.numpy()
        counts = np.bincount(index, weights, len(self.classes_)).astype(np.float64)
        self.class_count_ = like(torch.from_numpy(counts), X)
        self.class_prior_ = self.class_count_ / self.class_count_.sum()
        members = [np.flatnonzero(index == position) for position in range(len(self.classes_))]

        def part(of: np.ndarray) -> tuple[Any, Any]:
            chosen = x[torch.from_numpy(of).to(x.device)] if isinstance(x, Tensor) else x[of]
            return chosen, None if weights is None else weights[of]

        fitted = _fit_together(self.estimator, members, part, rows.n_features)
        self.estimators_ = [] if fitted is None else fitted
        for label, of in zip(self.classes_, members, strict=True) if fitted is None else ():
            own, weight = part(of)
            more = {} if weight is None else {"sample_weight": weight}
            try:
                self.estimators_.append(clone(self.estimator).fit(own, **more))
            except ValueError as error:
                raise ValueError(f"The class {label!r} ({len(of)} rows): {error}") from error
        return self

    def predict_joint_log_proba(self, X: Any) -> Any:
        """``[N, C]``: log p(x, class), in nats, for each row of ``X [N, ...]``."""
        return like(self._joint(X), X)

    def predict_log_proba(self, X: Any) -> Any:
        """``[N, C]``: log p(class | x) for each row of ``X [N, ...]``."""
        return like(self._joint(X).log_softmax(1), X)

    def predict_proba(self, X: Any) -> Any:
        """``[N, C]``: p(class | x) for each row of ``X [N, ...]``."""
        return like(self._joint(X).softmax(1), X)

    def predict(self, X: Any) -> Any:
        """``[N]``: the most probable class of each row of ``X [N, ...]``, by Bayes' rule."""
        return labelled(like(self._joint(X).argmax(1), X), self.classes_)

    def score_samples(self, X: Any) -> Any:
        """``[N]``: log p(x), in nats, summed over the classes, for each row of ``X [N, ...]``."""
        return like(self._joint(X).logsumexp(1), X)

    def sample(
        self, n_samples: int = 1, *, y: Any = None, random_state: RandomState = None
    ) -> tuple[Any, Any]:
        """Draw rows.

        Parameters
        ----------
        n_samples : int, default=1
        y : label or array-like of labels, optional
            The class to draw from, one for all or one for each sample. Default: drawn by the class prior.
        random_state : optional
            Default: the ``random_state`` of the estimator, if it has one.

        Returns
        -------
        X : array or Tensor
            ``[n_samples, *feature_shape_]``.
        labels : array or Tensor
            ``[n_samples]``, the class of each.
        """
        n_samples = check_n_samples(self, n_samples)
        if random_state is None:
            random_state = getattr(self.estimator, "random_state", None)
        seed = self._seed(random_state)
        device = resolve_device(None, self.class_prior_)
        if y is None:
            index = choose(to_tensor(self.class_prior_, device), n_samples, seed)
        else:
            index = asked_for(y, self.classes_, n_samples, device)
        x: Tensor | None = None
        for position in index.unique().tolist():
            of = (index == position).nonzero().squeeze(1)
            # Each class has a stream of its own, so that its j-th sample does not depend on the other classes.
            stream = np.random.SeedSequence(seed, spawn_key=(position,))
            own = int(stream.generate_state(1, np.uint64)[0] >> np.uint64(1))
            drawn, _ = self.estimators_[position].sample(len(of), random_state=own)
            drawn = to_tensor(drawn, device)
            if x is None:
                x = drawn.new_empty(n_samples, *drawn.shape[1:])
            x[of] = drawn
        assert x is not None
        return like(x, self.class_prior_), labelled(like(index, self.class_prior_), self.classes_)

    def _joint(self, X: Any) -> Tensor:
        check_is_fitted(self)
        rows = Rows(self, X, reset=False, device="cpu", categorical=True)
        x = X if isinstance(X, Tensor) else rows.source
        log_prior = to_tensor(self.class_prior_, torch.device("cpu")).log()
        scores = [
            to_tensor(estimator.score_samples(x), torch.device("cpu"), torch.float64)
            for estimator in self.estimators_
        ]
        return torch.stack(scores, 1) + log_prior


def _fit_together(
    estimator: Any,
    members: list[np.ndarray],
    part: Callable[[np.ndarray], tuple[Any, Any]],
    n_features: int,
) -> list[GaussianMixture] | None:
    """Mixtures of all classes at once; None where that does not pay, or fails: then an error is to name the class."""
    if type(estimator) is not GaussianMixture:
        return None
    models = [clone(estimator) for _ in members]
    try:
        estimator._validate_params()
        n_init = estimator.n_init
        lengths = [len(of) for of in members for _ in range(n_init)]
        if not together.pays(estimator, lengths, n_features):
            return None
        rows = [model._open(*part(of)) for model, of in zip(models, members, strict=True)]
        firsts = [
            first for model, own in zip(models, rows, strict=True) for first in model._firsts(own)
        ]
        runs = together.run(estimator, [own for own in rows for _ in range(n_init)], firsts)
    except ValueError:
        return None
    for position, (model, own) in enumerate(zip(models, rows, strict=True)):
        model._keep(own, runs[position * n_init : (position + 1) * n_init])
    return models
