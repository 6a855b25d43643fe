"""Checkpoints of a training run: written whole or not at all, checked when read, the last few kept.

Each is a folder ``step-00000500`` of three files:

``model.safetensors``
    The weights, on the CPU, by name.
``training.pt``
    What else a run needs to go on: optimizers, random states, losses not yet logged. Read with
    ``torch.load(weights_only=True)``.
``config.json``
    The format, pygen's version, what was trained (``identity``), the step, the metric there, the best one so far, and
    the SHA-256 of the other two files.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

import pygen
from pygen.files import write_files

FORMAT = 1
CONFIG, WEIGHTS, TRAINING = "config.json", "model.safetensors", "training.pt"

_NAME = re.compile(r"step-(\d{8,})")


@dataclass
class Checkpoint:
    """What one checkpoint holds.

    Attributes
    ----------
    step : int
        Updates made.
    weights : dict of str to Tensor
    training : dict
        Tensors, numbers, strings, None, and lists, tuples and dicts of these.
    identity : dict
        What was trained, such as architecture and hyperparameters, as JSON has it.
    seconds : float
        Training time so far.
    metric : float or None
        At this step.
    best_step, best_metric : int, float or None
        Of the best so far, which may be this one.
    """

    step: int
    weights: dict[str, Tensor]
    training: dict[str, Any]
    identity: Mapping[str, Any]
    seconds: float = 0.0
    metric: float | None = None
    best_step: int | None = None
    best_metric: float | None = None


class Checkpoints:
    """The checkpoints in a folder.

    Parameters
    ----------
    folder : path
        Made when the first is written.
    keep : int
        How many of the newest are kept, besides the best; at least 1.

    Raises
    ------
    ValueError
        If ``keep`` is below 1.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep: expected at least 1, found {keep}")
        self.folder, self.keep = Path(folder), keep

    def steps(self) -> list[int]:
        """Steps of which there are checkpoints, damaged ones too, in order."""
        names = (_NAME.fullmatch(path.name) for path in self.folder.glob("step-*"))
        return sorted(int(name[1]) for name in names if name)

    def path(self, step: int) -> Path:
        """Folder of a step's checkpoint."""
        return self.folder / f"step-{step:08d}"

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint; then remove those that are neither among the newest nor the best.

        All is written and flushed to the disk under a temporary name before it takes its own: whatever kills the
        process or the machine, a checkpoint of this name is whole.

        Returns
        -------
        Path
            Its folder.

        Raises
        ------
        OSError
            If it cannot be written: a full disk, missing permission. Earlier ones are kept.
        """
        self.remove_leftovers()
        target = self.path(checkpoint.step)
        temporary = self._temporary(target)
        try:
            write_files(temporary, _contents(checkpoint))
            _flush_folder(temporary)
            if target.exists():  # a damaged one, passed over when the run went on
                target.rename(self._temporary(target))
            temporary.rename(target)
            _flush_folder(self.folder)
        except BaseException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            if isinstance(error, OSError):
                reason = os.strerror(error.errno) if error.errno else str(error)
                message = f"could not write it, earlier checkpoints are kept: {reason}"
                raise OSError(error.errno, message, str(target)) from error
            raise
        steps = self.steps()
        for step in steps:
            if step not in (*steps[-self.keep :], checkpoint.best_step, checkpoint.step):
                self._remove(step)
        self.remove_leftovers()
        return target

    def newest(self, identity: Mapping[str, Any]) -> Checkpoint | None:
        """Read the newest checkpoint that is whole; one that is not is passed over with a warning.

        Parameters
        ----------
        identity : mapping
            What is trained now; must agree with what the checkpoint says.

        Returns
        -------
        Checkpoint or None
            None if there is none at all.

        Raises
        ------
        ValueError
            If something else was trained, or no checkpoint is whole.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                found = self.read(step)
            except (OSError, ValueError) as error:
                warnings.warn(f"{error}; using the checkpoint before it", UserWarning, stacklevel=2)
                continue
            check_identity(self.path(step), found.identity, identity)
            return found
        if steps:
            raise ValueError(
                f"{self.folder}: expected a checkpoint to go on from, found {len(steps)}, all of them damaged; remove"
                " the folder to begin anew"
            )
        return None

    def read(self, step: int) -> Checkpoint:
        """Read the checkpoint of a step.

        Raises
        ------
        OSError, ValueError
            If it is missing or damaged; names the file, what was expected and what was found.
        """
        folder = self.path(step)
        config = _read_config(folder / CONFIG, step)
        data = {name: _read_checked(folder / name, config) for name in (WEIGHTS, TRAINING)}
        try:
            best = config["best"] or {}
            return Checkpoint(
                step=step,
                weights=safetensors.torch.load(data[WEIGHTS]),
                training=torch.load(io.BytesIO(data[TRAINING]), "cpu", weights_only=True),
                identity=config["identity"],
                seconds=config["seconds"],
                metric=config["metric"],
                best_step=best.get("step"),
                best_metric=best.get("metric"),
            )
        except Exception as error:  # both readers raise many kinds, none of them a common one
            raise ValueError(
                f"{folder}: expected a checkpoint as pygen writes it, found damage: {error}"
            ) from error

    def remove_leftovers(self) -> None:
        """Remove what killed processes left half written or half removed."""
        for path in self.folder.glob(".step-*.tmp"):
            shutil.rmtree(path, ignore_errors=True)

    def _remove(self, step: int) -> None:
        # Under another name first: half removed, it would look like a damaged checkpoint.
        path = self.path(step)
        path.rename(self._temporary(path))

    def _temporary(self, path: Path) -> Path:
        return self.folder / f".{path.name}.{secrets.token_hex(4)}.tmp"


