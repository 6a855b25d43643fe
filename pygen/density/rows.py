"""What an estimator is given, as rows on one device, and back again: arrays, tensors of any shape, streams."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data
from torch import Tensor

from pygen.arrays import from_numpy

FLOATS = (torch.float32, torch.float64)


def resolve_device(device: torch.device | str | None, X: Any = None) -> torch.device:
    """``device``, else a tensor's own, else CUDA where there is one, else the CPU."""
    if device is not None:
        return torch.device(device)
    if isinstance(X, Tensor):
        return X.device
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def is_stream(X: Any) -> bool:
    """Whether X yields chunks: a function that returns an iterator, a DataLoader, a generator."""
    if isinstance(X, Tensor | np.ndarray | list | tuple | str | bytes):
        return False
    if hasattr(X, "__array__") or hasattr(X, "__array_interface__") or hasattr(X, "dtypes"):
        return False
    return callable(X) or (isinstance(X, Iterable) and not hasattr(X, "shape"))


def to_tensor(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A parameter, array or tensor, where it is needed."""
    if not isinstance(values, Tensor):
        values = from_numpy(np.asarray(values))
    return values.to(device=device, dtype=dtype)


def _float_dtype(tensor: Tensor) -> torch.dtype:
    if tensor.dtype in FLOATS:
        return tensor.dtype
    return torch.float32 if tensor.is_floating_point() else torch.get_default_dtype()


def _check_tensor(estimator: BaseEstimator, X: Tensor, reset: bool) -> Tensor:
    name = type(estimator).__name__
    if X.is_complex():
        raise ValueError(f"Complex data not supported: {name} got a tensor of {X.dtype}.")
    if X.dim() < 2:
        raise ValueError(
            f"Expected [N, ...] data, got a tensor of shape {list(X.shape)}. Reshape it with"
            " X[:, None] if it has a single feature or X[None] if it is a single row."
        )
    X = X.flatten(1)
    if 0 in X.shape:
        raise ValueError(f"Found array with {X.shape[0]} sample(s) and {X.shape[1]} feature(s).")
    if reset:
        estimator.n_features_in_ = X.shape[1]
    elif X.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {name} is expecting {estimator.n_features_in_}"
            " features as input."
        )
    return X


def check_finite(estimator: BaseEstimator, x: Tensor) -> None:
    # A sum is finite only if all its terms are; the exact look comes only when it is not.
    if x.is_floating_point() and not x.sum().isfinite() and not x.isfinite().all():
        raise ValueError(
            f"Input X contains NaN or infinity: {type(estimator).__name__} needs finite values."
            " Remove or impute such rows; a fitted GaussianMixture imputes them with `condition`."
        )


class Rows:
    """Validated data as ``[N, D]`` rows on one device, whole or in chunks.

    Parameters
    ----------
    estimator : BaseEstimator
        Whose ``n_features_in_`` and ``feature_shape_`` are set (``reset``) or must agree.
    X : array-like, Tensor or stream
        ``[N, ...]``; or what yields chunks of it: a function that returns a fresh iterator, a DataLoader.
        A chunk may be a tuple that begins with the data.
    sample_weight : array-like or Tensor, optional
        ``[N]``, non-negative.
    reset : bool
        Whether this is the data that defines the features.
    device : torch.device
    dtype : torch.dtype, optional
        Default: the data's own if float32 or float64.
    batch_size : int, optional
        Rows moved to the device at a time. Default: all.
    categorical : bool
        Keep integers as they are.
    min_rows : int
    finite : bool
        Whether to look for NaN and infinity; an estimator whose sums show them may save this pass over the data and
        call :func:`check_finite` when they do.
    """

    def __init__(
        self,
        estimator: BaseEstimator,
        X: Any,
        sample_weight: Any = None,
        *,
        reset: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        batch_size: int | None = None,
        categorical: bool = False,
        min_rows: int = 1,
        finite: bool = True,
    ) -> None:
        self._estimator, self._reset = estimator, reset
        self._batch_size, self._categorical, self._min_rows = batch_size, categorical, min_rows
        self._finite = finite
        self.device = resolve_device(device, X)
        self._stream: Callable[[], Iterator[Any]] | None = None
        self.source = X
        if is_stream(X):
            if sample_weight is not None:
                raise ValueError(
                    "sample_weight needs all rows at once; a stream has none to match."
                )
            self._stream = self._open(X)
            first = next(iter(self._stream()), None)
            if first is None:
                raise ValueError("The stream gave no chunk: expected at least one [N, ...].")
            self.source = _data(first)
            self.device = resolve_device(device, self.source)
            x = self._check(self.source, reset)
            self.length: int | None = None
            self.weights: Tensor | None = None
        else:
            x = self._check(X, reset)
            self.length = len(x)
        self.dtype = dtype or (x.dtype if categorical else _float_dtype(x))
        if self._stream is None:
            self._x = x if batch_size else x.to(self.device, self.dtype)
            self.weights = self._check_weights(sample_weight)
        self.n_features = x.shape[1]

    @staticmethod
    def _open(X: Any) -> Callable[[], Iterator[Any]]:
        if callable(X):
            return X
        if isinstance(X, Iterator):
            raise ValueError(
                "Fitting goes over the data several times, but an iterator gives its chunks once."
                " Pass a function that returns a fresh iterator, such as `lambda: chunks()`."
            )
        return lambda: iter(X)

    def _check(self, X: Any, reset: bool) -> Tensor:
        shape = tuple(getattr(X, "shape", ()))
        if isinstance(X, Tensor):
            x = _check_tensor(self._estimator, X, reset)
            if self._finite:
                check_finite(self._estimator, x)
            if len(x) < self._min_rows:
                raise ValueError(
                    f"Found array with {len(x)} sample(s) (shape={shape}) while a minimum of"
                    f" {self._min_rows} is required."
                )
        else:
            if isinstance(X, np.ndarray) and X.ndim > 2:
                X = X.reshape(len(X), -1)
            x = from_numpy(
                validate_data(
                    self._estimator,
                    X,
                    reset=reset,
                    dtype="numeric" if self._categorical else [np.float64, np.float32],
                    ensure_min_samples=self._min_rows,
                    ensure_all_finite=self._finite,
                )
            )
        if reset:
            self._estimator.feature_shape_ = shape[1:] if len(shape) > 1 else (x.shape[1],)
        return x

    def _check_weights(self, sample_weight: Any) -> Tensor | None:
        if sample_weight is None:
            return None
        weights = to_tensor(sample_weight, torch.device("cpu"), torch.float64)
        if weights.dim() == 0:
            weights = weights.repeat(len(self._x))
        if weights.shape != (len(self._x),):
            raise ValueError(
                f"sample_weight.shape == {tuple(weights.shape)}, expected {(len(self._x),)}: one"
                " weight for each row."
            )
        if not weights.isfinite().all() or weights.min() < 0 or weights.max() == 0:
            raise ValueError(
                "sample_weight must be finite and non-negative, and not all zero; its smallest is"
                f" {weights.min():g}, its largest {weights.max():g}."
            )
        return weights.to(self.device)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Rows ``[n, D]`` and their weights ``[n]`` or None, in order; may be called again and again."""
        if self._stream is not None:
            for chunk in self._stream():
                x = self._check(_data(chunk), False)
                for part in x.split(self._batch_size or max(len(x), 1)):
                    yield part.to(self.device, self.dtype), None
            return
        size = self._batch_size or self.length or 1
        for start in range(0, len(self._x), size):
            weights = None if self.weights is None else self.weights[start : start + size]
            yield self._x[start : start + size].to(self.device, self.dtype), weights

    def sample(
        self, limit: int, keys: Callable[[int, int], Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """All rows, where they are; of a stream at most ``limit``, those with the smallest ``keys(start, n)``."""
        if self._stream is None:
            weights = None if self.weights is None else self.weights.to(self._x.device)
            return self._x.to(self.dtype), weights
        kept: list[Tensor] = []
        key: Tensor | None = None
        seen = 0
        for x, _ in self.chunks():
            new = keys(seen, len(x))
            seen += len(x)
            kept.append(x)
            key = new if key is None else torch.cat([key, new])
            if len(key) > limit:
                chosen = key.topk(limit, largest=False).indices.sort().values
                kept, key = [torch.cat(kept)[chosen]], key[chosen]
        return torch.cat(kept), None


def _data(chunk: Any) -> Any:
    return chunk[0] if isinstance(chunk, tuple | list) else chunk
