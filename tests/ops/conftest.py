"""Compiles the CPU's kernels for each instruction set: the extension runs the best one only.

And makes what tests of this folder share importable: ``from mixtures import reference``.
"""

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
ROOT = HERE.parents[1]
# Name, what /proc/cpuinfo must list, compiler flags, as CMakeLists.txt has them.
INSTRUCTION_SETS = [
    ("baseline", "", ""),
    ("avx2", "avx2 fma", "-mavx2 -mfma"),
    (
        "avx512",
        "avx512f avx512dq avx512bw avx512vl",
        "-mavx2 -mfma -mavx512f -mavx512dq -mavx512bw -mavx512vl",
    ),
]


@pytest.fixture(params=INSTRUCTION_SETS, ids=[name for name, *_ in INSTRUCTION_SETS])
def compiled(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., ctypes.CDLL]:
    """``compiled(file, *sources)``: a C++ file of this folder, and others, for one instruction set after another."""
    name, needs, flags = request.param
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    cpu = Path("/proc/cpuinfo")
    if needs and not (cpu.exists() and set(needs.split()) <= set(cpu.read_text().split())):
        pytest.skip(f"this processor is not known to have {needs}")

    def load(file: str, *sources: str) -> ctypes.CDLL:
        library = tmp_path / "library.so"
        options = f"-std=c++17 -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math {flags}"
        command = [compiler, *options.split(), f"-DPYGEN_ISA={name}", f"-I{ROOT}", "-fPIC"]
        files = [HERE / file, *(ROOT / source for source in sources)]
        subprocess.run([*command, "-shared", *files, "-o", library], check=True)
        return ctypes.CDLL(str(library))

    return load
