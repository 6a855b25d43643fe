import ctypes

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from pygen import ops
from pygen.ops.reparameterize import reparameterize_forward
from pygen.random import new_state

FLOAT = [torch.float32, torch.float64]
HALF = [torch.float16, torch.bfloat16]
forward = torch.ops.pygen.reparameterize_forward.default
backward = torch.ops.pygen.reparameterize_backward.default
forward_reference = reparameterize_forward.__wrapped__
"""The plain-PyTorch function behind the operator, whichever kernel serves it."""


def problem(device="cpu", dtype=torch.float32, n=33, columns=7, requires_grad=True):
    """mu and logvar as an encoder's halves: not contiguous."""
    generator = torch.Generator().manual_seed(n * columns)
    out = torch.randn(n, 2 * columns, generator=generator, dtype=torch.float64) * 1.5
    mu, logvar = out.to(device, dtype).chunk(2, 1)
    return mu.requires_grad_(requires_grad), logvar.requires_grad_(requires_grad)


def formula(state, mu, logvar):
    """In float64, from the draws that the operator must have made."""
    eps = ops.normal(state, mu.shape, torch.promote_types(mu.dtype, torch.float32)).double()
    mu, logvar = mu.double(), logvar.double()
    z = mu + torch.exp(logvar / 2) * eps
    return z, -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1)


def gradients(z, kl, mu, logvar):
    """Of a function in which every entry of z and of kl has another weight."""
    weights = torch.linspace(-1, 2, z.numel(), dtype=torch.float64, device=z.device).view_as(z)
    loss = (z.double() * weights).sum() + (kl.double() * weights[:, 0].square()).sum()
    return torch.autograd.grad(loss, [mu, logvar])


@pytest.mark.parametrize("dtype", FLOAT + HALF)
@pytest.mark.parametrize(("n", "columns"), [(33, 7), (1, 1), (128, 2), (3, 200), (0, 5), (5, 0)])
def test_value_and_gradient_are_the_formulas(device, dtype, n, columns):
    mu, logvar = problem(device, dtype, n, columns)
    state, expected_state = new_state(3, device), new_state(3, device)
    z, kl = ops.reparameterize(state, mu, logvar)
    assert z.dtype == kl.dtype == torch.promote_types(dtype, torch.float32)
    expected = formula(expected_state, mu, logvar)
    assert torch.equal(state, expected_state)
    # A few roundings of one entry; of the sum, relative to its terms, a row's length of them.
    eps = torch.finfo(z.dtype).eps
    torch.testing.assert_close(z.double(), expected[0], rtol=8 * eps, atol=8 * eps)
    torch.testing.assert_close(kl.double(), expected[1], rtol=20 * eps, atol=8 * eps * columns)
    if n * columns:
        found, wanted = gradients(z, kl, mu, logvar), gradients(*expected, mu, logvar)
        eps = torch.finfo(dtype).eps
        for f, w in zip(found, wanted, strict=True):
            assert f.dtype == dtype
            torch.testing.assert_close(f, w, rtol=20 * eps, atol=20 * eps)


@pytest.mark.parametrize("dtype", FLOAT)
def test_kernel_is_within_a_few_roundings_of_float64(device, dtype):
    """Relative to each quantity itself, over all variances that have a normal number."""
    most = 86 if dtype == torch.float32 else 700
    logvar = torch.linspace(-most, most, 100_003, dtype=torch.float64).to(device, dtype)[:, None]
    logvar = torch.cat([logvar, logvar * 1e-3, logvar * 1e-8], 1)
    zero, one = torch.zeros_like(logvar), torch.ones_like(logvar)
    state = new_state(0, device)
    z, kl, _ = forward(state, zero, logvar)
    noise = ops.normal(state.clone(), z.shape, dtype).double()
    deviation, excess = (logvar.double() / 2).exp(), logvar.double().expm1()
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(z.double(), deviation * noise, rtol=2 * eps, atol=0)
    # Half of it is the KL's gradient.
    _, grad = backward(state, zero, logvar, zero, one[:, 0])
    torch.testing.assert_close(grad.double(), excess / 2, rtol=4 * eps, atol=0)
    terms = excess - logvar.double()
    torch.testing.assert_close(
        kl.double(), terms.sum(1) / 2, rtol=8 * eps, atol=8 * eps * logvar.abs().max().item()
    )


