"""One self-contained HTML page: sections with pictures, tables, what was run."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined

from pygen.pictures import Picture, png_bytes
from pygen.report import chart
from pygen.report.chart import Chart


@dataclass(frozen=True)
class Table:
    """Figures of several models.

    Attributes
    ----------
    title : str
    columns : sequence of str
        The headings; the first is that of the rows' names.
    rows : sequence of sequence of str
        Each as long as `columns`, its name first.
    notes : sequence of str
        Paragraphs that say how the figures came about and how to read them.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Figure:
    """A picture with what is to be said of it.

    Attributes
    ----------
    picture : PIL.Image.Image
    alt : str
        The picture in words, for those who do not see it.
    caption : str
        Below it; may be empty.
    row_labels : sequence of str
        A label for each row of a picture made by `grid`; may be empty.
    rows : str
        What the labels are.
    """

    kind: ClassVar[str] = "picture"

    picture: Picture
    alt: str
    caption: str = ""
    row_labels: Sequence[str] = ()
    rows: str = "class of each row"


class Tile(NamedTuple):
    """A picture of one image, in words, and what stands below it."""

    picture: Picture
    alt: str
    text: str


@dataclass(frozen=True)
class Tiles:
    """Rows of images, each with a text of its own below it.

    Attributes
    ----------
    rows : sequence of sequence of Tile
    alt : str
        All of it in words.
    caption : str
        Below it; may be empty.
    row_labels : sequence of str
        A label for each row, or none.
    """

    kind: ClassVar[str] = "tiles"

    rows: Sequence[Sequence[Tile]]
    alt: str
    caption: str = ""
    row_labels: Sequence[str] = ()

    @property
    def n_columns(self) -> int:
        """Tiles in the longest row."""
        return max(len(row) for row in self.rows)


Shown: TypeAlias = Figure | Tiles | Chart


@dataclass(frozen=True)
class Section:
    """Pictures and what the reader sees in them.

    Attributes
    ----------
    title : str
    text : str
        One paragraph.
    figures : sequence of Figure, Tiles or Chart
        Several stand two in a row where there is room.
    settings : sequence of str
        Models as one would write them in Python.
    is_dense : bool
        Whether figures are small: as many stand in a row as there is room for, on a phone two.
    """

    title: str
    text: str
    figures: Sequence[Shown]
    settings: Sequence[str] = ()
    is_dense: bool = False


@dataclass(frozen=True)
class Part:
    """A subject of a page.

    Attributes
    ----------
    title, lead : str
        Its heading and the sentence below it.
    sections : sequence of Section
    tables : sequence of Table
    facts : mapping of str to str
        What was run, by name: the command, versions, data, seeds, seconds.
    """

    title: str
    lead: str
    sections: Sequence[Section]
    tables: Sequence[Table] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Page(Part):
    """What `render` turns into HTML: a part by itself, or several with what stands before them.

    Attributes
    ----------
    generator : str
        The program and version that made the page.
    parts : sequence of Part
        What follows, with links to each at the top.
    is_wide : bool
        Whether sections stand two in a row where there is room.
    """

    generator: str
    parts: Sequence[Part] = ()
    is_wide: bool = False


def is_page(content: bytes) -> bool:
    """Return whether a file's content is a page that pygen made, and may make again."""
    return b'name="generator" content="pygen ' in content


def render(page: Page) -> str:
    """Return a page as HTML that refers to nothing outside itself.

    Pictures are part of it as data URIs, it has no script, and it follows the reader's choice of
    light or dark. All text is escaped.

    Parameters
    ----------
    page : Page

    Returns
    -------
    str
        An HTML5 document.
    """
    environment = Environment(
        loader=PackageLoader("pygen.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    environment.globals["chart"] = vars(chart)
    return environment.get_template("page.html").render(page=page)


def _data_uri(picture: Picture) -> str:
    return f"data:image/png;base64,{base64.b64encode(png_bytes(picture)).decode()}"
