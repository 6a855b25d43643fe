"""Convolutions with nothing after them that could be computed, too, but with a faster way of their own."""

import copy

import pytest
import torch
from operator_calls import OperatorCalls
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.autograd import forward_ad
from torch.nn.utils import parametrizations

import pygen
from pygen.nn import accelerated, accelerated_layers

# A convolution, the sides of a map for which it has a faster way, and others.
CASES = {
    "spans": (lambda: nn.Conv2d(24, 3, 4), (4, 4), [(6, 5)]),
    "spans, with a stride": (lambda: nn.Conv2d(24, 3, 4, 2, bias=False), (4, 4), [(10, 6)]),
    "spreads": (lambda: nn.ConvTranspose2d(24, 3, 4), (1, 1), [(2, 1)]),
    "halves": (lambda: nn.Conv2d(32, 64, 4, 2, 1), (32, 32), [(31, 30), (2, 2)]),
    "few to halve": (lambda: nn.Conv2d(3, 64, 4, 2, 1, bias=False), (32, 32), []),
    "doubles": (lambda: nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), (16, 16), [(1, 1)]),
    "few to double": (lambda: nn.ConvTranspose2d(64, 3, 4, 2, 1), (16, 16), []),
}


def pair(name, dtype):
    torch.manual_seed(0)
    layer = CASES[name][0]().to(dtype)
    return layer, pygen.accelerate(layer, copy=True, verbose=False)


def results(layer, x, grad):
    x = x.clone().requires_grad_()
    y = layer(x)
    y.backward(grad(y))
    found = [y.detach(), x.grad, *(p.grad for p in layer.parameters())]
    layer.zero_grad()
    return found


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_results_and_gradients(name, memory_format, dtype):
    layer, other = pair(name, torch.float64)
    other = other.to(dtype)
    generator = torch.Generator().manual_seed(1)
    for sides in (CASES[name][1], *CASES[name][2]):
        x = torch.randn(16, layer.in_channels, *sides, generator=generator, dtype=torch.float64)
        x = x.contiguous(memory_format=memory_format)
        numbers = torch.randn(layer(x).shape, generator=generator, dtype=torch.float64)
        expected = results(layer, x, lambda y: numbers)  # noqa: B023
        got = results(other, x.to(dtype), lambda y: numbers.to(y))  # noqa: B023
        for a, b in zip(got, expected, strict=True):
            assert a.shape == b.shape
            scale = b.abs().max().item()
            torch.testing.assert_close(
                a.double(), b, rtol=0, atol=scale * (1e-12 if dtype == torch.float64 else 5e-6)
            )


@pytest.mark.parametrize("name", CASES)
def test_the_faster_way_is_taken_where_there_is_one(name):
    _, other = pair(name, torch.float32)
    fitting, others = CASES[name][1:]
    for sides, is_faster in [(fitting, True), *((sides, False) for sides in others)]:
        with OperatorCalls() as called:
            other(torch.randn(16, other.in_channels, *sides))
        assert bool(called.named("aten.convolution")) is not is_faster
    with OperatorCalls() as called:
        pygen.restore(other)(torch.randn(16, other.in_channels, *fitting))
    assert called.named("aten.convolution")


def test_they_are_runs_of_one():
    network = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 1, 4))
    report = accelerated(pygen.accelerate(network, verbose=False))
    assert [run.names for run in report.runs] == [("0",), ("2",)]
    assert list(report.left_alone) == ["1"]
    assert "2 Conv2d (its result is returned)" in str(report)
    pygen.restore(network)
    assert [type(layer) for layer in network] == [nn.Conv2d] * 3


def test_what_is_said_of_a_layer_that_nobody_calls(capsys):
    pygen.accelerate(nn.Conv2d(3, 8, 4, 2, 1))
    assert " Conv2d (no forward that can be traced calls it)" in capsys.readouterr().out


@pytest.mark.parametrize("follows", [False, True])
def test_results_can_be_viewed_as_without_acceleration(follows):
    layers = [nn.Conv2d(3, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1)]
    network = nn.Sequential(nn.Sequential(*layers), nn.Conv2d(64, 64, 4, 2, 1))
    if follows:
        network.append(nn.ReLU())
    pygen.accelerate(network, verbose=False)
    x = torch.randn(16, 3, 32, 32)
    assert network[0](x).is_contiguous()
    network(x).view(16, -1)


def test_derivatives_in_forward_mode():
    layer, other = pair("halves", torch.float32)
    x, tangent = torch.randn(2, 16, 32, 32, 32)
    found = []
    for each in (layer, other):
        with forward_ad.dual_level():
            y = each(forward_ad.make_dual(x, tangent))
            found.append(forward_ad.unpack_dual(y).tangent)
    torch.testing.assert_close(*found)


def test_hooks_and_copies():
    layer, other = pair("spans", torch.float64)
    x = torch.randn(3, 24, 4, 4, dtype=torch.float64)
    for made in (copy.deepcopy(other), copy.copy(other)):
        torch.testing.assert_close(made(x), layer(x))
    other.register_forward_hook(lambda module, args, y: 2 * y)
    with OperatorCalls() as called:
        torch.testing.assert_close(other(x), 2 * layer(x))
    assert called.named("aten.convolution")


@pytest.mark.parametrize("follows", [False, True])
def test_a_parametrisation_registered_after(follows):
    """A call must make one step of the power iteration, as it does without `accelerate`."""
    torch.manual_seed(0)
    layers = [nn.ConvTranspose2d(64, 64, 4, 2, 1), nn.ReLU()]
    network = nn.Sequential(*layers[: 1 + follows])
    pair = network, pygen.accelerate(network, copy=True, verbose=False)
    for each in pair:
        torch.manual_seed(4)
        parametrizations.spectral_norm(each[0])
    x = torch.randn(8, 64, 8, 8)
    torch.testing.assert_close(pair[1](x), pair[0](x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dict(pair[1].named_buffers()), dict(pair[0].named_buffers()))


def test_one_compilation_serves_further_calls():
    layer = pair("doubles", torch.float32)[1]
    counter = CompileCounter()
    compiled = torch.compile(layer, backend=counter)
    for _ in range(3):
        compiled(torch.randn(16, 64, 16, 16))
    assert counter.frame_count == 1
    torch.compiler.reset()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_few_products_are_left_to_pytorch(dtype, monkeypatch):
    """Of half precision, where the CPU has instructions for it."""
    monkeypatch.setattr(
        accelerated_layers, "is_left_to_pytorch", lambda x: x.dtype != torch.float32
    )
    layer = pair("doubles", dtype)[1]
    one, least = 16 * 16 * layer.weight.numel(), accelerated_layers._LEAST_PRODUCTS[dtype][0]
    with torch.no_grad():
        for n in (1, 2, 4, 8, 16, 32):
            x = torch.randn(n, 64, 16, 16, dtype=dtype)
            assert bool(accelerated_layers._members(layer, x)) == (n * one >= least)
