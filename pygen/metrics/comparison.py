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
    shares = class_shares(classifier.predict(fake), classifier.classes_)
    a, b = classifier.features(real), classifier.features(fake)
    n = min(len(a), len(b))
    near, near_fake = _thinned(a, n), _thinned(b, n)
    scale = a.double().square().mean().sqrt()
    return {
        "class_entropy": class_entropy(shares),
        "smallest_share": shares.min().item(),
        **prdc(near, near_fake, k)._asdict(),
        "frechet_distance": frechet_distance(a, b),
        "kernel_distance": kernel_distance(a.double() / scale, b.double() / scale).item(),
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
    rows = torch.randint(len(flat), (n_samples, flat.shape[1]), generator=generator)
    return flat.gather(0, rows.to(flat.device)).reshape(n_samples, *images.shape[1:])


def _thinned(rows: Tensor, n: int) -> Tensor:
    """n of the rows, evenly spaced."""
    return rows[torch.linspace(0, len(rows) - 1, n).round().long()]
