"""Hands the native build to CMakeLists.txt; without the tools for it, installs pygen alone."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).parent.resolve()
PATH = sysconfig.get_path("scripts") + os.pathsep + os.environ.get("PATH", "")
CXX = os.environ.get("CXX", "").split()[:1] or ["c++", "g++", "clang++"]
TOOLS = {"a C++ compiler": CXX, "cmake": ["cmake"], "ninja": ["ninja"]}


def build_failure(build: Path, output: Path, *options: str) -> str | None:
    """Build into ``output``, without CUDA if it fails with it; returns what went wrong."""
    missing = [
        tool for tool, names in TOOLS.items() if not any(shutil.which(n, path=PATH) for n in names)
    ]
    if missing:
        return " and ".join(missing) + " not found"
    configure = ["cmake", "-G", "Ninja", "-S", ROOT, "-B", build, *options]
    configure += [f"-DPython_EXECUTABLE={sys.executable}"]
    configure += [f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output}"]
    wanted = os.environ.get("PYGEN_CUDA_ARCHITECTURES")
    default = "-UPYGEN_CUDA_ARCHITECTURES"
    for architectures in (
        default if wanted is None else f"-DPYGEN_CUDA_ARCHITECTURES={wanted}",
        "-DPYGEN_CUDA_ARCHITECTURES=off",
    ):
        try:
            for command in ([*configure, architectures], ["cmake", "--build", build]):
                subprocess.run(command, check=True, env={**os.environ, "PATH": PATH})
            return None
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"pygen: {error}", file=sys.stderr)
    return "the C++ build failed; `pip install -v` shows why"


class CMakeBuild(build_ext):
    """Leaves what went wrong beside the package, for `pygen info`."""

    def build_extension(self, ext: Extension) -> None:
        output = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        if self.editable_mode:  # the same folder each time: a rebuild compiles what changed
            package, build, options = ROOT / "pygen", ROOT / "build" / "editable", []
        else:
            package, build, options = output, Path(self.build_temp).resolve(), ["--fresh"]
        note = package / "native_build.txt"
        note.unlink(missing_ok=True)
        reason = build_failure(build, output, *options)
        if reason:
            package.mkdir(parents=True, exist_ok=True)
            note.write_text(reason + "\n")
            raise CompileError(f"pygen is installed without compiled kernels (slower): {reason}.")


setup(
    ext_modules=[Extension("pygen._C", sources=[], optional=True)],
    cmdclass={"build_ext": CMakeBuild},
)
