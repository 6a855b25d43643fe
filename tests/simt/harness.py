"""Kernels executed on the CPU: builds the host code of a kernel family with g++ and calls it from Python.

``Program`` compiles a family's ``cuda.cu`` as C++ against the stand-ins of ``include`` and ``runtime.cpp``, in one of
three modes: ``plain``, ``address`` (AddressSanitizer and UndefinedBehaviorSanitizer) and ``thread``
(ThreadSanitizer, to which the threads of a launch are concurrent threads that only barriers order).
"""

import contextlib
import functools
import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODES = ("plain", "address", "thread")
# Mode, and whether blocks run backwards.
RUNS = (("plain", False), ("address", True), ("thread", False))

# One rounding per operation, as nvcc's --fmad=false; type punning is allowed on a GPU.
_FLAGS = [
    "-std=c++17",
    "-O1",
    "-g1",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-Wno-unknown-pragmas",
]
_SANITIZERS: dict[str, list[str]] = {
    "plain": [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}
_RUNTIME: dict[str, list[str]] = {
    "plain": [],
    "address": ["-DSIMT_ADDRESS"],
    "thread": ["-DSIMT_THREAD"],
}
_SECONDS = 120


class Failure(Exception):
    """A kernel did what it must not.

    Attributes
    ----------
    finder : str
        ``address``, ``undefined`` or ``thread`` (the sanitizers), ``guard`` (a write outside a
        buffer), ``simt`` (the runtime: barriers, masks, launches), ``error`` (the function
        returned one), ``time`` (it does not end) or ``crash``.
    """

    def __init__(self, finder: str, text: str) -> None:
        super().__init__(f"{finder}: {text}")
        self.finder = finder


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pygen-simt-")


def _compile(arguments: Sequence[object], output: Path) -> Path:
    includes = [
        f"-I{folder}" for folder in (HERE / "include", HERE, Path(torch.__path__[0]) / "include")
    ]
    command = ["g++", *_FLAGS, *includes, *map(str, arguments), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"does not compile: {' '.join(command)}\n{done.stderr}")
    return output


@functools.cache
def _run_prefix(mode: str) -> list[str]:
    """What a program of `mode` is run by. Skips the test where such programs do not run."""
    if not sys.platform.startswith("linux") or shutil.which("g++") is None:
        pytest.skip("kernels are executed on Linux, compiled by g++")
    source = Path(_folder().name) / "nothing.cpp"
    source.write_text("int main() {}\n")
    try:
        program = _compile([*_SANITIZERS[mode], source], source.with_name(f"nothing-{mode}"))
    except RuntimeError as error:
        pytest.skip(f"g++ lacks a sanitizer: {error}")
    # An older sanitizer finds no place for its shadow, now and then, where addresses are randomised widely.
    for prefix in (["setarch", "-R"], []):
        with contextlib.suppress(OSError):
            if subprocess.run([*prefix, program], capture_output=True, check=False).returncode == 0:
                return prefix
    pytest.skip(f"programs under this sanitizer do not run here: {' '.join(_SANITIZERS[mode])}")


@functools.cache
def _runtime(mode: str) -> tuple[Path, ...]:
    """The runtime's object files: they call the sanitizers' functions, but are not instrumented."""
    return tuple(
        _compile(
            ["-c", *_RUNTIME[mode], HERE / source],
            Path(_folder().name) / f"{source.removesuffix('.cpp')}-{mode}.o",
        )
        for source in ("runtime.cpp", "warp.cpp")
    )


def _object(source: Path, mode: str) -> Path:
    """A source's object file, compiled once: copies of it that read the same are taken for it."""
    options = ["-include", "simt_ptx.h", *_SANITIZERS[mode], "-x", "c++", source]
    key = hashlib.sha256(mode.encode())
    folder = Path(_folder().name)
    key.update(_compile(["-E", "-P", *options], folder / "preprocessed").read_bytes())
    name = folder / f"{source.stem}-{key.hexdigest()}.o"
    return name if name.exists() else _compile(["-c", *options], name)


class Program:
    """Host functions of CUDA sources, callable from Python.

    Parameters
    ----------
    header : str
        Declares the functions; relative to `root`.
    functions : sequence of str
        Their qualified names. Each takes pointers, numbers and enumerators and returns an error's
        text or null.
    sources : sequence of str
        Defines them; relative to `root`.
    root : path
        What file names are relative to.
    """

    def __init__(
        self,
        header: str,
        functions: Sequence[str],
        sources: Sequence[str],
        root: Path = ROOT,
    ) -> None:
        self.header, self.functions, self.sources, self.root = header, functions, sources, root
        self._built: dict[str, Path] = {}

    def at(self, root: Path) -> "Program":
        """The same program from another copy of its sources."""
        return Program(self.header, self.functions, self.sources, root)

    def build(self, mode: str) -> Path:
        """Compile for `mode`, once; returns the executable."""
        _run_prefix(mode)
        if mode not in self._built:
            folder = Path(tempfile.mkdtemp(dir=_folder().name))
            entries = ", ".join(f'{{"{f}", simt::Function<{f}>::call}}' for f in self.functions)
            main = folder / "main.cpp"
            main.write_text(
                f'#include "{self.root / self.header}"\n#include "program.h"\n'
                f"int main() {{ return simt::main({{{entries}}}); }}\n"
            )
            sources = [main, *(self.root / source for source in self.sources)]
            objects = [_object(source, mode) for source in sources]
            arguments = [*_SANITIZERS[mode], *objects, *_runtime(mode)]
            self._built[mode] = _compile(arguments, folder / mode)
        return self._built[mode]

    def call(
        self,
        function: str,
        *arguments: Tensor | int | float | None,
        mode: str = "plain",
        backwards: bool = False,
        multiprocessors: int = 2,
    ) -> list[Tensor]:
        """Call a function in a process of its own.

        Parameters
        ----------
        function : str
            One of `functions`.
        *arguments
            A contiguous CPU tensor for a pointer to its elements, None for a null pointer (and for
            the stream), an int or a float for a number.
        mode : {"plain", "address", "thread"}
        backwards : bool
            The last block, and in it the last thread, goes first.
        multiprocessors : int
            What the device is said to have.

        Returns
        -------
        list of Tensor
            The tensors among `arguments`, as the call left them. The arguments are not changed.

        Raises
        ------
        Failure
            If the function returns an error, or something finds fault with it.
        """
        environment = {
            **os.environ,
            "SIMT_MULTIPROCESSORS": str(multiprocessors),
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "TSAN_OPTIONS": "halt_on_error=1:atexit_sleep_ms=0",
        }
        if backwards:
            environment["SIMT_BACKWARDS"] = "1"
        command = [*_run_prefix(mode), str(self.build(mode))]
        request = struct.pack("=Q", len(function)) + function.encode()
        request += struct.pack("=Q", len(arguments)) + b"".join(map(_encode, arguments))
        try:
            done = subprocess.run(
                command,
                input=request,
                capture_output=True,
                env=environment,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failure("time", f"does not end within {_SECONDS} s") from error
        errors = done.stderr.decode(errors="replace")
        if done.returncode != 0 or "runtime error:" in errors:
            raise Failure(_finder(errors), errors or f"exit status {done.returncode}")
        results, position = [], 0
        for tensor in (a for a in arguments if isinstance(a, Tensor)):
            result = torch.empty(tensor.shape, dtype=tensor.dtype)
            if tensor.nbytes:
                data = bytearray(done.stdout[position : position + tensor.nbytes])
                result.view(-1).view(torch.uint8).copy_(torch.frombuffer(data, dtype=torch.uint8))
            position += tensor.nbytes
            results.append(result)
        return results


def _encode(argument: Tensor | int | float | None) -> bytes:
    if argument is None:
        return b"n"
    if isinstance(argument, Tensor):
        data = argument.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        return b"b" + struct.pack("=Q", len(data)) + data
    if isinstance(argument, int):
        return b"i" + struct.pack("=q", argument)
    return b"f" + struct.pack("=d", argument)


def _finder(errors: str) -> str:
    for finder, pattern in (
        ("address", "ERROR: AddressSanitizer"),
        ("thread", "WARNING: ThreadSanitizer: data race"),
        ("undefined", "runtime error:"),
        ("guard", "simt: guard:"),
        ("error", "simt: error:"),
        ("simt", "simt: "),
    ):
        if re.search(pattern, errors):
            return finder
    return "crash"
