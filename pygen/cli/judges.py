"""What stands for an image when images are compared: a judge's features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pygen.cli.demo_images import Images
from pygen.data import to_unit
from pygen.metrics import Classifier, Inception, cached_classifier

# The classifier learns from so many images, and for so many steps, at most.
LEARNED, STEPS = 20_000, 400


@dataclass(frozen=True)
class Judge:
    """Features of images, and what is to be said of them.

    Attributes
    ----------
    name : str
        The features in words.
    features : callable
        uint8 `[N, C, H, W]` to float32 `[N, F]`.
    has_unit : bool
        Whether the features' scale means something, so that kernels take them as they are.
    classifier : Classifier or None
        Where the features are one's.
    accuracy : float or None
        Its share of right answers on held-out images.
    """

    name: str
    features: Callable[[Tensor], Tensor]
    has_unit: bool = False
    classifier: Classifier | None = None
    accuracy: float | None = None


def order(images: Images, seed: int) -> Tensor:
    """Training images, shuffled: the classifier learns from the first and, of many, does not see the last."""
    return torch.randperm(len(images.train), generator=torch.Generator().manual_seed(seed))


def by_classifier(images: Images, seed: int, steps: int | None = None) -> Judge:
    """The last layer of a classifier of the data's own labels, trained by at most so many steps.

    Raises
    ------
    ValueError
        If there is only one class.
    """
    if len(images.classes) < 2:
        raise ValueError(
            f"{images.name}: expected labels of at least two classes for a classifier to learn, "
            f"found one; compare by --features pixels"
        )
    learned = order(images, seed)[:LEARNED]
    classifier = cached_classifier(
        images.train[learned],
        images.train_labels[learned],
        max_steps=min(STEPS, steps or STEPS),
        random_state=seed,
    )
    return Judge(
        f"a classifier that has learned from {len(learned):,} training images",
        classifier.features,
        classifier=classifier,
        accuracy=classifier.score(images.test, images.test_labels),
    )


def by_pixels() -> Judge:
    """Pixels from 0 to 1."""
    return Judge("raw pixels", lambda images: to_unit(images).flatten(1), has_unit=True)


def by_inception(weights: Path) -> Judge:
    """Inception features, whose Frechet distance is the FID where the weights are the original ones."""
    inception = Inception(weights)
    which = "the original weights" if inception.is_original else "weights that are not the original"
    name = f"Inception v3, {which} (SHA-256 {inception.sha256[:16]})"
    return Judge(name, inception.features, has_unit=True)
