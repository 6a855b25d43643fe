"""The parts that run other programs: the build in place, pytest, compute-sanitizer, each within a time limit."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.gpu.results import ROOT

# Seconds; each is to be done within ten minutes on its own.
LIMIT = 570
# Where the build finds what pip installs into this Python.
PATH = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
TESTS = {
    "gpu": ["tests/gpu"],
    "ops": ["-k", "cuda", "tests/ops", "tests/nn", "tests/deep"],
    # Estimators compute on the GPU by themselves where there is one.
    "density": ["tests/density"],
}
SANITIZERS = ("memcheck", "racecheck")
# What compute-sanitizer runs: every operator once, on small odd sizes.
SANITIZED = ["-k", "test_equals_float64 and cuda", "tests/gpu/test_operators.py"]


@dataclass
class Part:
    """How a part ended: "ok", "skipped: why", or else what went wrong."""

    status: str
    seconds: float = 0.0

    @property
    def fine(self) -> bool:
        return self.status == "ok" or self.status.startswith("skipped")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run(command: Sequence[str | Path], limit: float = LIMIT, **environment: str) -> Part:
    """Run a command, with what it starts, for at most ``limit`` seconds; its output goes where ours goes."""
    print("+", *command, flush=True)
    begin = time.monotonic()
    variables = {**os.environ, "PATH": PATH, "PYTHONPATH": str(ROOT), **environment}
    with subprocess.Popen(command, cwd=ROOT, env=variables, start_new_session=True) as process:
        try:
            code = process.wait(limit)
            status = "ok" if code == 0 else f"failed, exit {code}"
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            status = f"over {limit:.0f} s"
    return Part(status, time.monotonic() - begin)


def missing_for_build() -> list[str]:
    """What the build needs and this machine lacks."""
    missing = [name for name in ("torch", "pybind11") if importlib.util.find_spec(name) is None]
    missing += [
        tool for tool in ("cmake", "ninja", "nvcc") if shutil.which(tool, path=PATH) is None
    ]
    if not any(shutil.which(name, path=PATH) for name in ("c++", "g++", "clang++")):
        missing.append("a C++ compiler")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        missing.append("Python.h")
    return missing


def architecture() -> str:
    """Of the GPU at hand, as CMake names it; a Hopper's where there is none."""
    import torch

    if not torch.cuda.is_available():
        return "90a-real"
    major, minor = torch.cuda.get_device_capability()
    # Of 9.0 only the suffix a has all instructions.
    return f"{major}{minor}{'a' if (major, minor) == (9, 0) else ''}-real"


def build() -> Part:
    """Build ``pygen._C`` into the package, for this GPU alone; nothing is installed or fetched."""
    missing = missing_for_build()
    if missing:
        return Part(f"failed, this Python or PATH lacks: {', '.join(missing)}")
    folder = ROOT / "build" / "gpu"
    configured = run(
        [
            *("cmake", "-G", "Ninja", "-S", ROOT, "-B", folder),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={ROOT / 'pygen'}",
            f"-DPYGEN_CUDA_ARCHITECTURES={architecture()}",
        ]
    )
    if not configured.fine:
        return configured
    built = run(["cmake", "--build", folder], LIMIT - configured.seconds)
    if not built.fine:
        return built
    # CMake goes on without CUDA where nvcc does not work, or does not know the architecture.
    loads = (
        "from pygen.ops import native, native_error as e; assert native, e; print('compiled by',"
    )
    loads += (
        " native.compiler, 'and', native.cuda_compiler or 'no nvcc', native.cuda_architectures);"
    )
    loads += " assert native.cuda_compiler, 'CMake left CUDA out: its output above says why'"
    loaded = run([sys.executable, "-c", loads], 120)
    return Part(loaded.status, configured.seconds + built.seconds + loaded.seconds)


def test(name: str) -> Part:
    """One group of :data:`TESTS`."""
    if importlib.util.find_spec("pytest") is None:
        return Part("failed, this Python lacks pytest")
    # As in pyproject.toml, less what needs pytest-benchmark.
    options = ["-o", "addopts=--import-mode=importlib", "-q", "-rs", "--durations=5"]
    for file, module in unimportable():
        print(f"{file} is left out: this Python lacks {module}")
        options.append(f"--ignore={file}")
    return run([sys.executable, "-m", "pytest", *options, *TESTS[name]])


def unimportable() -> Iterator[tuple[str, str]]:
    """Test files, and a module each of them needs that is not there."""
    optional = ("hypothesis", "pandas", "scipy")
    absent = [name for name in optional if importlib.util.find_spec(name) is None]
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        text = file.read_text()
        for name in absent:
            if re.search(rf"^(from|import) {name}\b", text, re.M):
                yield str(file.relative_to(ROOT)), name


def sanitize(tool: str) -> Part:
    """Every operator on small inputs under a tool of compute-sanitizer, which looks at pygen's kernels alone."""
    sanitizer = shutil.which("compute-sanitizer", path=PATH)
    if sanitizer is None:
        return Part("skipped: compute-sanitizer is not on the PATH")
    if importlib.util.find_spec("pytest") is None:
        return Part("failed, this Python lacks pytest")
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", "--kernel-name", "kns=pygen"]
    print("does the tool work here?", flush=True)
    # Each tensor a piece of memory of its own: in torch's pool an access outside it would hit another's.
    alone = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    # It must find nothing in a run without pygen's kernels before it is believed about them.
    probe = run(
        [*command, sys.executable, "-c", "import torch; torch.ones(3).cuda()"], 120, **alone
    )
    if not probe.fine:
        return Part(f"skipped: {tool} does not work here ({probe.status}; its output is above)")
    pytest = [sys.executable, "-m", "pytest", "-o", "addopts=--import-mode=importlib", "-q", "-x"]
    tested = run([*command, *pytest, *SANITIZED], LIMIT - 120, **alone)
    return Part(tested.status, probe.seconds + tested.seconds)
