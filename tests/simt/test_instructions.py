"""The stand-ins of warp functions and of csrc/ptx.h compute what CUDA's and PTX's documents say."""

import math
import shutil
import subprocess

import pytest
import torch
from harness import HERE, MODES, Program

INSTRUCTIONS = Program(
    "tests/simt/instructions.h",
    [
        *("product", "double_product", "fragment_product", "copy_rows", "warp_functions"),
        *("conversions", "exchange"),
    ],
    ["tests/simt/instructions.cu"],
)
TYPES = [torch.bfloat16, torch.float16, torch.float32]


def tf32(x):
    """`x` rounded to tf32's 10 bits of mantissa, ties away from zero."""
    mantissa, exponent = torch.frexp(x.double())
    scaled = mantissa * 2**11
    return torch.ldexp(scaled.sign() * (scaled.abs() + 0.5).floor() / 2**11, exponent).float()


def operands(dtype):
    """Random a [16, k] and b [k, 8] as the instruction takes them, and their product."""
    depth = 8 if dtype == torch.float32 else 16
    a, b = torch.randn(16, depth).to(dtype), torch.randn(depth, 8).to(dtype)
    exact_a, exact_b = (tf32(m) if dtype == torch.float32 else m for m in (a, b))
    return a, b, exact_a.double() @ exact_b.double()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", TYPES)