def check_identity(where: object, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a run in which something else was trained.

    Parameters
    ----------
    where : object
        Named in the error.
    saved, now : mapping
        Nested dicts, lists, numbers, strings and None.

    Raises
    ------
    ValueError
        Names every difference.
    """
    left, right = _flat(json.loads(json.dumps(saved))), _flat(json.loads(json.dumps(now)))
    names = [name for name in {**left, **right} if left.get(name, _NONE) != right.get(name, _NONE)]
    if names:
        differences = "; ".join(
            f"{name}: {left.get(name, _NONE)} there, {right.get(name, _NONE)} now" for name in names
        )
        raise ValueError(
            f"{where}: cannot go on from this checkpoint, in which something else was trained - {differences}. Give the"
            " same parameters and data, or begin anew in another folder."
        )


_NONE = "nothing"


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """A nested dict's leaves by their path, such as ``encoder.channels``."""
    if not isinstance(value, dict):
        return {name: value}
    prefix = f"{name}." if name else ""
    return {k: v for key, item in value.items() for k, v in _flat(item, prefix + key).items()}


def _contents(checkpoint: Checkpoint) -> dict[str, bytes]:
    # The format has no strides and no shared memory.
    weights = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in checkpoint.weights.items()
    }
    stream = io.BytesIO()
    torch.save(checkpoint.training, stream)
    data = {WEIGHTS: safetensors.torch.save(weights), TRAINING: stream.getvalue()}
    best = {"step": checkpoint.best_step, "metric": checkpoint.best_metric}
    config = {
        "format": FORMAT,
        "pygen": pygen.__version__,
        "identity": checkpoint.identity,
        "step": checkpoint.step,
        "seconds": checkpoint.seconds,
        "metric": checkpoint.metric,
        "best": None if checkpoint.best_step is None else best,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in data.items()},
    }
    return {**data, CONFIG: json.dumps(config, indent=2, allow_nan=False).encode()}


def _read_config(path: Path, step: int) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes().decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, found damage: {error}") from error
    version = config.get("format") if isinstance(config, dict) else None
    if version != FORMAT:
        raise ValueError(f"{path}: expected a checkpoint of format {FORMAT}, found {version!r}")
    if config.get("step") != step:
        raise ValueError(f"{path}: expected step {step}, found {config.get('step')!r}")
    return config


def _read_checked(path: Path, config: dict[str, Any]) -> bytes:
    data = path.read_bytes()
    found, sums = hashlib.sha256(data).hexdigest(), config.get("sha256")
    expected = sums.get(path.name) if isinstance(sums, dict) else None
    if found != expected:
        raise ValueError(
            f"{path}: expected the file that {CONFIG} describes (SHA-256 {expected}), found another (SHA-256 {found}):"
            " it was changed or cut short"
        )
    return data


def _flush_folder(folder: Path) -> None:
    """Make names in a folder outlast a power failure."""
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
