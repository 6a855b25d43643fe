"""What deep models are given, as rows of one tensor."""

from math import prod
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data
from torch import Tensor

from pygen.arrays import from_numpy


def rows(estimator: BaseEstimator, X: Any, *, reset: bool) -> Tensor:
    """Finite rows ``[N, ...]``, at least one, as a tensor that shares memory where it can.

    Raises
    ------
    ValueError
        If X is something else, or (``reset=False``) differs in shape from the data of ``fit``.
    """
    if isinstance(X, Tensor):
        x = _checked_tensor(estimator, X)
    else:
        X = _array(X) if isinstance(X, list | tuple) else X
        if isinstance(X, np.ndarray) and X.ndim > 2:
            flat = X.reshape(len(X), prod(X.shape[1:]))
            flat = validate_data(estimator, flat, reset=reset, dtype="numeric")
            x = from_numpy(flat.reshape(X.shape))
        else:
            x = from_numpy(validate_data(estimator, X, reset=reset, dtype="numeric"))
    if reset:
        estimator.n_features_in_ = prod(x.shape[1:])
        return x
    shape = estimator.feature_shape_
    if tuple(x.shape[1:]) != shape and not _same_but_for_ones(x.shape[1:], shape):
        raise ValueError(
            f"X has rows of shape {list(x.shape[1:])}, but {type(estimator).__name__} is expecting"
            f" {list(shape)}, as in fit."
        )
    return x.reshape(len(x), *shape)


def _checked_tensor(estimator: BaseEstimator, X: Tensor) -> Tensor:
    name = type(estimator).__name__
    if X.is_complex():
        raise ValueError(f"Complex data not supported: {name} got a tensor of {X.dtype}.")
    if X.dim() < 2:
        raise ValueError(
            f"Expected [N, ...] data, got a tensor of shape {list(X.shape)}. Reshape it with"
            " X[:, None] if it has a single feature or X[None] if it is a single row."
        )
    if 0 in X.shape:
        raise ValueError(
            f"Found array with {X.shape[0]} sample(s) and {prod(X.shape[1:])} feature(s)"
            f" (shape={tuple(X.shape)}) while a minimum of 1 is required."
        )
    # A sum is finite only if all its terms are; the exact look comes only when it is not.
    if X.is_floating_point() and not X.sum().isfinite() and not X.isfinite().all():
        raise ValueError(f"Input X contains NaN or infinity: {name} needs finite values.")
    return X.detach()


def _array(X: list[Any] | tuple[Any, ...]) -> np.ndarray:
    try:
        return np.asarray(X)
    except ValueError as error:
        shapes = sorted({tuple(np.shape(x)) for x in X})
        raise ValueError(
            f"X must hold rows of one shape; got {', '.join(map(str, shapes))}: resize them."
        ) from error


def _same_but_for_ones(found: Any, expected: Any) -> bool:
    def sides(shape: Any) -> list[int]:
        return [side for side in shape if side != 1]

    return sides(found) == sides(expected) or tuple(found) == (prod(expected),)
