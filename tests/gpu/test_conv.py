"""What only a GPU can show of DCGAN's convolutions; tests/ops/test_conv.py has their definitions.

Those that take `device` run on the CPU, too, in small sizes: what they compare with is proven there.
"""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from pygen.ops.strided_conv import ACTIVATIONS, strided_conv_act, strided_conv_act_backward
from pygen.ops.strided_conv_bn import strided_conv_bn_act, strided_conv_bn_act_backward

EPS, SLOPE = 1e-5, 0.2
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
# By the largest magnitude expected: of sums that are rounded once.
TOLERANCES = {
    torch.float32: 1e-5,
    torch.float64: 1e-12,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}


@dataclass(frozen=True)
class Shape:
    """A layer's: pictures, channels, and sides of the smaller map."""

    batch: int
    inputs: int
    outputs: int
    height: int
    width: int

    def maps(self, transposed: bool) -> tuple[list[int], list[int]]:
        """Of what goes in and of what comes out."""
        small, large = [self.height, self.width], [2 * self.height, 2 * self.width]
        sides = (small, large) if transposed else (large, small)
        return [self.batch, self.inputs, *sides[0]], [self.batch, self.outputs, *sides[1]]


# One pixel and a channel; odd channels; as many tiles' ends as there can be; pictures' three channels, in and out.
SMALL = [Shape(32, 1, 1, 1, 1), Shape(4, 7, 5, 3, 5), Shape(6, 24, 72, 5, 3), Shape(4, 8, 3, 6, 6)]
# Layers of DCGAN: tiles of all shapes, and many of them; the deepest has few, and long sums.
LARGE = [
    Shape(64, 512, 256, 4, 4),
    Shape(256, 128, 64, 16, 16),
    Shape(256, 64, 3, 32, 32),
    Shape(256, 3, 64, 32, 32),
    Shape(2, 1024, 1024, 4, 4),
    Shape(130, 72, 200, 7, 9),
]
SHAPES = [
    *(pytest.param("cpu", shape) for shape in SMALL),
    *(
        pytest.param(
            "cuda",
            shape,
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        )
        for shape in SMALL + LARGE
    ),
]


