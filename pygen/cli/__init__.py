"""The command line: what is asked for is parsed here and done by the module of the command's name.

An error is one line and exit status 2; `--debug` adds the traceback. Ctrl-C is status 130, and where
networks were being trained the line says how to go on.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr
from contextvars import ContextVar
from importlib import import_module
from typing import Any

import tyro

from pygen.cli.options import Pygen

__all__ = ["Stopped", "command", "main"]

_STYLE = (
    tyro.conf.CascadeSubcommandArgs,
    tyro.conf.DisallowNone,
    tyro.conf.HelptextFromCommentsOff,
)
_COMMAND: ContextVar[str | None] = ContextVar("command", default=None)
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


class Stopped(KeyboardInterrupt):
    """Ctrl-C at work that the same command with `--resume` goes on with."""


def command() -> str | None:
    """Return the command line that is being carried out, as a shell would take it; None outside of one."""
    return _COMMAND.get()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments, without the program's name. Default: those of the process.

    Returns
    -------
    int
        The exit status: 0, 2 after an error, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    token = _COMMAND.set(shlex.join(["pygen", *arguments]))
    try:
        options = _parse(arguments)
        if isinstance(options, int):
            return options
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            # On a busy machine threads that wait by spinning take the cores from those at work: a fit of
            # seconds then takes minutes (measured on two cores). Read when torch is loaded.
            os.environ.setdefault("OMP_WAIT_POLICY", "passive")
            # The module of a command imports torch, which takes seconds; --help does without.
            import_module(f"pygen.cli.{type(options.command).__name__.lower()}").run(
                options.command
            )
    except Stopped as stopped:
        kept = [argument for argument in arguments if argument not in ("--overwrite", "--resume")]
        return _fail(f"{stopped}; go on: {shlex.join(['pygen', *kept, '--resume'])}", 130)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        return _fail(f"error: {_describe(error)}", 2)
    finally:
        _COMMAND.reset(token)
    return 0


def _parse(arguments: list[str]) -> Pygen | int:
    """Return the parsed command line, or the exit status where it has been dealt with."""
    printed = io.StringIO()
    try:
        with redirect_stderr(printed):
            return tyro.cli(
                Pygen,
                prog="pygen",
                args=arguments,
                config=_STYLE,
            )
    except SystemExit as stop:
        if not stop.code:
            return 0
        return _fail(f"error: {_flatten(printed.getvalue())}", 2)


def _flatten(box: str) -> str:
    """Reduce an error that tyro prints as a box to one line.

    Below its title, rules divide the box into sections; in these, options are indented by 4,
    descriptions of them by 8. Where stdout is not UTF-8 the box has no sides, and rules of "-".
    """
    lines = _ESCAPE.sub("", box).strip("\n").splitlines()
    sections = [""]
    for line in lines[1:] or lines:
        body = line.replace("│", " ").rstrip()[2:]
        text = body.lstrip()
        indent = len(body) - len(text)
        if text and set(text) <= set("─-╯"):
            sections.append("")
        elif text and indent < 8:
            is_next = indent and not sections[-1].endswith(":")
            sections[-1] += ("," if is_next else "") + " " + text
    kept = (section.strip().rstrip(".") for section in sections)
    return "; ".join(s for s in kept if s and not s.startswith("Argument helptext"))


def _describe(error: Exception) -> str:
    """Say in one line what went wrong."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(text.split())
    if isinstance(error, (ValueError, OSError)) and text:
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"


def _fail(message: str, status: int) -> int:
    print(f"pygen: {message}", file=sys.stderr)
    return status


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"pygen: warning: {' '.join(str(message).split())}", file=sys.stderr)
