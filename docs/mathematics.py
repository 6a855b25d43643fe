"""A hook of mkdocs: formulas become MathML when the site is built, so that a page needs no script to show them."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

# Spaces that TeX sets of itself and the converter leaves out.
_SPACES = [(re.compile(r"\\log(?= *[a-z\\])"), r"\\log\\,"), (re.compile(r"\\sim"), r"\\;\\sim\\;")]
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Replace what arithmatex has marked as a formula."""

    def mathml(found: re.Match[str]) -> str:
        element, latex = found.groups()
        latex = html.unescape(latex)
        for written, spaced in _SPACES:
            latex = written.sub(spaced, latex)
        if element == "span":
            return convert(latex)
        return f'<div class="formula">{convert(latex, display="block")}</div>'

    return _FORMULA.sub(mathml, content)