@pytest.mark.parametrize("dtype", FLOAT)
def test_noise_is_that_of_normal(device, dtype):
    zero = torch.zeros(37, 11, dtype=dtype, device=device)
    z, kl, _ = forward(new_state(8, device), zero, zero)
    assert torch.equal(z, ops.normal(new_state(8, device), [37, 11], dtype))
    assert not kl.any()


@pytest.mark.parametrize("dtype", FLOAT + HALF)
def test_numbers_that_are_not_finite(device, dtype):
    logvar = torch.tensor([-torch.inf, -3e4, 3e4, torch.inf, torch.nan], device=device).to(dtype)
    mu = torch.tensor([1.0, -2.0, 0.5, 3.0, 4.0], device=device).to(dtype)
    arguments = new_state(1, device), mu[:, None], logvar[:, None]
    for f, e in zip(forward(*arguments), forward_reference(*arguments), strict=True):
        torch.testing.assert_close(f, e, equal_nan=True)


@pytest.mark.skipif(ops.native is None, reason="no compiled kernels")
@pytest.mark.parametrize("dtype", FLOAT)
def test_every_instruction_set_has_the_same_bits(compiled, dtype):
    run = getattr(compiled("reparameterize.cpp"), {4: "run_float", 8: "run_double"}[dtype.itemsize])
    run.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64] * 2 + [ctypes.c_void_p] * 6
    for n, columns in ((1, 1), (7, 20), (3, 1001), (64, 33)):
        mu, logvar = (x.contiguous() for x in problem("cpu", dtype, n, columns, False))
        logvar = logvar * torch.logspace(-6, 1, n, dtype=dtype)[:, None]
        state = torch.tensor([-5, 2**32 - 3])
        grad_z, grad_kl = logvar.sin(), mu[:, 0].cos()
        expected = (*forward(state, mu, logvar)[:2], *backward(state, mu, logvar, grad_z, grad_kl))
        found = [torch.full_like(x, torch.nan) for x in expected]
        tensors = state, mu, logvar, *found[:2], grad_z, grad_kl, *found[2:]
        pointers = [x.data_ptr() for x in tensors]
        run(*pointers[:3], n, columns, *pointers[3:])
        for f, e in zip(found, expected, strict=True):
            assert torch.equal(f, e)


@pytest.mark.parametrize("dtype", FLOAT)
@pytest.mark.parametrize(("n", "columns"), [(1001, 101), (40_000, 3), (3, 50_001)])
def test_bits_do_not_depend_on_threads_or_on_what_lies_between_rows(dtype, n, columns):
    mu, logvar = problem("cpu", dtype, n, columns, False)
    grad_z, grad_kl = mu + logvar, mu[:, 0].contiguous()

    def results(mu, logvar):
        state = new_state(4)
        return *forward(state, mu, logvar), *backward(state, mu, logvar, grad_z, grad_kl)

    expected = results(mu.contiguous(), logvar.contiguous())
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        try:
            torch.set_num_threads(threads)
            found = results(mu, logvar)
        finally:
            torch.set_num_threads(before)
        for f, e in zip(found, expected, strict=True):
            assert torch.equal(f, e)


@pytest.mark.parametrize("dtype", FLOAT + HALF)
def test_expanded_inputs(device, dtype):
    mu, logvar = problem(device, dtype, 1, 9, False)
    state = new_state(4, device)
    found = forward(state, mu.expand(6, 9), logvar.expand(6, 9))
    expected = forward(state, mu.repeat(6, 1), logvar.repeat(6, 1))
    for f, e in zip(found, expected, strict=True):
        assert torch.equal(f, e)


