"""Images and labels, from a name or from the files one has.

`load` reads named data sets and the usual file formats into uint8 images `[N, C, H, W]` and int64
labels `[N]`; `to_unit` and `quantize` turn such images into what continuous and categorical models
take. Nothing that a file contains is ever executed or extracted to disk.

===============  ==================================================================================
`digits`         1,797 digits of 8x8 pixels, part of scikit-learn; divided 70/30
`mnist`          70,000 digits of 28x28 pixels
`fashion_mnist`  70,000 pieces of clothing of 28x28 pixels
`cifar10`        60,000 photographs of 32x32 pixels in colour
===============  ==================================================================================

The last three are looked for in the folders of the environment variable `PYGEN_DATA`, then in the
cache (`$XDG_CACHE_HOME/pygen` or `~/.cache/pygen`), then fetched from openml.org into the cache.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pygen.data.arrays import npy_file, npz_file
from pygen.data.cifar import BATCH, cifar_batches
from pygen.data.files import Files, is_archive, open_files
from pygen.data.idx import idx_file, idx_folder
from pygen.data.pictures import Size, fit, picture_folder
from pygen.data.sources import NAMES, SOURCES, cache_folder, digits, fetch, find, search_folders
from pygen.data.splits import SPLITS, Arrays, select

__all__ = ["NAMES", "cache_folder", "load", "quantize", "search_folders", "to_unit"]


def load(
    name_or_path: str | os.PathLike[str],
    split: str = "train",
    *,
    image_size: int | Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Load images and their labels.

    Parameters
    ----------
    name_or_path : str or path
        `digits`, `mnist`, `fashion_mnist` or `cifar10`, or a path (write `./mnist` for a path of
        that name) to one of:

        - IDX images, compressed by gzip or not, with the label file of the standard name beside
          them, or a folder with the four files of MNIST;
        - CIFAR-10, binary or pickled: the folder of batches, or the tar.gz as distributed;
        - a folder, zip or tar of pictures: `CLASS/picture`, optionally below `train/` and
          `test/`, a class's label being its rank among the sorted class names; or pictures
          without class folders, whose labels are 0. Greyscale has 1 channel, colour 3, colour
          with transparency 4;
        - `.npy`: uint8 or floats in [0, 1] (which become round(255 x)), `[N, H, W]`,
          `[N, C, H, W]` or `[N, H, W, C]` with C 1, 3 or 4; labels are 0;
        - `.npz`: such arrays as `x_train`, `y_train`, `x_test`, `y_test`, or `images`, `labels`,
          or `arr_0`;
        - a folder that holds only one archive of these kinds.
    split : {"train", "test", "all"}, default="train"
        Which part; "all" is train, then test. A path without a test part is all "train".
    image_size : int or (height, width), optional
        Crop every image at its centre to these proportions and resize it (bicubic). An int is a
        square. Without it pictures must agree in size and mode.

    Returns
    -------
    images : Tensor of uint8, [N, C, H, W]
    labels : Tensor of int64, [N]

    Raises
    ------
    FileNotFoundError
        If the path does not exist, a label file is missing, or a named data set is nowhere and
        cannot be fetched.
    ValueError
        If the name is unknown, the data set lacks the split, or a file is not what it should be;
        the message names the file, what was expected and what was found.

    Examples
    --------
    >>> from pygen.data import load
    >>> images, labels = load("digits", split="test")
    >>> images.shape, images.dtype, labels.shape
    (torch.Size([540, 1, 8, 8]), torch.uint8, torch.Size([540]))
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, found {split!r}")
    size = _checked_size(image_size)
    if name_or_path == "digits":
        images, labels = select(digits(), split, "digits")
    elif isinstance(name_or_path, str) and name_or_path in SOURCES:
        images, labels = _load_named(name_or_path, split)
    else:
        images, labels = _load_path(_checked_path(name_or_path), split, size)
    if size is not None:
        images = fit(images, size)
    return _as_tensor(images), _as_tensor(labels)


def to_unit(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scale images to [0, 1].

    Parameters
    ----------
    images : Tensor of uint8, any shape
    dtype : torch.dtype, default=torch.float32
        A floating-point type.

    Returns
    -------
    Tensor of `dtype`, the same shape
        Each value divided by 255.

    Raises
    ------
    ValueError
        If `images` is not uint8.
    """
    _check_uint8(images)
    return images.to(dtype) / 255


