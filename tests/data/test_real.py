"""The real MNIST and CIFAR-10, where they are at hand."""

import os
from pathlib import Path

import pytest

from pygen.data import load

BESIDE = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def real(monkeypatch, tmp_path):
    """Return a loader of a real data set that skips the test where it is not at hand."""
    if not os.environ.get("PYGEN_DATA"):
        monkeypatch.setenv("PYGEN_DATA", str(BESIDE))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def nowhere(**_):
        raise OSError("tests fetch nothing")

    monkeypatch.setattr("sklearn.datasets.fetch_openml", nowhere)

    def load_or_skip(name, split):
        try:
            return load(name, split)
        except FileNotFoundError as error:
            pytest.skip(f"{name} is neither under PYGEN_DATA nor in ../shared/data: {error}")

    return load_or_skip


@pytest.mark.parametrize(
    ("split", "counts", "mean"),
    [
        ("train", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], 33.318421),
        ("test", [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009], 33.791224),
    ],
)
def test_mnist(real, split, counts, mean):
    images, labels = real("mnist", split)
    assert images.shape == (sum(counts), 1, 28, 28)
    assert labels.bincount().tolist() == counts
    assert images.double().mean().item() == pytest.approx(mean, abs=1e-5)
    assert labels[:5].tolist() == {"train": [5, 0, 4, 1, 9], "test": [7, 2, 1, 0, 4]}[split]


def test_cifar10(real):
    images, labels = real("cifar10", "test")
    assert images.shape == (10_000, 3, 32, 32)
    assert labels.bincount().tolist() == [1000] * 10
    # The lossless pictures' mean is 121.53; JPEG copies of them stay within a grey level.
    assert images.double().mean().item() == pytest.approx(121.53, abs=1)
