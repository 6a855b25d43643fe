"""What was found on a machine in a day: one file, into which every part is merged, and its table."""

import datetime
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sklearn
import torch

import pygen
from pygen.files import write_file

ROOT = Path(__file__).parents[2]
QUERY = (
    "driver_version",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "power.draw",
    "power.limit",
    "temperature.gpu",
)
# Asked of a new process: this one may have begun before they were built.
KERNELS = "from pygen.ops import native as n; print(n.cuda_compiler, n.cuda_architectures)"


def facts(device: str) -> dict[str, Any]:
    """What the figures depend on."""
    found: dict[str, Any] = {
        "date": datetime.datetime.now().isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "pygen": pygen.__version__,
        "commit": output("git", "describe", "--always", "--dirty"),
        "kernels": output(sys.executable, "-c", KERNELS) or "none",
        "TF32": "off, but in works whose name says TF32",
    }
    if device != "cuda" or not torch.cuda.is_available():
        return found | {"GPU": "none: times mean nothing"}
    of = torch.cuda.get_device_properties(0)
    return found | {
        "GPU": of.name,
        "compute capability": f"{of.major}.{of.minor}",
        "memory, bytes": of.total_memory,
        "L2, bytes": of.L2_cache_size,
        "multiprocessors": of.multi_processor_count,
        "CUDA": torch.version.cuda,
        "cuDNN": torch.backends.cudnn.version(),
        **state_of_gpu(),
    }


def state_of_gpu() -> dict[str, str]:
    """The driver's word on clocks and the like, now."""
    values = output(
        "nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader", "-i", "0"
    )
    return dict(zip(QUERY, values.split(", "), strict=False)) if values else {}


def output(*command: str) -> str:
    """Standard output of a command; empty if it is missing or fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def file_of_today(folder: Path, device: str) -> Path:
    name = "rehearsal"
    if device == "cuda":
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no-gpu"
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return folder / f"{slug}-{datetime.date.today()}.json"


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {"parts": {}, "cases": {}}


def merge(path: Path, part: str, name: str, entry: dict[str, Any]) -> None:
    """Set an entry of the file, which is replaced as a whole."""
    result = load(path)
    result[part][name] = entry
    write(path, result)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, (json.dumps(content, indent=1) + "\n").encode())


def lines(name: str, rows: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """A case's lines of the table."""
    medians = {row["name"]: row["median"] for row in rows}
    first = rows[0]["median"] if rows else None
    for row in rows:
        median = row["median"]
        if median is None:
            yield name, row["name"], "", "", "", "", "", "", row["failure"] or ""
            continue
        error = "" if row["error"] is None else f"{row['error']:.1g}"
        yield (
            name,
            row["name"],
            f"{median * 1e3:.3f}",
            f"{row['quartiles'][0] * 1e3:.3f}-{row['quartiles'][1] * 1e3:.3f}",
            f"{row['floor'] * 1e3:.3f}",
            f"{row['floor'] / median:.0%}",
            f"{median / first:.2f}" if first else "",
            error,
            "; ".join(targets(row, medians)),
        )


def targets(row: dict[str, Any], medians: dict[str, float | None]) -> Iterator[str]:
    """Each target of a row, and whether it was met."""

    def verdict(met: bool) -> str:
        return "met" if met else "MISSED"

    if row["limit"] is not None:
        yield f"<= {row['limit'] * 1e3:g} ms {verdict(row['median'] <= row['limit'])}"
    if row["memory"] is not None and row["extra_bytes"] is not None:
        met = verdict(row["extra_bytes"] <= row["memory"])
        yield f"<= {row['memory'] / 1e6:g} MB extra ({row['extra_bytes'] / 1e6:.0f}) {met}"
    for peer, ratio in row["beats"].items():
        other = medians.get(peer)
        if other is None:
            yield f">= {ratio:g}x {peer}: not measured"
        else:
            found = other / row["median"]
            yield f">= {ratio:g}x {peer} ({found:.2f}) {verdict(found >= ratio)}"


def show(result: dict[str, Any]) -> None:
    """Print the facts, the parts and the table of a result."""
    for name, fact in result.get("facts", {}).items():
        print(f"{name}: {fact}")
    for name, part in result["parts"].items():
        print(f"{name}: {part['status']}, {part['seconds']:.0f} s")
    if not result["cases"]:
        return
    heading = (
        "case",
        "what",
        "ms",
        "quartiles",
        "floor",
        "of floor",
        "of first",
        "error",
        "targets",
    )
    table: list[tuple[str, ...]] = [heading]
    for name, case in result["cases"].items():
        table += lines(name, case["rows"])
        if case["status"] != "ok":
            table.append((name, "", "", "", "", "", "", "", case["status"]))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print()
    for cells in table:
        print("  ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)).rstrip())
    print(
        "\nms: median; floor: bytes by the copy bandwidth or operations by the matrix rate measured in that run,"
        " the larger; error: against float64"
    )
