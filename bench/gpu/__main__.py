"""The command line of bench/gpu.sh, which says what it takes."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Read when scikit-learn is imported: lets it compute on tensors.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import torch

from bench.gpu import conv, kmeans, mixture, networks, parts, results, sampling
from bench.gpu.measure import Machine, Work, tf32
from bench.gpu.parts import Part

CASES: dict[str, Callable[[Machine], Iterator[Work]]] = {
    **sampling.CASES,
    **mixture.CASES,
    **kmeans.CASES,
    **networks.CASES,
    **conv.CASES,
}
# Seconds of one case, of one whose compiler tries variants, and the least time left in which another is begun.
CASE_LIMIT, AUTOTUNE_LIMIT, LEAST = 240, 420, 90


def measure(name: str, device: str, out: Path) -> int:
    """One case, in this process; rows are written as they come."""
    machine = Machine(device)
    rows: list[dict[str, Any]] = []
    for work in CASES[name](machine):
        with tf32(False):
            rows.append(asdict(machine.measure(work)))
        results.write(out, {"rows": rows, "facts": machine.facts() | results.state_of_gpu()})
        if not machine.rehearsal:
            torch.cuda.empty_cache()
    wrong = [row for row in rows if row["failure"] and row["name"].startswith("pygen")]
    return 1 if wrong else 0


def bench(names: list[str], device: str, path: Path, seconds: float) -> Iterator[tuple[str, Part]]:
    """Cases, each in a process of its own: a crash or a hang costs the others nothing."""
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            left = until - time.monotonic()
            if left < LEAST:
                yield name, Part("skipped: no time left, run bench again")
                continue
            out = Path(folder) / f"{name}.json"
            command = [sys.executable, "-m", "bench.gpu", "case", name]
            limit = AUTOTUNE_LIMIT if name.endswith("autotune") else CASE_LIMIT
            part = parts.run([*command, "--device", device, "--out", out], min(limit, left))
            found = results.load(out) if out.exists() else {"rows": [], "facts": {}}
            results.merge(path, "cases", name, found | part.as_dict())
            yield name, part


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/gpu.sh")
    commands = parser.add_subparsers(dest="command", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--results", type=Path, default=results.ROOT / "bench" / "results")
    commands.add_parser("build", parents=[common])
    for command, names in (("test", parts.TESTS), ("sanitize", parts.SANITIZERS)):
        commands.add_parser(command, parents=[common]).add_argument(
            "names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; default: all"
        )
    timed = argparse.ArgumentParser(add_help=False)
    timed.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    for command, more, seconds in (("bench", [timed], 570.0), ("all", [], float("inf"))):
        one = commands.add_parser(command, parents=[common, *more])
        one.add_argument("names", nargs="*", metavar="CASE", help="default: those not yet measured")
        one.add_argument("--seconds", type=float, default=seconds)
    commands.add_parser("list")
    commands.add_parser("show").add_argument("file", type=Path)
    case = commands.add_parser("case", parents=[timed])
    case.add_argument("name", choices=CASES)
    case.add_argument("--out", type=Path, required=True)
    return parser


def chosen(
    parser: argparse.ArgumentParser, names: list[str], known: Any, default: list[str]
) -> list[str]:
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return names or default


def programs(
    parser: argparse.ArgumentParser, asked: argparse.Namespace
) -> Iterator[tuple[str, Part]]:
    """The parts before the benchmarks, as far as they are asked for."""
    everything = asked.command == "all"
    if everything or asked.command == "build":
        yield "build", parts.build()
    for command, known, function in (
        ("test", parts.TESTS, parts.test),
        ("sanitize", parts.SANITIZERS, parts.sanitize),
    ):
        if everything or asked.command == command:
            for name in chosen(parser, [] if everything else asked.names, known, list(known)):
                yield f"{command} {name}", function(name)


def everything_asked(parser: argparse.ArgumentParser, asked: argparse.Namespace) -> int:
    """Run the parts, merge what they find, show it; 1 if anything failed."""
    device = getattr(asked, "device", "cuda")
    path = results.file_of_today(asked.results, device)
    ended: dict[str, Part] = {}
    for name, part in programs(parser, asked):
        ended[name] = part
        results.merge(path, "parts", name, part.as_dict())
    if asked.command in ("bench", "all"):
        measured = results.load(path)["cases"]
        left = [name for name in CASES if measured.get(name, {}).get("status") != "ok"]
        todo = chosen(parser, asked.names, CASES, left)
        ended |= bench(todo, device, path, asked.seconds)
    found = results.load(path)
    # The newest facts: a build changes them.
    results.write(path, {**found, "facts": results.facts(device)})
    results.show(results.load(path))
    print(f"\nkept as {path}")
    for name, part in ended.items():
        print(f"{name}: {part.status}, {part.seconds:.0f} s")
    return 0 if all(part.fine for part in ended.values()) else 1


def main() -> int:
    parser = command_line()
    asked = parser.parse_args()
    if asked.command == "list":
        print(*CASES, sep="\n")
        return 0
    if asked.command == "show":
        results.show(results.load(asked.file))
        return 0
    device = getattr(asked, "device", "cuda")
    if asked.command != "build" and device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no CUDA device; bench --device cpu rehearses the benchmarks")
    if asked.command == "case":
        return measure(asked.name, device, asked.out)
    return everything_asked(parser, asked)


if __name__ == "__main__":
    sys.exit(main())
