"""Pages that show and explain models."""

from pygen.report.page import Figure, Page, Section, Table, render

__all__ = ["Figure", "Page", "Section", "Table", "render"]
