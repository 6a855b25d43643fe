"""What a report shows of any model: samples and what they resemble, reconstructions, what was learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pygen.cli.interpolate import strips
from pygen.cli.output import pairs, stack
from pygen.cli.reconstruct import reconstructed
from pygen.cli.report_subject import Subject
from pygen.data import to_unit
from pygen.metrics import nearest
from pygen.metrics.copies import Nearest
from pygen.pictures import GAP, grid
from pygen.report import Chart, Figure, Section, Series, Tile, Tiles

_ROWS = 8
_NEIGHBOURS = 3
# Images on which errors and usual distances are measured.
_MEASURED = 500
# Components and images of a row where each has a number below it.
_TILES = 10
# The first losses are far above all others: an axis for them would have no room for these.
_BEGINNING = 0.1


def samples(of: Subject) -> Section:
    """New images, of a model that knows classes a row for each."""
    columns, classes = of.columns, of.classes
    if len(classes):
        made = of.sample(columns * len(classes), np.repeat(classes, columns))
        text = "New images that the model has drawn: a row for each class that it knows."
    else:
        made = of.sample(columns * _ROWS)
        text = "New images that the model has drawn, as they came."
    labels = [str(label) for label in classes]
    alt = f"Samples of {of.kind} fitted to {of.data}, {columns} in a row"
    return Section("Samples", text, [Figure(grid(made, columns), alt, row_labels=labels)])


def reconstructions(of: Subject) -> Section:
    """Images above what becomes of them on the way to a code and back."""
    n_rows = min(_ROWS // 2, max(1, len(of.held_out) // of.columns))
    images, labels = of.some(n_rows * of.columns)
    again = reconstructed(of.model, of.record, images, labels)
    rows = zip(images.split(of.columns), again.split(of.columns), strict=True)
    measured, measured_labels = of.some(_MEASURED)
    made = reconstructed(of.model, of.record, measured, measured_labels)
    error = float((to_unit(made) - to_unit(measured)).double().square().mean())
    text = (
        f"{of.what[0].upper()}{of.what[1:]}; below each what the model makes of its code of "
        f"{of.model.latent_dim} numbers."
    )
    caption = (
        f"Mean squared error of {len(measured)} images: {error:.4f}, pixels counting from 0 to 1."
    )
    alt = f"Rows of {of.what}, each above the row of their reconstructions"
    picture = stack([pairs(*row) for row in rows], 3 * GAP)
    return Section("Reconstructions", text, [Figure(picture, alt, caption)])


def neighbours(of: Subject) -> Section:
    """Samples above the training images most like them."""
    columns = min(_ROWS, of.columns)
    made = of.sample(columns)
    count = min(_NEIGHBOURS, len(of.train))
    distances, found = _apart(made, of.train, count)
    of_samples = _apart(of.sample(_MEASURED), of.train).distances.median()
    rows = [[Tile(grid(image[None], 1), "a sample", "") for image in made]]
    for k in range(count):
        rows.append(
            [
                Tile(
                    grid(of.train[index][None], 1),
                    f"the training image most like it, number {k + 1}",
                    f"{distance:.2f}",
                )
                for distance, index in zip(distances[:, k].tolist(), found[:, k], strict=True)
            ]
        )
    known = "training images" if of.is_same else "images that its data has now"
    text = f"Below each sample the {count} {known} that are most like it."
    caption = (
        "Distances are roots of mean squared differences, pixels counting from 0 to 1; a copy is at "
        f"0. Half of {_MEASURED} samples lie within {of_samples:.3f} of their nearest"
    )
    if of.is_new:
        usual = _apart(of.some(_MEASURED)[0], of.train).distances.median()
        caption += f", half of the {of.what} within {usual:.3f}"
    caption += "."
    alt = f"{columns} samples, each above its {count} nearest training images"
    labels = ["sample", *(str(k + 1) for k in range(count))]
    return Section("Nearest training images", text, [Tiles(rows, alt, caption, labels)])


def interpolations(of: Subject) -> Section | None:
    """Images on the way from one to another."""
    classes, data = None, None
    n = _ROWS - 2
    if hasattr(of.model, "encode"):
        data = (of.held_out, of.held_out_labels)
        n = min(n, len(of.held_out) // 2)
        text = f"From the code of one of the {of.what} in equal steps to that of another."
    else:
        text = "From one random code to another, along an arc, which keeps to codes of the usual length."
    if of.model.conditional:
        known = of.classes
        if data is not None:
            known = np.array([y for y in known if (data[1] == int(y)).sum() >= 2])
        n = n if len(known) else 0
        classes = np.resize(known, n)
        text += " Each strip keeps to a class."
    if n < 1:
        return None
    made = strips(of.model, of.record, data, n, of.columns, of.seed, classes)
    alt = f"{n} strips of {of.columns} images, each changing step by step into another"
    return Section("Interpolations", text, [Figure(grid(made.flatten(0, 1), of.columns), alt)])


def components(of: Subject) -> Section | None:
    """The means of a mixture with their weights, the heaviest first."""
    model, classes = of.model, of.classes
    mixtures = [part for part in getattr(model, "estimators_", [model]) if hasattr(part, "means_")]
    if not mixtures:
        return None
    mixtures = mixtures[: max(1, len(classes))]
    shown = [_heaviest(part) for part in mixtures]
    if len(classes):
        labels = [str(label) for label in classes]
        rows = [_tiles(of, *part, f"of class {y}") for part, y in zip(shown, labels, strict=True)]
        text = "The means of each class's components, the heaviest first, with their weights."
    else:
        labels = []
        rows = _in_rows(_tiles(of, *shown[0], ""))
        text = "The means of the components, the heaviest first, with their weights."
    largest = max(len(np.asarray(part.weights_)) for part in mixtures)
    most = max(len(means) for _, means in shown)
    if largest > most:
        text += f" Of up to {largest} the heaviest {most} are shown."
    alt = "Means of components, each with its weight"
    return Section("Components", text, [Tiles(rows, alt, row_labels=labels)])


def class_means(of: Subject) -> Section | None:
    """What a model of independent pixels expects of each class."""
    model = of.model
    if hasattr(model, "theta_"):
        means = torch.as_tensor(model.theta_)
    elif hasattr(model, "feature_log_prob_"):
        shares = torch.as_tensor(model.feature_log_prob_).double().exp()
        means = shares @ torch.arange(shares.shape[-1], dtype=torch.float64)
    else:
        return None
    labels = [str(label) for label in of.classes] or [""]
    weights = torch.as_tensor(model.class_prior_)[: len(labels)]
    tiles = [
        Tile(grid(image[None], 1), f"mean image {label}".strip(), f"{label}: {weight:.1%}")
        for image, label, weight in zip(_images(of, means), labels, weights.tolist(), strict=False)
    ]
    text = "The mean of each class, with its share of the training images. Pixels vary about it one by one."
    return Section("Means", text, [Tiles(_in_rows(tiles), "Mean images of the classes")])


def curves(of: Subject) -> Section | None:
    """Losses over the steps, and what told which weights to keep."""
    history = getattr(of.model, "history_", [])
    names = [name for name in (history[-1] if history else {}) if _is_loss(name)]
    if len(history) < 2 or not names:
        return None
    losses = [Series(name, *_points(history, name)) for name in names]
    late = int(_BEGINNING * len(history))
    low, high = (f(f(series.y) for series in losses) for f in (min, max))
    top = max(max(series.y[late:]) for series in losses)
    is_cut = high - low > 2 * (top - low)
    caption = "Each point is the mean over the steps since the one before."
    if is_cut:
        caption += " The beginning, far above, is cut off."
    text = "The losses of training."
    kinds = " and ".join(names)
    alt = f"{kinds} over {history[-1]['step']:,} steps; at the end " + ", ".join(
        f"{series.name} {series.y[-1]:.4g}" for series in losses
    )
    figures = [Chart(losses, "steps", "loss", alt, caption, y_top=top if is_cut else None)]
    metric = _points(history, "metric")
    if len(metric[0]) >= 2:
        kept = min(range(len(metric[0])), key=lambda i: metric[1][i])
        if of.model.keep != "best":
            kept = len(metric[0]) - 1
        text = "The losses of training, and the metric that told which weights to keep."
        text_of_mark = f"kept: {metric[1][kept]:.4g}".replace("-", "−")
        mark = (metric[0][kept], metric[1][kept], text_of_mark)
        alt = f"{_metric(of.model)} over the steps; the weights of step {mark[0]:,} are kept"
        figures.append(
            Chart(
                [Series("", *metric)],
                "steps",
                "metric",
                alt,
                f"{_metric(of.model)}: the lower the better.",
                mark=mark,
            )
        )
    return Section("Learning curves", text, figures)


def _is_loss(name: str) -> bool:
    return name not in ("step", "epoch", "seconds", "metric")


def _points(history: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    lines = [line for line in history if line.get(name) is not None]
    return [line["step"] for line in lines], [line[name] for line in lines]


def _metric(model: Any) -> str:
    if callable(model.metric):
        return "The metric that training was given"
    if hasattr(model, "likelihood"):
        return "Minus the evidence lower bound of images held out of training, in nats"
    if hasattr(model, "encode"):
        return f"{model.loss} of images held out of training"
    return "Kernel distance of samples to training images, in pixels"


def _heaviest(mixture: Any) -> tuple[Tensor, Tensor]:
    """Weights and means, the heaviest first, of at most so many as are shown."""
    weights, means = torch.as_tensor(mixture.weights_), torch.as_tensor(mixture.means_)
    order = weights.argsort(descending=True, stable=True)
    is_single = len(weights) > _TILES
    order = order[: _TILES * _ROWS if is_single else _TILES]
    return weights[order], means[order]


def _images(of: Subject, features: Tensor) -> Tensor:
    return of.record.pixels.decode(features.reshape(-1, *of.record.image_shape))


def _tiles(of: Subject, weights: Tensor, means: Tensor, which: str) -> list[Tile]:
    return [
        Tile(grid(image[None], 1), f"mean of a component {which}".strip(), f"{weight:.1%}")
        for image, weight in zip(_images(of, means), weights.tolist(), strict=True)
    ]


def _in_rows(tiles: list[Tile]) -> list[list[Tile]]:
    return [tiles[i : i + _TILES] for i in range(0, len(tiles), _TILES)]


def _apart(images: Tensor, others: Tensor, count: int = 1) -> Nearest:
    """The nearest of others, by the root of their mean squared difference, pixels from 0 to 1."""
    found = nearest(images, others, count)
    return found._replace(distances=found.distances / (255 * images[0].numel() ** 0.5))
