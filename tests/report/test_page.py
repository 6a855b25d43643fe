"""The page: what is in it, and that text stays text."""

from __future__ import annotations

import base64

import torch

from pygen.pictures import grid, png_bytes
from pygen.report import Figure, Page, Section, Table, render

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
    # Title twice, lead, generator; four of the section and three of each figure; five of each
    # table; a fact and its name.
    assert html.count(ESCAPED) == 4 + 4 + 2 * 3 + 2 * 5 + 2
    source = f'src="data:image/png;base64,{base64.b64encode(png_bytes(picture)).decode()}"'
    assert html.count(source) == 2
    assert f'width="{picture.width}" height="{picture.height}"' in html


def test_render_leaves_out_what_is_empty() -> None:
    figure = Figure(grid(torch.rand(1, 1, 8, 8), 1), "alt")
    html = render(Page("t", "l", "g", [Section("s", "x", [figure])]))
    for absent in ('class="settings"', 'class="labels"', 'class="figures"', "<table", "<figcap"):
        assert absent not in html


def test_page_follows_the_readers_choice_and_fits_a_phone() -> None:
    html = render(Page("t", "l", "g", []))
    assert "@media (prefers-color-scheme: dark)" in html
    assert 'name="viewport" content="width=device-width' in html
