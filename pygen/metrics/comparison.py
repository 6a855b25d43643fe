"""Made images beside real ones in one table line, and the baseline that every table holds."""

from typing import Any

import torch
from torch import Tensor

from pygen.deep.losses import kernel_distance
from pygen.metrics.classes import class_entropy, class_shares
from pygen.metrics.classifier import Classifier
from pygen.metrics.frechet import frechet_distance
from pygen.metrics.neighbours import prdc, two_sample_accuracy
from pygen.random import RandomState, as_seed

# Images whose pixels are drawn at a time.
_CHUNK = 4096


def compare_images(real: Any, fake: Any, classifier: Classifier, k: int = 5) -> dict[str, float]:
    """Judge made images in a classifier's features.

    Parameters
    ----------
    real : Tensor or ndarray
        ``[N, C, H, W]``, uint8 or floats in [0, 1]: the reference, which the classifier was not trained on.
    fake : Tensor or ndarray
        ``[M, C, H, W]``.
    classifier : Classifier
        Trained.
    k : int
        Neighbours, see :func:`prdc`.

    Returns
    -------
    dict of str to float
        ``class_entropy`` (nats), ``smallest_share``, ``precision``, ``recall``, ``density``, ``coverage``,
        ``frechet_distance``, ``kernel_distance`` (of features whose mean square is 1 in real images),
        ``two_sample_accuracy``. Those of neighbours look at equally many of both: of the larger set at min(N, M)
        images, evenly spaced.

    Raises
    ------
    ValueError
        If there are too few images, or they are not of the kind the classifier takes.
    """
    a, b = classifier.features(real), classifier.features(fake)
    return {
        **compare_classes(classifier.predict(fake), classifier.classes_),
        "frechet_distance": frechet_distance(a, b),
        **compare_pairs(a, b, k),
    }


def compare_classes(labels: Tensor, classes: Tensor) -> dict[str, float]:
    """Judge made images by the classes a classifier sees in them.

    Parameters
    ----------
    labels : Tensor
        Integers ``[M]``, of made images.
    classes : Tensor
        Integers ``[K]``.

    Returns
    -------
    dict of str to float
        ``class_entropy`` (nats), ``smallest_share``.
    """
    shares = class_shares(labels, classes)
    return {"class_entropy": class_entropy(shares), "smallest_share": shares.min().item()}


def compare_pairs(
    real: Tensor, fake: Tensor, k: int = 5, *, scaled: bool = True
) -> dict[str, float]:
    """Judge made images by figures whose time grows with the square of their number: of neighbours and of kernels.

    Parameters
    ----------
    real, fake : Tensor
        Features ``[N, F]`` and ``[M, F]``.
    k : int
        Neighbours, see :func:`prdc`.
    scaled : bool
        Divide features by the root of their mean square in real images before the kernel distance, whose kernel
        else depends on their unit. False for Inception features, whose kernel distance is the KID as they are.

    Returns
    -------
    dict of str to float
        ``precision``, ``recall``, ``density``, ``coverage``, ``kernel_distance``, ``two_sample_accuracy``. All but
        the kernel distance look at equally many of both, evenly spaced.

    Raises
    ------
    ValueError
        If shapes differ, a value is not finite, or there are too few rows.
    """
    n = min(len(real), len(fake))
    near, near_fake = thinned(real, n), thinned(fake, n)
    a, b = real.double(), fake.double()
    scale = a.square().mean().sqrt() if scaled else 1.0
    return {
        **prdc(near, near_fake, k)._asdict(),
        "kernel_distance": kernel_distance(a / scale, b / scale).item(),
        "two_sample_accuracy": two_sample_accuracy(near, near_fake),
    }


def independent_pixels(images: Tensor, n_samples: int, random_state: RandomState = None) -> Tensor:
    """Draw each pixel from that pixel's values in the data, whatever the others are.

    What a model must beat: every single pixel is distributed as in the data, and nothing else is.

    Parameters
    ----------
    images : Tensor
        ``[N, ...]``.
    n_samples : int
    random_state : optional
        See :func:`pygen.random.as_seed`.

    Returns
    -------
    Tensor
        ``[n_samples, ...]``, of the same dtype and on the same device.
    """
    flat = images.flatten(1)
    generator = torch.Generator().manual_seed(as_seed(random_state))
    drawn = flat.new_empty(n_samples, flat.shape[1])
    for part in drawn.split(_CHUNK):
        rows = torch.randint(len(flat), part.shape, generator=generator)
        torch.gather(flat, 0, rows.to(flat.device), out=part)
    return drawn.reshape(n_samples, *images.shape[1:])


def thinned(rows: Tensor, n: int) -> Tensor:
    """Rows ``[N, ...]``, or n of them, evenly spaced, where there are more."""
    return rows if len(rows) <= n else rows[torch.linspace(0, len(rows) - 1, n).round().long()]
