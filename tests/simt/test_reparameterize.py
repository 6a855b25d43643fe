"""The CUDA kernels of the reparameterize family, executed on the CPU: what they compute and where they write."""

import pytest
import torch
from harness import Program

from pygen import ops
from pygen.ops.reparameterize import reparameterize_backward, reparameterize_forward

# In the order of pygen::Real.
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]

FORWARD, BACKWARD = "pygen::launch_reparameterize", "pygen::launch_reparameterize_backward"
PROGRAM = Program(
    "csrc/reparameterize/reparameterize.h", [FORWARD, BACKWARD], ["csrc/reparameterize/cuda.cu"]
)


def rows(n, columns, stride, dtype, seed):
    """A matrix [n, columns] with so much between its rows, and the buffer it lies in."""
    generator = torch.Generator().manual_seed(seed)
    buffer = torch.randn(n, stride, generator=generator, dtype=torch.float64).to(dtype)
    return buffer[:, :columns], buffer


def assert_same(found, expected, terms=1):
    """The CPU's kernel has the same arithmetic element by element; only sums are taken in another order."""
    if terms == 1 and ops.native is not None:
        assert torch.equal(found, expected)
    eps = torch.finfo(expected.dtype).eps
    torch.testing.assert_close(found, expected, rtol=20 * eps, atol=8 * eps * terms)


def check(program, n, columns, dtype, stride=None, **options):
    stride = stride or columns
    state = torch.tensor([77, 2**32 - 5])
    (mu, mu_buffer), (logvar, logvar_buffer) = (rows(n, columns, stride, dtype, i) for i in (0, 1))
    out = torch.promote_types(dtype, torch.float32)
    z, kl = torch.full((n, columns), torch.nan, dtype=out), torch.full((n,), torch.nan, dtype=out)
    inputs = mu_buffer, stride, logvar_buffer, stride, n, columns, DTYPES.index(dtype)
    after, *_, z, kl = program.call(FORWARD, state, *inputs, z, kl, None, **options)
    assert torch.equal(after, state)
    expected_z, expected_kl, _ = reparameterize_forward(state, mu, logvar)
    assert_same(z, expected_z)
    assert_same(kl, expected_kl, columns)

    (grad_z, _), (grad_kl, _) = rows(n, columns, columns, out, 2), rows(n, 1, 1, out, 3)
    grads = [torch.full((n, columns), torch.nan, dtype=dtype) for _ in range(2)]
    *_, grad_mu, grad_logvar = program.call(
        BACKWARD, state, *inputs, grad_z, grad_kl, *grads, None, **options
    )
    expected = reparameterize_backward(state, mu, logvar, grad_z, grad_kl[:, 0])
    assert_same(grad_mu, expected[0])
    assert_same(grad_logvar, expected[1])


def exercise(program, **options):
    check(program, 2, 1203, torch.float32, **options)


# Rows taken by 8 threads, by a warp and by a block; whole and cut items; more rows than a block takes; none.
SHAPES = [
    (1, 1),
    (33, 2),
    (70, 7),
    (5, 128),
    (3, 133),
    (9, 200),
    (2, 1024),
    (2, 2179),
    (0, 5),
    (5, 0),
]


@pytest.mark.parametrize(("mode", "backwards"), [("plain", False), ("address", True)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "columns"), SHAPES)
def test_kernels_are_the_operators(n, columns, dtype, backwards, mode):
    check(PROGRAM, n, columns, dtype, mode=mode, backwards=backwards)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "columns"), [(70, 7), (9, 133), (2, 2179)])
def test_no_data_races(n, columns, dtype):
    check(PROGRAM, n, columns, dtype, mode="thread")


@pytest.mark.parametrize("mode", ["plain", "address"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [129, 256])
def test_rows_with_something_between(stride, dtype, mode):
    check(PROGRAM, 9, 128, dtype, stride, mode=mode)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_that_are_not_finite_stay_so(dtype):
    special = torch.tensor([[-torch.inf, -800.0, 800.0, torch.inf, torch.nan, 0.0, 0.0, 0.0]]).to(
        dtype
    )
    state, out = torch.tensor([7, 0]), torch.promote_types(dtype, torch.float32)
    z, kl = torch.empty(1, 8, dtype=out), torch.empty(1, dtype=out)
    mu = torch.zeros_like(special)
    arguments = state, mu, 8, special, 8, 1, 8, DTYPES.index(dtype), z, kl, None
    *_, z, kl = PROGRAM.call(FORWARD, *arguments)
    expected, *_ = reparameterize_forward.__wrapped__(state, mu, special)
    torch.testing.assert_close(z, expected, equal_nan=True)
    assert kl.isnan().all()
