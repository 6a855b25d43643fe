"""`pygen sample`: draw images from a fitted model."""

from __future__ import annotations

import math

from pygen.cli import options
from pygen.cli.output import check_out, write
from pygen.cli.runs import read_run
from pygen.pictures import grid
from pygen.random import as_seed


def run(asked: options.Sample) -> None:
    """Carry out `pygen sample`."""
    check_out(asked.out)
    if asked.n < 1:
        raise ValueError(f"n-samples: expected at least 1, found {asked.n}")
    model, record = read_run(asked.run)
    if asked.y is not None and not hasattr(model, "classes_"):
        raise ValueError(
            f"y: expected none, since {asked.run} was fitted without classes, found {asked.y}"
        )
    # Not every model knows classes: a mixture alone has only components.
    chosen = {} if asked.y is None else {"y": asked.y}
    features, _ = model.sample(asked.n, random_state=as_seed(asked.seed), **chosen)
    if tuple(features.shape[1:]) != record.image_shape:
        raise ValueError(
            f"{asked.run}: expected images of shape {list(record.image_shape)}, as run.json has "
            f"it, found samples of shape {list(features.shape[1:])}"
        )
    images = record.pixels.decode(features)
    write(images, grid(images, math.ceil(math.sqrt(asked.n))), asked.out)
