"""A fitted model in a folder, with the record of how it was made.

Beside the two files of `pygen.io` lies `run.json`: the data, how its pixels became features (which
`pygen sample` needs to turn samples back into pictures), versions, the time taken, the score. While
networks are trained it lies there already, beside the checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch
from torch import Tensor

import pygen
from pygen import cli
from pygen.cli.pixels import Pixels
from pygen.files import write_file
from pygen.io import CONFIG, TENSORS

FORMAT = 1
RECORD = "run.json"
CHECKPOINTS = "checkpoints"
EVALUATION = "evaluation.json"
REPORT = "report.html"
_OF_TRAINING = (CHECKPOINTS, "samples", "metrics.jsonl", "tensorboard")
# All that a run has in its folder.
NAMES = (TENSORS, CONFIG, RECORD, EVALUATION, REPORT, *_OF_TRAINING)
# A folder inside it, of what is not finished or about to be removed.
STAGE = ".run-"


def _versions() -> dict[str, str]:
    return {
        "pygen": pygen.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


@dataclass(frozen=True)
class Run:
    """How a saved model was made.

    Attributes
    ----------
    data, split : str
        What `pygen.data.load` was given.
    image_size : tuple of int or None
        The same, (height, width).
    data_sha256 : str
        Of the images and labels that came of it, see `digest`.
    pixels : Pixels
    image_shape : tuple of int
        [C, H, W].
    n_images : int
    seconds : float or None
        The fit alone; None while networks are trained.
    score : float or None
        Mean log-probability ("levels") or log-density of the images fitted, in nats; None of
        networks, whose figures are in metrics.jsonl.
    divided_by : int or None
        The seed by which `pygen demo` divided data without a test split: the model has seen only
        the images to learn from.
    command : str or None
        The command line that wrote the record.
    versions : dict of str to str
        What it was written with.
    """

    data: str
    split: str
    image_size: tuple[int, int] | None
    data_sha256: str
    pixels: Pixels
    image_shape: tuple[int, int, int]
    n_images: int
    seconds: float | None
    score: float | None
    divided_by: int | None = None
    command: str | None = field(default_factory=cli.command)
    versions: dict[str, str] = field(default_factory=_versions)


def digest(images: Tensor, labels: Tensor) -> str:
    """Return the SHA-256 of images and labels, to know them again."""
    found = hashlib.sha256()
    for values in (images, labels):
        found.update(values.contiguous().numpy().data)
    return found.hexdigest()


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
    if holds_run(folder) and not overwrite:
        raise ValueError(
            f"{folder}: expected no earlier run, found one; choose another folder or add "
            f"--overwrite"
        )
    with made_folder(folder):
        stage = Path(tempfile.mkdtemp(prefix=STAGE, dir=folder))
        try:
            yield stage
            for name in NAMES:
                if (stage / name).exists():
                    (stage / name).replace(folder / name)
                else:
                    remove(folder / name)
        finally:
            rmtree(stage, ignore_errors=True)


def holds_run(folder: Path) -> bool:
    """Return whether a folder holds a run, finished or not; refuse one that holds something else.

    Raises
    ------
    ValueError
        If there is a file of that name, or a folder of other things.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder or nothing, found a file")
    # What an interrupted run left behind does not count.
    found = sorted(p.name for p in folder.iterdir() if not p.name.startswith(STAGE))
    if not found:
        return False
    if RECORD not in found:
        raise ValueError(
            f"{folder}: expected an empty folder or an earlier run, found {', '.join(found[:3])}"
            f"{', ...' if len(found) > 3 else ''}; choose another folder"
        )
    return True


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder where it is missing; if it is empty at the end, take it away again."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for path in made:
            with suppress(OSError):  # not empty: the run, or what somebody else put there
                path.rmdir()


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing may be there."""
    if path.is_dir():
        rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_run(model: Any, run: Run, folder: Path) -> None:
    """Write a model and its record into a folder."""
    model.save(folder)
    write_record(run, folder)


def write_record(run: Run, folder: Path) -> None:
    """Write the record of the model in a folder, or of one that is yet to come."""
    record = {
        "format": FORMAT,
        "config_sha256": model_digest(folder) if (folder / CONFIG).exists() else None,
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
        If a file is damaged, the record is another model's, or training has not ended.
    """
    if (folder / CHECKPOINTS).is_dir() and not (folder / CONFIG).exists():
        raise ValueError(
            f"{folder}: expected a finished run, found one that was interrupted; go on with it: "
            f"pygen fit with the options it had and --resume"
        )
    model = pygen.load(folder)
    run, of = read_record(folder)
    if of != model_digest(folder):
        raise ValueError(
            f"{folder / RECORD}: expected the record of the model beside it, found another's"
        )
    return model, run


def read_record(folder: Path) -> tuple[Run, str | None]:
    """Read a record, and the SHA-256 of the description of its model, None if it is yet to come.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder}: expected {RECORD} as written by pygen fit, found none; fit the model again"
        )
    try:
        record = json.loads(path.read_bytes().decode())
        if record["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}, found {record['format']!r}")
        run = Run(
            data=str(record["data"]),
            split=str(record["split"]),
            image_size=record["image_size"] and tuple(record["image_size"]),
            data_sha256=str(record["data_sha256"]),
            pixels=Pixels(**record["pixels"]),
            image_shape=tuple(record["image_shape"]),
            n_images=int(record["n_images"]),
            seconds=record["seconds"],
            score=record["score"],
            divided_by=record.get("divided_by"),
            command=record.get("command"),
            versions=dict(record["versions"]),
        )
        return run, record["config_sha256"]
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected a record as written by pygen fit, found damage "
            f"({type(error).__name__}: {error}); fit the model again"
        ) from error


def model_digest(folder: Path) -> str:
    """Return the SHA-256 of the description of a saved model, which has that of its weights."""
    return hashlib.sha256((folder / CONFIG).read_bytes()).hexdigest()
