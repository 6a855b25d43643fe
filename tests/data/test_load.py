"""`load` by name, and what turns its images into a model's input."""

import os

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch

from pygen.data import load, quantize, to_unit


@pytest.fixture(autouse=True)
def no_folders(monkeypatch, tmp_path):
    monkeypatch.delenv("PYGEN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_digits_are_those_of_scikit_learn():
    images, labels = load_digits(return_X_y=True)
    expected = train_test_split(images, labels, test_size=0.3, stratify=labels, random_state=0)
    for split, i in (("train", 0), ("test", 1)):
        x, y = load("digits", split)
        assert x.dtype == torch.uint8
        assert y.dtype == torch.int64
        np.testing.assert_array_equal(quantize(x, 17).flatten(1).numpy(), expected[i])
        np.testing.assert_array_equal(y.numpy(), expected[i + 2])
    assert load("digits", "all")[0].shape == (1797, 1, 8, 8)
    assert load("digits")[0].max() == 255


def test_quantize():
    x = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(quantize(x, 256), torch.arange(256))
    for levels in (2, 16, 64):
        torch.testing.assert_close(quantize(x, levels), torch.arange(256) // (256 // levels))
    for levels in (1, 257):
        with pytest.raises(ValueError, match=f"expected 2 to 256, found {levels}"):
            quantize(x, levels)
    with pytest.raises(ValueError, match="expected uint8"):
        quantize(x.float(), 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_to_unit(dtype):
    x = to_unit(torch.arange(256, dtype=torch.uint8), dtype)
    torch.testing.assert_close(x, torch.arange(256, dtype=dtype) / 255, rtol=0, atol=0)
    with pytest.raises(ValueError, match="expected uint8"):
        to_unit(x)


def test_wrong_names(tmp_path):
    with pytest.raises(ValueError, match=r"expected one of the data sets digits.*cifar10"):
        load("mnits")
    with pytest.raises(FileNotFoundError, match="expected a file or folder, found nothing there"):
        load(tmp_path / "mnits")
    with pytest.raises(FileNotFoundError, match="nothing there"):
        load("missing.npz")
    with pytest.raises(ValueError, match="expected one of train, test, all, found 'val'"):
        load("digits", "val")
    (tmp_path / "table.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"table\.csv: expected a folder, \.zip"):
        load(tmp_path / "table.csv")


def save_mnist(path, value, size=28):
    path.parent.mkdir(parents=True, exist_ok=True)
    x = np.full((2, size, size), value, np.uint8)
    np.savez(path, x_train=x, y_train=[1, 2], x_test=x, y_test=[3, 4])


def test_search_order(monkeypatch, tmp_path):
    save_mnist(tmp_path / "cache/pygen/mnist.npz", 1)
    assert load("mnist")[0][0, 0, 0, 0] == 1
    save_mnist(tmp_path / "second/mnist.npz", 2)
    folders = [str(tmp_path / "missing"), str(tmp_path / "first"), str(tmp_path / "second")]
    monkeypatch.setenv("PYGEN_DATA", os.pathsep.join(folders))
    assert load("mnist")[0][0, 0, 0, 0] == 2
    save_mnist(tmp_path / "first/mnist/anything.npz", 3)
    x, y = load("mnist", "test")
    assert x[0, 0, 0, 0] == 3
    assert y.tolist() == [3, 4]


def test_wrong_data_under_a_name(monkeypatch, tmp_path):
    monkeypatch.setenv("PYGEN_DATA", str(tmp_path))
    save_mnist(tmp_path / "mnist.npz", 1, size=8)
    with pytest.raises(
        ValueError, match=r"mnist\.npz: expected the pictures of mnist.*\[1, 8, 8\]"
    ):
        load("mnist")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_fetch(monkeypatch, tmp_path, name):
    ids = {"mnist": 554, "fashion_mnist": 40996, "cifar10": 40927}
    n, n_train, pixels = (60_000, 50_000, 3072) if name == "cifar10" else (70_000, 60_000, 784)
    calls = []

    def fetch_openml(*, data_id, data_home, as_frame, parser):
        calls.append((data_id, data_home))
        assert not as_frame
        assert parser in ("pandas", "liac-arff")
        rows = np.broadcast_to((np.arange(n) % 251).astype(np.uint8)[:, None], (n, pixels))
        return Bunch(data=rows, target=(np.arange(n) % 10).astype(str).astype(object))

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch_openml)
    fetched = load(name, "test")
    assert len(fetched[0]) == n - n_train
    np.testing.assert_array_equal(fetched[0][:, -1, -1, -1].numpy(), np.arange(n_train, n) % 251)
    np.testing.assert_array_equal(fetched[1].numpy(), np.arange(n_train, n) % 10)
    # The second time it comes from the cache.
    again = load(name, "test")
    assert calls == [(ids[name], tmp_path / "cache/pygen")]
    assert all(torch.equal(a, b) for a, b in zip(fetched, again, strict=True))
    assert load(name)[0].shape[0] == n_train


def test_failed_fetch(monkeypatch, tmp_path):
    def fetch_openml(**_):
        raise OSError("the network is down")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch_openml)
    monkeypatch.setenv("PYGEN_DATA", str(tmp_path / "here"))
    with pytest.raises(FileNotFoundError) as caught:
        load("cifar10")
    message = str(caught.value)
    for part in (
        "the network is down",
        str(tmp_path / "here"),
        str(tmp_path / "cache"),
        "PYGEN_DATA",
    ):
        assert part in message
    assert not (tmp_path / "cache").exists()
