"""README.md and docs/: blocks of code run, commands are understood, the site builds, tables are what results give."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import FunctionType
from typing import NamedTuple

import pytest

import pygen
import pygen.metrics
from pygen.cli import _parse, main
from pygen.cli.options import Fit, Info, Interpolate, Pygen, Reconstruct, Report, Sample

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What these take on the page is for the reader; whether a block works shows in the first steps.
STEPS = 2
NETWORKS = {"autoencoder", "vae", "gan", "dcgan"}


class Block(NamedTuple):
    language: str
    line: int
    text: str


def blocks(page, *languages):
    """Fenced blocks of a page in these languages."""
    fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    text = page.read_text()
    found = (
        Block(match[1], text.count("\n", 0, match.start(2)), match[2])
        for match in fence.finditer(text)
    )
    return [block for block in found if block.language in languages]


def pages_with(*languages):
    return pytest.mark.parametrize(
        "page",
        [page for page in PAGES if blocks(page, *languages)],
        ids=lambda page: str(page.relative_to(ROOT)),
    )


@pages_with("python")
def test_python(page, tmp_path, monkeypatch):
    """In order, in one namespace, in an empty folder, with networks trained for a few steps."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for block in blocks(page, "python"):
        text = re.sub(r"max_steps=(\d+)", f"max_steps={STEPS}", block.text)
        # Tracebacks then show the line of the page.
        exec(compile("\n" * block.line + text, str(page), "exec"), namespace)


def commands(page):
    """Command lines of a page, without comments; blocks without a language are of commands, too."""
    lines = (line for block in blocks(page, "bash", "") for line in block.text.splitlines())
    words = (shlex.split(line, comments=True) for line in lines)
    return [line for line in words if line]


@pages_with("bash", "")
def test_commands_are_understood(page, capsys):
    known = {"pygen": pygen_understands, "make": is_target, "python": is_script}
    for program, *arguments in commands(page):
        if program.startswith("bench/"):
            assert os.access(ROOT / program, os.X_OK), program
        elif program != "pip":
            assert known[program](arguments), (program, *arguments, capsys.readouterr().err)


def pygen_understands(arguments):
    parsed = _parse(arguments)
    return isinstance(parsed, Pygen) or (parsed == 0 and "--help" in arguments)


def is_target(arguments):
    makefile = (ROOT / "Makefile").read_text()
    return all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in arguments)


def is_script(arguments):
    return (ROOT / arguments[0]).is_file()


def is_quick(command):
    """Whether a command looks at digits only, or at a run that an earlier one has left."""
    if isinstance(command, Fit):
        return command.data == "digits"
    if isinstance(command, (Sample, Reconstruct, Interpolate)):
        return command.run.is_dir()
    if isinstance(command, Report):
        return all(run.is_dir() for run in command.runs)
    return isinstance(command, Info)


@pages_with("bash", "")
def test_commands_work(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for program, *arguments in commands(page):
        parsed = _parse(arguments) if program == "pygen" else None
        if isinstance(parsed, Pygen) and is_quick(parsed.command):
            short = [f"--max-steps={STEPS}"] if NETWORKS & {*arguments[:2]} else []
            assert main([*arguments, *short]) == 0, capsys.readouterr().err
            out = getattr(parsed.command, "out", None)
            assert out is None or out.exists()


def test_links_of_readme():
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("material") is None,
    reason='the site is built with pip install "pygen[docs]"',
)
def test_site_builds_and_fetches_nothing(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) >= len(PAGES)  # README is none, a page of errors is one more
    for page in pages:
        html = page.read_text()
        outside = re.findall(
            r'<(?:script|img|link)\b[^>]*?(?:src|href)="(?:https?:)?//[^"]*"', html
        )
        assert not outside, page
        assert "arithmatex" not in html, page  # a formula that stayed as it was written
    reference = "".join(page.read_text() for page in (tmp_path / "api").iterdir())
    for module in (
        pygen,
        pygen.density,
        pygen.deep,
        pygen.nn,
        pygen.ops,
        pygen.metrics,
        pygen.data,
    ):
        for name in module.__all__:
            if isinstance(getattr(module, name), (type, FunctionType)):
                # Below the module, or where it is defined.
                assert re.search(rf'id="pygen\.([\w.]+\.)?{name}"', reference), (module, name)


def test_tables_are_what_results_give():
    script = [sys.executable, str(ROOT / "bench" / "tables.py"), "--check"]
    stale = subprocess.run(script, capture_output=True, text=True)
    assert stale.returncode == 0, f"run python bench/tables.py: {stale.stdout}{stale.stderr}"
