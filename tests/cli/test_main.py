"""Parsing, help, errors, the traceback on request, Ctrl-C and a full disk."""

from __future__ import annotations

import dataclasses
import inspect
import io
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

import pygen
from pygen.cli import main, model_options

Error = Callable[..., str]

# A job that a script starts in the background ignores Ctrl-C, and so would its children.
COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pygen.cli import main
sys.exit(main())
"""

# Without pygen/__init__.py, which is not this module's to judge.
HELP = """
import sys, types
pygen = sys.modules["pygen"] = types.ModuleType("pygen")
pygen.__path__ = [sys.argv[1]]
from pygen.cli import main
assert main(["fit", "gaussian-mixture", "--help"]) == 0
assert not {"torch", "sklearn", "numpy"} & set(sys.modules)
"""

# Files cannot grow beyond 8 KiB, as on a disk that is full: writing more fails with EFBIG.
FULL_DISK = """
import resource, signal, sys
from pygen.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
run, folder = sys.argv[1:]
for argv in (
    ["fit", "naive-bayes", "--data", "digits", "--out", f"{folder}/run"],
    ["sample", run, "--out", f"{folder}/grid.png", "--n-samples", "400"],
    ["sample", run, "--out", f"{folder}/grid.npy", "--n-samples", "400"],
    ["demo", "--steps", "2", "--out", f"{folder}/demo"],
    ["fit", "gan", "--data", "digits", "--max-steps", "2", "--out", f"{folder}/gan"],
):
    assert main(argv) == 2
"""


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["demo"],
        ["fit"],
        ["fit", "vae"],
        ["sample"],
        ["reconstruct"],
        ["interpolate"],
        ["evaluate"],
        ["report"],
        ["info"],
    ],
)
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    printed = capsys.readouterr()
    assert f"usage: pygen {' '.join(command)}".strip() in printed.out
    assert printed.err == ""


def test_model_help_says_what_every_option_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "gaussian-mixture", "--help"]) == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(model_options.GaussianMixture):
        assert re.search(f"--(no-)?{field.name.replace('_', '-')}[ ,]", text)
    assert "Iterations of expectation maximisation" in text
    assert main(["fit", "dcgan", "--help"]) == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(model_options.DCGAN):
        assert re.search(f"--{field.name.replace('_', '-')} ", text)
    assert "Of Adam" in text


def test_help_waits_for_no_heavy_import() -> None:
    package = str(Path(pygen.__file__).parent)
    subprocess.run([sys.executable, "-c", HELP, package], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "demo, fit, sample, reconstruct, interpolate, evaluate, report, info"),
        (["paint"], "paint"),
        (["fit", "vea", "--data", "digits", "--out", "x"], "vea"),
        (["fit", "vae", "--data", "digits", "--out", "x", "--width", "8"], "--width"),
        (["fit", "vae", "--data", "d", "--out", "x", "--likelihood", "poisson"], "poisson"),
        (["fit", "naive-bayes", "--data", "digits", "--out", "x", "--resume"], "--resume"),
        (["fit", "naive-bayes", "--out", "x"], "--data"),
        (["fit", "naive-bayes", "--data", "digits"], "--out"),
        (["fit", "naive-bayes", "--data", "digits", "--out", "x", "--alpha", "much"], "--alpha"),
        (["fit", "naive-bayes", "--data", "digits", "--out", "x", "--tol", "1"], "--tol"),
        (["fit", "gaussian-mixture", "--data", "d", "--out", "x", "--dtype", "int8"], "int8"),
        (["sample", "--out", "x.png"], "PATH"),
        (["info", "--loud"], "--loud"),
        (["demo", "--seed", "one"], "--seed"),
    ],
)
def test_parse_errors_are_one_line(argv: list[str], expected: str, error: Error) -> None:
    line = error(*argv)
    assert expected in line
    assert "pygen" in line.removeprefix("pygen: error: ") or "Error parsing" in line
    assert not set("│─╭╰\x1b") & set(line)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_missing_options_are_listed_without_their_descriptions(
    encoding: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # tyro draws its boxes with other characters where stdout cannot show them.
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    assert main(["fit", "nope"]) == 2
    assert capsys.readouterr().err == (
        "pygen: error: Missing from pygen fit: --data STR, --out PATH; "
        "Unrecognized options: nope; For full helptext, run: pygen fit --help\n"
    )
    assert main(["fit", "naive-bayes", "--data", "d", "--out", "o", "--alpha", "x"]) == 2
    assert capsys.readouterr().err == (
        "pygen: error: Error parsing --alpha: could not convert string to float: 'x'; "
        "For full helptext, see pygen --help\n"
    )


@pytest.mark.parametrize("before", [True, False])
def test_debug_shows_the_traceback(before: bool, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["sample", "nowhere", "--out", "x.png"]
    assert main(["--debug", *argv] if before else [*argv, "--debug"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert any(line.startswith("FileNotFoundError: ") for line in lines)
    assert lines[-1].startswith("pygen: error: nowhere")


def test_unexpected_errors_are_one_line_too(
    error: Error, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(pygen.NaiveBayes, "sample", fail)
    line = error("sample", demo / "naive_bayes", "--out", tmp_path / "x.png")
    assert line == "pygen: error: RuntimeError: two lines (--debug shows where)"


def test_warnings_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["fit", "gaussian-mixture", "--data", "digits", "--out", str(tmp_path / "run")]
    options = ["--max-iter", "1", "--no-per-class", "--n-components", "5", "--reg-covar", "1e-2"]
    assert main([*argv, *options, "--covariance-type", "diag", "--random-state", "0"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pygen: warning: ")
    assert "max_iter" in line


@pytest.mark.parametrize("model", get_args(model_options.Model), ids=lambda m: m.__name__)
def test_model_options_are_the_constructors(model: type) -> None:
    constructor = inspect.signature(getattr(pygen, model.__name__)).parameters
    for field in dataclasses.fields(model):
        if field.name not in ("per_class", "levels", "resume", "tensorboard"):
            assert field.default == constructor[field.name].default


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    data, out = tmp_path / "data.npy", tmp_path / "run"
    images = np.random.default_rng(0).integers(0, 256, (20_000, 16, 16), np.uint8)
    np.save(data, images)
    argv = ["fit", "gaussian-mixture", "--data", str(data), "--out", str(out)]
    options = ["--n-components", "50", "--max-iter", "1000000", "--tol", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *argv, *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    while not out.exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate()
    assert printed == "pygen: interrupted\n"
    assert process.returncode == 130
    assert sorted(tmp_path.iterdir()) == [data]


def test_full_disk_leaves_nothing_half_written(demo: Path, tmp_path: Path) -> None:
    old = tmp_path / "grid.png"
    old.write_bytes(b"an earlier picture")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(demo / "naive_bayes"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("pygen: error: ") and "write" in line for line in lines)
    assert old.read_bytes() == b"an earlier picture"
    assert {path.name for path in tmp_path.rglob("*")} <= {"grid.png", "demo"}


def test_the_command_itself_answers_and_fails() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "sample", "nowhere", "--out", "x.jpg"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "pygen: error: x.jpg: expected a name that ends in .png or .npy, found 'x.jpg'\n"
    )
