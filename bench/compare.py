"""Run the benchmarks and print pygen beside its peers.

compare.py                      run all, print the table
compare.py -k sample            only those whose name matches, as pytest's -k
compare.py --save [FILE]        keep the measurements; default bench/results/CPU-DATE.json
compare.py --threads 1          of every library; default: the cores there are
compare.py FILE                 print the table of a run that was kept
"""

import argparse
import datetime
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BENCH = Path(__file__).parent
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def run(path: Path, threads: int, only: str | None) -> int:
    """Run pytest on bench/ into a JSON file; its exit status."""
    counts = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)
    )
    load = {"BENCH_LOAD_BEFORE": f"{os.getloadavg()[0]:.1f}"} if hasattr(os, "getloadavg") else {}
    command = [sys.executable, "-m", "pytest", *map(str, sorted(BENCH.glob("bench_*.py")))]
    command += ["-v", "-rs", "--no-header", "--benchmark-enable", "--benchmark-quiet"]
    command += [f"--benchmark-json={path}", *(["-k", only] if only else [])]
    return subprocess.run(command, env=os.environ | counts | load, cwd=BENCH.parent).returncode


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def line(case: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table. The spread of the ratio is that of its quartiles, the far ones divided by each other."""
    ours, peer = quartiles(case["ours"]), quartiles(case["peer"])
    factor, unit = (1e3, "ms") if case["unit"] == "s" else (1, case["unit"])
    ratio = peer[1] / ours[1]
    target, met = "", True
    if case["target_ratio"] is not None:
        target, met = f">= {case['target_ratio']:g}x", ratio >= case["target_ratio"]
    elif case["target_limit"] is not None:
        target, met = f"<= {case['target_limit']:g} {unit}", ours[1] <= case["target_limit"]
    return (
        case["case"],
        f"{ours[1] * factor:,.1f} {unit}",
        f"{peer[1] * factor:,.1f} {unit}",
        f"{ratio:.2f}x",
        f"{peer[0] / ours[2]:.2f}-{peer[2] / ours[0]:.2f}",
        target,
        "" if not target else "met" if met else "MISSED",
    )


def show(path: Path) -> None:
    """Print the table and the facts of a run."""
    result = json.loads(path.read_text())
    lines = [("case", "pygen", "peer", "ratio", "quartiles", "target", "")]
    # A test that failed after it was timed has no case.
    lines += [line(b["extra_info"]) for b in result["benchmarks"] if b["extra_info"]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print()
    for cells in lines:
        first, *others = (cell.ljust(w) for cell, w in zip(cells, widths, strict=True))
        print(first, *others, sep="  ")
    print()
    for name, fact in result["machine_info"]["facts"].items():
        print(f"{name}: {fact}")
    print(
        "ratio: the peer's median over pygen's; calls in alternating blocks, after one to warm up"
    )


def saved_as(path: Path) -> Path:
    """Where a run is kept if nothing else is said: named by CPU and date."""
    info = json.loads(path.read_text())["machine_info"]["facts"]
    name = re.sub(r"[^a-z0-9]+", "-", f"{info['CPU']} {info['cores']} cores".lower()).strip("-")
    return BENCH / "results" / f"{name}-{datetime.date.today():%Y-%m-%d}.json"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", nargs="?", type=Path)
    parser.add_argument("-k", metavar="EXPRESSION")
    parser.add_argument("--save", nargs="?", const="", metavar="FILE")
    parser.add_argument("--threads", type=int, default=CORES)
    arguments = parser.parse_args()
    if arguments.result:
        if not arguments.result.is_file():
            parser.error(f"{arguments.result}: no such file; give a run kept with --save")
        show(arguments.result)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        status = run(path, arguments.threads, arguments.k)
        if not path.exists() or not path.read_text():
            print("Nothing was measured; pytest's output above says why.", file=sys.stderr)
            return status or 1
        show(path)
        if arguments.save is not None:
            target = Path(arguments.save) if arguments.save else saved_as(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            print(f"kept as {target}")
    return status


if __name__ == "__main__":
    sys.exit(main())
