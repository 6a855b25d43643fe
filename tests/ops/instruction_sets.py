"""Compiles the CPU's kernels for one instruction set: the extension runs the best one only."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class InstructionSet(NamedTuple):
    """As CMakeLists.txt has it, and what /proc/cpuinfo must list."""

    name: str
    needs: str
    flags: str

    def compile(self, folder: Path, file: str, *sources: str) -> ctypes.CDLL:
        """A C++ file of this folder, and others."""
        compiler = shutil.which("c++") or shutil.which("g++")
        if compiler is None:
            pytest.skip("no C++ compiler")
        cpu, needs = Path("/proc/cpuinfo"), set(self.needs.split())
        if needs and not (cpu.exists() and needs <= set(cpu.read_text().split())):
            pytest.skip(f"this processor is not known to have {self.needs}")
        library = folder / "library.so"
        options = (
            f"-std=c++17 -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math {self.flags}"
        )
        command = [compiler, *options.split(), f"-DPYGEN_ISA={self.name}", f"-I{ROOT}", "-fPIC"]
        files = [HERE / file, *(ROOT / source for source in sources)]
        subprocess.run([*command, "-shared", *files, "-o", library], check=True)
        return ctypes.CDLL(str(library))


INSTRUCTION_SETS = [
    InstructionSet("baseline", "", ""),
    InstructionSet("avx2", "avx2 fma", "-mavx2 -mfma"),
    InstructionSet(
        "avx512",
        "avx512f avx512dq avx512bw avx512vl",
        "-mavx2 -mfma -mavx512f -mavx512dq -mavx512bw -mavx512vl",
    ),
]
# It has kernels of its own.
MATRIX_UNIT = InstructionSet(
    "amx",
    f"{INSTRUCTION_SETS[-1].needs} amx_tile amx_bf16",
    f"{INSTRUCTION_SETS[-1].flags} -mamx-tile -mamx-bf16 -DPYGEN_X86_64 -DPYGEN_AMX",
)
