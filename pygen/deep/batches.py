"""Batches of a training run: which rows step s sees is a function of (seed, s)."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from pygen.deep.seeding import derived_seed, seeded

Batch: TypeAlias = tuple[Tensor, Tensor | None]
Data: TypeAlias = Tensor | tuple[Tensor, Tensor | None] | Dataset[Any] | DataLoader[Any]

# Second numbers of the keys of seeds: of an epoch's order, and of what a user's data set draws in a step.
_EPOCH, _STEP = 1, 2


class Batches:
    """Endless batches from data in memory, a data set, or a loader; can begin at any step.

    Rows are shuffled anew in each epoch, by a permutation that depends on (seed, epoch) alone; rows that are left over
    at its end sit this epoch out. A loader's batches are taken as they come, with what it and its data set draw
    seeded per step; to begin within an epoch they are read and dropped. (Only what a data set draws in the processes of
    a loader with ``persistent_workers=True`` differs then: those keep their generators from epoch to epoch.)

    Parameters
    ----------
    data : Tensor, tuple of Tensors, Dataset or DataLoader
        X ``[N, ...]``, or (X, y) with labels ``[N]`` or None. Or a map-style data set of x or (x, y). Or a loader that
        has a length and yields batches of these.
    batch_size : int
        Rows of a batch, at least 1; all rows where there are fewer. A loader has its own.
    seed : int
        In [0, 2**63).
    device : torch.device or str
        Where batches are needed. Types stay as they are: uint8 travels as uint8.

    Attributes
    ----------
    seed : int
        May be changed before iteration begins.
    batch_size : int or None
        None if a loader does not tell.
    n_rows : int
        Rows of the data.
    steps_per_epoch : int

    Raises
    ------
    TypeError, ValueError
        If the data are something else, are empty, or differ in length.
    """

    def __init__(
        self, data: Data, *, batch_size: int, seed: int, device: torch.device | str
    ) -> None:
        self.seed, self.device = seed, torch.device(device)
        self._labels: Tensor | None = None
        self.batch_size: int | None
        if isinstance(data, DataLoader):
            self.n_rows, self.steps_per_epoch = _lengths(data)
            self.batch_size = data.batch_size
        else:
            if isinstance(data, tuple):
                data, self._labels = _pair(data)
            self.n_rows = _n_rows(data)
            if batch_size < 1:
                raise ValueError(f"batch_size: expected at least 1, found {batch_size}")
            self.batch_size = min(batch_size, self.n_rows)
            self.steps_per_epoch = self.n_rows // self.batch_size
        self._data = data

    def starting_at(self, step: int) -> Iterator[Batch]:
        """Yield batches without end, first that of a step.

        Parameters
        ----------
        step : int
            The number of batches that came before, all epochs together.

        Yields
        ------
        x : Tensor
            ``[batch, ...]`` on the device.
        y : Tensor or None
            ``[batch]``.
        """
        if isinstance(self._data, DataLoader):
            return self._from_loader(self._data, step)
        return self._from_rows(self._data, step)

    def _from_rows(self, data: Tensor | Dataset[Any], start: int) -> Iterator[Batch]:
        assert self.batch_size is not None
        home = data.device if isinstance(data, Tensor) else torch.device("cpu")
        epoch, first = divmod(start, self.steps_per_epoch)
        while True:
            order = self._permutation(epoch, home)
            for i in range(first, self.steps_per_epoch):
                rows = order[i * self.batch_size : (i + 1) * self.batch_size]
                if isinstance(data, Tensor):
                    labels = self._labels
                    yield (
                        self._take(data, rows),
                        None if labels is None else self._take(labels, rows),
                    )
                else:
                    with seeded(self.seed, _STEP, epoch * self.steps_per_epoch + i):
                        batch = _collate([data[row] for row in rows.tolist()])
                    yield self._moved(batch)
            epoch, first = epoch + 1, 0

    def _permutation(self, epoch: int, device: torch.device) -> Tensor:
        # Drawn on the CPU wherever the rows are: the same order on every device.
        generator = torch.Generator().manual_seed(derived_seed(self.seed, _EPOCH, epoch))
        return torch.randperm(self.n_rows, generator=generator).to(device)

    def _take(self, values: Tensor, rows: Tensor) -> Tensor:
        rows = rows.to(values.device)
        if self.device.type == "cuda" and values.device.type == "cpu":
            # From page-locked memory the copy runs beside the host's work and the device's.
            size = (len(rows), *values.shape[1:])
            batch = torch.empty(size, dtype=values.dtype, pin_memory=True)
            torch.index_select(values, 0, rows, out=batch)
            return batch.to(self.device, non_blocking=True)
        return values.index_select(0, rows).to(self.device)

    def _from_loader(self, loader: DataLoader[Any], start: int) -> Iterator[Batch]:
        epoch, skipped = divmod(start, self.steps_per_epoch)
        while True:
            for i, batch in enumerate(self._epoch(loader, epoch)):
                if i >= skipped:
                    yield self._moved(batch)
            epoch, skipped = epoch + 1, 0

    def _epoch(self, loader: DataLoader[Any], epoch: int) -> Iterator[Any]:
        """Batches of a loader's epoch; each is drawn with its own seed, in whatever process loads it."""
        _seed_samplers(loader, self.seed, epoch)
        iterator = None
        for i in range(self.steps_per_epoch):
            with seeded(self.seed, _STEP, epoch * self.steps_per_epoch + i):
                iterator = iter(loader) if iterator is None else iterator
                try:
                    batch = next(iterator)
                except StopIteration:
                    raise ValueError(
                        f"The DataLoader's length is {self.steps_per_epoch}, but epoch {epoch} ended after {i} batches:"
                        " mend the length of its data set or sampler."
                    ) from None
            yield batch

    def _moved(self, batch: Any) -> Batch:
        pair = batch if isinstance(batch, tuple | list) else (batch, None)
        if len(pair) == 1:
            pair = (*pair, None)
        x, y = pair if len(pair) == 2 else (None, None)
        if not isinstance(x, Tensor) or not (y is None or isinstance(y, Tensor)):
            found = (
                [type(part).__name__ for part in batch] if pair is batch else type(batch).__name__
            )
            raise TypeError(
                f"A batch must be a tensor [N, ...] or a pair of it and labels [N], found {found}: give the data set"
                " items x or (x, y), of tensors, arrays or numbers."
            )
        return self._to_device(x), None if y is None else self._to_device(y)

    def _to_device(self, values: Tensor) -> Tensor:
        if self.device.type == "cuda" and values.device.type == "cpu":
            return values.pin_memory().to(self.device, non_blocking=True)
        return values.to(self.device)