def test_matrix_product(dtype, mode):
    a, b, expected = operands(dtype)
    *_, c = INSTRUCTIONS.call("product", TYPES.index(dtype), a, b, torch.zeros(16, 8), mode=mode)
    torch.testing.assert_close(c.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_matrix_product_of_doubles(mode):
    a, b = torch.randn(8, 4).double(), torch.randn(4, 8).double()
    *_, c = INSTRUCTIONS.call("double_product", a, b, torch.zeros(8, 8).double(), mode=mode)
    torch.testing.assert_close(c, a @ b)


def registers_of(matrix, positions):
    """What a lane's registers hold of `matrix`, given each register's element(s) by the PTX ISA."""
    integer = torch.int16 if matrix.dtype != torch.float32 else torch.int32
    bits = matrix.view(integer)
    registers = [
        [
            sum((int(bits[p]) & 0xFFFF) << 16 * i for i, p in enumerate(pair))
            if len(pair) == 2
            else int(bits[pair[0]])
            for pair in lane
        ]
        for lane in positions
    ]
    return torch.tensor(registers).to(torch.uint32).view(torch.int32)


@pytest.mark.parametrize("dtype", TYPES)
def test_fragments_lie_as_the_ptx_isa_says(dtype):
    """Sections "Matrix Fragments for mma.m16n8k16 with floating point type" and "... mma.m16n8k8"."""
    a, b, product = operands(dtype)
    if dtype == torch.float32:
        a, b = tf32(a), tf32(b)
    at_a, at_b, at_c = [], [], []
    for lane in range(32):
        group, thread = lane >> 2, lane % 4
        if dtype == torch.float32:
            rows = [group if i in (0, 2) else group + 8 for i in range(4)]
            columns = [thread if i in (0, 1) else thread + 4 for i in range(4)]
            at_a.append([[(r, c)] for r, c in zip(rows, columns, strict=True)])
            at_b.append([[(thread, group)], [(thread + 4, group)]])
        else:
            rows = [group if 0 <= i < 2 or 4 <= i < 6 else group + 8 for i in range(8)]
            columns = [thread * 2 + (i & 1) + (8 if i >= 4 else 0) for i in range(8)]
            elements = list(zip(rows, columns, strict=True))
            at_a.append([elements[i : i + 2] for i in range(0, 8, 2)])
            elements = [(thread * 2 + (i & 1) + (8 if i >= 2 else 0), group) for i in range(4)]
            at_b.append([elements[:2], elements[2:]])
        at_c.append([(group if i < 2 else group + 8, thread * 2 + (i & 1)) for i in range(4)])
    addend = torch.randn(32, 4)
    *_, c = INSTRUCTIONS.call(
        "fragment_product", TYPES.index(dtype), registers_of(a, at_a), registers_of(b, at_b), addend
    )
    expected = torch.tensor([[product[p] for p in lane] for lane in at_c]) + addend
    torch.testing.assert_close(c.double(), expected, rtol=0, atol=1e-5)


def test_tf32_multiplicands_lose_their_last_13_bits():
    a, b = (torch.zeros(32, n, dtype=torch.int32) for n in (4, 2))
    a[:, 0] = torch.tensor(1.0 + 2.0**-11).view(torch.int32)
    b[:, 0] = torch.tensor(1.0).view(torch.int32)
    *_, c = INSTRUCTIONS.call("fragment_product", 2, a, b, torch.zeros(32, 4))
    assert c[:, 0].tolist() == [4.0] * 32


@pytest.mark.parametrize("rows", [0, 5, 32])
def test_copies_fill_with_zeros_and_do_not_read_what_is_not_there(rows):
    x = torch.randn(rows, 4)
    _, y = INSTRUCTIONS.call("copy_rows", x, torch.full([32, 4], math.nan), rows, mode="address")
    assert torch.equal(y, torch.cat([x, torch.zeros(32 - rows, 4)]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backwards", [False, True])
def test_shuffles_votes_and_atomics(backwards, mode):
    x, lane = torch.randn(32), torch.arange(32)
    _, shuffled, votes, atomics = INSTRUCTIONS.call(
        "warp_functions",
        x,
        torch.zeros(6, 32),
        torch.zeros(36, dtype=torch.int32),
        torch.zeros(5),
        mode=mode,
        backwards=backwards,
    )
    sources = [
        (lane * 7 + 3) % 32,
        lane ^ 5,
        torch.where(lane + 3 < 32, lane + 3, lane),
        torch.where(lane >= 3, lane - 3, lane),
        torch.where(lane % 8 + 3 < 8, lane + 3, lane),
        torch.where(lane < 16, lane ^ 1, lane ^ 2),
    ]
    assert torch.equal(shuffled, torch.stack([x[source] for source in sources]))
    positive = int((x > 0).long() @ 2**lane)
    alike = [int((lane % 5 == number % 5).long() @ 2**lane) for number in range(32)]
    assert votes.view(torch.uint32).tolist() == [positive, 1, 0, 0, *alike]
    assert atomics[1:].view(torch.int32).tolist() == [sum(range(32)), 31, -31, 7]


@pytest.mark.parametrize("mode", MODES)
def test_nobody_waits_for_threads_that_have_returned_or_never_were(mode):
    x = torch.randn(40)
    _, y = INSTRUCTIONS.call("exchange", x, torch.zeros(40), mode=mode)
    assert torch.equal(y, x.view(20, 2).flip(1).flatten())


def test_conversions_round_as_documented():
    ties = torch.tensor(
        [1 + 2.0**-11, 1 + 2.0**-8, -(1 + 2.0**-11), 1 + 3 * 2.0**-8, 65520.0, 1e-7]
    )
    x = torch.cat([torch.randn(100) * 10.0 ** torch.randint(-6, 6, (100,)), ties]).view(-1, 2)
    _, bits = INSTRUCTIONS.call("conversions", x, torch.zeros(len(x), 3, dtype=torch.int32), len(x))
    assert torch.equal(bits[:, 0].contiguous().view(torch.float32), tf32(x[:, 0]))
    for column, dtype in ((1, torch.bfloat16), (2, torch.float16)):
        assert torch.equal(bits[:, column].contiguous().view(dtype).view(-1, 2), x.to(dtype))


@pytest.mark.parametrize("name", ["instructions", "planted"])
def test_nvcc_takes_the_same_source(name, tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc")
    command = [
        "nvcc",
        "-std=c++17",
        "-arch=sm_90",
        "-Werror=all-warnings",
        "-c",
        HERE / f"{name}.cu",
    ]
    done = subprocess.run(
        [*command, "-o", tmp_path / "object.o"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
