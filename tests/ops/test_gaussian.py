import ctypes

import pytest
import torch

from pygen import ops

REAL = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
FLOAT = [torch.float32, torch.float64]
reference = ops.normal.__wrapped__
"""The plain-PyTorch function behind the operator, whichever kernel serves it."""

# Exact: every digit of a float32 or float64.
NORMAL32 = [
    -1.2002896070480347,
    0.7821359038352966,
    0.917072594165802,
    1.9918252229690552,
    0.7286061644554138,
    0.8197927474975586,
]
NORMAL64 = [
    -1.2002895467302772,
    0.7821359068010357,
    0.9170726249863023,
    1.9918251235803208,
    0.7286060578618437,
    0.8197927046500942,
]
UNIFORM32 = [
    0.298717737197876,
    0.3222925066947937,
    0.10256433486938477,
    0.6828926801681519,
    0.6784844994544983,
    0.9136940836906433,
]
UNIFORM64 = [
    0.29871775940921075,
    0.3222925250211195,
    0.10256434862476482,
    0.6828927373508459,
    0.6784845345186741,
    0.913694096500035,
]


def state(seed, offset=0, device="cpu"):
    return torch.tensor([seed, offset], device=device)


def equal_bits(a, b):
    """As integers: 0.0 differs from -0.0, and NaN equals itself."""
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    return a.dtype == b.dtype and torch.equal(a.cpu().view(integer), b.cpu().view(integer))


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize(
    ("seed", "offset", "n"),
    [
        (0, 0, 1_000_003),
        (12345678901234567, 2**32 - 1000, 50_001),  # the offset's low word runs over
        (2**63 - 1, 2**63 - 10, 101),  # the offset's sign does
        (-1, -3, 41),  # and all 64 bits
        (5, 2**40 + 7, 255),
        (5, 0, 256),
        (5, 0, 257),
        (1, 3, 0),
        (1, 3, 1),
    ],
)
def test_normal_has_the_references_bits(device, dtype, seed, offset, n):
    s, r = state(seed, offset, device), state(seed, offset)
    assert equal_bits(ops.normal(s, [n], dtype), reference(r, [n], dtype))
    assert s.tolist() == r.tolist()
    assert (s[1].item() - offset) % 2**64 == -(-n // 4)


@pytest.mark.parametrize("dtype", FLOAT)
@pytest.mark.parametrize(
    ("seed", "offset", "n"),
    [
        (0, 0, 100_003),
        (12345678901234567, 2**32 - 1000, 50_001),
        (-1, -3, 41),
        (1, 3, 0),
        (1, 3, 1),
    ],
)
def test_uniform_has_the_references_bits(device, dtype, seed, offset, n):
    s, r = state(seed, offset, device), state(seed, offset)
    assert equal_bits(ops.uniform(s, [n], dtype), ops.uniform.__wrapped__(r, [n], dtype))
    assert s.tolist() == r.tolist()


def test_every_instruction_set_has_the_references_bits(compiled):
    fill = compiled("normal.cpp").fill
    fill.argtypes = [ctypes.c_int64] * 3 + [ctypes.c_void_p] * 2
    for n in (1, 255, 256, 257, 100_003):
        found = [torch.full([n + 1], torch.nan, dtype=dtype) for dtype in FLOAT]
        fill(12345678901234567, 2**32 - 10, n, *(x.data_ptr() for x in found))
        for x in found:
            expected = reference(state(12345678901234567, 2**32 - 10), [n], x.dtype)
            assert equal_bits(x[:n], expected)
            assert x[n].isnan()


@pytest.mark.parametrize("draw", [ops.normal, reference], ids=["operator", "plain PyTorch"])
def test_normal_golden_values(draw):
    # The draws of a seed are part of the interface: they stay.
    assert draw(state(42, 7), [6]).tolist() == NORMAL32
    assert draw(state(42, 7), [6], torch.float64).tolist() == NORMAL64


def test_uniform_golden_values():
    assert ops.uniform(state(42, 7), [6]).tolist() == UNIFORM32
    assert ops.uniform(state(42, 7), [6], torch.float64).tolist() == UNIFORM64


@pytest.mark.parametrize("draw", [ops.normal, ops.uniform])
@pytest.mark.parametrize("dtype", FLOAT)
def test_draws_do_not_depend_on_shape_split_or_threads(device, draw, dtype):
    whole = draw(state(3, 11, device), [300, 4 * 31], dtype)
    assert equal_bits(whole.view(-1), draw(state(3, 11, device), [300 * 4 * 31], dtype))
    threads = torch.get_num_threads()
    for rows in (1, 7, 128):
        s = state(3, 11, device)
        try:
            torch.set_num_threads(rows % 3 + 1)
            parts = [draw(s, [len(part), 4 * 31], dtype) for part in whole.split(rows)]
        finally:
            torch.set_num_threads(threads)
        assert equal_bits(whole, torch.cat(parts))
        assert s.tolist() == [3, 11 + 300 * 31]


@pytest.mark.parametrize("draw", [ops.normal, ops.uniform])
def test_float64_has_more_digits_of_the_same_draws(draw):
    single, double = draw(state(9), [4096]), draw(state(9), [4096], torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=0, atol=2e-6)
    assert not torch.equal(double.float().double(), double)


def test_half_precision_is_the_rounded_draw(device):
    single = ops.normal(state(9, 0, device), [1001])
    for dtype in (torch.float16, torch.bfloat16):
        assert equal_bits(ops.normal(state(9, 0, device), [1001], dtype), single.to(dtype))


@pytest.mark.parametrize("dtype", REAL)
def test_fast_draws_are_the_exact_ones_within_their_error(device, dtype):
    s, r = state(9, 3, device), state(9, 3)
    fast, exact = ops.normal(s, [100_001], dtype, fast=True), reference(r, [100_001], dtype)
    assert s.tolist() == r.tolist()
    if device.type == "cpu" or dtype == torch.float64:
        assert equal_bits(fast, exact)
    else:  # one more rounding in half precision
        error = 1e-5 + 2 * torch.finfo(dtype).eps
        torch.testing.assert_close(fast.cpu(), exact, rtol=error, atol=error)
        assert not equal_bits(fast, exact)


def test_uniform_range_and_digits():
    draws = ops.uniform(state(1), [1_000_000])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert torch.equal(draws * 2**24, (draws * 2**24).round())
    digits = ops.uniform(state(1), [100_000], torch.float64) * 2.0**53
    assert torch.equal(digits, digits.round())
    assert (digits % 2 == 1).any()


@pytest.mark.parametrize("size", [[], [0], [5], [2, 0, 3], [3, 2, 2]])
def test_size(device, size):
    for draw in (ops.normal, ops.uniform):
        assert list(draw(state(1, 0, device), size).shape) == size


@pytest.mark.parametrize("draw", [ops.normal, ops.uniform, reference, ops.uniform.__wrapped__])
def test_bad_arguments(draw):
    with pytest.raises(RuntimeError, match=r"dtype must be one of torch.float32"):
        draw(state(1), [3], torch.int32)
    for bad in (
        torch.zeros(2),
        torch.zeros(3, dtype=torch.int64),
        torch.zeros(1, 2, dtype=torch.int64),
    ):
        with pytest.raises(RuntimeError, match=r"int64 tensor of shape \[2\]"):
            draw(bad, [3])
    with pytest.raises(RuntimeError, match="size must not be negative"):
        draw(state(1), [2, -3])


@pytest.mark.parametrize("dtype", FLOAT)
def test_opcheck(device, dtype):
    for draw in (torch.ops.pygen.normal.default, torch.ops.pygen.uniform.default):
        torch.library.opcheck(draw, (state(1, 0, device), [7, 3], dtype))
    fast = state(1, 0, device), [7, 3], dtype, True
    torch.library.opcheck(torch.ops.pygen.normal.default, fast)


def test_compile_fullgraph(device):
    def draw(s):
        return ops.normal(s, [130, 6], dtype=torch.float32) * 2 + ops.uniform(s, size=[6])

    s, r = state(1, 0, device), state(1, 0, device)
    torch.testing.assert_close(torch.compile(draw, fullgraph=True)(s), draw(r))
    assert torch.equal(s, r)


def test_signature_and_documentation_are_kept():
    assert ops.normal.__name__ == "normal"
    assert "Philox4x32-10" in ops.normal.__doc__
    assert ops.normal(size=(2,), state=state(1)).shape == (2,)
