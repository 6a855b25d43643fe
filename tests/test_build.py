"""The native build: what it serves, what it must not hold, and pygen without it."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import pygen.ops
from pygen.ops import native

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pygen"

# Layers of the package, each importing only from those below it and from the leaves, which import
# nothing of pygen.
LAYERS = [{"cli"}, {"report", "metrics"}, {"density", "deep"}, {"nn"}, {"ops"}, {"_C"}]
LEAVES = {"arrays", "data", "files", "io", "pictures", "random"}


@pytest.mark.skipif(native is None, reason=f"no compiled kernels: {pygen.ops.native_error}")
def test_extension_serves_normal():
    assert torch._C._dispatch_has_kernel_for_dispatch_key("pygen::normal", "CPU")
    assert torch._C._dispatch_has_kernel_for_dispatch_key("pygen::normal", "CUDA") == bool(
        native.cuda_compiler
    )
    assert native.cpu_instruction_set in {"baseline", "avx2", "avx512"}
    assert native.torch_version.startswith("2.")


@pytest.mark.skipif(native is None, reason=f"no compiled kernels: {pygen.ops.native_error}")
def test_extension_is_found_by_whatever_is_imported_first():
    code = "import pygen.ops; assert pygen.ops.native, pygen.ops.native_error"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(native is None, reason=f"no compiled kernels: {pygen.ops.native_error}")
def test_extension_holds_no_build_path():
    binary = Path(native.__file__).read_bytes()
    assert (
        b"csrc/gaussian/ops.cpp" in binary
    )  # error messages name the source, relative to the project
    for folder in (ROOT, Path(torch.__path__[0]), Path(sys.prefix)):
        assert str(folder).encode() not in binary


def test_install_without_compiler(tmp_path):
    """The wheel is built, says what is missing, and works."""
    source, unpacked = tmp_path / "source", tmp_path / "unpacked"
    shutil.copytree(
        ROOT,
        source,
        ignore=shutil.ignore_patterns(
            ".*", "build", "runs", "*.so", "*.egg-info", "tests", "bench"
        ),
    )
    for required in ("README.md", "LICENSE"):
        (source / required).touch()
    environment = {**os.environ, "PATH": str(tmp_path), "CXX": "no-such-compiler"}
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-v",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    built = subprocess.run(
        [*pip, "-w", tmp_path, source], env=environment, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert re.search("without compiled kernels.*a C[+][+] compiler", built.stdout + built.stderr)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(unpacked)
    program = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'Editable' not in str(f)];"
        "import torch, pygen.ops as ops; assert ops.native is None; print(ops.native_error);"
        "print(ops.normal(torch.tensor([42, 7]), [2]).tolist())"
    )
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    found = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert "a C++ compiler" in found[0]
    assert found[1] == str(pygen.ops.normal(torch.tensor([42, 7]), [2]).tolist())


def test_kernel_files_include_no_torch_header():
    files = sorted([*ROOT.glob("csrc/**/*.cu"), *ROOT.glob("csrc/**/*.cuh")])
    assert files
    for file in files:
        for include in included(file):
            assert not re.match("torch|c10|ATen|pybind11", include), f"{file} includes {include}"


def included(file):
    """Names of headers that a file includes, through the project's own headers."""
    for quoted, angled in re.findall(r'^#include (?:"(.*)"|<(.*)>)', file.read_text(), re.M):
        yield quoted or angled
        if quoted:
            yield from included((file.parent / quoted).resolve())


def imports():
    """Pairs (importing file, imported module of pygen) over the package."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}:{node.lineno}: import by absolute name"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for name in names:
                if name.split(".")[0] == "pygen":
                    yield file.relative_to(PACKAGE), name


def part(name):
    """The layer's member that a module belongs to, or None for pygen itself and its version."""
    pieces = name.split(".")
    return pieces[1] if len(pieces) > 1 and not pieces[1].startswith("__") else None


def rank(member):
    return next((i for i, layer in enumerate(LAYERS) if member in layer), None)


def violation(file, name):
    """Why the import is against the layering, or None."""
    source, target = file.with_suffix("").parts[0], part(name)
    if source == "__init__" or target is None or source == target:
        return None
    if target == "_C":
        return None if source == "ops" else "only pygen.ops imports pygen._C"
    if source in LEAVES:
        return None if target in LEAVES else "a leaf imports only leaves"
    if target in LEAVES:
        return None
    if rank(source) is None or rank(target) is None:
        return "has no place in the layers"
    return None if rank(source) < rank(target) else "imports upward or sideways"


def test_imports_go_downward():
    found = [(str(f), n, why) for f, n in imports() if (why := violation(f, n))]
    assert not found
    assert any(name == "pygen.ops.gaussian.normal" for _, name in imports())


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("density/mixture.py", "pygen.deep.vae"),
        ("ops/gaussian.py", "pygen.density"),
        ("nn/blocks.py", "pygen._C"),
        ("data/idx.py", "pygen.ops"),
        ("density/mixture.py", "pygen.cli"),
        ("report/page.py", "pygen.metrics"),
    ],
)
def test_layering_check_sees(file, name):
    assert violation(Path(file), name)
