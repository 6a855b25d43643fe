"""`pygen info`: what is installed, what is missing, and how to get it."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import torch

import pygen
from pygen import ops
from pygen.cli import options
from pygen.data import NAMES, search_folders
from pygen.data.sources import SOURCES, find


def run(asked: options.Info) -> None:
    """Carry out `pygen info`."""
    for lines in (_versions(), _extension(), _devices(), _data()):
        for name, value in lines:
            print(f"{name:<20}{value}")
        print()


def _versions() -> Iterator[tuple[str, str]]:
    yield "pygen", pygen.__version__
    yield "python", f"{platform.python_version()} ({platform.system()} {platform.machine()})"
    yield "torch", str(torch.__version__)
    for package in ("numpy", "scikit-learn"):
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "missing; get it: pip install " + package


def _extension() -> Iterator[tuple[str, str]]:
    native = ops.native
    if native is None:
        yield "extension", f"missing, plain PyTorch is used (slower): {ops.native_error}"
        yield "", "get it: install a C++ compiler (CUDA kernels: also nvcc), then pygen again"
        return
    yield "extension", f"pygen._C, {native.compiler}, built against torch {native.torch_version}"
    unit = ", AMX for bfloat16" if native.cpu_matrix_unit else ""
    yield "CPU kernels", native.cpu_instruction_set + unit
    if native.cuda_architectures:
        yield "CUDA kernels", f"{native.cuda_architectures}, {native.cuda_compiler}"
    else:
        yield "CUDA kernels", "missing; get them: install nvcc (the CUDA toolkit), then pygen again"


def _devices() -> Iterator[tuple[str, str]]:
    yield "device cpu", f"{torch.get_num_threads()} threads"
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        memory = f"{found.total_memory / 2**30:.0f} GiB"
        yield f"device cuda:{index}", f"{found.name}, sm_{found.major}{found.minor}, {memory}"
    if torch.version.cuda is None:
        yield "device cuda", "missing: this torch is built without CUDA; get it: pytorch.org"
    elif not torch.cuda.is_available():
        yield (
            "device cuda",
            f"missing: torch is built for CUDA {torch.version.cuda}, but sees no GPU",
        )


def _data() -> Iterator[tuple[str, str]]:
    folders = search_folders()
    yield "data folders", ", ".join(str(folder) for folder in folders)
    for name in NAMES:
        if name not in SOURCES:
            yield f"data {name}", "part of scikit-learn"
        elif path := find(name):
            yield f"data {name}", str(path)
        else:
            yield (
                f"data {name}",
                f"missing; get it: name it as --data (fetched from openml.org), or put its files "
                f"into {folders[0] / name}",
            )
