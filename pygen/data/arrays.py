"""NumPy files, .npy and .npz; objects in them (pickles) are refused."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pygen.data.files import Files
from pygen.data.splits import Arrays, Splits

CHANNELS = (1, 3, 4)


def npy_file(path: Path) -> Splits:
    """Return the one part of an `.npy` file of images; its labels are 0."""

    def read() -> Arrays:
        images = as_images(parse_npy(path.read_bytes(), str(path)), str(path))
        return images, np.zeros(len(images), np.int64)

    return {"train": read}


def npz_file(files: Files) -> Splits:
    """Return the parts of an `.npz` file; labels that are not in it are 0.

    The keys are `x_train`, `y_train`, `x_test`, `y_test`; or `images`, `labels`; or `arr_0`.

    Raises
    ------
    ValueError
        If it has none of these keys for images.
    """
    keys = {name.removesuffix(".npy"): name for name in files}

    def reader(x: str, y: str) -> Callable[[], Arrays]:
        def read() -> Arrays:
            where = files.where(keys[x])
            images = as_images(parse_npy(files[keys[x]], where), where)
            if y not in keys:
                return images, np.zeros(len(images), np.int64)
            where = files.where(keys[y])
            return images, _as_labels(parse_npy(files[keys[y]], where), len(images), where)

        return read

    if "x_train" in keys or "x_test" in keys:
        pairs = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}
        return {split: reader(x, y) for split, (x, y) in pairs.items() if x in keys}
    for x, y in (("images", "labels"), ("arr_0", "arr_1")):
        if x in keys:
            return {"train": reader(x, y)}
    raise ValueError(
        f"{files.origin}: expected the keys x_train, y_train, x_test, y_test, or images, labels, "
        f"or arr_0, found {', '.join(keys) or 'none'}"
    )


def parse_npy(data: bytes, where: str) -> npt.NDArray[Any]:
    """Read one `.npy` array (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).

    `numpy.load` allocates what the header claims before it looks at the data, hence this.

    Raises
    ------
    ValueError
        If the header is damaged, the array holds objects, or the length is not the header's.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(stream)
    # The header is a Python literal: a damaged one raises whatever its parser does.
    except Exception as error:
        raise ValueError(f"{where}: expected an .npy array, found damage: {error}") from error
    if dtype.kind not in "biuf":
        raise ValueError(f"{where}: expected an array of numbers, found type {dtype}")
    expected = math.prod(shape) * dtype.itemsize
    start = stream.tell()
    if min(shape, default=0) < 0 or len(data) - start != expected:
        raise ValueError(
            f"{where}: expected {expected} bytes of data for {dtype} {list(shape)}, "
            f"found {len(data) - start}"
        )
    flat = np.frombuffer(data, dtype, offset=start)
    return flat.reshape(shape, order="F" if fortran_order else "C")


def as_images(array: npt.NDArray[Any], where: str) -> npt.NDArray[np.uint8]:
    """Bring an array of images to uint8 [N, C, H, W].

    Parameters
    ----------
    array : ndarray, [N, H, W], [N, C, H, W] or [N, H, W, C] with C in {1, 3, 4}
        uint8, or floats in [0, 1], which become the nearest of 0/255, 1/255, ..., 255/255.
    where : str
        The file's name, for error messages.

    Raises
    ------
    ValueError
        If type, range or shape is another one, or it cannot be told which axis is C.
    """
    if array.dtype.kind == "f":
        # A NaN fails this comparison too.
        if not (array.size and array.min() >= 0 and array.max() <= 1):
            found = f"{array.min()} to {array.max()}" if array.size else "none"
            raise ValueError(f"{where}: expected floats in [0, 1] (or uint8), found {found}")
        array = np.rint(array * array.dtype.type(255)).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(
            f"{where}: expected uint8 in 0 to 255 or floats in [0, 1], found {array.dtype}; "
            f"convert it with astype(numpy.uint8)"
        )
    images: npt.NDArray[np.uint8] = array
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4:
        first, last = images.shape[1] in CHANNELS, images.shape[3] in CHANNELS
        if first and last:
            raise ValueError(
                f"{where}: expected [N, C, H, W] or [N, H, W, C], found {list(images.shape)}, "
                f"which can be either; save greyscale images as [N, H, W], and larger ones in "
                f"colour"
            )
        if first:
            return images
        if last:
            return images.transpose(0, 3, 1, 2)
    raise ValueError(
        f"{where}: expected the shape [N, H, W], [N, C, H, W] or [N, H, W, C] with C 1, 3 or 4, "
        f"found {list(images.shape)}"
    )


def _as_labels(labels: npt.NDArray[Any], n: int, where: str) -> npt.NDArray[np.int64]:
    if labels.dtype.kind not in "iu" or labels.shape not in ((n,), (n, 1)):
        raise ValueError(
            f"{where}: expected {n} integer labels, one per picture, found {labels.dtype} "
            f"{list(labels.shape)}"
        )
    return labels.reshape(n).astype(np.int64)
