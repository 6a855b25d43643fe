"""The page: what is in it, and that text stays text."""

from __future__ import annotations

import base64

import torch

from pygen.pictures import grid, png_bytes
from pygen.report import Page, Section, Table, render

HOSTILE = "<script>alert('1 < 2 & \"3\"')</script>"
ESCAPED = "&lt;script&gt;alert(&#39;1 &lt; 2 &amp; &#34;3&#34;&#39;)&lt;/script&gt;"


def test_render_holds_everything_and_escapes_it() -> None:
    picture = grid(torch.rand(4, 1, 8, 8), 2)
    html = render(
        Page(
            title=HOSTILE,
            lead=HOSTILE,
            generator=HOSTILE,
            table=Table([HOSTILE, "b"], [[HOSTILE, HOSTILE]], [HOSTILE]),
            sections=[Section(HOSTILE, HOSTILE, picture, HOSTILE, HOSTILE, [HOSTILE, "1"])],
            facts={HOSTILE: HOSTILE},
        )
    )
    assert "<script" not in html
    # Title twice, lead, generator, three cells, a note, five in the section, a fact and its name.
    assert html.count(ESCAPED) == 15
    assert f'src="data:image/png;base64,{base64.b64encode(png_bytes(picture)).decode()}"' in html
    assert f'width="{picture.width}" height="{picture.height}"' in html


def test_render_leaves_out_what_is_empty() -> None:
    picture = grid(torch.rand(1, 1, 8, 8), 1)
    page = Page("t", "l", "g", Table(["a"], []), [Section("s", "x", picture, "alt")])
    html = render(page)
    assert 'class="settings"' not in html
    assert 'class="labels"' not in html


def test_page_follows_the_readers_choice_and_fits_a_phone() -> None:
    html = render(Page("t", "l", "g", Table(["a"], []), []))
    assert "@media (prefers-color-scheme: dark)" in html
    assert 'name="viewport" content="width=device-width' in html
