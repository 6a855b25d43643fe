"""No barrier of a kernel can be removed without ThreadSanitizer noticing."""

import importlib
import re
import shutil
from pathlib import Path

import pytest
from harness import HERE, ROOT, Failure
from test_harness import PLANTED
from test_harness import run as run_planted

CSRC = ROOT / "csrc"
BARRIER = re.compile(r"__sync(?:threads|warp)\([^;]*\);")


def barriers(sources):
    """Every barrier: its file, where it stands in it, and its line's number."""
    for source in sources:
        text = source.read_text()
        for match in BARRIER.finditer(text):
            yield source, match.span(), text.count("\n", 0, match.start()) + 1


def without(program, source, span, folder):
    """The program, from a copy of its sources that lacks what stands at `span`."""
    parts = {Path(name).parent for name in (program.header, *program.sources)} | {Path("csrc")}
    for part in parts:
        shutil.copytree(ROOT / part, folder / part, dirs_exist_ok=True)
    copy = folder / source.relative_to(ROOT)
    text = copy.read_text()
    copy.write_text(text[: span[0]] + ";" + text[span[1] :])
    return program.at(folder)


def parameters(sources):
    return [
        pytest.param(
            *(source, span),
            id=f"{source.parent.name}/{source.name}:{line}",
            marks=pytest.mark.xdist_group(f"barriers of {source.parent.name}"),
        )
        for source, span, line in barriers(sources)
    ]


def families(source):
    """Names of the families that have the source; a header of csrc itself belongs to those that include it."""
    if source.parent != CSRC:
        return [source.parent.name]
    users = (path for path in CSRC.glob("*/*.cu*") if f'"../{source.name}"' in path.read_text())
    return sorted({path.parent.name for path in users})


def is_missed(exercise, program):
    try:
        exercise(program, mode="thread")
    except Failure as failure:
        return failure.finder in ("thread", "simt")
    return False


@pytest.mark.parametrize(("source", "span"), parameters(sorted(CSRC.rglob("*.cu*"))))
def test_a_kernel_needs_each_of_its_barriers(source, span, tmp_path):
    modules = [importlib.import_module(f"test_{family}") for family in families(source)]
    assert any(
        is_missed(
            module.exercise, without(module.PROGRAM, source, span, tmp_path / module.__name__)
        )
        for module in modules
    )


def exercise_planted(program, **options):
    for function in program.functions:
        run_planted(function, program=program, **options)


@pytest.mark.parametrize(("source", "span"), parameters([HERE / "planted.cu"]))
def test_a_barrier_that_is_needed_is_missed(source, span, tmp_path):
    assert is_missed(exercise_planted, without(PLANTED, source, span, tmp_path))
