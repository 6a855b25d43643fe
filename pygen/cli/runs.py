"""A fitted model in a folder, with the record of how it was made.

Beside the two files of `pygen.io` lies `run.json`: the data, how its pixels became features (which
`pygen sample` needs to turn samples back into pictures), versions, the time taken, the score.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch

import pygen
from pygen.cli.pixels import Pixels
from pygen.files import write_file
from pygen.io import CONFIG, TENSORS

FORMAT = 1
RECORD = "run.json"
_STAGE = ".run-"


@dataclass(frozen=True)
class Run:
    """How a saved model was made.

    Attributes
    ----------
    data, split : str
        What `pygen.data.load` was given.
    image_size : tuple of int or None
        The same, (height, width).
    pixels : Pixels
    image_shape : tuple of int
        [C, H, W].
    n_images : int
    seconds : float
        The fit alone.
    score : float
        Mean log-probability ("levels") or log-density of the images fitted, in nats.
    """

    data: str
    split: str
    image_size: tuple[int, int] | None
    pixels: Pixels
    image_shape: tuple[int, int, int]
    n_images: int
    seconds: float
    score: float


@contextmanager
def new_run(folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Make way for a run in a folder; its files appear there when the block ends without error.

    Parameters
    ----------
    folder : Path
        Made where it is missing, at once, so that a place that cannot be written to is found
        out before the work.
    overwrite : bool
        Replace the files of an earlier run, at the end of the block.

    Yields
    ------
    Path
        A folder inside it, in which to write them (`write_run`).

    Raises
    ------
    ValueError
        If the folder holds something else than a run, or a run and `overwrite` is false.
    OSError
        If it cannot be written to.
    """
    _check_place(folder, overwrite)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    stage = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=_STAGE, dir=folder))
        yield stage
        for name in (TENSORS, CONFIG, RECORD):
            (stage / name).replace(folder / name)
    finally:
        if stage is not None:
            rmtree(stage, ignore_errors=True)
        for path in made:
            with suppress(OSError):  # not empty: the run, or what somebody else put there
                path.rmdir()


def write_run(model: Any, run: Run, folder: Path) -> None:
    """Write a model and its record into a folder."""
    model.save(folder)
    record = {
        "format": FORMAT,
        "config_sha256": _digest(folder),
        "versions": {
            "pygen": pygen.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        **asdict(run),
    }
    write_file(folder / RECORD, json.dumps(record, indent=2, allow_nan=False).encode())


def read_run(folder: Path) -> tuple[Any, Run]:
    """Read a model and its record.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its files is missing.
    ValueError
        If a file is damaged, or the record is another model's.
    """
    model = pygen.load(folder)
    path = folder / RECORD
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder}: expected {RECORD} as written by pygen fit, found none; fit the model again"
        )
    try:
        record = json.loads(path.read_bytes().decode())
        if record["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}, found {record['format']!r}")
        digest = record["config_sha256"]
        run = Run(
            data=str(record["data"]),
            split=str(record["split"]),
            image_size=record["image_size"] and tuple(record["image_size"]),
            pixels=Pixels(**record["pixels"]),
            image_shape=tuple(record["image_shape"]),
            n_images=int(record["n_images"]),
            seconds=float(record["seconds"]),
            score=float(record["score"]),
        )
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected a record as written by pygen fit, found damage "
            f"({type(error).__name__}: {error}); fit the model again"
        ) from error
    if digest != _digest(folder):
        raise ValueError(f"{path}: expected the record of the model beside it, found another's")
    return model, run


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / CONFIG).read_bytes()).hexdigest()


def _check_place(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder or nothing, found a file")
    # What an interrupted run left behind does not count.
    found = sorted(p.name for p in folder.iterdir() if not p.name.startswith(_STAGE))
    if not found:
        return
    if not {CONFIG, RECORD} <= set(found):
        raise ValueError(
            f"{folder}: expected an empty folder or an earlier run, found {', '.join(found[:3])}"
            f"{', ...' if len(found) > 3 else ''}; choose another folder"
        )
    if not overwrite:
        raise ValueError(
            f"{folder}: expected no earlier run, found one; choose another folder or add "
            f"--overwrite"
        )
