"""`pygen sample`: draw images from a fitted model."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np

from pygen.cli import options
from pygen.cli.runs import read_run
from pygen.files import write_file
from pygen.pictures import grid, save_png


def run(asked: options.Sample) -> None:
    """Carry out `pygen sample`."""
    _check_out(asked.out)
    if asked.n < 1:
        raise ValueError(f"n-samples: expected at least 1, found {asked.n}")
    model, record = read_run(asked.run)
    if asked.y is not None and not hasattr(model, "classes_"):
        raise ValueError(
            f"y: expected none, since {asked.run} was fitted with --no-per-class, found {asked.y}"
        )
    # Not every model knows classes: a mixture alone has only components.
    chosen = {} if asked.y is None else {"y": asked.y}
    features, _ = model.sample(asked.n, random_state=asked.seed, **chosen)
    if tuple(features.shape[1:]) != record.image_shape:
        raise ValueError(
            f"{asked.run}: expected images of shape {list(record.image_shape)}, as run.json has "
            f"it, found samples of shape {list(features.shape[1:])}"
        )
    images = record.pixels.decode(features)
    if asked.out.suffix.lower() == ".npy":
        stream = io.BytesIO()
        np.save(stream, images.numpy(), allow_pickle=False)
        write_file(asked.out, stream.getvalue())
    else:
        save_png(grid(images, math.ceil(math.sqrt(asked.n))), asked.out)
    print(asked.out)


def _check_out(out: Path) -> None:
    if out.suffix.lower() not in (".png", ".npy"):
        raise ValueError(f"{out}: expected a name that ends in .png or .npy, found {out.name!r}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out}: expected the folder {out.parent} to exist; make it first")
