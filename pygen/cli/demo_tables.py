"""The tables of the demo: how models compare on the held-out images."""

from __future__ import annotations

import torch
from torch import Tensor

from pygen.cli import demo_texts, judges
from pygen.cli.demo_images import Images
from pygen.cli.demo_models import JUDGED, LATENT_DIM, Result
from pygen.data import to_unit
from pygen.metrics import compare_images, independent_pixels
from pygen.report import Table

# With fewer held-out images the neighbours of an image say little.
MIN_JUDGED = 100


def tables(images: Images, results: dict[str, Result], seed: int, steps: int | None) -> list[Table]:
    """All there are for these images."""
    found = [likelihood(results), reconstruction(images, results)]
    if len(images.test) >= MIN_JUDGED and len(images.classes) > 1:
        found.append(samples(images, results, seed, steps))
    return found


def likelihood(results: dict[str, Result]) -> Table:
    """Density models, and the bound of the VAE."""
    rows = []
    for title, result in results.items():
        if result.nats is None or result.bits is None:
            continue
        is_bound = result.accuracy is None
        rows.append(
            (
                title,
                f"{'≥ ' if is_bound else ''}{result.nats:.2f}",
                f"{'≤ ' if is_bound else ''}{result.bits:.3f}",
                "" if result.accuracy is None else f"{result.accuracy:.1%}",
                f"{result.seconds:.2f} s",
            )
        )
    columns = ("model", "nats per image", "bits per dimension", "accuracy", "fit")
    return Table("Likelihood", columns, rows, demo_texts.LIKELIHOOD)


def reconstruction(images: Images, results: dict[str, Result]) -> Table:
    """Autoencoder and VAE beside the best linear code of the same length."""
    n_components = min(LATENT_DIM, len(images.train) - 1, images.train[0].numel())
    error = principal_components_error(images.train, images.test, n_components)
    rows = [("principal components", str(n_components), f"{error:.4f}", "")]
    for title, result in results.items():
        if result.error is not None:
            cells = (str(LATENT_DIM), f"{result.error:.4f}", f"{result.seconds:.2f} s")
            rows.append((title, *cells))
    columns = ("model", "numbers in a code", "mean squared error", "fit")
    return Table("Reconstruction", columns, rows, demo_texts.RECONSTRUCTION)


def principal_components_error(train: Tensor, test: Tensor, n_components: int) -> float:
    """Mean squared error of images, uint8, on the principal components of others."""
    train, test = (to_unit(images, torch.float64).flatten(1) for images in (train, test))
    mean = train.mean(0)
    directions = torch.linalg.eigh((train - mean).T @ (train - mean)).eigenvectors
    directions, centred = directions[:, -n_components:], test - mean
    return float((centred - centred @ directions @ directions.T).square().mean())


def samples(images: Images, results: dict[str, Result], seed: int, steps: int | None) -> Table:
    """All models by their samples; real images and independent pixels as floor and baseline."""
    n = min(JUDGED, len(images.test))
    judge = judges.by_classifier(images, seed, steps)
    assert judge.classifier is not None
    drawn = {
        "other real images": images.train[judges.order(images, seed).flip(0)[:n]],
        **{title: result.samples for title, result in results.items()},
        "independent pixels": independent_pixels(images.train, n, seed),
    }
    rows = []
    for title, made in drawn.items():
        figures = compare_images(images.test[:n], made, judge.classifier)
        rows.append(
            (
                title,
                f"{figures['frechet_distance']:.1f}",
                f"{figures['precision']:.2f}",
                f"{figures['coverage']:.2f}",
            )
        )
    columns = ("model", "Fréchet distance", "precision", "coverage")
    return Table("Samples", columns, rows, [demo_texts.samples(n, judge)])
