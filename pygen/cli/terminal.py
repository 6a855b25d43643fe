"""Tables in a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence

from pygen.report import Table

_BETWEEN = 2
# Longer lines of text are hard to read.
_READABLE = 100


def lines(table: Table, width: int | None = None) -> Iterator[str]:
    """Lay out a table.

    Parameters
    ----------
    table : Table
    width : int, optional
        Columns that do not fit come below, beside the names again. Default: the terminal's, and no limit where
        there is none.
    """
    rows = [table.columns, *table.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    limit = shutil.get_terminal_size((10**6, 0)).columns if width is None else width
    for number, chosen in enumerate(_blocks(widths, limit)):
        if number:
            yield ""
        for row in rows:
            cells = [row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in chosen)]
            yield (" " * _BETWEEN).join(cells)


def wrapped(paragraphs: Sequence[str]) -> Iterator[str]:
    """Break paragraphs into lines that the terminal has room for."""
    width = min(shutil.get_terminal_size((_READABLE, 0)).columns, _READABLE)
    for paragraph in paragraphs:
        yield from textwrap.wrap(paragraph, width)


def _blocks(widths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Which columns stand beside one another; at least one beside the names."""
    block: list[int] = []
    taken = widths[0]
    for i in range(1, len(widths)):
        needed = _BETWEEN + widths[i]
        if block and taken + needed > limit:
            yield block
            block, taken = [], widths[0]
        block.append(i)
        taken += needed
    yield block
