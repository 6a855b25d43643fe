"""What naive Bayes models share: one density per class, a prior, and Bayes' rule."""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from pygen.arrays import asked_for, encode_labels, like
from pygen.density.base import CHUNK, ClassDensityEstimator, check_n_samples, choose
from pygen.density.rows import Rows, resolve_device, to_tensor
from pygen.random import RandomState, new_state


class ClassBayes(ClassDensityEstimator):
    """One density per class, learned from sums over rows; without labels a single density of all rows."""

    device: Any
    classes_: Any
    class_prior_: Any

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit to all rows, or with ``y`` to each class.

        Parameters
        ----------
        X : array-like, Tensor or stream
            ``[N, ...]``. A stream, see :class:`pygen.GaussianMixture`, is for fitting without ``y``.
        y : array-like or Tensor, optional
            ``[N]``, class labels.
        sample_weight : array-like or Tensor, optional
            ``[N]``, non-negative; a row of weight 2 counts as two equal rows.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the data does not fit.
        """
        self._validate_params()
        return self._update(X, y, None, sample_weight, begin=True)

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None
    ) -> Any:
        """Take in another batch; any split of the data into batches gives what ``fit`` gives on all of it.

        Parameters
        ----------
        X : array-like or Tensor
            ``[N, ...]``.
        y : array-like or Tensor, optional
            ``[N]``, class labels; in every call or in none.
        classes : array-like, optional
            All labels that will ever come. Needed in the first call if ``y`` is given.
        sample_weight : array-like or Tensor, optional
            ``[N]``, non-negative.

        Returns
        -------
        self
        """
        self._validate_params()
        begin = not hasattr(self, "class_count_")
        if begin and y is not None and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        return self._update(X, y, classes, sample_weight, begin=begin)

    def predict_joint_log_proba(self, X: Any) -> Any:
        """``[N, C]``: log p(x, class), in nats, for each row of ``X [N, ...]``."""
        self._need_classes()
        return self._score(X, lambda joint: joint)

    def predict_log_proba(self, X: Any) -> Any:
        """``[N, C]``: log p(class | x) for each row of ``X [N, ...]``."""
        self._need_classes()
        return self._score(X, lambda joint: joint.log_softmax(1))

    def predict_proba(self, X: Any) -> Any:
        """``[N, C]``: p(class | x) for each row of ``X [N, ...]``."""
        self._need_classes()
        return self._score(X, lambda joint: joint.softmax(1))

    def predict(self, X: Any) -> Any:
        """``[N]``: the most probable class of each row of ``X [N, ...]``, by Bayes' rule."""
        self._need_classes()
        return labelled(self._score(X, lambda joint: joint.argmax(1)), self.classes_)

    def score_samples(self, X: Any) -> Any:
        """``[N]``: log p(x), in nats, for each row of ``X [N, ...]``; with classes, summed over them."""
        check_is_fitted(self)
        return self._score(X, lambda joint: joint.logsumexp(1))

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

        Returns
        -------
        X : array or Tensor
            ``[n_samples, *feature_shape_]``.
        labels : array or Tensor
            ``[n_samples]``: the class of each; 0 if there are no classes.
        """
        n_samples = check_n_samples(self, n_samples)
        seed = self._seed(random_state)
        device = resolve_device(self.device, self.class_prior_)
        if y is None:
            prior = to_tensor(self.class_prior_, device)
            index = choose(prior, n_samples, seed)
        else:
            self._need_classes()
            index = asked_for(y, np.asarray(self._labels()), n_samples, device)
        x = self._draw(index, new_state(seed, device)).unflatten(1, self.feature_shape_)
        return like(x, self.class_prior_), labelled(like(index, self.class_prior_), self._labels())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        return tags

    @abstractmethod
    def _rows(self, X: Any, sample_weight: Any, *, reset: bool, fitting: bool) -> Rows:
        """The data, validated."""

    @abstractmethod
    def _add(self, x: Tensor, weights: Tensor | None, index: Tensor, n_classes: int) -> None:
        """Take rows ``[n, D]`` of the classes ``index [n]`` into the sums."""

    @abstractmethod
    def _finish(self, rows: Rows) -> None:
        """Set the fitted attributes from the sums."""

    @abstractmethod
    def _joint(self, x: Tensor) -> Tensor:
        """``[n, C]``, log p(x, class)."""

    @abstractmethod
    def _draw(self, index: Tensor, state: Tensor) -> Tensor:
        """``[n, D]``, one row of each class in ``index``."""

    def _labels(self) -> Any:
        return getattr(self, "classes_", np.zeros(1, dtype=np.int64))

    def _need_classes(self) -> None:
        check_is_fitted(self)
        if not hasattr(self, "classes_"):
            raise AttributeError(
                f"This {type(self).__name__} was fitted without labels; fit(X, y) to have classes."
            )

    def _update(self, X: Any, y: Any, classes: Any, sample_weight: Any, *, begin: bool) -> Any:
        rows = self._rows(X, sample_weight, reset=begin, fitting=True)
        index, found = _class_index(y, classes, None if begin else self._known(y), rows)
        if begin:
            if found is not None:
                self.classes_ = found
            elif hasattr(self, "classes_"):
                del self.classes_
            self._begin(rows, 1 if found is None else len(found))
        start = 0
        for x, weights in rows.chunks():
            part = torch.zeros(len(x), dtype=torch.int64, device=x.device)
            if index is not None:
                part = index[start : start + len(x)]
            self._add(x, weights, part, len(self._labels()))
            start += len(x)
        self._finish(rows)
        return self

    @abstractmethod
    def _begin(self, rows: Rows, n_classes: int) -> None:
        """Set the sums to zero."""

    def _known(self, y: Any) -> Any:
        if (y is not None) != hasattr(self, "classes_"):
            raise ValueError("y must be given in every call to partial_fit or in none.")
        return getattr(self, "classes_", None)

    def _score(self, X: Any, result: Any) -> Any:
        rows = self._rows(X, None, reset=False, fitting=False)
        parts = [result(self._joint(part)) for x, _ in rows.chunks() for part in x.split(CHUNK)]
        return like(torch.cat(parts), rows.source)


def labelled(index: Any, classes: Any) -> Any:
    """Labels at positions: tensors stay tensors where the labels are numbers."""
    if not isinstance(index, Tensor):
        return np.asarray(classes.cpu() if isinstance(classes, Tensor) else classes)[index]
    if isinstance(classes, np.ndarray) and classes.dtype.kind not in "biuf":
        return classes[index.cpu().numpy()]
    return torch.as_tensor(classes, device=index.device)[index]


def _class_index(
    y: Any, classes: Any, known: Any, rows: Rows
) -> tuple[Tensor | None, np.ndarray | None]:
    if y is None:
        return None, None
    if rows.length is None:
        raise ValueError("y needs all rows at once: a stream is for fitting without labels.")
    present, index = encode_labels(y, rows.length)
    if known is None:
        known = present if classes is None else np.unique(np.asarray(classes))
    elif classes is not None and not np.array_equal(np.unique(classes), known):
        raise ValueError(
            f"classes={np.asarray(classes).tolist()} is not the same as on last call to"
            f" partial_fit, was: {known.tolist()}."
        )
    unknown = present[~np.isin(present, known)]
    if len(unknown):
        raise ValueError(
            f"The target label(s) {unknown.tolist()} in y do not exist in the initial classes"
            f" {known.tolist()}."
        )
    index = np.searchsorted(known, present)[index]
    return torch.from_numpy(index.astype(np.int64)).to(rows.device), known