def test_kl_is_that_of_torch_distributions():
    mu, logvar = problem(dtype=torch.float64)
    _, kl = ops.reparameterize(new_state(0), mu, logvar)
    expected = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0, 1)).sum(1)
    torch.testing.assert_close(kl, expected)
    zero = torch.zeros(2, 3)
    assert torch.equal(ops.reparameterize(new_state(0), zero, zero)[1], torch.zeros(2))


def test_kl_keeps_its_digits_near_the_prior():
    mu = torch.full((1, 1), 1e-3)
    _, kl = ops.reparameterize(new_state(0), mu, torch.zeros(1, 1))
    assert kl.item() == pytest.approx(5e-7, rel=1e-5)


def test_state_advances_as_normal_does():
    mu, logvar = problem(n=3, columns=7)
    state = torch.tensor([9, 2**32 - 3])
    first, _ = ops.reparameterize(state, mu, logvar)
    assert state.tolist() == [9, 2**32 + 3]
    second, _ = ops.reparameterize(state, mu, logvar)
    assert not torch.equal(first, second)


def test_backward_draws_the_noise_of_its_own_forward():
    """Whatever was drawn since: each call's gradient belongs to that call."""
    mu, logvar = problem()
    state, again = new_state(1), new_state(1)
    found = [ops.reparameterize(state, mu, logvar) for _ in range(2)]
    ops.normal(state, [100])
    expected = [formula(again, mu, logvar) for _ in range(2)]
    for (z, kl), (z64, kl64) in zip(found, expected, strict=True):
        for f, w in zip(
            gradients(z, kl, mu, logvar), gradients(z64, kl64, mu, logvar), strict=True
        ):
            torch.testing.assert_close(f, w, rtol=1e-5, atol=1e-5)


def test_noise_is_not_kept_for_the_backward():
    kept = []
    mu, logvar = problem()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        z, _ = ops.reparameterize(new_state(0), mu, logvar)
    assert z.requires_grad
    assert sorted(list(t.shape) for t in kept) == [[2], [33, 7], [33, 7]]
    assert {t.data_ptr() for t in kept} >= {mu.data_ptr(), logvar.data_ptr()}


