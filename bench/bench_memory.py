"""Memory that fitting a mixture takes beyond its data, each measurement in a process of its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

CHILD = Path(__file__).with_name("peak_memory.py")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from Linux's /proc")
def test_fit_memory(
    rows: Callable[[int, str], np.ndarray],
    benchmark: BenchmarkFixture,
    record: Callable[..., None],
    tmp_path: Path,
) -> None:
    data = tmp_path / "rows.npy"
    np.save(data, rows(20_000, "float32"))

    def measure(library: str) -> tuple[float, float]:
        command = [sys.executable, str(CHILD), library, str(data)]
        words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        return float(words[0]), float(words[1])

    ours, bound = benchmark.pedantic(measure, args=("pygen",))
    peer, peer_bound = measure("scikit-learn")
    assert bound == pytest.approx(peer_bound, rel=0.02)
    case = "extra memory of fit, diag K=100, 20k x 784 float32"
    record(case, "MB", [ours], [peer], "scikit-learn", limit=32.0)
