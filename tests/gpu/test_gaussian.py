"""What only a GPU can show of `normal`; tests/ops/test_gaussian.py runs on it too."""

import pytest
import torch

from pygen import ops
from pygen.random import new_state

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def equal_bits(a, b):
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    return torch.equal(a.cpu().view(integer), b.cpu().view(integer))


def test_cuda_kernel_is_the_one_that_runs():
    if ops.native is None or not ops.native.cuda_compiler:
        pytest.skip("built without CUDA kernels")
    assert torch._C._dispatch_has_kernel_for_dispatch_key("pygen::normal", "CUDA")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 3, 4, 7, 8, 1025, 2**24 + 1])
def test_bits_equal_the_cpus(dtype, n):
    state, expected = new_state(8, "cuda"), new_state(8)
    for _ in range(2):
        assert equal_bits(ops.normal(state, [n], dtype), ops.normal(expected, [n], dtype))
        assert state.tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_more_than_two_to_the_31_elements(dtype):
    n = 2**31 + 4 * 1000 + 3
    if torch.cuda.mem_get_info()[0] < 1.2 * n * dtype.itemsize:
        pytest.skip("not enough device memory")
    state = new_state(8, "cuda")
    draws = ops.normal(state, [n], dtype)
    assert state.tolist() == [8, -(-n // 4)]
    for start in (0, 2**30, 2**31 - 8, 2**31, n - 3):
        start -= start % 4
        part = draws[start : start + 1000]
        later = torch.tensor([8, start // 4])
        assert equal_bits(part, ops.normal(later, [len(part)], dtype))
    assert draws[2**31 :].float().std().item() == pytest.approx(1, abs=0.1)


def test_draws_on_the_current_stream():
    expected = ops.normal(new_state(8), [1_000_000])
    stream = torch.cuda.Stream()
    state = new_state(8, "cuda")
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(
            50_000_000
        )  # a launch on another stream would read the seed before it is changed
        state[0] = 9
        draws = ops.normal(state, [1_000_000])
        state[0] = 8
        state[1] = 0
        again = ops.normal(state, [1_000_000])
    stream.synchronize()
    assert not equal_bits(draws, expected)
    assert equal_bits(draws, ops.normal(new_state(9), [1_000_000]))
    assert equal_bits(again, expected)


def test_a_captured_graph_draws_anew_at_each_replay():
    state, expected = new_state(8, "cuda"), new_state(8)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what a first call sets up must not happen in the capture
        ops.normal(state, [1000])
    torch.cuda.current_stream().wait_stream(stream)
    ops.normal(expected, [1000])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        draws = ops.normal(state, [1000])
    for _ in range(3):
        graph.replay()
        assert equal_bits(draws, ops.normal(expected, [1000]))
    assert state.tolist() == expected.tolist()


def test_state_on_another_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    draws = ops.normal(new_state(8, "cuda:1"), [1000])
    assert draws.device.index == 1
    assert equal_bits(draws, ops.normal(new_state(8), [1000]))
