"""One mapping from name to bytes over a folder, a zip and a tar: nothing is ever extracted."""

from __future__ import annotations

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

ZIP_SUFFIXES = (".zip", ".npz")
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

# What zipfile, tarfile and the decompressors beneath them raise on damaged, encrypted or
# truncated archives; OSError includes gzip.BadGzipFile.
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    NotImplementedError,
)


class Files(Mapping[str, bytes]):
    """The files of a folder or an archive, read one at a time.

    Names are relative, separated by "/", and iterate in the order in which they are stored (a
    compressed tar is slow to read in any other); hidden files are left out.

    Parameters
    ----------
    origin : Path
        The folder or archive.
    readers : dict of str to callable
        For each name, what returns its bytes.
    """

    def __init__(self, origin: Path, readers: dict[str, Callable[[], bytes]]) -> None:
        self.origin = origin
        paths = {PurePosixPath(name): read for name, read in readers.items()}
        self._readers = {path.as_posix(): r for path, r in paths.items() if not _is_hidden(path)}

    def __getitem__(self, name: str) -> bytes:
        read = self._readers[name]
        try:
            return read()
        except _DAMAGED as error:
            raise ValueError(
                f"{self.where(name)}: expected a readable file, found damage: {error}"
            ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def where(self, name: str) -> str:
        """Return the name as an error message shows it: behind the folder or archive."""
        return f"{self.origin}/{name}"

    def summary(self) -> str:
        """Return a few names and the count, for error messages."""
        names = list(self)
        if not names:
            return "no files"
        shown = ", ".join(names[:3])
        return f"{len(names)} files: {shown}{', ...' if len(names) > 3 else ''}"


def is_archive(name: str) -> bool:
    """Tell from its name whether a file is a zip (.npz included) or a tar."""
    return name.lower().endswith(ZIP_SUFFIXES + TAR_SUFFIXES)


@contextmanager
def open_files(path: Path) -> Iterator[Files]:
    """Open a folder, zip or tar as one mapping of names to bytes.

    Parameters
    ----------
    path : Path
        A folder, or an archive for which `is_archive` holds.

    Yields
    ------
    Files
        Readable until the context ends.

    Raises
    ------
    ValueError
        If the archive is damaged.
    """
    with ExitStack() as stack:
        if path.is_dir():
            yield Files(path, _folder_readers(path))
            return
        is_zip = path.name.lower().endswith(ZIP_SUFFIXES)
        try:
            readers = (_zip_readers if is_zip else _tar_readers)(path, stack)
        except _DAMAGED as error:
            kind = "zip" if is_zip else "tar"
            raise ValueError(f"{path}: expected a {kind} archive, found damage: {error}") from error
        yield Files(path, readers)


def _folder_readers(path: Path) -> dict[str, Callable[[], bytes]]:
    found = [
        Path(folder) / name
        for folder, _, names in os.walk(path, followlinks=True)
        for name in names
    ]
    return {file.relative_to(path).as_posix(): file.read_bytes for file in sorted(found)}


def _zip_readers(path: Path, stack: ExitStack) -> dict[str, Callable[[], bytes]]:
    archive = stack.enter_context(zipfile.ZipFile(path))
    members = (info for info in archive.infolist() if not info.is_dir())
    return {info.filename: partial(archive.read, info) for info in members}


def _tar_readers(path: Path, stack: ExitStack) -> dict[str, Callable[[], bytes]]:
    archive = stack.enter_context(tarfile.open(path))  # noqa: SIM115 - the stack closes it

    def read(member: tarfile.TarInfo) -> bytes:
        stream = archive.extractfile(member)
        assert stream is not None  # only regular files are listed
        return stream.read()

    # A sparse member's size is a claim that no bytes back.
    members = (member for member in archive if member.isreg() and not member.issparse())
    return {member.name: partial(read, member) for member in members}


def _is_hidden(path: PurePosixPath) -> bool:
    """Tell whether a file belongs to a system: .DS_Store, ._picture.png, __MACOSX/..."""
    return any(part == "__MACOSX" or (part[0] == "." and part != "..") for part in path.parts)
