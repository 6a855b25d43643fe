"""bench/gpu.sh without a GPU: its benchmarks in tiny sizes, and how it says what is missing."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench.gpu import parts, results, sampling  # noqa: E402
from bench.gpu.__main__ import CASES, measure  # noqa: E402


def gpu_sh(*arguments, **environment):
    return subprocess.run(
        ["bash", ROOT / "bench" / "gpu.sh", *map(str, arguments)],
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_rehearsal_is_measured_kept_and_shown(tmp_path):
    name = "normal-float32"
    done = gpu_sh("bench", name, "--device", "cpu", "--results", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("rehearsal-")
    result = json.loads(file.read_text())
    assert list(result["cases"]) == [name]
    assert "none" in result["facts"]["GPU"]
    for case in result["cases"].values():
        assert case["status"] == "ok"
        assert case["facts"]["copy bandwidth, B/s"] > 0
        for row in case["rows"]:
            assert row["failure"] is None
            assert 0 < row["quartiles"][0] <= row["median"] <= row["quartiles"][1]
            assert row["floor"] > 0
    assert ">= 1.2x torch.randn (" in done.stdout


def test_a_days_results_are_merged(tmp_path, capsys):
    file = tmp_path / "results" / "day.json"
    ok = {"status": "ok", "seconds": 1.0}
    results.merge(file, "parts", "build", ok)
    results.merge(file, "cases", "one", {"rows": [], **ok})
    results.merge(file, "cases", "two", {"rows": [], **ok})
    results.merge(file, "cases", "one", {"rows": [], **ok, "status": "over 180 s"})
    found = results.load(file)
    assert found["parts"] == {"build": ok}
    assert {name: case["status"] for name, case in found["cases"].items()} == {
        "one": "over 180 s",
        "two": "ok",
    }
    assert list(file.parent.iterdir()) == [file]
    results.show(found)
    assert "over 180 s" in capsys.readouterr().out


@pytest.mark.parametrize("name", CASES)
def test_every_case_runs_and_is_right(name, tmp_path):
    """Each peer, too, but for what only a GPU can do."""
    out = tmp_path / "case.json"
    assert measure(name, "cpu", out) == 0, out.read_text()
    rows = json.loads(out.read_text())["rows"]
    assert len({row["name"] for row in rows}) == len(rows) > 1
    for row in rows:
        if row["name"].endswith("graph"):
            assert "on a GPU only" in row["failure"]
        elif not row["name"].startswith("scikit-learn"):
            assert row["failure"] is None, row
    measured = {row["name"] for row in rows}
    assert all(peer in measured for row in rows for peer in row["beats"])


def test_draws_are_compared_with_the_float64_of_their_own_digits():
    """So many that some lie far out, where a float64 draw's further digits would count."""
    state, rows = torch.tensor([2**40 + 1, 2**33]), 2**20
    draws = sampling.ops.normal(state.clone(), [rows, 4])[8:].double()
    torch.testing.assert_close(sampling.noise(state, 8, rows - 8, 4), draws, rtol=0, atol=2e-6)


def test_wrong_results_are_not_timed(tmp_path, monkeypatch):
    right = sampling.ops.normal

    def normal(state, size, dtype, fast=False):
        return right(state, size, dtype, fast) * (1.00001 if dtype == torch.float32 else 1)

    monkeypatch.setattr(sampling.ops, "normal", normal)
    out = tmp_path / "case.json"
    assert measure("normal-float32", "cpu", out) == 1
    rows = {row["name"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows["pygen, exact"]["median"] is None
    assert "wrong: error" in rows["pygen, exact"]["failure"]
    assert rows["memset"]["median"] > 0


def test_a_part_that_takes_too_long_is_ended_with_what_it_started(tmp_path):
    program = f"sleep 60 & echo $! > {tmp_path}/child; wait"
    part = parts.run(["bash", "-c", program], limit=1)
    assert part.status == "over 1 s"
    assert not part.fine
    child = int((tmp_path / "child").read_text())
    state = Path(f"/proc/{child}/stat")
    patience = time.monotonic() + 10  # a process that is killed takes a moment to end
    while state.exists() and state.read_text().split()[2] != "Z":
        assert time.monotonic() < patience
        time.sleep(0.05)


def test_what_is_missing_is_said(tmp_path):
    (tmp_path / "python").write_text('#!/bin/sh\nexec "$REAL" -S "$@"\n')
    (tmp_path / "python").chmod(0o755)
    done = gpu_sh("build", PYTHON=str(tmp_path / "python"), REAL=sys.executable, PYTHONPATH="")
    assert done.returncode == 1
    assert "lacks torch numpy scikit-learn" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_nothing_is_claimed(tmp_path):
    done = gpu_sh("all", "--results", tmp_path)
    assert done.returncode == 2
    assert "no CUDA device" in done.stderr
    assert not list(tmp_path.iterdir())


def test_targets_are_judged():
    row = {"median": 2e-3, "limit": 1e-3, "memory": 256e6, "extra_bytes": 100_000_000}
    row["beats"] = {"slow": 4.0, "fast": 1.0, "gone": 2.0}
    told = list(results.targets(row, {"slow": 10e-3, "fast": 1e-3, "gone": None}))
    assert told == [
        "<= 1 ms MISSED",
        "<= 256 MB extra (100) met",
        ">= 4x slow (5.00) met",
        ">= 1x fast (0.50) MISSED",
        ">= 2x gone: not measured",
    ]
