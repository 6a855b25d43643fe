"""The named data sets: where each is looked for, and how it is fetched when it is nowhere."""

from __future__ import annotations

import os
import secrets
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pygen.data.splits import Arrays, Splits


class Source(NamedTuple):
    """A data set that has a name.

    Attributes
    ----------
    shape : tuple of int
        [C, H, W] of its pictures.
    n_train : int
        Number of leading rows of the OpenML copy that are the training split.
    data_id : int
        Its number at openml.org.
    places : tuple of str
        Files and folders under which it is known, in the order in which they are tried. The
        last is the one that is written after a fetch.
    """

    shape: tuple[int, int, int]
    n_train: int
    data_id: int
    places: tuple[str, ...]


SOURCES = {
    "mnist": Source((1, 28, 28), 60_000, 554, ("mnist", "MNIST", "mnist.npz")),
    "fashion_mnist": Source(
        (1, 28, 28),
        60_000,
        40996,
        ("fashion_mnist", "fashion-mnist", "FashionMNIST", "fashion_mnist.npz"),
    ),
    "cifar10": Source(
        (3, 32, 32),
        50_000,
        40927,
        (
            "cifar10",
            "cifar-10-batches-bin",
            "cifar-10-batches-py",
            "cifar-10-binary.tar.gz",
            "cifar-10-python.tar.gz",
            "cifar10.zip",
            "cifar10.npz",
        ),
    ),
}

NAMES = ("digits", *SOURCES)


def cache_folder() -> Path:
    """Return where fetched data sets are kept: `$XDG_CACHE_HOME/pygen` or `~/.cache/pygen`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pygen"


def search_folders() -> list[Path]:
    """Return the folders in which named data sets are looked for: PYGEN_DATA's, the cache."""
    given = os.environ.get("PYGEN_DATA", "").split(os.pathsep)
    return [*(Path(folder).expanduser() for folder in given if folder), cache_folder()]


def find(name: str) -> Path | None:
    """Return the file or folder of a named data set, None if it is nowhere."""
    candidates = (folder / place for folder in search_folders() for place in SOURCES[name].places)
    return next((path for path in candidates if path.exists()), None)


def digits() -> Splits:
    """Return scikit-learn's 8x8 digits, divided 70/30 with equal shares of each class.

    A grey level g in 0..16 becomes the nearest integer to 255 g / 16, so that
    `quantize(images, 17)` gives g back.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.3, stratify=labels, random_state=0
    )
    return {
        "train": lambda: (images[train], labels[train]),
        "test": lambda: (images[test], labels[test]),
    }


def fetch(name: str) -> Splits:
    """Fetch a named data set from openml.org and keep it in the cache.

    Raises
    ------
    FileNotFoundError
        If it cannot be fetched; says where it was looked for and how to put it there.
    """
    from sklearn.datasets import fetch_openml

    source = SOURCES[name]
    try:
        with warnings.catch_warnings():
            # Each retry warns; the error below says it once.
            warnings.simplefilter("ignore")
            bunch = fetch_openml(
                data_id=source.data_id,
                data_home=cache_folder(),
                as_frame=False,
                parser="pandas" if find_spec("pandas") else "liac-arff",
            )
    # Network, disk and parser fail each in their own types; to the caller it is one failure.
    except Exception as error:
        folders = ", ".join(str(folder) for folder in search_folders())
        raise FileNotFoundError(
            f"{name}: expected one of {', '.join(source.places)} in {folders}, found none, and "
            f"fetching it from openml.org failed: {error}. Put the data set's files into a "
            f"folder {source.places[0]} and set PYGEN_DATA to the folder that holds it"
        ) from error
    images = np.asarray(bunch.data).astype(np.uint8).reshape(-1, *source.shape)
    labels = np.asarray(bunch.target).astype(np.int64)
    parts: dict[str, Arrays] = {
        "train": (images[: source.n_train], labels[: source.n_train]),
        "test": (images[source.n_train :], labels[source.n_train :]),
    }
    _keep(name, parts)
    return {split: partial(parts.__getitem__, split) for split in parts}


def _keep(name: str, parts: dict[str, Arrays]) -> None:
    """Write a fetched data set to the cache; reading OpenML's text format takes a minute."""
    path = cache_folder() / SOURCES[name].places[-1]
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.npz")
    arrays = {f"{xy}_{s}": part[i] for s, part in parts.items() for i, xy in enumerate("xy")}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
        temporary.replace(path)
    except OSError as error:
        warnings.warn(f"{path}: could not keep {name} in the cache: {error}", stacklevel=2)
    finally:
        temporary.unlink(missing_ok=True)
