"""The fast mode of `normal`, executed on the CPU."""

import pytest
import torch
from harness import Program

from pygen import ops

# In the order of pygen::Real.
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]

PROGRAM = Program(
    "csrc/gaussian/gaussian.h", ["pygen::launch_fast_normal"], ["csrc/gaussian/cuda.cu"]
)


@pytest.mark.parametrize("mode", ["plain", "address"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 5, 20_001])
def test_fast_draws_are_the_exact_ones_within_their_error(n, dtype, mode):
    state, expected_state = (torch.tensor([77, 2**32 - 5]) for _ in range(2))
    out = torch.full([n], float("nan"), dtype=dtype)
    state, out = PROGRAM.call(
        "pygen::launch_fast_normal", state, out, n, DTYPES.index(dtype), None, mode=mode
    )
    exact = ops.normal(expected_state, [n], dtype)
    assert torch.equal(state, expected_state)
    # One more rounding in half precision; float64 has no fast mode.
    error = 1e-5 + 2 * torch.finfo(dtype).eps if dtype != torch.float64 else 0
    torch.testing.assert_close(out, exact, rtol=error, atol=error)
