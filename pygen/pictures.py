"""Images as pictures: tiled into grids, put beside one another, written as PNG."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pygen.files import write_file

Picture: TypeAlias = Image.Image

# An image's longer side in a grid, in pixels of the picture, at least: 8x8 digits become visible.
MIN_TILE = 48
GAP = 4

_MODES = {1: "LA", 3: "RGBA", 4: "RGBA"}


def grid(images: Tensor, columns: int) -> Picture:
    """Tile images row by row, enlarged by a whole factor, with a transparent gap between them.

    Parameters
    ----------
    images : Tensor, [N, C, H, W]
        uint8, or floats in [0, 1] (what is outside is clipped). C is 1 (grey), 3 (RGB) or 4
        (RGBA).
    columns : int
        Images in a row; the last row may have fewer.

    Returns
    -------
    PIL.Image.Image
        Mode LA for grey images, else RGBA.

    Raises
    ------
    ValueError
        If `images` is of another type or shape, is empty or holds NaN, or `columns` is below 1.
    """
    pixels = _as_bytes(images)
    if columns < 1:
        raise ValueError(f"columns: expected at least 1, found {columns}")
    n, channels, height, width = pixels.shape
    scale = max(1, -(-MIN_TILE // max(height, width)))
    pixels = pixels.transpose(0, 2, 3, 1).repeat(scale, axis=1).repeat(scale, axis=2)
    if channels != 4:
        opaque = np.full((*pixels.shape[:3], 1), 255, np.uint8)
        pixels = np.concatenate([pixels, opaque], axis=3)
    down, right = height * scale + GAP, width * scale + GAP
    rows = -(-n // columns)
    columns = min(columns, n)
    canvas = np.zeros((rows * down - GAP, columns * right - GAP, pixels.shape[3]), np.uint8)
    for i, tile in enumerate(pixels):
        top, left = i // columns * down, i % columns * right
        canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return Image.fromarray(canvas, _MODES[channels])


def beside(pictures: Sequence[Picture], captions: Sequence[str]) -> Picture:
    """Put pictures of one height side by side on white, each below its caption.

    Parameters
    ----------
    pictures : sequence of PIL.Image.Image
        At least one, as `grid` makes them.
    captions : sequence of str
        As many.

    Returns
    -------
    PIL.Image.Image
        Mode RGB.

    Raises
    ------
    ValueError
        If there are no pictures, or not as many as captions.
    """
    if not pictures or len(pictures) != len(captions):
        raise ValueError(
            f"pictures: expected at least one and a caption for each, found {len(pictures)} "
            f"pictures and {len(captions)} captions"
        )
    font = ImageFont.load_default(24)
    margin, header = 24, 64
    width = sum(picture.width + margin for picture in pictures) + margin
    height = header + max(picture.height for picture in pictures) + margin
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    left = margin
    for picture, caption in zip(pictures, captions, strict=True):
        draw.text((left + picture.width / 2, header / 2), caption, "black", font, anchor="mm")
        canvas.paste(picture.convert("RGB"), (left, header), picture.getchannel("A"))
        left += picture.width + margin
    return canvas


def png_bytes(picture: Picture) -> bytes:
    """Encode a picture as PNG; the same picture gives the same bytes."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def save_png(picture: Picture, path: str | os.PathLike[str]) -> None:
    """Write a picture as a PNG file, whole or not at all.

    Parameters
    ----------
    picture : PIL.Image.Image
    path : str or path
        The file; its folder must exist.

    Raises
    ------
    OSError
        If it cannot be written; names the file.
    """
    write_file(path, png_bytes(picture))


def _as_bytes(images: Tensor) -> npt.NDArray[np.uint8]:
    if images.ndim != 4 or images.shape[1] not in _MODES or 0 in images.shape:
        raise ValueError(
            f"images: expected [N, C, H, W] with C 1, 3 or 4 and none of them 0, found "
            f"{list(images.shape)}"
        )
    images = images.detach().cpu()
    if images.dtype == torch.uint8:
        return images.numpy()
    if not images.is_floating_point():
        raise ValueError(f"images: expected uint8 or floats in [0, 1], found {images.dtype}")
    if images.isnan().any():
        raise ValueError("images: expected floats in [0, 1], found NaN")
    return images.double().clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
