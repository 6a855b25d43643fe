"""Images to learn from, and those held out to judge by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import pygen
from pygen.data import NAMES

HELD_OUT = 0.3


@dataclass(frozen=True)
class Images:
    """Data in two parts, as pictures uint8 [N, C, H, W] and labels int64 [N].

    `held_out` says where the second part comes from; `divided_by` is the seed where the data have no such
    part of their own.
    """

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    held_out: str
    divided_by: int | None = None

    @property
    def classes(self) -> list[int]:
        return self.train_labels.unique().tolist()

    @property
    def shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.train.shape
        return channels, height, width


def load(data: str, seed: int | None, image_size: tuple[int, int] | None = None) -> Images:
    """Load training and held-out images.

    Those without a test split are divided here by a seed, or refused where there is none.
    """
    train, train_labels = pygen.data.load(data, image_size=image_size)
    if data in NAMES:
        test, test_labels = pygen.data.load(data, "test", image_size=image_size)
        return Images(data, train, train_labels, test, test_labels, "the test split")
    every, every_labels = pygen.data.load(data, "all", image_size=image_size)
    n = len(train)
    if n < len(every):
        # Parts of the same memory: large data are held once.
        (train, test), (train_labels, test_labels) = (
            (of[:n], of[n:]) for of in (every, every_labels)
        )
        return Images(data, train, train_labels, test, test_labels, "the test split")
    if seed is None:
        raise ValueError(
            f"{data}: expected a test split, images that no model was fitted to, found none; put "
            f"some into a folder test/ beside train/, or under x_test and y_test of an .npz, and "
            f"fit again"
        )
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    k = math.floor(HELD_OUT * n)
    if k < 1:
        raise ValueError(f"{data}: expected at least 4 images, some to be held out, found {n}")
    test, test_labels = every[order[:k]], every_labels[order[:k]]
    train, train_labels = every[order[k:]], every_labels[order[k:]]
    held_out = f"{HELD_OUT:.0%}, drawn by the seed"
    return Images(data, train, train_labels, test, test_labels, held_out, seed)


def of_each_class(images: Tensor, labels: Tensor, n: int) -> Tensor:
    """The first n images of each class, class by class; over again where there are fewer."""
    found = []
    for label in labels.unique():
        of = images[labels == label]
        found.append(of[torch.arange(n) % len(of)])
    return torch.cat(found)
