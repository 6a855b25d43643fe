"""The harness finds the classic mistakes, planted one at a time, and nothing in the same kernels without them."""

import re

import pytest
import torch
from harness import HERE, MODES, Failure, Program

BUGS = re.findall(r"^  k(\w+),$", (HERE / "planted.h").read_text(), re.MULTILINE)

PLANTED = Program(
    "tests/simt/planted.h",
    ["block_sum", "reverse", "ring_sums", "column_sums"],
    ["tests/simt/planted.cu"],
)


def run(function, bug="None", program=PLANTED, **options):
    """Call one of the kernels on fresh numbers; returns what it computed and what is right."""
    number = BUGS.index(bug)
    if function == "block_sum":
        x, buffers = torch.randn(1000), [torch.zeros(3), torch.zeros(1, dtype=torch.int32)]
        *_, out = program.call(function, x, *buffers, torch.zeros(1), len(x), number, **options)
        return out, x.double().sum(0, keepdim=True).float()
    if function == "reverse":
        x = torch.randn(384)
        _, y = program.call(function, x, torch.zeros(384), len(x), number, **options)
        return y, x.view(3, 128).flip(1).flatten()
    if function == "ring_sums":
        x = torch.randn(32)
        _, y = program.call(function, x, torch.zeros(32), number, **options)
        return y, sum(x.roll(-i) for i in range(4))
    x = torch.randn(7, 128)
    _, y = program.call(function, x, torch.zeros(128), len(x), number, **options)
    return y, x.sum(0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("function", PLANTED.functions)
def test_nothing_is_found_where_nothing_is_wrong(function, backwards, mode):
    result, expected = run(function, mode=mode, backwards=backwards)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("function", "bug", "mode", "finder", "says"),
    [
        ("block_sum", "StaticOverrun", "address", "address", "heap-buffer-overflow"),
        ("reverse", "DynamicOverrun", "address", "address", "heap-buffer-overflow"),
        ("reverse", "ReadOutside", "address", "address", "heap-buffer-overflow"),
        ("reverse", "WriteOutside", "address", "address", "heap-buffer-overflow"),
        ("reverse", "WriteOutside", "plain", "guard", "outside buffer 1"),
        ("column_sums", "Misaligned", "address", "undefined", "misaligned address"),
        ("block_sum", "NoSyncthreads", "thread", "thread", "block_sum_kernel"),
        ("reverse", "NoSyncthreads", "thread", "thread", "reverse_kernel"),
        ("ring_sums", "NoSyncwarp", "thread", "thread", "ring_sums_kernel"),
        ("column_sums", "NoPipelineBarrier", "thread", "thread", "column_sums_kernel"),
        ("block_sum", "BlocksRace", "thread", "thread", "block_sum_kernel"),
        ("block_sum", "NoFence", "thread", "thread", "block_sum_kernel"),
        ("block_sum", "NotInMask", "plain", "simt", "lane 16 is not in its own mask 0000ffff"),
        ("block_sum", "MissingLanes", "plain", "simt", "deadlock"),
        ("block_sum", "DivergentBarrier", "plain", "simt", "divergent barrier"),
        ("ring_sums", "ReturnedLane", "plain", "simt", "lane 31 does not exist or has returned"),
        ("column_sums", "NotShared", "plain", "simt", "not in shared memory"),
        ("block_sum", "TooManyThreads", "plain", "simt", "block of 64 x 17 x 1 threads"),
        ("block_sum", "TooManyBlocks", "plain", "simt", "grid of 1 x 65536 x 1 blocks"),
        ("block_sum", "TooMuchShared", "plain", "simt", "49156 bytes of dynamic shared memory"),
    ],
)
def test_a_planted_mistake_is_found(function, bug, mode, finder, says):
    with pytest.raises(Failure, match=says) as failure:
        run(function, bug, mode=mode)
    assert failure.value.finder == finder


@pytest.mark.parametrize(
    ("function", "bug"),
    [
        ("block_sum", "Uninitialised"),
        ("column_sums", "WaitOffByOne"),
        ("column_sums", "NextTooEarly"),
    ],
)
def test_what_was_not_written_is_not_a_number(function, bug):
    result, _ = run(function, bug)
    assert result.isnan().any()


def test_an_error_that_is_returned_is_raised():
    buffers = [torch.zeros(3), torch.zeros(1, dtype=torch.int32), torch.zeros(1)]
    with pytest.raises(Failure, match="n must not be negative") as failure:
        PLANTED.call("block_sum", torch.zeros(1), *buffers, -1, 0)
    assert failure.value.finder == "error"


def test_shared_memory_must_come_through_the_wrappers(tmp_path):
    (tmp_path / "raw.h").write_text("const char* raw();\n")
    (tmp_path / "raw.cu").write_text(
        '#include "raw.h"\nconst char* raw() {\n  __shared__ float x[8];\n  return x[0] ? "" : nullptr;\n}\n'
    )
    with pytest.raises(RuntimeError, match="static_shared"):
        Program("raw.h", ["raw"], ["raw.cu"], root=tmp_path).build("plain")
