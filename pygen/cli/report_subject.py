"""What a report is about: a fitted model, how it was made, the images it learned from and others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pygen.cli import choice, demo_images
from pygen.cli.evaluate import title
from pygen.cli.runs import Run, digest, read_run
from pygen.pictures import GAP, MIN_TILE

# Width of a picture, in pixels: what a column of the page has room for.
_WIDTH = 520
_MIN_COLUMNS, _MAX_CLASSES = 4, 20


@dataclass(frozen=True)
class Subject:
    """A run with images to show its model.

    Attributes
    ----------
    folder : Path
    name : str
        What tells it from the other runs of a page.
    model : estimator
    record : Run
    train, train_labels : Tensor
        The part of the data that the model was fitted to, uint8 ``[N, C, H, W]`` and ``[N]``.
    is_same : bool
        Whether these are still the images that the record has the digest of.
    held_out, held_out_labels : Tensor
        Another part of the data, where there is one.
    is_new : bool
        Whether the model has seen none of `held_out`.
    seed : int
        Of samples, and of which images are shown.
    """

    folder: Path
    name: str
    model: Any
    record: Run
    train: Tensor
    train_labels: Tensor
    is_same: bool
    held_out: Tensor
    held_out_labels: Tensor
    is_new: bool
    seed: int

    @property
    def kind(self) -> str:
        """The model's name."""
        return title(self.model)

    @property
    def data(self) -> str:
        """The data's name, or that of its file."""
        return Path(self.record.data).name

    @property
    def what(self) -> str:
        """The images of `held_out` in words."""
        return "held-out images" if self.is_new else "images of its data"

    @property
    def classes(self) -> np.ndarray:
        """Labels that samples can be asked of, the first if there are very many; empty without classes."""
        return np.asarray(getattr(self.model, "classes_", []))[:_MAX_CLASSES]

    @property
    def columns(self) -> int:
        """Images of a row of a picture."""
        _, height, width = self.record.image_shape
        tile = width * max(1, -(-MIN_TILE // max(height, width)))
        return max(_MIN_COLUMNS, (_WIDTH + GAP) // (tile + GAP))

    def told(self, labels: Tensor) -> Tensor | None:
        """Labels as the model's codes want them: None of a model without classes."""
        return labels if self.model.conditional else None

    def sample(self, n: int, y: Any = None) -> Tensor:
        """Samples, uint8 ``[n, C, H, W]``."""
        chosen = {} if y is None else {"y": y}
        features, _ = self.model.sample(n, random_state=self.seed, **chosen)
        return self.record.pixels.decode(features)

    def some(self, n: int) -> tuple[Tensor, Tensor]:
        """At most n images of `held_out`, chosen by the seed, and their labels."""
        n = min(n, len(self.held_out))
        rows = choice.rows(self.held_out_labels, n, self.seed)
        return self.held_out[rows], self.held_out_labels[rows]


def subjects(folders: list[Path], seed: int) -> list[Subject]:
    """Read runs.

    Raises
    ------
    FileNotFoundError, ValueError
        If a folder is no finished run, or the data of one is not there, or has another shape.
    """
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    return [_subject(*of, seed) for of in zip(folders, names, strict=True)]


def _subject(folder: Path, name: str, seed: int) -> Subject:
    model, record = read_run(folder)
    train, train_labels, held_out, held_out_labels, is_new = _images(record)
    return Subject(
        folder=folder,
        name=name,
        model=model,
        record=record,
        train=train,
        train_labels=train_labels,
        is_same=digest(train, train_labels) == record.data_sha256,
        held_out=held_out,
        held_out_labels=held_out_labels,
        is_new=is_new,
        seed=seed,
    )


def _images(record: Run) -> tuple[Tensor, Tensor, Tensor, Tensor, bool]:
    """Images and labels of a model's own part of the data, then of another, and whether that is new to it."""
    if record.divided_by is not None:
        images = demo_images.load(record.data, record.divided_by, record.image_size)
        return images.train, images.train_labels, images.test, images.test_labels, True
    own = choice.load(record, None, record.split)
    try:
        other = choice.load(record, None, "train" if record.split == "test" else "test")
    except ValueError:
        # Data of a single part.
        return *own, *own, False
    return *own, *other, record.split != "all"
