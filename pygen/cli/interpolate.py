"""`pygen interpolate`: images on the way from one to another."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pygen.cli import choice, options
from pygen.cli.output import check_out, write
from pygen.cli.runs import Run, read_run
from pygen.ops import normal
from pygen.pictures import grid
from pygen.random import new_state


def run(asked: options.Interpolate) -> None:
    """Carry out `pygen interpolate`."""
    check_out(asked.out)
    if asked.n < 1:
        raise ValueError(f"n-strips: expected at least 1, found {asked.n}")
    if asked.steps < 2:
        raise ValueError(f"steps: expected at least 2, for both ends, found {asked.steps}")
    model, record = read_run(asked.run)
    if not hasattr(model, "interpolate"):
        raise ValueError(
            f"{asked.run}: expected an autoencoder, a VAE or a GAN, found a "
            f"{type(model).__name__}, which has no codes"
        )
    if asked.y is not None and not model.conditional:
        raise ValueError(
            f"y: expected none, since {asked.run} was fitted without classes, found {asked.y}"
        )
    classes = _classes(model, asked)
    if hasattr(model, "encode"):
        ends = _images(record, asked, classes)
    else:
        if asked.data is not None or asked.split is not None:
            raise ValueError(
                f"data: expected none, since a {type(model).__name__} makes images of noise, found "
                f"{asked.data or asked.split}"
            )
        ends = normal(new_state(asked.seed), [2 * asked.n, model.latent_dim])
    first, last = ends[: asked.n], ends[asked.n :]
    strips = record.pixels.decode(model.interpolate(first, last, asked.steps, y=classes))
    write(strips, grid(strips.flatten(0, 1), asked.steps), asked.out)


def _classes(model: Any, asked: options.Interpolate) -> np.ndarray | None:
    """The class of each strip, of a model that knows classes: one after the other, or that asked for."""
    if not model.conditional:
        return None
    if asked.y is not None and asked.y not in model.classes_:
        raise ValueError(f"y: expected one of {model.classes_.tolist()}, found {asked.y}")
    classes = model.classes_ if asked.y is None else np.array([asked.y])
    return np.resize(classes, asked.n)


def _images(record: Run, asked: options.Interpolate, classes: np.ndarray | None) -> Tensor:
    """Features of the images that strips begin with, then of those that they end with."""
    images, labels = choice.load(record, asked.data, asked.split)
    if classes is None:
        chosen = choice.rows(labels, 2 * asked.n, asked.seed)
    else:
        ends = [choice.rows(labels, 2, asked.seed + i, label) for i, label in enumerate(classes)]
        chosen = np.stack(ends).T.reshape(-1)
    return record.pixels.encode(images[torch.from_numpy(chosen)])
