"""Batches from tensors, data sets and loaders: any step again, whatever was drawn meanwhile."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pygen.deep.batches import Batches

N = 23
X = torch.arange(N, dtype=torch.uint8).reshape(N, 1, 1, 1).expand(N, 1, 2, 2).contiguous()
Y = torch.arange(N) % 3


class Augmented(Dataset[Any]):
    """Adds noise from every generator that augmentation is known to use."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        noise = torch.rand(()) + np.random.rand() + random.random()
        return X[i].float() + noise, int(Y[i])


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(Augmented(), batch_size=5, **options)


KINDS = {
    "tensor": lambda: X,
    "tensors": lambda: (X, Y),
    "data set": Augmented,
    "loader": lambda: loader(shuffle=True),
    "loader with a generator": lambda: loader(shuffle=True, generator=torch.Generator()),
    "loader with processes": lambda: loader(shuffle=True, num_workers=2),
}


def batches(kind: str, seed: int = 3) -> Batches:
    return Batches(KINDS[kind](), batch_size=5, seed=seed, device="cpu")


def equal(a: Any, b: Any) -> bool:
    return all(
        x is y if x is None or y is None else torch.equal(x, y)
        for left, right in zip(a, b, strict=True)
        for x, y in zip(left, right, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_any_step_again(kind: str) -> None:
    whole = list(islice(batches(kind).starting_at(0), 12))
    for start in (3, 5, 9):
        stream = batches(kind).starting_at(start)
        again = []
        for _ in range(12 - start):
            again.append(next(stream))
            torch.rand(start), np.random.rand(), random.random()  # what training draws meanwhile
        assert equal(again, whole[start:])
    other = list(islice(batches(kind, seed=4).starting_at(0), 12))
    assert not equal(other, whole)


@pytest.mark.parametrize("kind", KINDS)
def test_global_generators_are_left_alone(kind: str) -> None:
    def states() -> list[Any]:
        numpy = np.random.get_state()
        return [torch.get_rng_state().tolist(), random.getstate(), numpy[1].tolist(), numpy[2]]

    before = states()
    list(islice(batches(kind).starting_at(3), 4))
    assert states() == before


@pytest.mark.parametrize("kind", ["tensors", "data set"])
def test_epochs_are_permutations(kind: str) -> None:
    source = batches(kind)
    assert (source.n_rows, source.steps_per_epoch, source.batch_size) == (N, 4, 5)
    stream = source.starting_at(0)
    orders = []
    for _ in range(3):
        epoch = list(islice(stream, 4))
        rows = torch.cat([x for x, _ in epoch])[:, 0, 0, 0]
        # Augmentation adds below 3, and the labels tell rows apart that differ by less.
        labels = torch.cat([y for _, y in epoch])
        if kind == "tensors":
            assert torch.equal(labels, Y[rows.long()])
            assert len(set(rows.tolist())) == 20
        orders.append(rows.tolist())
    assert orders[0] != orders[1] != orders[2]


def test_every_row_is_as_likely_everywhere() -> None:
    stream = Batches(torch.arange(8), batch_size=8, seed=0, device="cpu").starting_at(0)
    counts = torch.zeros(8, 8)
    for x, _ in islice(stream, 4000):
        counts[torch.arange(8), x] += 1
    # 500 each, of a binomial with standard deviation 21.
    assert (counts - 500).abs().max() < 5 * 21


def test_bytes_travel_as_bytes(device: torch.device) -> None:
    source = Batches((X, Y), batch_size=5, seed=0, device=device)
    x, y = next(source.starting_at(0))
    assert (x.dtype, x.shape, x.device.type) == (torch.uint8, (5, 1, 2, 2), device.type)
    assert y is not None
    assert (y.dtype, y.shape, y.device.type) == (torch.int64, (5,), device.type)
    assert torch.equal(Y[x[:, 0, 0, 0].long().cpu()], y.cpu())


def test_fewer_rows_than_a_batch() -> None:
    source = Batches(X[:3], batch_size=5, seed=0, device="cpu")
    assert (source.steps_per_epoch, source.batch_size) == (1, 3)
    for x, y in islice(source.starting_at(7), 3):
        assert sorted(x[:, 0, 0, 0].tolist()) == [0, 1, 2]
        assert y is None


def test_a_loader_gives_its_own_batches() -> None:
    source = Batches(DataLoader(Augmented(), batch_size=4), batch_size=99, seed=0, device="cpu")
    assert (source.n_rows, source.steps_per_epoch, source.batch_size) == (N, 6, 4)
    sizes = [len(x) for x, _ in islice(source.starting_at(4), 8)]
    assert sizes == [4, 3, 4, 4, 4, 4, 4, 3]


def test_a_sampler_is_told_the_epoch() -> None:
    told = []

    class Sampler(torch.utils.data.SequentialSampler):
        def set_epoch(self, epoch: int) -> None:
            told.append(epoch)

    data = Augmented()
    source = Batches(
        DataLoader(data, batch_size=10, sampler=Sampler(data)), batch_size=1, seed=0, device="cpu"
    )
    list(islice(source.starting_at(4), 5))
    assert told == [1, 2]


class Items(Dataset[Any]):
    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([torch.ones(2)])


class Short(Stream):
    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (Items(), ValueError, "data: expected at least one row, found none"),
        (X[:0], ValueError, "data: expected at least one row, found none"),
        (torch.tensor(1), ValueError, "data: expected at least one row, found none"),
        ({1, 2}, TypeError, "data: expected a tensor .*found set"),
        (iter([X]), TypeError, "data: expected a tensor .*found list_iterator"),
        ((X, Y[:-1]), ValueError, r"y: expected labels of shape \[23\].*found \[22\]"),
        ((X, Y[:, None]), ValueError, r"y: expected labels of shape \[23\].*found \[23, 1\]"),
        ((X, Y.tolist()), ValueError, r"y: expected labels of shape \[23\].*found list"),
        ((X, Y, Y), TypeError, r"data: expected \(X, y\) of tensors"),
        (DataLoader(Stream()), ValueError, "data: expected a DataLoader with a length"),
        (DataLoader(Short()), ValueError, "length is 3, but epoch 0 ended after 1 batches"),
        (
            Items(torch.ones(1, 8, 8), torch.ones(1, 8, 9)),
            ValueError,
            r"of one shape.*found Tensor \[1, 8, 8\], Tensor \[1, 8, 9\]: resize",
        ),
        (Items(object()), ValueError, "must be tensors, arrays or numbers.*found object"),
        (Items({"image": torch.ones(1)}), TypeError, "pair of it and labels.*found dict"),
        (Items((1, 2, 3)), TypeError, "pair of it and labels"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.filterwarnings("ignore:Length of IterableDataset")
def test_bad_data(data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(islice(Batches(data, batch_size=2, seed=0, device="cpu").starting_at(0), 4))


def test_bad_batch_size() -> None:
    with pytest.raises(ValueError, match="batch_size: expected at least 1, found 0"):
        Batches(X, batch_size=0, seed=0, device="cpu")