def _n_rows(data: Any) -> int:
    """Number of rows; what has none, or is no data, is refused."""
    if isinstance(data, Tensor):
        n_rows = len(data) if data.dim() else 0
    elif hasattr(data, "__getitem__") and isinstance(data, Sized):
        n_rows = len(data)
    else:
        raise TypeError(
            "data: expected a tensor [N, ...], a pair of tensors, a map-style Dataset (with __len__ and __getitem__) or"
            f" a DataLoader, found {type(data).__name__}"
        )
    if n_rows == 0:
        raise ValueError("data: expected at least one row, found none")
    return n_rows


def _pair(data: tuple[Any, ...]) -> tuple[Tensor, Tensor | None]:
    if len(data) != 2 or not isinstance(data[0], Tensor):
        found = ", ".join(type(part).__name__ for part in data)
        raise TypeError(f"data: expected (X, y) of tensors, found ({found})")
    x, y = data
    if y is not None and (not isinstance(y, Tensor) or y.shape != x.shape[:1]):
        shape = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"y: expected labels of shape [{len(x)}], one for each row, found {shape}")
    return x, y


def _lengths(loader: DataLoader[Any]) -> tuple[int, int]:
    try:
        steps = len(loader)
    except TypeError as error:
        raise ValueError(
            "data: expected a DataLoader with a length, found one over a data set without: give that a __len__"
        ) from error
    if steps == 0:
        raise ValueError("data: expected a DataLoader of at least one batch, found none")
    size = loader.batch_size
    return (len(loader.dataset) if size else steps), steps  # type: ignore[arg-type]


def _seed_samplers(loader: DataLoader[Any], seed: int, epoch: int) -> None:
    """Seed the generators that the user gave to a loader, and tell a distributed sampler its epoch."""
    parts: list[Any] = [loader, loader.sampler, loader.batch_sampler]
    parts.append(getattr(loader.batch_sampler, "sampler", None))
    for part in {id(part): part for part in parts}.values():
        generator = getattr(part, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(derived_seed(seed, _EPOCH, epoch))
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)


def _collate(items: list[Any]) -> Any:
    try:
        return default_collate(items)
    except (RuntimeError, TypeError) as error:
        first = [item[0] if isinstance(item, tuple | list) else item for item in items]
        found = sorted({f"{type(x).__name__} {list(getattr(x, 'shape', ()))}" for x in first})
        raise ValueError(
            "A data set's items must be tensors, arrays or numbers of one shape, to make a batch; found"
            f" {', '.join(found)}: resize or convert them in its __getitem__."
        ) from error
