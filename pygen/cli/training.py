"""A run that lasts: networks trained in a folder, interrupted, and gone on with."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

from pygen.cli import Stopped
from pygen.cli.runs import (
    CHECKPOINTS,
    NAMES,
    RECORD,
    STAGE,
    Run,
    holds_run,
    made_folder,
    read_record,
    remove,
    write_record,
)
from pygen.deep.checkpoint import Checkpoints
from pygen.io import CONFIG


@contextmanager
def training_run(folder: Path, run: Run, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Make way for the training of networks in a folder, in the block.

    If the block fails before there is a checkpoint, the folder is left as it was.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    run : Run
        Written into it at the beginning, to know the run again.
    resume : bool
        Keep what is there of an earlier run on the same data; there may be none.
    overwrite : bool
        Replace an earlier run.

    Raises
    ------
    ValueError
        If the folder holds something else than a run, a run that is neither to be gone on with
        nor to be replaced, or one on other data.
    Stopped
        On Ctrl-C, where there is a checkpoint to go on from.
    """
    if resume and overwrite:
        raise ValueError("resume: expected --resume or --overwrite, found both")
    found = holds_run(folder)
    if found and resume:
        _check_resumable(folder, run)
    elif found and not overwrite:
        raise ValueError(
            f"{folder}: expected no earlier run, found one; choose another folder, or add "
            f"--resume to go on with it or --overwrite to replace it"
        )
    begins = not (found and resume)
    checkpoints = Checkpoints(folder / CHECKPOINTS)
    with made_folder(folder), _set_aside(folder, found and begins, checkpoints):
        try:
            if begins:
                write_record(run, folder)
            yield
        except BaseException as error:
            steps = checkpoints.steps()
            if begins and not steps:
                for name in NAMES:
                    remove(folder / name)
            elif steps and isinstance(error, KeyboardInterrupt):
                raise Stopped(f"interrupted; step {steps[-1]} is saved") from error
            raise


def _check_resumable(folder: Path, run: Run) -> None:
    # Killed before its first checkpoint, a run has neither checkpoints nor a model.
    if (folder / CONFIG).exists() and not (folder / CHECKPOINTS).is_dir():
        raise ValueError(
            f"{folder}: expected a run of networks to go on with, found one without checkpoints"
        )
    earlier, _ = read_record(folder)
    if earlier.data_sha256 != run.data_sha256:
        raise ValueError(
            f"{folder / RECORD}: expected the {earlier.n_images} images of this run, "
            f"{earlier.data} ({earlier.split}), to go on with it, found others in {run.data} "
            f"({run.split})"
        )


@contextmanager
def _set_aside(folder: Path, there: bool, checkpoints: Checkpoints) -> Iterator[None]:
    """Put an earlier run out of the way; back again, should nothing take its place."""
    if not there:
        yield
        return
    aside = Path(tempfile.mkdtemp(prefix=STAGE, dir=folder))
    names = [name for name in NAMES if (folder / name).exists()]
    for name in names:
        (folder / name).rename(aside / name)
    try:
        yield
    except BaseException:
        if not checkpoints.steps():
            for name in names:
                (aside / name).rename(folder / name)
        raise
    finally:
        rmtree(aside, ignore_errors=True)
