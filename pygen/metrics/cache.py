"""Classifiers that judge, kept from one command to the next."""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pygen.data import cache_folder
from pygen.files import write_file
from pygen.metrics.classifier import Classifier
from pygen.random import as_seed

# Of how a classifier is made and trained: another number where the same settings give another one.
_VERSION = 1


def cached_classifier(
    images: Tensor, labels: Tensor, *, folder: Path | None = None, **settings: Any
) -> Classifier:
    """Train a classifier, or read the one that was trained with the same images, labels and settings.

    Parameters
    ----------
    images : Tensor
        uint8 ``[N, C, H, W]``.
    labels : Tensor
        int64 ``[N]``.
    folder : Path, optional
        Where classifiers are kept, a file each. Default: ``classifiers`` in the folder of fetched data sets,
        :func:`pygen.data.cache_folder`.
    **settings
        Of :class:`Classifier`. One whose seed is None is not kept.

    Returns
    -------
    Classifier

    Raises
    ------
    ValueError
        See :meth:`Classifier.fit`.
    """
    classifier = Classifier(**settings)
    if classifier.random_state is None:
        return classifier.fit(images, labels)
    classifier.random_state = as_seed(classifier.random_state)
    folder = cache_folder() / "classifiers" if folder is None else folder
    path = folder / f"{_key(classifier, images, labels)}.safetensors"
    if path.is_file():
        try:
            return classifier.load_state(load(path.read_bytes()), images.shape[1:])
        except (SafetensorError, LookupError, RuntimeError):
            warnings.warn(f"{path}: expected a classifier, found damage; made anew", stacklevel=2)
    classifier.fit(images, labels)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(path, save(classifier.state()))
    except OSError as error:
        warnings.warn(f"{path}: could not keep the classifier: {error}", stacklevel=2)
    return classifier


def _key(classifier: Classifier, images: Tensor, labels: Tensor) -> str:
    """SHA-256 of all that decides what a classifier becomes."""
    settings = (_VERSION, classifier.max_steps, classifier.width, classifier.random_state)
    found = hashlib.sha256(repr((settings, images.shape, torch.__version__)).encode())
    for values in (images, labels):
        found.update(values.contiguous().numpy().data)
    return found.hexdigest()
