"""Run the benchmarks and print pygen beside its peers.

compare.py                      run all, print the table
compare.py -k sample            only those whose name matches, as pytest's -k
compare.py --save [FILE]        keep what was measured beside what is kept of this machine; default
                                bench/results/CPU-CORES-INSTRUCTIONS.json
compare.py --threads 1          of every library; default: the cores there are
compare.py FILE                 print the table of what was kept
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

from pygen.files import write_file

BENCH = Path(__file__).parent
RESULTS = BENCH / "results"
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


def measured(path: Path) -> dict[str, Any]:
    """What pytest-benchmark wrote, as it is kept: the facts of the machine, and each case with its measurements."""
    result = json.loads(path.read_text())
    facts = result["machine_info"]["facts"]
    when = {"date": f"{datetime.date.today()}", "load before": facts.pop("load before")}
    cases = {}
    for benchmark in result["benchmarks"]:
        case = benchmark["extra_info"]
        if case:  # a test that failed after it was timed has none
            for times in ("ours", "peer"):
                case[times] = [float(f"{value:.4g}") for value in case[times]]
            cases[case["case"]] = case | when
    return {"facts": facts, "cases": cases}


def keep(result: dict[str, Any], path: Path) -> None:
    """Put new cases in the place of the old ones of their names; those of another machine or other versions beside."""
    if path.exists():
        old = json.loads(path.read_text())
        if old["facts"] == result["facts"]:
            result = result | {"cases": old["cases"] | result["cases"]}
        else:
            print(f"{path}: of another machine, other versions or threads; it stays as it is")
            path = path.with_stem(f"{path.stem}-{datetime.datetime.now():%Y-%m-%d-%H%M%S}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, json.dumps(result, indent=1).encode() + b"\n")
    print(f"kept in {path}")


def show(result: dict[str, Any]) -> None:
    """Print the table and the facts of results."""
    lines = [("case", "pygen", "peer", "ratio", "quartiles", "target", "")]
    lines += map(line, result["cases"].values())
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print()
    for cells in lines:
        first, *others = (cell.ljust(w) for cell, w in zip(cells, widths, strict=True))
        print(first, *others, sep="  ")
    print()
    for name, fact in result["facts"].items():
        print(f"{name}: {fact}")
    print(
        "ratio: the peer's median over pygen's; calls in alternating blocks, after one to warm up"
    )


def file_of(facts: dict[str, Any]) -> Path:
    """Where results of a machine are kept: the CPU's own name may say little more than who made it."""
    machine = f"{facts['CPU']} {facts['cores']} cores {facts['instructions']}"
    name = re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")
    return RESULTS / f"{name}.json"


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
        show(json.loads(arguments.result.read_text()))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        status = run(path, arguments.threads, arguments.k)
        if not path.exists() or not path.read_text():
            print("Nothing was measured; pytest's output above says why.", file=sys.stderr)
            return status or 1
        result = measured(path)
        show(result)
        if arguments.save is not None:
            keep(result, Path(arguments.save) if arguments.save else file_of(result["facts"]))
    return status


if __name__ == "__main__":
    sys.exit(main())
