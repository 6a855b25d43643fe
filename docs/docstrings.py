"""An extension of griffe: the few forms of reStructuredText in pygen's docstrings become Markdown."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod):`([^`]+)`")
# A section's line `name : type`; what follows `array-like` shall not be taken for a difference.
_TYPE = re.compile(r"^([\w, ]+ : )(.*)$", re.MULTILINE)
_TABLE = re.compile(
    r"^=+(?: +=+)+\n(?:(.*)\n=+(?: +=+)+\n)?((?:.*\n)*?)(=+(?: +=+)+)$", re.MULTILINE
)


def _reference(found: re.Match[str]) -> str:
    """A link where the name is whole, code where it is a neighbour's."""
    name = found[1]
    return f"[`{name}`][{name}]" if name.startswith("pygen.") else f"`{name}`"


def _table(found: re.Match[str]) -> str:
    """A table of the simple kind, whose columns are where its rules are."""
    header, body, rule = found.groups()
    starts = [column.start() for column in re.finditer("=+", rule)]

    def row(line: str) -> str:
        ends = [*starts[1:], None]
        cells = (line[begin:end].strip() for begin, end in zip(starts, ends, strict=True))
        return f"| {' | '.join(cells)} |"

    lines = [row(line) for line in body.splitlines()]
    return "\n".join([row(header or ""), "|" + " --- |" * len(starts), *lines])


def _type(found: re.Match[str]) -> str:
    """Types are shown as code by themselves; a hyphen that does not break keeps one whole."""
    return found[1] + found[2].replace("``", "").replace("-like", "\u2011like")


class Docstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = obj.docstring.value + "\n"
            text = _TYPE.sub(_type, _TABLE.sub(_table, text))
            obj.docstring.value = _ROLE.sub(_reference, text)
