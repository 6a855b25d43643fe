"""Layers of random configuration: as PyTorch's modules compute them, and as pygen's functions do."""

from dataclasses import dataclass

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import pad

from pygen import ops

ACTIVATIONS = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
FORMATS = [torch.contiguous_format, torch.channels_last]
NORMS = ["batch", "running", "none"]


@dataclass
class Layer:
    """A configuration, with the seed of its data. The defaults are DCGAN's geometry."""

    transposed: bool = False
    batch: int = 4
    inputs: int = 3
    outputs: int = 5
    groups: int = 1
    sides: tuple[int, int] = (4, 6)
    kernel: tuple[int, int] = (4, 4)
    stride: tuple[int, int] = (2, 2)
    padding: tuple[int, int] = (1, 1)
    output_padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    padding_mode: str = "zeros"
    bias: bool = False
    norm: str = "batch"
    affine: bool = True
    tracks: bool = True
    momentum: float = 0.1
    n_batches: int = 1
    activation: str = "relu"
    x_format: torch.memory_format = torch.contiguous_format
    weight_format: torch.memory_format = torch.contiguous_format
    seed: int = 0

    def result_sides(self) -> list[int]:
        sizes = zip(
            self.sides,
            self.kernel,
            self.stride,
            self.padding,
            self.output_padding,
            self.dilation,
            strict=True,
        )
        return [
            (side - 1) * s - 2 * p + d * (k - 1) + o + 1
            if self.transposed
            else (side + 2 * p - d * (k - 1) - 1) // s + 1
            for side, k, s, p, o, d in sizes
        ]

    def modules(self, dtype=torch.float64, device="cpu"):
        """Convolution, norm or None, and activation, with the seed's weights; x and the gradient of the result."""
        generator = torch.Generator().manual_seed(self.seed)

        def draw(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        options = (self.inputs, self.outputs, self.kernel, self.stride, self.padding)
        if self.transposed:
            conv = nn.ConvTranspose2d(
                *options, self.output_padding, self.groups, self.bias, self.dilation, dtype=dtype
            )
        else:
            conv = nn.Conv2d(
                *options, self.dilation, self.groups, self.bias, self.padding_mode, dtype=dtype
            )
        norm = None
        if self.norm != "none":
            tracks = self.tracks or self.norm == "running"
            norm = nn.BatchNorm2d(
                self.outputs, 1e-5, self.momentum, self.affine, tracks, dtype=dtype
            ).train(self.norm == "batch")
        with torch.no_grad():
            conv.weight.copy_(draw(conv.weight.shape) / conv.weight[0].numel() ** 0.5)
            conv.weight.data = conv.weight.contiguous(memory_format=self.weight_format)
            if self.bias:
                conv.bias.copy_(draw(self.outputs))
            if norm is not None:
                for vector in (norm.weight, norm.bias, norm.running_mean):
                    if vector is not None:
                        vector.copy_(draw(self.outputs))
                if norm.running_var is not None:
                    norm.running_var.copy_(draw(self.outputs).square() + 0.1)
        x = draw(self.batch, self.inputs, *self.sides).to(dtype)
        x = x.to(device).contiguous(memory_format=self.x_format).requires_grad_()
        grad = draw(self.batch, self.outputs, *self.result_sides()).to(dtype).to(device)
        layers = [conv, norm, ACTIVATIONS[self.activation]()]
        return [layer and layer.to(device) for layer in layers], x, grad


GEOMETRIES = {
    "strided": Layer(),
    "spans its map": Layer(sides=(3, 4), kernel=(3, 4), padding=(0, 0), stride=(1, 1)),
    "one channel": Layer(inputs=1, outputs=1),
    "odd sides": Layer(sides=(5, 7)),
    "many channels": Layer(inputs=8, outputs=270),
    "transposed": Layer(True),
    "transposed, one pixel": Layer(True, sides=(1, 1), padding=(0, 0), stride=(1, 1)),
    "transposed, one pixel, to one channel": Layer(
        True, inputs=64, outputs=1, sides=(1, 1), padding=(0, 0), stride=(1, 1)
    ),
    "transposed, one pixel and channel": Layer(
        True, inputs=1, outputs=1, sides=(1, 1), padding=(0, 0)
    ),
}


def eager(layer, layers, x, hold=False):
    """Result before and after the activation. ``hold``: statistics without gradient."""
    conv, norm, activation = layers
    u = conv(x)
    if norm is not None and hold and norm.training:
        parts = u.unflatten(0, (layer.n_batches, -1))
        var, mean = torch.var_mean(parts.detach(), (1, 3, 4), correction=0, keepdim=True)
        u = ((parts - mean) / (var + norm.eps).sqrt()).flatten(0, 1)
        if norm.affine:
            u = u * norm.weight[:, None, None] + norm.bias[:, None, None]
    elif norm is not None:
        u = torch.cat([norm(part) for part in u.chunk(layer.n_batches)])
    return u, activation(u)


def fused(layer, layers, x):
    """The same by `pygen.ops`, with the modules' parameters and statistics."""
    conv, norm, activation = layers
    padding = layer.padding
    if layer.padding_mode != "zeros":
        high, wide = padding
        x, padding = pad(x, (wide, wide, high, high), layer.padding_mode), (0, 0)
    options = {"output_padding": layer.output_padding} if layer.transposed else {}
    function = ops.conv_transpose_bn_act if layer.transposed else ops.conv_bn_act
    vectors = [
        norm and getattr(norm, name) for name in ("weight", "bias", "running_mean", "running_var")
    ]
    return function(
        x,
        conv.weight,
        conv.bias,
        *vectors,
        stride=layer.stride,
        padding=padding,
        dilation=layer.dilation,
        groups=layer.groups,
        norm=layer.norm,
        momentum=layer.momentum,
        activation=layer.activation,
        slope=getattr(activation, "negative_slope", 0.01),
        n_batches=layer.n_batches,
        **options,
    )


def gradients(y, layers, x, grad):
    """By name, of all parameters and of x."""
    conv, norm, _ = layers
    named = {"x": x} | dict(conv.named_parameters(prefix="conv"))
    if norm is not None:
        named |= dict(norm.named_parameters(prefix="norm"))
    found = torch.autograd.grad(y, list(named.values()), grad.to(y.dtype))
    return dict(zip(named, found, strict=True))


def results(layer, dtype, run, device="cpu"):
    """Result, running statistics and gradients by name, computed by ``run`` (`fused` or `eager`)."""
    layers, x, grad = layer.modules(dtype, device)
    y = run(layer, layers, x)
    y = y[1] if isinstance(y, tuple) else y
    # Where a ReLU's input is almost 0 its derivative is a matter of rounding.
    exact, x64, _ = layer.modules(torch.float64, device)
    u, _ = eager(layer, exact, x64)
    found = {"y": y.detach(), **gradients(y, layers, x, grad * (u.detach().abs() > 1e-4))}
    if layers[1] is not None and layers[1].running_mean is not None:
        found |= {"mean": layers[1].running_mean, "var": layers[1].running_var}
    return found


def scales(layer, expected):
    """Largest entry of each result; of a gradient, that with statistics held fixed if it is larger.

    What goes through the statistics is subtracted from that, so that roundings are in its scale.
    """
    layers, x, grad = layer.modules()
    held = gradients(eager(layer, layers, x, hold=True)[1], layers, x, grad)
    return {
        name: torch.stack([value.abs().max(), held.get(name, value).abs().max()]).max().item()
        for name, value in expected.items()
    }


def errors(layer, dtype, run):
    """Largest error of each result against float64 eager, in its scale."""
    expected = results(layer, torch.float64, eager)
    scale = scales(layer, expected)
    return {
        name: ((value.double() - expected[name]).abs().max() / scale[name]).item()
        if scale[name]
        else value.abs().max().item()
        for name, value in results(layer, dtype, run).items()
    }


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def layers(draw):
    transposed = draw(st.booleans())
    groups, geometry = 1, {}
    # DCGAN's geometry in about half of what is left by the conditions on the others.
    if draw(st.sampled_from([True, True, False])):
        height, width = draw(pairs(1, 4))
        sides = (height, width) if transposed else (2 * height, 2 * width)
    else:
        sides, groups = draw(pairs(1, 8)), draw(st.integers(1, 3))
        stride, dilation = draw(pairs(1, 3)), draw(pairs(1, 2))
        geometry = {
            "kernel": draw(pairs(1, 5)),
            "stride": stride,
            "dilation": dilation,
            "padding": draw(pairs(0, 2)),
        }
        if transposed:
            most = [max(s, d) - 1 for s, d in zip(stride, dilation, strict=True)]
            geometry["output_padding"] = tuple(draw(st.integers(0, m)) for m in most)
        else:
            modes = ["zeros", "zeros", "reflect", "replicate", "circular"]
            geometry["padding_mode"] = draw(st.sampled_from(modes))
            if geometry["padding_mode"] != "zeros":
                assume(all(p < s for p, s in zip(geometry["padding"], sides, strict=True)))
    n_batches = draw(st.sampled_from([1, 1, 2]))
    layer = Layer(
        transposed=transposed,
        batch=n_batches * draw(st.integers(1, 4)),
        inputs=groups * draw(st.integers(1, 7)),
        outputs=groups * draw(st.integers(1, 7)),
        groups=groups,
        sides=sides,
        bias=draw(st.booleans()),
        norm=draw(st.sampled_from(["batch", "batch", "running", "none"])),
        affine=draw(st.booleans()),
        tracks=draw(st.booleans()),
        momentum=draw(st.sampled_from([0.1, 0.0, 0.7, 1.0])),
        n_batches=n_batches,
        activation=draw(st.sampled_from(list(ACTIVATIONS))),
        x_format=draw(st.sampled_from(FORMATS)),
        weight_format=draw(st.sampled_from(FORMATS)),
        seed=draw(st.integers(0, 2**31)),
        **geometry,
    )
    high, wide = layer.result_sides()
    assume(min(high, wide) >= 1)
    assume(layer.norm != "batch" or layer.batch // n_batches * high * wide > 1)
    return layer
