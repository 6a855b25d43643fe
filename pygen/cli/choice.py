"""Images to show a fitted model: chosen from a data set by a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

import pygen
from pygen.cli.runs import Run
from pygen.data import NAMES


def load(run: Run, data: str | None, split: str | None) -> tuple[Tensor, Tensor]:
    """Load images of the size that a model was fitted to, and their labels.

    Parameters
    ----------
    run : Run
        Its record.
    data, split : str, optional
        Default: the data of the run, and of data that has a name its test part, else "train".

    Raises
    ------
    FileNotFoundError, ValueError
        If there are no such data, or images of another shape.
    """
    data = run.data if data is None else data
    if split is None:
        split = "test" if data in NAMES else "train"
    images, labels = pygen.data.load(data, split, image_size=run.image_size)
    if tuple(images.shape[1:]) != run.image_shape:
        raise ValueError(
            f"{data}: expected images [C, H, W] {list(run.image_shape)}, as the model was fitted "
            f"to, found {list(images.shape[1:])}"
        )
    return images, labels


def rows(labels: Tensor, n: int, seed: int, y: Any = None) -> np.ndarray:
    """Choose n different images, int64 positions, of a class where one is given.

    Raises
    ------
    ValueError
        If there are not so many.
    """
    found = np.arange(len(labels)) if y is None else np.flatnonzero(labels.numpy() == y)
    if n > len(found):
        of_class = "" if y is None else f" of class {y}"
        raise ValueError(f"expected at least {n} images{of_class}, found {len(found)}")
    return np.random.default_rng(seed).choice(found, n, replace=False)