@pytest.mark.parametrize("unused", [0, 1])
def test_gradient_of_one_of_the_two(unused):
    mu, logvar = problem(dtype=torch.float64)
    found = ops.reparameterize(new_state(5), mu, logvar)[1 - unused]
    expected = formula(new_state(5), mu, logvar)[1 - unused]
    for f, w in zip(
        torch.autograd.grad(found.sum(), [mu, logvar]),
        torch.autograd.grad(expected.sum(), [mu, logvar], materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(f, w)


def test_gradcheck(device):
    mu, logvar = problem(device, torch.float64, 5, 3)
    assert torch.autograd.gradcheck(
        lambda m, v: ops.reparameterize(new_state(0, device), m, v), (mu, logvar)
    )


@pytest.mark.parametrize("dtype", FLOAT + HALF)
def test_opcheck(device, dtype):
    mu, logvar = problem(device, dtype)
    state = new_state(2, device)
    torch.library.opcheck(forward, (state, mu, logvar))
    z, kl, _ = forward(state, mu, logvar)
    arguments = (state, mu, logvar, torch.ones_like(z), torch.ones_like(kl))
    torch.library.opcheck(backward, [x.detach() for x in arguments])


def test_transposed_inputs(device):
    mu, logvar = (x.detach().T for x in problem(device))
    z, kl = ops.reparameterize(new_state(0, device), mu, logvar)
    again = ops.reparameterize(new_state(0, device), mu.contiguous(), logvar.contiguous())
    assert torch.equal(z, again[0])
    torch.testing.assert_close(kl, again[1])
    torch.library.opcheck(forward, (new_state(0, device), mu, logvar))
    grad_z, grad_kl = torch.randn_like(mu), torch.ones_like(kl)
    torch.library.opcheck(backward, (new_state(0, device), mu, logvar, grad_z, grad_kl))


def test_compile_fullgraph(device):
    mu, logvar = problem(device)

    def step(state, m, v):
        z, kl = ops.reparameterize(state, m, v)
        again, _ = ops.reparameterize(state, m, v)
        return z + 2 * again, kl

    state, expected = new_state(1, device), new_state(1, device)
    found = torch.compile(step, fullgraph=True)(state, mu, logvar)
    wanted = step(expected, mu, logvar)
    assert torch.equal(state, expected)
    torch.testing.assert_close(found, wanted)
    for f, w in zip(gradients(*found, mu, logvar), gradients(*wanted, mu, logvar), strict=True):
        torch.testing.assert_close(f, w)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_captured_graph_draws_fresh_noise_at_each_replay():
    mu, logvar = problem("cuda")
    state, expected = new_state(1, "cuda"), new_state(1, "cuda")

    def step():
        z, kl = ops.reparameterize(state, mu, logvar)
        return z, *torch.autograd.grad(z.square().sum() + kl.sum(), [mu, logvar])

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    state.copy_(expected)
    with torch.cuda.graph(graph):
        found = step()
    for _ in range(3):
        graph.replay()
        z, kl = formula(expected, mu, logvar)
        wanted = z, *torch.autograd.grad(z.square().sum() + kl.sum(), [mu, logvar])
        assert torch.equal(state, expected)
        for f, w in zip(found, wanted, strict=True):
            torch.testing.assert_close(f, w.to(f.dtype), rtol=1e-5, atol=1e-5)


def test_under_autocast(device):
    mu, logvar = problem(device)
    layer = torch.nn.Linear(7, 7, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        mean = layer(mu)
        z, kl = ops.reparameterize(new_state(0, device), mean, logvar.bfloat16())
        assert mean.dtype == torch.bfloat16
        assert z.dtype == kl.dtype == torch.float32
        out = layer(z)
    (out.float().sum() + kl.sum()).backward()
    assert layer.weight.grad.isfinite().all()
    expected = formula(new_state(0, device), mean, logvar.bfloat16())
    torch.testing.assert_close(z.double(), expected[0], rtol=1e-6, atol=1e-6)


def test_bad_arguments_leave_the_state():
    mu, logvar = problem(requires_grad=False)
    state = new_state(0)
    for bad in ((mu[0], logvar[0]), (mu, logvar[:, :3]), (mu[None], logvar[None])):
        with pytest.raises(ValueError, match=r"must be \[N, L\], equally large; got"):
            ops.reparameterize(state, *bad)
    for bad in ((mu.long(), logvar.long()), (mu, logvar.double())):
        with pytest.raises(ValueError, match="same floating-point dtype; got"):
            ops.reparameterize(state, *bad)
    assert state.tolist() == [0, 0]
    with pytest.raises(RuntimeError, match=r"int64 tensor of shape \[2\]"):
        ops.reparameterize(torch.zeros(2), mu, logvar)


@pytest.mark.skipif(
    ops.native is None, reason="plain PyTorch reads within its tensors whatever they are"
)
def test_kernels_refuse_what_they_would_read_beyond():
    mu, logvar = problem(requires_grad=False)
    state, kl = new_state(0), torch.ones(len(mu))
    for bad in ((state, mu, logvar[:5]), (state[:1], mu, logvar), (state, mu, logvar.double())):
        with pytest.raises(RuntimeError, match="must"):
            forward(*bad)
    for bad in ((mu[:5], kl), (mu, kl[:5]), (mu.double(), kl), (mu, kl.double())):
        with pytest.raises(RuntimeError, match=r"grad_.* must"):
            backward(state, mu, logvar, *bad)
