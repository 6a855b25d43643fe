"""The CUDA kernels of the gaussian family, executed on the CPU: what they compute and where they write."""

import pytest
import torch
from harness import MODES, Program

from pygen import ops

# In the order of pygen::Real.
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]

PROGRAM = Program("csrc/gaussian/gaussian.h", ["pygen::launch_normal"], ["csrc/gaussian/cuda.cu"])


def check_normal(program, n, dtype, **options):
    state, expected_state = (torch.tensor([77, 2**32 - 5]) for _ in range(2))
    out = torch.full([n], float("nan"), dtype=dtype)
    number = DTYPES.index(dtype)
    state, out = program.call("pygen::launch_normal", state, out, n, number, None, **options)
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    assert torch.equal(out.view(integer), ops.normal(expected_state, [n], dtype).view(integer))
    assert torch.equal(state, expected_state)


def exercise(program, **options):
    check_normal(program, 1023, torch.float32, **options)


SIZES = [1, 3, 4, 5, 7, 8, 9, 1023, 4096, 20_001]
CASES = [(mode, n) for mode in MODES for n in (SIZES if mode != "thread" else [9, 20_001])]


# One multiprocessor is filled by 8 blocks of 256 threads: the largest strides over them in every type.
@pytest.mark.parametrize(("mode", "n"), CASES)
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_normal_has_the_operators_bits_and_writes_nothing_else(dtype, backwards, mode, n):
    check_normal(PROGRAM, n, dtype, mode=mode, backwards=backwards, multiprocessors=1)


def test_normal_of_nothing_leaves_the_state():
    state, out = PROGRAM.call(
        "pygen::launch_normal", torch.tensor([77, 5]), torch.empty(0), 0, 0, None
    )
    assert state.tolist() == [77, 5]
    assert out.shape == (0,)
