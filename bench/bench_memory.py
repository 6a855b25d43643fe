"""Memory that fitting a mixture takes beyond its data, each measurement in a process of its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

CHILD = Path(__file__).with_name("peak_memory.py")


CASES = [
    (20_000, 100, False),
    (200_000, 10, True),
    (200_000, 100, True),
]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize(("n", "n_components", "mapped"), CASES)
def test_fit_memory(
    rows: Callable[[int, str], np.ndarray],
    benchmark: BenchmarkFixture,
    record: Callable[..., None],
    tmp_path: Path,
    n: int,
    n_components: int,
    mapped: bool,
) -> None:
    data = tmp_path / "rows.npy"
    file = np.lib.format.open_memmap(data, "w+", np.float32, (n, 784))
    for start in range(0, n, 20_000):  # the same rows again and again
        file[start : start + 20_000] = rows(20_000, "float32")
    file.flush()
    more = ["--mapped"] if mapped else []

    def measure(library: str) -> tuple[float, float]:
        command = [sys.executable, str(CHILD), library, str(data), str(n_components), *more]
        words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        return float(words[0]), float(words[1])

    try:
        ours, bound = benchmark.pedantic(measure, args=("pygen",))
        peer, peer_bound = measure("scikit-learn")
    finally:
        data.unlink()
    assert bound == pytest.approx(peer_bound, rel=0.02)
    size = f"{n // 1000}k x 784 float32" + (", memory-mapped" if mapped else "")
    case = f"extra memory of fit, diag K={n_components}, {size}"
    record(case, "MB", [ours], [peer], "scikit-learn", limit=32.0)
