"""Pages that show and explain models."""

from pygen.report.chart import Chart, Series
from pygen.report.page import Figure, Page, Part, Section, Table, Tile, Tiles, is_page, render

__all__ = [
    "Chart",
    "Figure",
    "Page",
    "Part",
    "Section",
    "Series",
    "Table",
    "Tile",
    "Tiles",
    "is_page",
    "render",
]
