"""Picture files (PNG, JPEG, ...), one sub-folder per class, and the resizing of pictures."""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from tqdm import tqdm

from pygen.data.files import Files
from pygen.data.splits import Arrays, Splits

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
)

# Pillow's modes of at most 8 bits per channel, and what each becomes: 1, 3 or 4 channels.
_MODES = {
    "1": "L",
    "L": "L",
    "LA": "RGBA",
    "P": "RGB",
    "PA": "RGBA",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "CMYK": "RGB",
    "YCbCr": "RGB",
}

# Bars stay away where pictures are decoded in less than this many seconds.
_BAR_DELAY = 1.0

Size = tuple[int, int]  # height, width


def picture_folder(files: Files, size: Size | None) -> Splits | None:
    """Return the parts of a folder or archive of pictures, None if it has no pictures.

    Parameters
    ----------
    files : Files
        `CLASS/picture`, or `train/CLASS/picture` and `test/CLASS/picture`, or pictures without
        class folders (labels all 0); folders around all of these do not matter. A class's label
        is its rank among the sorted class names.
    size : (height, width), optional
        Size to which pictures are cropped and resized, see `fit`. Without it they must agree in
        size and mode; with it, a greyscale picture among coloured ones becomes a coloured one.

    Raises
    ------
    ValueError
        If the folders are nested in another way.
    """
    names = [name for name in files if PurePosixPath(name).suffix.lower() in SUFFIXES]
    if not names:
        return None
    parts = {name: PurePosixPath(name).parts for name in names}
    skip = _common_folders(list(parts.values()))
    relative = {name: p[skip:] for name, p in parts.items()}
    if {p[0] for p in relative.values()} <= {"train", "test"}:
        split_of = {name: p[0] for name, p in relative.items()}
        relative = {name: p[1:] for name, p in relative.items()}
    else:
        split_of = dict.fromkeys(names, "train")
    depths = {len(p) for p in relative.values()}
    if depths not in ({1}, {2}):
        example = max(relative, key=lambda name: len(relative[name]))
        raise ValueError(
            f"{files.origin}: expected every picture as CLASS/picture, optionally below train/ "
            f"and test/, or none in a class folder, found {example} beside "
            f"{min(relative, key=lambda name: len(relative[name]))}"
        )
    classes = sorted({p[0] for p in relative.values()}) if depths == {2} else []
    rank = {name: i for i, name in enumerate(classes)}

    def read(split: str) -> Arrays:
        chosen = sorted(name for name in names if split_of[name] == split)
        labels = np.array([rank.get(relative[name][0], 0) for name in chosen], np.int64)
        return _decode_all(files, chosen, size), labels

    return {s: partial(read, s) for s in ("train", "test") if s in split_of.values()}


def fit(images: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.uint8]:
    """Crop images at their centre to the proportions of `size`, then resize them.

    Parameters
    ----------
    images : ndarray of uint8, [N, C, H, W] with C in {1, 3, 4}
    size : (height, width)

    Returns
    -------
    ndarray of uint8, [N, C, height, width]
        Resampled by Pillow's bicubic filter.
    """
    if images.shape[2:] == size:
        return images
    fitted = np.empty((*images.shape[:2], *size), np.uint8)
    for i, picture in enumerate(_bar(images)):
        hwc = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
        fitted[i] = _pixels(_fit_one(Image.fromarray(np.ascontiguousarray(hwc)), size))
    return fitted


def _common_folders(parts: list[tuple[str, ...]]) -> int:
    """Count the leading folders that all pictures share and that are not train or test."""
    depth = 0
    while (
        all(len(p) > depth + 1 for p in parts)
        and len({p[depth] for p in parts}) == 1
        and parts[0][depth] not in ("train", "test")
    ):
        depth += 1
    return depth


def _decode_all(files: Files, names: list[str], size: Size | None) -> npt.NDArray[np.uint8]:
    images: npt.NDArray[np.uint8] | None = None
    for i, name in enumerate(_bar(names)):
        picture = _decode(files[name], files.where(name), size)
        if images is None:
            images = np.empty((len(names), *picture.shape), np.uint8)
        elif size is not None and len(picture) != images.shape[1]:
            channels = max(len(picture), images.shape[1])
            picture, images = _widen(picture, channels), _widen(images, channels)
        if picture.shape != images.shape[1:]:
            raise ValueError(
                f"{files.where(name)}: expected [C, H, W] {list(images.shape[1:])} as in "
                f"{names[0]}, found {list(picture.shape)}; pass image_size= to make them alike"
            )
        images[i] = picture
    assert images is not None  # a split is listed only if it has names
    return images


def _decode(data: bytes, where: str, size: Size | None) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data)) as opened:
            mode = _MODES.get(opened.mode)
            if mode is None:
                raise ValueError(f"mode {opened.mode}, not 8 bits per channel")
            if opened.mode in ("P", "L", "RGB") and "transparency" in opened.info:
                mode = "RGBA"
            picture = opened.convert(mode)
    # Pillow's decoders raise many types on damaged data, SyntaxError and struct.error among them.
    except Exception as error:
        raise ValueError(f"{where}: expected a picture that decodes, found: {error}") from error
    return _pixels(picture if size is None else _fit_one(picture, size))


def _fit_one(picture: Image.Image, size: Size) -> Image.Image:
    height, width = size
    return ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)


def _pixels(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """Return a picture's pixels, [C, H, W]."""
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _widen(images: npt.NDArray[np.uint8], channels: int) -> npt.NDArray[np.uint8]:
    """Give images [..., C, H, W] more channels: grey to equal red, green, blue; then opaque."""
    if images.shape[-3] == 1 and channels > 1:
        images = np.repeat(images, 3, axis=-3)
    if images.shape[-3] == 3 and channels == 4:
        opaque = np.full_like(images[..., :1, :, :], 255)
        images = np.concatenate([images, opaque], axis=-3)
    return images


def _bar(items: npt.NDArray[np.uint8] | list[str]) -> Iterable[Any]:
    bar: Iterable[Any] = tqdm(items, unit="picture", delay=_BAR_DELAY, leave=False, disable=None)
    return bar