def quantize(images: Tensor, levels: int) -> Tensor:
    """Reduce images to a number of grey levels, for models of categories.

    Parameters
    ----------
    images : Tensor of uint8, any shape
    levels : int, 2 to 256
        Number of levels; each covers an equal share of 0..255.

    Returns
    -------
    Tensor of int64, the same shape
        `floor(levels * x / 256)`, in 0..levels-1. With 17 levels it restores the grey levels of
        `digits` exactly.

    Raises
    ------
    ValueError
        If `images` is not uint8 or `levels` is out of range.
    """
    _check_uint8(images)
    if not 2 <= levels <= 256:
        raise ValueError(f"levels: expected 2 to 256, found {levels}")
    return (images.to(torch.int64) * levels) >> 8


def _check_uint8(images: Tensor) -> None:
    if images.dtype != torch.uint8:
        raise ValueError(f"images: expected uint8 in 0 to 255, found {images.dtype}")


def _as_tensor(array: npt.NDArray[Any]) -> Tensor:
    """Return an array as a tensor; views of a file's bytes, which are read-only, are copied."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _checked_size(image_size: int | Sequence[int] | None) -> Size | None:
    if image_size is None:
        return None
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(
            f"image_size: expected a positive int or (height, width), found {image_size!r}"
        )
    return size[0], size[1]


def _checked_path(name_or_path: str | os.PathLike[str]) -> Path:
    path = Path(name_or_path).expanduser()
    if path.exists():
        return path
    is_word = isinstance(name_or_path, str) and path.name == name_or_path and not path.suffix
    if is_word:
        raise ValueError(
            f"{name_or_path!r}: expected one of the data sets {', '.join(NAMES)} or a path that "
            f"exists, found neither"
        )
    raise FileNotFoundError(f"{path}: expected a file or folder, found nothing there")


def _load_named(name: str, split: str) -> Arrays:
    path = find(name)
    images, labels = (
        select(fetch(name), split, name) if path is None else _load_path(path, split, None)
    )
    expected = SOURCES[name].shape
    if images.shape[1:] != expected:
        raise ValueError(
            f"{path}: expected the pictures of {name}, [C, H, W] {list(expected)}, found "
            f"{list(images.shape[1:])}"
        )
    return images, labels


def _load_path(path: Path, split: str, size: Size | None) -> Arrays:
    name = path.name.lower()
    if path.is_dir() or is_archive(name):
        with open_files(path) as files:
            return _load_files(path, files, split, size)
    if name.endswith(".npy"):
        return select(npy_file(path), split, path)
    if "idx3" in name or name.endswith((".gz", ".idx")) or "ubyte" in name:
        return select(idx_file(path), split, path)
    mend = "; pass the folder that holds the batches" if BATCH.fullmatch(name) else ""
    raise ValueError(
        f"{path}: expected a folder, .zip, .tar, .tar.gz, .npy, .npz or IDX file (*-ubyte, .gz), "
        f"found another name{mend}"
    )


def _load_files(path: Path, files: Files, split: str, size: Size | None) -> Arrays:
    if path.name.lower().endswith(".npz"):
        return select(npz_file(files), split, path)
    splits = idx_folder(files) or cifar_batches(files) or picture_folder(files, size)
    if splits is not None:
        return select(splits, split, path)
    archives = [name for name in files if is_archive(name)]
    if path.is_dir() and len(archives) == 1:
        return _load_path(path / archives[0], split, size)
    raise ValueError(
        f"{path}: expected IDX files, CIFAR-10 batches, pictures or one archive of them, found "
        f"{files.summary()}"
    )
