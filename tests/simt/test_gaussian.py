"""The CUDA kernel's source, run on the CPU: what it computes and where it writes."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from pygen import ops

ROOT = Path(__file__).parents[2]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
GUARD = 64


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    library = tmp_path_factory.mktemp("simt") / "normal.so"
    includes = [ROOT / "tests" / "simt" / "serial", ROOT, Path(torch.__path__[0]) / "include"]
    subprocess.run(
        [
            compiler,
            "-std=c++17",
            "-O2",
            "-g",
            "-fPIC",
            "-shared",
            "-ffp-contract=off",
            "-fno-strict-aliasing",
        ]
        + ["-fsanitize=undefined", "-fno-sanitize-recover", "-fno-sanitize=vptr"]
        + [f"-I{folder}" for folder in includes]
        + [ROOT / "tests" / "simt" / "normal.cpp", "-o", library],
        check=True,
    )
    function = ctypes.CDLL(str(library)).normal
    function.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_uint,
        ctypes.c_int,
    ]
    return function


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("grid", [1, 3])
@pytest.mark.parametrize("n", [1, 3, 4, 5, 7, 8, 9, 1023, 4096, 10_001])
def test_kernel_has_the_operators_bits_and_writes_nothing_else(kernel, dtype, grid, n):
    state, expected_state = (torch.tensor([77, 2**32 - 5]) for _ in range(2))
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    out = torch.full([n + GUARD], -1, dtype=integer)  # a NaN of every type, which no draw is
    kernel(state.data_ptr(), out.data_ptr(), n, grid, DTYPES.index(dtype))
    assert torch.equal(out[:n], ops.normal(expected_state, [n], dtype).view(integer))
    assert (out[n:] == -1).all()
    assert torch.equal(state, expected_state)
