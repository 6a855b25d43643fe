"""IDX files, the format of MNIST (http://yann.lecun.com/exdb/mnist), compressed by gzip or not."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from pygen.data.files import Files
from pygen.data.splits import Arrays, Splits

_PREFIX = {"train": ("train",), "test": ("t10k", "test")}
_IMAGES = re.compile(r"(?P<prefix>.*)-images[-.]idx3-ubyte(\.gz)?")
_UNSIGNED_BYTE = 0x08


def parse_idx(data: bytes, where: str, ndim: int) -> npt.NDArray[np.uint8]:
    """Read one IDX array of unsigned bytes.

    Parameters
    ----------
    data : bytes
        The file: magic (0, 0, 8, ndim), ndim big-endian 32-bit sizes, then the elements; the
        whole may be compressed by gzip.
    where : str
        The file's name, for error messages.
    ndim : int
        Number of dimensions expected: 3 for images, 1 for labels.

    Returns
    -------
    ndarray of uint8
        Read-only view of the bytes.

    Raises
    ------
    ValueError
        If the magic, the number of dimensions or the length differs from what is expected, or
        the compressed data is damaged.
    """
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"{where}: expected intact gzip data, found damage: {error}"
            ) from error
    start = 4 + 4 * ndim
    magic = bytes((0, 0, _UNSIGNED_BYTE, ndim))
    if data[:4] != magic:
        raise ValueError(
            f"{where}: expected an IDX file of unsigned bytes with {ndim} dimensions (magic "
            f"{magic.hex()}), found {data[:4].hex() or 'an empty file'}"
        )
    if len(data) < start:
        raise ValueError(f"{where}: expected an IDX header of {start} bytes, found {len(data)}")
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4)]
    expected = math.prod(shape)
    if len(data) - start != expected:
        raise ValueError(
            f"{where}: expected {expected} bytes of data for shape {shape}, "
            f"found {len(data) - start}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def idx_file(path: Path) -> Splits:
    """Return the one part of a single IDX image file and the label file beside it.

    The label file has the same name with "images" and "idx3" replaced by "labels" and "idx1",
    compressed or not. A file whose name does not follow that convention has no label file: its
    labels are 0.

    Raises
    ------
    FileNotFoundError
        If the name calls for a label file that is not there.
    """
    images = path.name
    if not _IMAGES.fullmatch(images):
        return {"train": partial(_without_labels, path)}
    beside = Files(
        path.parent, {f.name: f.read_bytes for f in path.parent.iterdir() if f.is_file()}
    )
    labels = _labels_for(images, beside)
    return {"train": partial(_read_pair, beside, images, labels)}


def idx_folder(files: Files) -> Splits | None:
    """Return the parts of a folder of IDX files by the standard names, None if it has none.

    The names are those of MNIST (`train-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`, ...), with
    "test" also accepted for "t10k", a dot for the second hyphen, and ".gz" at the end. They may
    lie in a sub-folder, such as MNIST/raw.

    Raises
    ------
    ValueError
        If they lie in more than one sub-folder.
    FileNotFoundError
        If a label file is missing.
    """
    # A compressed file sorts after its unpacked twin, which is quicker to read.
    found = {name: m["prefix"] for name in sorted(files) if (m := _match(name))}
    folders = {str(PurePosixPath(name).parent) for name in found}
    if len(folders) > 1:
        raise ValueError(
            f"{files.origin}: expected the IDX files of one data set, found some in each of "
            f"{', '.join(sorted(folders))}; pass one of these folders"
        )
    chosen = {
        split: name
        for split, prefixes in _PREFIX.items()
        if (name := next((n for n, prefix in found.items() if prefix in prefixes), None))
    }
    labels = {split: _labels_for(name, files) for split, name in chosen.items()}

    return {
        split: partial(_read_pair, files, chosen[split], labels[split]) for split in chosen
    } or None


def _match(name: str) -> re.Match[str] | None:
    match = _IMAGES.fullmatch(PurePosixPath(name).name)
    known = {prefix for prefixes in _PREFIX.values() for prefix in prefixes}
    return match if match and match["prefix"] in known else None


def _labels_for(images: str, files: Files) -> str:
    """Return the name of the label file that belongs to an image file."""
    folder, name = PurePosixPath(images).parent, PurePosixPath(images).name
    stem = name.removesuffix(".gz").replace("-images", "-labels").replace("idx3", "idx1")
    for candidate in (str(folder / stem), str(folder / f"{stem}.gz")):
        if candidate in files:
            return candidate
    raise FileNotFoundError(
        f"{files.where(images)}: expected its label file {stem} or {stem}.gz beside it, found "
        f"neither; put it there"
    )


def _read_pair(files: Files, images: str, labels: str) -> Arrays:
    x = parse_idx(files[images], files.where(images), ndim=3)
    y = parse_idx(files[labels], files.where(labels), ndim=1)
    if len(x) != len(y):
        raise ValueError(
            f"{files.where(labels)}: expected {len(x)} labels, one per picture of "
            f"{PurePosixPath(images).name}, found {len(y)}"
        )
    return x[:, None], y.astype(np.int64)


def _without_labels(path: Path) -> Arrays:
    x = parse_idx(path.read_bytes(), str(path), ndim=3)
    return x[:, None], np.zeros(len(x), np.int64)
