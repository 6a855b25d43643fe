"""Writing a file whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path


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
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise OSError(error.errno, f"could not write it: {reason}", str(path)) from error
        raise
