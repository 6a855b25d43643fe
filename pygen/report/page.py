"""One self-contained HTML page: sections with pictures, tables, what was run."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined

from pygen.pictures import Picture, png_bytes


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
    """

    picture: Picture
    alt: str
    caption: str = ""
    row_labels: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """Pictures and what the reader sees in them.

    Attributes
    ----------
    title : str
    text : str
        One paragraph.
    figures : sequence of Figure
        Several stand two in a row where there is room.
    settings : sequence of str
        Models as one would write them in Python.
    """

    title: str
    text: str
    figures: Sequence[Figure]
    settings: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """What `render` turns into HTML.

    Attributes
    ----------
    title, lead : str
        The heading and the sentence below it.
    generator : str
        The program and version that made the page.
    sections : sequence of Section
    tables : sequence of Table
    facts : mapping of str to str
        What was run, by name: the command, versions, data, seeds, seconds.
    """

    title: str
    lead: str
    generator: str
    sections: Sequence[Section]
    tables: Sequence[Table] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


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
    return environment.get_template("page.html").render(page=page)


def _data_uri(picture: Picture) -> str:
    return f"data:image/png;base64,{base64.b64encode(png_bytes(picture)).decode()}"
