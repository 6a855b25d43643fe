"""The images of the demo: those to learn from, and those held out to judge by."""

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
    """The data of the demo, as pictures uint8 [N, C, H, W] and labels int64 [N]."""

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    held_out: str

    @property
    def classes(self) -> list[int]:
        return self.train_labels.unique().tolist()

    @property
    def shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.train.shape
        return channels, height, width


def load(data: str, seed: int) -> Images:
    """Load training and held-out images; those without a test split are divided here."""
    train, train_labels = pygen.data.load(data)
    if data in NAMES:
        test, test_labels = pygen.data.load(data, "test")
        return Images(data, train, train_labels, test, test_labels, "the test split")
    every, every_labels = pygen.data.load(data, "all")
    n = len(train)
    if n < len(every):
        test, test_labels = every[n:], every_labels[n:]
        return Images(data, train, train_labels, test, test_labels, "the test split")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    k = math.floor(HELD_OUT * n)
    if k < 1:
        raise ValueError(f"{data}: expected at least 4 images, some to be held out, found {n}")
    test, test_labels = every[order[:k]], every_labels[order[:k]]
    train, train_labels = every[order[k:]], every_labels[order[k:]]
    return Images(
        data, train, train_labels, test, test_labels, f"{HELD_OUT:.0%}, drawn by the seed"
    )


def of_each_class(images: Tensor, labels: Tensor, n: int) -> Tensor:
    """The first n images of each class, class by class; over again where there are fewer."""
    found = []
    for label in labels.unique():
        of = images[labels == label]
        found.append(of[torch.arange(n) % len(of)])
    return torch.cat(found)
