"""What the commands that make images write: a picture, or the numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from pygen.files import write_file
from pygen.pictures import GAP, Picture, grid, save_png

# Images beside one another in a reconstruction, at most.
_COLUMNS = 16


def check_out(out: Path) -> None:
    """Refuse, before the work, a file that cannot be written at its end.

    Raises
    ------
    ValueError
        If its name ends in something else than .png and .npy.
    FileNotFoundError
        If its folder is missing.
    """
    if out.suffix.lower() not in (".png", ".npy"):
        raise ValueError(f"{out}: expected a name that ends in .png or .npy, found {out.name!r}")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{out}: expected the folder {out.parent} to exist; make it first")


def write(images: Tensor, picture: Picture, out: Path) -> None:
    """Write images, uint8, as .npy, or the picture of them as .png; print the file's name."""
    if out.suffix.lower() == ".npy":
        stream = io.BytesIO()
        np.save(stream, images.numpy(), allow_pickle=False)
        write_file(out, stream.getvalue())
    else:
        save_png(picture, out)
    print(out)


def pairs(images: Tensor, again: Tensor) -> Picture:
    """Return rows of images, `[N, C, H, W]`, each row above that of their reconstructions."""
    n_rows = -(-len(images) // _COLUMNS)
    columns = -(-len(images) // n_rows)
    rows = []
    for start in range(0, len(images), columns):
        rows += [grid(part[start : start + columns], columns) for part in (images, again)]
    return stack(rows)


def stack(pictures: Sequence[Picture], gap: int = GAP) -> Picture:
    """Put pictures as `grid` makes them below one another."""
    width = max(picture.width for picture in pictures)
    height = sum(picture.height + gap for picture in pictures) - gap
    canvas = Image.new(pictures[0].mode, (width, height))
    top = 0
    for picture in pictures:
        canvas.paste(picture, (0, top))
        top += picture.height + gap
    return canvas