class Layer(NamedTuple):
    """A layer's tensors. z, mean and var are what its forward gives."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    grad: Tensor
    z: Tensor
    mean: Tensor
    var: Tensor

    def double(self) -> "Layer":
        """The same numbers, on the CPU."""
        return Layer(*(t.cpu().double() for t in self))

    def formatted(self, memory_format: torch.memory_format) -> "Layer":
        return Layer(
            *(t.contiguous(memory_format=memory_format) if t.dim() == 4 else t for t in self)
        )


def layer(
    shape: Shape,
    transposed: bool,
    dtype: torch.dtype,
    device: torch.device | str,
    seed: int,
    n_batches: int = 2,
) -> Layer:
    g = torch.Generator(device).manual_seed(seed)

    def randn(*size: int, scale: float = 1.0, dtype: torch.dtype = dtype) -> Tensor:
        options = {"generator": g, "device": device, "dtype": torch.float32}
        return (scale * torch.randn(size, **options)).to(dtype)

    inputs, outputs = shape.maps(transposed)
    pair = (shape.inputs, shape.outputs) if transposed else (shape.outputs, shape.inputs)
    x, weight = randn(*inputs), randn(*pair, 4, 4, scale=(4 * shape.inputs) ** -0.5)
    real = torch.promote_types(dtype, torch.float32)
    norm_weight, norm_bias = (randn(shape.outputs, dtype=real) for _ in range(2))
    z = randn(*outputs)
    parts = z.to(real).unflatten(0, (n_batches, -1))
    var, mean = torch.var_mean(parts, (1, 3, 4), correction=0)
    grad, bias = randn(*outputs), randn(shape.outputs)
    # No gradient where rounding decides on which side of 0 a number lies.
    scale, shift = norm_weight[:, None, None], norm_bias[:, None, None]
    deviation = (var + EPS).sqrt()[:, None, :, None, None]
    u = (parts - mean[:, None, :, None, None]) / deviation * scale + shift
    grad[(u.abs() < 1e-3).flatten(0, 1)] = 0
    return Layer(x, weight, bias, norm_weight, norm_bias, grad, z, mean, var)


def act(of: Layer, transposed: bool, activation: str, operator=strided_conv_act) -> list[Tensor]:
    return [operator(of.x, of.weight, of.bias, transposed, ACTIVATIONS.index(activation), SLOPE)]


def act_back(
    of: Layer,
    transposed: bool,
    activation: str,
    operator=strided_conv_act_backward,
    needs: tuple[bool, bool] = (True, True),
) -> list[Tensor]:
    number = ACTIVATIONS.index(activation)
    return list(operator(of.grad, of.x, of.weight, of.z, transposed, number, SLOPE, *needs))


def bn(of: Layer, transposed: bool, activation: str, operator=strided_conv_bn_act) -> list[Tensor]:
    options = transposed, len(of.mean), EPS, ACTIVATIONS.index(activation), SLOPE
    return list(operator(of.x, of.weight, of.norm_weight, of.norm_bias, *options))


def bn_back(
    of: Layer,
    transposed: bool,
    activation: str,
    operator=strided_conv_bn_act_backward,
    needs: tuple[bool, bool] = (True, True),
) -> list[Tensor]:
    statistics = of.mean, of.var, of.norm_weight, of.norm_bias
    options = transposed, len(of.mean), EPS, ACTIVATIONS.index(activation), SLOPE, *needs
    return list(operator(of.grad, of.x, of.weight, of.z, *statistics, *options))


CALLS = {
    "act": (act, strided_conv_act),
    "act_back": (act_back, strided_conv_act_backward),
    "bn": (bn, strided_conv_bn_act),
    "bn_back": (bn_back, strided_conv_bn_act_backward),
}


def assert_close(found: list[Tensor], wanted: list[Tensor], times: float = 1.0) -> None:
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.shape == theirs.shape
        error = (mine.cpu().double() - theirs).abs().max() / theirs.abs().max()
        assert error <= times * TOLERANCES[mine.dtype], f"{error:.2g}"  # NaN is not


def assert_equal(found: list[Tensor], wanted: list[Tensor]) -> None:
    assert all(map(torch.equal, found, wanted))


def test_cuda_kernels_are_the_ones_that_run(kernels):
    for _, operator in CALLS.values():
        name = f"pygen::{operator.__name__}"
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA")


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("device", "shape"), SHAPES)
def test_equals_float64(device, shape, dtype, transposed, call, seed):
    function, operator = CALLS[call]
    of = layer(shape, transposed, dtype, device, seed).formatted(torch.channels_last)
    for activation in ("leaky_relu", "tanh"):
        found = function(of, transposed, activation)
        wanted = function(of.double(), transposed, activation, operator.__wrapped__)
        # The products' factors are rounded, too; so is z, of which y is made.
        assert_close(found, wanted, 2)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SMALL[1:])
def test_memory_does_not_show(cuda, kernels, shape, dtype, transposed, memory_format, seed):
    """Numbers are the same in any memory format, at any address; results have the format of x and weight."""
    of = layer(shape, transposed, dtype, cuda, seed).formatted(memory_format)
    strided = Layer(*(torch.stack([t, t], -1).flatten()[1::2].view_as(t) for t in of))
    shifted = Layer(
        *(torch.as_strided(t.new_empty(t.numel() + 1), t.shape, t.stride(), 1).copy_(t) for t in of)
    )
    last = of.formatted(torch.channels_last)
    for function, _ in CALLS.values():
        wanted = function(last, transposed, "relu")
        for arguments in (of, strided, shifted, Layer(*of[:2], *last[2:])):
            found = function(arguments, transposed, "relu")
            assert_equal(found, wanted)
        for result in function(of, transposed, "relu"):
            assert result.dim() != 4 or result.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [SMALL[1], LARGE[1]])
def test_captured_graphs_repeat_the_call_bit_by_bit(cuda, kernels, shape, dtype, transposed, seed):
    of = layer(shape, transposed, dtype, cuda, seed)
    held = Layer(*map(torch.zeros_like, of))

    def run(arguments: Layer) -> list[Tensor]:
        return [
            r for function, _ in CALLS.values() for r in function(arguments, transposed, "relu")
        ]

    wanted = run(of)
    assert_equal(run(of), wanted)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run(held)
    for to, what in zip(held, of, strict=True):
        to.copy_(what)
    for _ in range(2):
        graph.replay()
        assert_equal(found, wanted)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("inputs", [3, 64])
def test_variance_far_from_zero(device, inputs, transposed, seed):
    """Channels whose mean is a thousand times their deviation."""
    shape = Shape(8, inputs, inputs, 16, 16)
    g = torch.Generator(device).manual_seed(seed)
    weight = torch.zeros(inputs, inputs, 4, 4, device=device)
    channels = torch.arange(inputs, device=device)
    weight[channels, channels, 1:3, 1:3] = 1 if transposed else 0.5
    x = torch.randn(shape.maps(transposed)[0], generator=g, device=device)
    x += 1000 if transposed else 500
    statistics = [
        operator(*arguments, None, None, transposed, 2, EPS, 0, 0.0)[2:]
        for operator, arguments in (
            (strided_conv_bn_act, (x, weight)),
            (strided_conv_bn_act.__wrapped__, (x.cpu().double(), weight.cpu().double())),
        )
    ]
    for mine, exact, error in zip(*statistics, (1e-6, 1e-4), strict=True):
        torch.testing.assert_close(mine.cpu().double(), exact, rtol=error, atol=0)


@pytest.mark.parametrize("needs", [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_that_are_not_needed(device, transposed, needs, seed):
    of = layer(SMALL[2], transposed, torch.float32, device, seed)
    for function in (act_back, bn_back):
        every, some = (
            function(of, transposed, "relu", needs=asked) for asked in ((True, True), needs)
        )
        wanted = [t if n else t.new_empty(0) for t, n in zip(every[:2], needs, strict=True)]
        assert_equal(some, wanted + every[2:])


def test_no_picture(cuda):
    of = layer(Shape(0, 8, 16, 4, 4), True, torch.float32, cuda, 0, n_batches=1)
    assert act(of, True, "relu")[0].shape == (0, 16, 8, 8)
    grad_x, grad_weight, grad_bias = act_back(of, True, "relu")
    assert grad_x.shape == of.x.shape
    assert not grad_weight.any()
    assert not grad_bias.any()


@pytest.mark.parametrize("channels", [7, 8])
def test_more_elements_than_32_bits_count(cuda, kernels, channels, seed):
    if torch.cuda.mem_get_info()[0] < 20e9:
        pytest.skip("20 GB of free memory are needed")
    batch = 2**31 // (channels * 128 * 128) + 8
    g = torch.Generator(cuda).manual_seed(seed)
    options = {"generator": g, "device": cuda, "dtype": torch.bfloat16}
    x = torch.randn(batch, channels, 64, 64, **options).contiguous(
        memory_format=torch.channels_last
    )
    weight = torch.randn(channels, channels, 4, 4, **options)
    y = strided_conv_act(x, weight, None, True, 0, 0.0)
    grad_x, grad_weight, _ = strided_conv_act_backward(y, x, weight, y, True, 0, 0.0, True, True)
    last = x[-4:].cpu().double(), weight.cpu().double()
    wanted = strided_conv_act.__wrapped__(*last, None, True, 0, 0.0)
    assert_close([y[-4:]], [wanted])
    exact = strided_conv_act_backward.__wrapped__(
        y[-4:].cpu().double(), *last, wanted, True, 0, 0.0, True, False
    )
    assert_close([grad_x[-4:]], [exact[0]], 2)
    halves = [
        strided_conv_act_backward(grad, part, weight, grad, True, 0, 0.0, False, True)[1]
        for grad, part in zip(y.chunk(2), x.chunk(2), strict=True)
    ]
    assert_close([grad_weight], [(halves[0].double() + halves[1].double()).cpu()], 2)
