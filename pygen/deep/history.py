"""The run's numbers over its steps: `metrics.jsonl`, and TensorBoard where wanted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from pygen.files import remove_leftovers, write_file

METRICS = "metrics.jsonl"


class History:
    """Lines of a run, one per interval: kept in memory, and where there is a folder in ``metrics.jsonl``.

    Parameters
    ----------
    folder : Path or None
    tensorboard : bool
        Write event files for TensorBoard into the folder ``tensorboard`` beside it, too.

    Attributes
    ----------
    lines : list of dict
        Each with "step" and other numbers.

    Raises
    ------
    ImportError
        If TensorBoard is wanted and not installed.
    """

    def __init__(self, folder: Path | None, tensorboard: bool = False) -> None:
        self.lines: list[dict[str, Any]] = []
        self._path = None if folder is None else folder / METRICS
        self._writer: Any = None
        self._make_writer: Any = None
        if tensorboard and folder is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ImportError(
                    "tensorboard=True needs the package tensorboard: pip install tensorboard"
                ) from error
            self._make_writer, self._events = SummaryWriter, folder / "tensorboard"

    def begin(self, step: int) -> None:
        """Keep what was written up to a step, 0 for a new run, and go on from there."""
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self._path.parent)
            self.lines = [line for line in _read(self._path) if line["step"] <= step]
            write_file(self._path, b"".join(_line(line) for line in self.lines))
        if self._make_writer is not None:
            self._writer = self._make_writer(str(self._events), purge_step=step + 1)

    def add(self, line: dict[str, Any]) -> None:
        """Add a line, and write it through to its file; an OSError names that."""
        self.lines.append(line)
        if self._path is not None:
            try:
                with self._path.open("ab") as file:
                    file.write(_line(line))
            except OSError as error:
                reason = f"could not write to it: {error.strerror or error}"
                raise OSError(error.errno, reason, str(self._path)) from error
        if self._writer is not None:
            for name, value in line.items():
                if name not in ("step", "seconds") and value is not None:
                    self._writer.add_scalar(name, value, line["step"])

    def add_images(self, images: Tensor, step: int) -> None:
        """Show images ``[N, C, H, W]``, uint8 or floats in [0, 1], in TensorBoard."""
        if self._writer is not None:
            self._writer.add_images("samples", images, step)

    def flush(self) -> None:
        """Have the lines on the disk, not only on their way to it."""
        if self._path is not None and self._path.exists():
            with self._path.open("ab") as file:
                os.fsync(file.fileno())

    def end(self) -> None:
        """Close TensorBoard's files."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _line(line: dict[str, Any]) -> bytes:
    return json.dumps(line, allow_nan=False).encode() + b"\n"


def _read(path: Path) -> list[dict[str, Any]]:
    """Lines up to the first that a killed process left incomplete."""
    lines: list[dict[str, Any]] = []
    for text in path.read_bytes().splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            break
        if not isinstance(line, dict) or type(line.get("step")) is not int:
            break
        lines.append(line)
    return lines
