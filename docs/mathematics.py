"""A hook of mkdocs: formulas become MathML when the site is built, so that a page needs no script to show them."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Replace what arithmatex has marked as a formula."""

    def mathml(found: re.Match[str]) -> str:
        element, latex = found.groups()
        display = "block" if element == "div" else "inline"
        return convert(html.unescape(latex), display=display)

    return _FORMULA.sub(mathml, content)
