"""Writing files whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_TOKEN_BYTES = 4  # of a temporary name


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file under a temporary name beside its own, then rename it.

    Parameters
    ----------
    path : str or path
        The file; its folder must exist. A file there is replaced, and kept if writing fails.
    data : bytes
        All of its contents.

    Raises
    ------
    OSError
        If it cannot be written: a full disk, missing permission; names the file.
    """
    path = Path(path)
    try:
        _write(path.parent, {path.name: data})
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"could not write it: {reason}", str(path)) from error


def write_files(folder: str | os.PathLike[str], contents: Mapping[str, bytes]) -> None:
    """Write files into a folder, all of them in full before any takes its name.

    Parameters
    ----------
    folder : str or path
        Made where it is missing, and taken away again if writing fails.
    contents : mapping of str to bytes
        By name. Files of these names are replaced in this order, and kept if writing fails.

    Raises
    ------
    OSError
        If they cannot be written: a full disk, missing permission; names folder and files.
    """
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder, contents)
    except BaseException as error:
        for path in made:
            with suppress(OSError):  # a folder that somebody else has begun to use stays
                path.rmdir()
        if isinstance(error, OSError):
            what = f"could not write {' and '.join(contents)}: {error.strerror or error}"
            raise OSError(error.errno, f"{folder}: {what}") from error
        raise


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove what a process that was killed while it wrote left in a folder."""
    for path in Path(folder).glob(f".*.{'[0-9a-f]' * 2 * _TOKEN_BYTES}.tmp"):
        if path.is_file():
            path.unlink(missing_ok=True)


def _write(folder: Path, contents: Mapping[str, bytes]) -> None:
    token = secrets.token_hex(_TOKEN_BYTES)
    temporary = {name: folder / f".{name}.{token}.tmp" for name in contents}
    try:
        for name, data in contents.items():
            with temporary[name].open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for name in contents:
            temporary[name].replace(folder / name)
    except BaseException:
        for path in temporary.values():
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise
