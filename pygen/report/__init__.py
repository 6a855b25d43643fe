"""Pages that show and explain models."""

from pygen.report.page import Page, Section, Table, render

__all__ = ["Page", "Section", "Table", "render"]
