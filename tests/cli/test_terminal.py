"""Tables in a terminal, wide and narrow."""

from __future__ import annotations

from pygen.cli.terminal import lines, wrapped
from pygen.report import Table

TABLE = Table("t", ["model", "a", "bc", "d"], [["one", "1", "2", "33"], ["longer", "", "4", "5"]])


def test_all_columns_beside_one_another() -> None:
    expected = ["model   a  bc   d", "one     1   2  33", "longer      4   5"]
    assert list(lines(TABLE)) == expected
    assert list(lines(TABLE, 17)) == expected


def test_columns_that_do_not_fit_come_below() -> None:
    assert list(lines(TABLE, 16)) == [
        *("model   a  bc", "one     1   2", "longer      4"),
        "",
        *("model    d", "one     33", "longer   5"),
    ]
    narrow = list(lines(TABLE, 1))  # one beside the names, whatever the width
    assert narrow[:4] == ["model   a", "one     1", "longer   ", ""]
    assert len(narrow) == 3 * 3 + 2


def test_paragraphs(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    assert list(wrapped(["one two three", "four"])) == ["one two", "three", "four"]
