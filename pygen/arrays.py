"""Between NumPy and tensors, and between labels and their positions: what estimators of all kinds take and give."""

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d
from torch import Tensor


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor on the array's memory, or on a copy where torch cannot share it (reversed, foreign byte order)."""
    if any(stride < 0 for stride in array.strides) or not array.dtype.isnative:
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        # Of read-only arrays, memory maps above all: nothing in pygen writes to its input.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def like(tensor: Tensor, X: Any) -> Any:
    """``tensor`` as the kind of thing X is: a tensor on its device, or NumPy."""
    if isinstance(X, Tensor):
        return tensor.to(X.device)
    return tensor.cpu().numpy()


def encode_labels(y: Any, n_rows: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct labels, and int64 ``[N]``, the position of each row's label among them.

    Raises
    ------
    ValueError
        If y is no list of classes, or not ``n_rows`` long.
    """
    y = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if y.ndim != 1 or y.dtype.kind not in "iu":
        check_classification_targets(y)
        y = column_or_1d(y, warn=True)
    if n_rows is not None:
        check_length(y, n_rows)
    if y.dtype.kind in "iu" and len(y) and int(y.max()) - int(y.min()) < len(y):
        # Counting is ten times as fast as sorting.
        offset = (y - y.min()).astype(np.int64)
        occurs = np.bincount(offset) > 0
        return np.flatnonzero(occurs).astype(y.dtype) + y.min(), (occurs.cumsum() - 1)[offset]
    classes, positions = np.unique(y, return_inverse=True)
    return classes, positions.astype(np.int64)


def check_length(y: Any, n_rows: int) -> None:
    """Refuse labels that are not as many as rows."""
    if len(y) != n_rows:
        raise ValueError(f"y must hold one label for each of the {n_rows} rows of X; got {len(y)}.")


def asked_for(y: Any, classes: np.ndarray, n_rows: int, device: torch.device) -> Tensor:
    """int64 ``[n_rows]``: positions in ``classes`` of what the caller wants, one label for all rows or one for each.

    Raises
    ------
    ValueError
        If a label is unknown or their number is not ``n_rows``.
    """
    wanted = np.asarray(
        y.cpu() if isinstance(y, Tensor) else list(y) if isinstance(y, range) else y
    )
    if wanted.ndim > 1 or (wanted.ndim == 1 and len(wanted) != n_rows):
        raise ValueError(
            f"y must be one label or {n_rows} of them, one for each row; got shape {wanted.shape}."
        )
    known = np.isin(wanted, classes)
    if not known.all():
        missing = np.atleast_1d(wanted)[~np.atleast_1d(known)][0]
        raise ValueError(f"y has the label {missing}, but known are {classes.tolist()}.")
    order = np.argsort(classes)
    positions = order[np.searchsorted(classes, np.broadcast_to(wanted, n_rows), sorter=order)]
    return torch.from_numpy(positions.astype(np.int64)).to(device)
