"""What only a GPU can show of `reparameterize`; tests/ops/test_reparameterize.py runs on it too."""

import threading

import pytest
import torch

from pygen import ops
from pygen.random import new_state

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
forward = torch.ops.pygen.reparameterize_forward.default
backward = torch.ops.pygen.reparameterize_backward.default


def inputs(n, columns, dtype=torch.float32):
    """Fresh at every run; said in the failure by the seed's value."""
    seed = torch.seed() % 2**31
    generator = torch.Generator("cuda").manual_seed(seed)
    options = {"generator": generator, "device": "cuda", "dtype": torch.float64}
    mu, logvar, grad_z = (torch.randn(n, columns, **options) for _ in range(3))
    out = torch.promote_types(dtype, torch.float32)
    grad_kl = torch.randn(n, **options).to(out)
    return new_state(seed, "cuda"), mu.to(dtype), logvar.to(dtype), grad_z.to(out), grad_kl


def test_cuda_kernels_are_the_ones_that_run():
    if ops.native is None or not ops.native.cuda_compiler:
        pytest.skip("built without CUDA kernels")
    for name in ("forward", "backward"):
        operator = f"pygen::reparameterize_{name}"
        assert torch._C._dispatch_has_kernel_for_dispatch_key(operator, "CUDA")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "columns"), [(1000, 3), (4096, 32), (513, 200), (1001, 1023), (130, 2500), (3, 100_001)]
)
def test_against_float64_on_fresh_inputs(dtype, n, columns):
    state, mu, logvar, grad_z, grad_kl = inputs(n, columns, dtype)
    # So that what is not written shows.
    torch.full((3 * n * columns,), torch.nan, dtype=grad_z.dtype, device="cuda")
    z, kl, used = forward(state, mu, logvar)
    grad_mu, grad_logvar = backward(used, mu, logvar, grad_z, grad_kl)
    eps = ops.normal(state.clone(), mu.shape, grad_z.dtype).double()
    m, v = mu.double().requires_grad_(), logvar.double().requires_grad_()
    expected_z = m + (v / 2).exp() * eps
    expected_kl = 0.5 * (m.square() + v.expm1() - v).sum(1)
    expected = torch.autograd.grad(
        [expected_z, expected_kl], [m, v], [grad_z.double(), grad_kl.double()]
    )
    e = torch.finfo(z.dtype).eps
    torch.testing.assert_close(z.double(), expected_z, rtol=8 * e, atol=8 * e)
    torch.testing.assert_close(kl.double(), expected_kl, rtol=20 * e, atol=8 * e * columns**0.5)
    e = torch.finfo(dtype).eps
    torch.testing.assert_close(grad_mu.double(), expected[0], rtol=8 * e, atol=8 * e)
    torch.testing.assert_close(grad_logvar.double(), expected[1], rtol=20 * e, atol=20 * e)
    assert torch.equal(used, state)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "columns"), [(1001, 7), (257, 512), (5, 4096)])
def test_bits_are_the_cpus_but_for_the_sum(dtype, n, columns):
    arguments = inputs(n, columns, dtype)
    others = [x.cpu() for x in arguments]
    z, kl, _ = forward(*arguments[:3])
    expected_z, expected_kl, _ = forward(*others[:3])
    torch.testing.assert_close(kl.cpu(), expected_kl)
    if ops.native is None or not ops.native.cuda_compiler:
        return  # exp and expm1 of two libraries
    assert torch.equal(z.cpu(), expected_z)
    for found, expected in zip(backward(*arguments), backward(*others), strict=True):
        assert torch.equal(found.cpu(), expected)


def test_bits_are_repeatable():
    arguments = inputs(300, 2500)
    expected = *forward(*arguments[:3]), *backward(*arguments)
    for _ in range(20):
        for f, e in zip((*forward(*arguments[:3]), *backward(*arguments)), expected, strict=True):
            assert torch.equal(f, e)


def test_addresses_that_are_not_aligned():
    state, mu, logvar, grad_z, grad_kl = inputs(65, 128)
    expected = *forward(state, mu, logvar), *backward(state, mu, logvar, grad_z, grad_kl)
    moved = []
    for x in (mu, logvar, grad_z):
        buffer = torch.empty(x.numel() + 1, device="cuda")
        moved.append(buffer[1:].view_as(x).copy_(x))
    mu, logvar, grad_z = moved
    found = *forward(state, mu, logvar), *backward(state, mu, logvar, grad_z, grad_kl)
    for f, e in zip(found, expected, strict=True):
        assert torch.equal(f, e)


def test_on_the_current_stream():
    state, mu, logvar, *_ = inputs(512, 512)
    expected, _ = ops.reparameterize(state.clone(), mu, logvar)
    late, stream = torch.zeros_like(mu), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # a launch on another stream would read the zeros
        late.copy_(mu)
        found, _ = ops.reparameterize(state, late, logvar)
    stream.synchronize()
    assert torch.equal(found, expected)


def test_backward_in_another_thread():
    """As autograd's own thread does: with a device and a stream of its own."""
    state, mu, logvar, grad_z, grad_kl = inputs(512, 512)
    expected = backward(state, mu, logvar, grad_z, grad_kl)
    mu.requires_grad_(), logvar.requires_grad_()
    results = ops.reparameterize(state.clone(), mu, logvar)
    found = []

    def run():
        with torch.cuda.stream(torch.cuda.Stream()):
            found.extend(torch.autograd.grad(results, [mu, logvar], [grad_z, grad_kl]))

    torch.cuda.synchronize()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    torch.cuda.synchronize()
    for f, e in zip(found, expected, strict=True):
        assert torch.equal(f, e)


def test_no_host_synchronisation():
    state, mu, logvar, grad_z, grad_kl = inputs(64, 64)
    mu.requires_grad_(), logvar.requires_grad_()
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = ops.reparameterize(state, mu, logvar)
        torch.autograd.grad(results, [mu, logvar], [grad_z, grad_kl])
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_more_than_two_to_the_31_elements():
    n, columns = 2**21 + 1, 1027
    if torch.cuda.mem_get_info()[0] < 4.5 * 4 * n * columns:
        pytest.skip("not enough device memory")
    mu = torch.ones(1, columns, device="cuda").expand(n, columns)
    logvar = torch.zeros(1, columns, device="cuda").expand(n, columns)
    state = new_state(8, "cuda")
    z, kl, _ = forward(state, mu, logvar)
    assert (kl == 0.5 * columns).all()
    for row in (0, 2**20, n - 4):
        row -= row % 4  # begins at a block of draws
        later = torch.tensor([8, row * columns // 4])
        eps = ops.normal(later, [4, columns])
        torch.testing.assert_close(z[row : row + 4].cpu(), 1 + eps, rtol=0, atol=1e-6)
