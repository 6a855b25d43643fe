"""Looking at models: pictures of what they draw, and pages that show and explain them."""

from pygen.report.files import write_file
from pygen.report.page import Page, Section, Table, render
from pygen.report.pictures import Picture, beside, grid, png_bytes, save_png

__all__ = [
    "Page",
    "Picture",
    "Section",
    "Table",
    "beside",
    "grid",
    "png_bytes",
    "render",
    "save_png",
    "write_file",
]
