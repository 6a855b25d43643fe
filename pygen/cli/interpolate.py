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
    data = None
    if hasattr(model, "encode"):
        data = choice.load(record, asked.data, asked.split)
    elif asked.data is not None or asked.split is not None:
        raise ValueError(
            f"data: expected none, since a {type(model).__name__} makes images of noise, found "
            f"{asked.data or asked.split}"
        )
    made = strips(model, record, data, asked.n, asked.steps, asked.seed, classes)
    write(made, grid(made.flatten(0, 1), asked.steps), asked.out)


def strips(
    model: Any,
    record: Run,
    data: tuple[Tensor, Tensor] | None,
    n: int,
    steps: int,
    seed: int,
    classes: np.ndarray | None,
) -> Tensor:
    """Images on the way from one to another.

    Parameters
    ----------
    model : estimator
        With codes.
    record : Run
        Its record.
    data : (Tensor, Tensor) or None
        Images and labels to choose the ends from; None if codes are noise.
    n, steps : int
        Strips, and images of each with both ends.
    seed : int
        Of the ends.
    classes : ndarray or None
        The class of each strip, of a model that knows classes.

    Returns
    -------
    Tensor
        uint8 ``[n, steps, C, H, W]``.

    Raises
    ------
    ValueError
        If there are not enough images.
    """
    if data is None:
        ends = normal(new_state(seed), [2 * n, model.latent_dim])
    else:
        ends = record.pixels.encode(_ends(*data, n, seed, classes))
    return record.pixels.decode(model.interpolate(ends[:n], ends[n:], steps, y=classes))


def _classes(model: Any, asked: options.Interpolate) -> np.ndarray | None:
    """The class of each strip, of a model that knows classes: one after the other, or that asked for."""
    if not model.conditional:
        return None
    if asked.y is not None and asked.y not in model.classes_:
        raise ValueError(f"y: expected one of {model.classes_.tolist()}, found {asked.y}")
    classes = model.classes_ if asked.y is None else np.array([asked.y])
    return np.resize(classes, asked.n)


def _ends(images: Tensor, labels: Tensor, n: int, seed: int, classes: np.ndarray | None) -> Tensor:
    """Images that strips begin with, then those that they end with."""
    if classes is None:
        chosen = choice.rows(labels, 2 * n, seed)
    else:
        ends = [choice.rows(labels, 2, seed + i, label) for i, label in enumerate(classes)]
        chosen = np.stack(ends).T.reshape(-1)
    return images[torch.from_numpy(chosen)]
