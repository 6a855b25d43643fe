"""The page: what is in it, and that text stays text."""

from __future__ import annotations

import base64
import re

import torch

from pygen.pictures import grid, png_bytes
from pygen.report import (
    Chart,
    Figure,
    Page,
    Part,
    Section,
    Series,
    Table,
    Tile,
    Tiles,
    is_page,
    render,
)

HOSTILE = "<script>alert('1 < 2 & \"3\"')</script>"
ESCAPED = "&lt;script&gt;alert(&#39;1 &lt; 2 &amp; &#34;3&#34;&#39;)&lt;/script&gt;"


def test_render_holds_everything_and_escapes_it() -> None:
    picture = grid(torch.rand(4, 1, 8, 8), 2)
    figure = Figure(picture, HOSTILE, HOSTILE, [HOSTILE, "1"])
    html = render(
        Page(
            title=HOSTILE,
            lead=HOSTILE,
            generator=HOSTILE,
            sections=[Section(HOSTILE, HOSTILE, [figure, figure], [HOSTILE, HOSTILE])],
            tables=[Table(HOSTILE, [HOSTILE, "b"], [[HOSTILE, HOSTILE]], [HOSTILE])] * 2,
            facts={HOSTILE: HOSTILE},
        )
    )
    assert "<script" not in html
    # Title twice, lead, generator; four of the section and three of each figure; six of each
    # table, whose title also names the part that scrolls; a fact and its name.
    assert html.count(ESCAPED) == 4 + 4 + 2 * 3 + 2 * 6 + 2
    source = f'src="data:image/png;base64,{base64.b64encode(png_bytes(picture)).decode()}"'
    assert html.count(source) == 2
    assert f'width="{picture.width}" height="{picture.height}"' in html


def test_render_leaves_out_what_is_empty() -> None:
    figure = Figure(grid(torch.rand(1, 1, 8, 8), 1), "alt")
    html = render(Page("t", "l", [Section("s", "x", [figure])], generator="g"))
    for absent in ('class="settings"', 'class="labels"', 'class="figures"', "<table", "<figcap"):
        assert absent not in html


def test_page_follows_the_readers_choice_and_fits_a_phone() -> None:
    html = render(Page("t", "l", [], generator="g"))
    assert "@media (prefers-color-scheme: dark)" in html
    assert 'name="viewport" content="width=device-width' in html


def test_charts_and_tiles_escape_and_have_words() -> None:
    series = [Series(HOSTILE, [0, 1], [0, 1]), Series("b", [0, 1], [1, 0])]
    chart = Chart(series, HOSTILE, HOSTILE, HOSTILE, HOSTILE, mark=(0, 1, HOSTILE))
    dots = Chart(series[:1], "x", "y", "alt", is_scatter=True)
    tile = Tile(grid(torch.rand(1, 1, 8, 8), 1), HOSTILE, HOSTILE)
    tiles = Tiles([[tile, tile], [tile]], HOSTILE, HOSTILE, [HOSTILE, "2"])
    html = render(Page("t", "l", [Section("s", "x", [chart, dots, tiles])], generator="g"))
    assert "<script" not in html
    # The chart's axes, alt, caption, mark and legend; the name amid the dots; words and text of
    # three tiles, alt, caption and row label of all.
    assert html.count(ESCAPED) == 6 + 1 + 3 * 2 + 3
    assert html.count('role="img" aria-label=') == 2
    assert html.count('class="legend"') == 1


def test_parts_are_linked_and_one_level_below() -> None:
    figure = Figure(grid(torch.rand(1, 1, 8, 8), 1), "alt")
    parts = [
        Part(name, "lead", [Section(f"of {name}", "x", [figure])], facts={"f": "v"})
        for name in ("first", "second")
    ]
    html = render(Page("t", "l", [Section("s", "x", [])], generator="g", parts=parts))
    assert re.findall(r"<h(\d)>([^<]*)</h\d>", html) == [
        *(("1", "t"), ("2", "s")),
        *(("2", "first"), ("3", "of first"), ("3", "What was run")),
        *(("2", "second"), ("3", "of second"), ("3", "What was run")),
    ]
    for link in re.findall(r'href="#([^"]*)"', html):
        assert html.count(f'id="{link}"') == 1
    assert html.count('href="#') == 2


def test_is_page() -> None:
    assert is_page(render(Page("t", "l", [], generator="pygen 1")).encode())
    assert not is_page(b"<title>My homepage</title>")
