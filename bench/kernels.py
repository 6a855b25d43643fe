"""What nvcc makes of every CUDA kernel, for every GPU architecture that pygen ships; no GPU is needed.

`make kernels` prints it; tests/test_kernels.py says what it must be. Sources, flags and architectures are CMake's own,
from the commands it would compile with. Columns: memory in bytes (shared: static alone; what a launch asks for does not
show), the launch bound in threads, the blocks that a multiprocessor's registers hold, and how often instructions occur
in the machine code (loads and stores: of 16 bytes or more, to global memory).
"""

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHEELS = Path(sysconfig.get_path("purelib")).glob("nvidia/*/bin")
PATH = os.pathsep.join(
    [sysconfig.get_path("scripts"), os.environ.get("PATH", ""), *map(str, WHEELS)]
)
TOOLS = ("cmake", "ninja", "nvcc", "c++filt", "cuobjdump", "nvdisasm")

# Instructions of interest. Newer GPUs have accesses of 32 bytes, too.
CLASSES = {
    "loads": r"LDG(STS)?\..*\b(128|256)\b.*",
    "stores": r"STG\..*\b(128|256)\b.*",
    "shared loads": r"LDS\..*\b128\b.*|LDSM\..*",
    "tensor": r"\w*MMA\b.*",
    "FFMA": r"FFMA\b.*",
    "local": r"(LDL|STL)\b.*",
}

# The same on all architectures shipped. A warp's registers come in units of 256, from one of four equal parts.
REGISTERS, PARTS, REGISTER_UNIT, WARP = 65536, 4, 256, 32
MAX_THREADS = 1024


class Unavailable(RuntimeError):
    """This machine cannot compile or disassemble kernels."""


@dataclass(frozen=True)
class Kernel:
    """One kernel, compiled for one architecture; memory in bytes."""

    name: str
    architecture: str
    registers: int
    stack: int
    spills: int
    shared: int
    max_threads: int | None
    counts: dict[str, int]

    @property
    def blocks(self) -> int:
        """Blocks of the most threads allowed whose registers fit a multiprocessor."""
        unit = -(-self.registers * WARP // REGISTER_UNIT) * REGISTER_UNIT
        warps = PARTS * (REGISTERS // PARTS // unit)
        return warps // -(-(self.max_threads or MAX_THREADS) // WARP)


def run(*command: str | Path) -> tuple[str, str]:
    """Standard output and error of a command that must succeed."""
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PATH": PATH}, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{shlex.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout, done.stderr


def compile_commands() -> Iterator[tuple[Path, str, list[str]]]:
    """Each CUDA source of the default build and each architecture: CMake's command without source and output.

    Raises
    ------
    Unavailable
        A tool is missing, or CMake found that nvcc does not work here.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    if missing:
        raise Unavailable(f"no {', '.join(missing)}: kernels cannot be compiled and read")
    with tempfile.TemporaryDirectory() as build:
        options = [f"-DPython_EXECUTABLE={sys.executable}", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON"]
        run("cmake", "-G", "Ninja", "-S", ROOT, "-B", build, *options)
        entries = json.loads((Path(build) / "compile_commands.json").read_text())
    entries = [entry for entry in entries if entry["file"].endswith(".cu")]
    if not entries:
        raise Unavailable(
            "nvcc does not work here: CMake leaves CUDA out, `cmake -S . -B build` says why"
        )
    for entry in entries:
        command = shlex.split(entry["command"])
        targets = [option for option in command if option.startswith("--generate-code=")]
        others = [option for option in command[: command.index("-c")] if option not in targets]
        for target in targets:
            real = re.search(r"arch=(\w+),code=.*\b(sm_\w+)", target)
            if real:  # what has none is PTX, compiled by the driver of a GPU to come
                option = f"--generate-code=arch={real[1]},code={real[2]}"
                yield Path(entry["file"]), real[2], [*others, option]


def compile_kernels(source: Path, architecture: str, command: Sequence[str]) -> list[Kernel]:
    """Compile a CUDA source for one architecture; read what ptxas says and the machine code."""
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernels.cubin"
        _, told = run(*command, "-Xptxas=-v", "-cubin", source, "-o", binary)
        sass, _ = run("cuobjdump", "-sass", binary)
        elf, _ = run("cuobjdump", "-elf", binary)
    code = sections(sass, r"^\s*Function : (\S+)$")
    attributes = sections(elf, r"^\.nv\.info\.(\S+)$")
    kernels = []
    for symbol, entry in sections(told, r"Compiling entry function '(.*?)'").items():
        # A function that was not inlined has a frame of its own.
        frames = re.findall(r"(\d+) bytes stack frame, (\d+) .* stores, (\d+) .* loads", entry)
        stacks, stores, loads = zip(*frames, strict=True)
        shared = re.search(r"(\d+) bytes smem", entry)
        kernels.append(
            Kernel(
                name=demangle(symbol),
                architecture=architecture,
                registers=int(re.findall(r"Used (\d+) registers", entry)[0]),
                stack=sum(map(int, stacks)),
                spills=sum(map(int, stores + loads)),
                shared=int(shared[1]) if shared else 0,
                max_threads=launch_bound(attributes[symbol]),
                counts=instruction_counts(code[symbol]),
            )
        )
    return sorted(kernels, key=lambda kernel: kernel.name)


def sections(text: str, heading: str) -> dict[str, str]:
    """The parts of a text, by the symbol that a part's heading names."""
    parts = re.split(heading, text, flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def instruction_counts(sass: str) -> dict[str, int]:
    found = Counter(re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", sass))
    return {
        label: sum(n for name, n in found.items() if re.fullmatch(pattern, name))
        for label, pattern in CLASSES.items()
    }


def launch_bound(attributes: str) -> int | None:
    bound = re.search(r"EIATTR_MAX_THREADS\s+Format:.*\s+Value:\s+(\w+) (\w+) (\w+)", attributes)
    return math.prod(int(extent, 16) for extent in bound.groups()) if bound else None


def demangle(symbol: str) -> str:
    """The kernel's name as its source has it, without namespace and parameters."""
    name = run("c++filt", "-p", symbol)[0].strip()
    return re.sub(r"pygen::|\(anonymous namespace\)::", "", name)


def cells(kernel: Kernel) -> list[str]:
    bound = "none" if kernel.max_threads is None else str(kernel.max_threads)
    numbers = [kernel.registers, kernel.spills, kernel.stack, kernel.shared]
    return [
        kernel.name,
        kernel.architecture,
        *map(str, numbers),
        bound,
        str(kernel.blocks),
        *(str(kernel.counts[label]) for label in CLASSES),
    ]


def main() -> None:
    try:
        commands = list(compile_commands())
    except Unavailable as error:
        sys.exit(str(error))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        kernels = chain.from_iterable(pool.map(lambda command: compile_kernels(*command), commands))
    headings = ["kernel", "GPU", "registers", "spills", "stack", "shared", "bound", "blocks"]
    lines = [[*headings, *CLASSES], *map(cells, sorted(kernels, key=lambda kernel: kernel.name))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *others in lines:
        print(
            name.ljust(widths[0]),
            *(o.rjust(w) for o, w in zip(others, widths[1:], strict=True)),
            sep="  ",
        )


if __name__ == "__main__":
    main()
