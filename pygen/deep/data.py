"""What deep models learn from: arrays, tensors, Datasets and DataLoaders, checked, split and looked into."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, default_collate

from pygen.arrays import check_length, encode_labels, from_numpy
from pygen.deep.rows import rows
from pygen.deep.scaling import Scaling
from pygen.deep.seeding import seeded

Source: TypeAlias = tuple[Tensor, Tensor | None] | Dataset[Any] | DataLoader[Any]

# Items of a Dataset that are looked at before training.
_PROBED_ITEMS = 64


@dataclass
class Training:
    """Data to learn from.

    Parameters
    ----------
    source : (Tensor, Tensor or None), Dataset or DataLoader
        Rows ``[N, *feature_shape]`` as the user has them, with labels as positions in ``classes``.
    held_out : the same, optional
        Rows kept for validation.
    feature_shape : tuple of int
        Shape of a row.
    scaling : Scaling
    classes : ndarray, optional
        Sorted distinct labels of a conditional model.
    class_counts : ndarray, optional
        Rows of each class.
    numpy : bool
        Whether the user's data is NumPy, and so is what the model gives back.
    device : torch.device
        Where the user's data lives.
    """

    source: Source
    held_out: Source | None
    feature_shape: tuple[int, ...]
    scaling: Scaling
    classes: np.ndarray | None
    class_counts: np.ndarray | None
    numpy: bool
    device: torch.device


def training(
    estimator: BaseEstimator,
    X: Any,
    y: Any,
    *,
    conditional: bool,
    value_range: Any,
    validation_fraction: float,
    seed: int,
) -> Training:
    """Check what ``fit`` was given.

    Raises
    ------
    ValueError
        If data or labels do not fit; says what was expected.
    TypeError
        If items of a Dataset or DataLoader are no tensors or arrays.
    """
    if conditional and y is None and not isinstance(X, Dataset | DataLoader):
        raise ValueError(
            f"{type(estimator).__name__}(conditional=True) needs labels: fit(X, y), one for each row."
        )
    if isinstance(X, DataLoader):
        if y is not None:
            raise ValueError(
                "y must come with the batches of a DataLoader, as (x, y); got y beside it."
            )
        return _of_loader(estimator, X, conditional, value_range)
    if isinstance(X, Dataset):
        return _of_dataset(estimator, X, y, conditional, value_range, validation_fraction, seed)
    x = rows(estimator, X, reset=True)
    labels, classes, counts = None, None, None
    if conditional:
        classes, places = encode_labels(y, len(x))
        counts, labels = np.bincount(places), torch.from_numpy(places)
    elif y is not None:
        check_length(y, len(x))
    source: Source = (x, labels)
    held_out: Source | None = None
    chosen = _split(len(x), validation_fraction, seed)
    if chosen is not None:
        source, held_out = (
            (x[i.to(x.device)], None if labels is None else labels[i]) for i in chosen
        )
    return Training(
        source,
        held_out,
        _feature_shape(X, x),
        Scaling.learned(x, value_range),
        classes,
        counts,
        not isinstance(X, Tensor),
        x.device,
    )


def some_rows(source: Source, limit: int, seed: int) -> tuple[Tensor, Tensor | None]:
    """At most ``limit`` rows and their labels, where there are any: drawn by the seed, of a DataLoader the first.

    Labels are positions among the classes if the model is conditional, and to be ignored if not.
    """
    if isinstance(source, tuple):
        x, y = source
        if len(x) > limit:
            chosen = _shuffled(len(x), seed)[:limit]
            x, y = x[chosen.to(x.device)], None if y is None else y[chosen]
        return x, y
    with seeded(seed):
        if isinstance(source, DataLoader):
            batches = []
            for batch in source:
                batches.append(batch)
                if sum(len(_item(b)) for b in batches) >= limit:
                    break
        else:
            dataset: Any = source
            items = [dataset[i] for i in _shuffled(len(dataset), seed)[:limit].tolist()]
            batches = [default_collate(items)]
    x = torch.cat([_as_tensor(_item(batch)) for batch in batches])[:limit]
    if not isinstance(batches[0], tuple | list) or len(batches[0]) < 2:
        return x, None
    return x, torch.cat([torch.as_tensor(_label(batch)) for batch in batches])[:limit]


def _feature_shape(X: Any, x: Tensor) -> tuple[int, ...]:
    shape = tuple(x.shape[1:])
    if len(shape) == 3 and shape[0] > 4 and shape[2] <= 4:
        raise ValueError(
            f"X must be [N, C, H, W] with channels before height and width; got {list(x.shape)}."
            f" Move them: X.{'permute' if isinstance(X, Tensor) else 'transpose'}(0, 3, 1, 2)."
        )
    return shape


def _split(n_rows: int, fraction: float, seed: int) -> tuple[Tensor, Tensor] | None:
    """Rows to learn from and rows held out, in random order; None where none are held out."""
    n_held_out = int(n_rows * fraction)
    if n_held_out < 1:
        return None
    order = _shuffled(n_rows, seed)
    return order[n_held_out:], order[:n_held_out]


def _shuffled(n_rows: int, seed: int) -> Tensor:
    return torch.randperm(n_rows, generator=torch.Generator().manual_seed(seed))


# Datasets and DataLoaders


class _WithPositions(Dataset):
    """A Dataset's items with their labels' positions among the classes."""

    def __init__(self, dataset: Any, labels: np.ndarray) -> None:
        self.dataset, self.labels = dataset, torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        return _item(self.dataset[index]), self.labels[index]


def _of_dataset(
    estimator: BaseEstimator,
    dataset: Any,
    y: Any,
    conditional: bool,
    value_range: Any,
    validation_fraction: float,
    seed: int,
) -> Training:
    if isinstance(dataset, IterableDataset):
        raise TypeError(
            "An IterableDataset has no item i to come back to; pass it in a DataLoader, or a map-style Dataset."
        )
    if len(dataset) == 0:
        raise ValueError("The Dataset is empty; expected at least one item.")
    with seeded(0):
        first = _first_items(dataset)
        classes, counts = None, None
        if conditional:
            y = [_label(dataset[i]) for i in range(len(dataset))] if y is None else y
            classes, places = encode_labels(y, len(dataset))
            dataset, counts = _WithPositions(dataset, places), np.bincount(places)
        elif y is not None:
            check_length(y, len(dataset))
    source: Source = dataset
    held_out: Source | None = None
    chosen = _split(len(dataset), validation_fraction, seed)
    if chosen is not None:
        source, held_out = (Subset(dataset, part.tolist()) for part in chosen)
    estimator.n_features_in_ = first[0].numel()
    return Training(
        source,
        held_out,
        _feature_shape(first, first),
        Scaling.learned(first, value_range, whole=False),
        classes,
        counts,
        numpy=False,
        device=torch.device("cpu"),
    )


def _of_loader(
    estimator: BaseEstimator, loader: DataLoader, conditional: bool, value_range: Any
) -> Training:
    with seeded(0):
        first = None
        labels: list[Tensor] = []
        for batch in loader:
            first = _as_tensor(_item(batch)) if first is None else first
            if not conditional:
                break
            labels.append(torch.as_tensor(_label(batch)))
    if first is None:
        raise ValueError("The DataLoader gave no batch; expected at least one.")
    classes, counts = None, None
    if conditional:
        every = torch.cat(labels)
        classes, places = encode_labels(every, len(every))
        counts = np.bincount(places)
        if not np.array_equal(classes, np.arange(len(classes))):
            raise ValueError(
                f"The labels of a DataLoader must be 0 to K - 1; got {classes.tolist()}. A Dataset may have any."
            )
    estimator.n_features_in_ = first[0].numel()
    return Training(
        loader,
        None,
        _feature_shape(first, first),
        Scaling.learned(first, value_range, whole=False),
        classes,
        counts,
        numpy=False,
        device=torch.device("cpu"),
    )


def _first_items(dataset: Any) -> Tensor:
    """The first rows of a Dataset, from which shape and numbers of all are known."""
    items = [_as_tensor(_item(dataset[i])) for i in range(min(_PROBED_ITEMS, len(dataset)))]
    shapes = sorted({tuple(item.shape) for item in items})
    if len(shapes) > 1:
        raise ValueError(
            f"Items of the Dataset must have one shape; got {', '.join(map(str, shapes))}: resize them."
        )
    return torch.stack(items)


def _item(item: Any) -> Any:
    return item[0] if isinstance(item, tuple | list) else item


def _label(item: Any) -> Any:
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise ValueError(
            "conditional=True needs labels: the Dataset or DataLoader must give (x, y), or fit be given y."
        )
    return item[1]


def _as_tensor(item: Any) -> Tensor:
    if isinstance(item, np.ndarray):
        item = from_numpy(item)
    if not isinstance(item, Tensor):
        raise TypeError(
            "A Dataset or DataLoader must give tensors or NumPy arrays, pictures as [C, H, W]; got a"
            f" {type(item).__name__}. Let its transform make a tensor."
        )
    return item
