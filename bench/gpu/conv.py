"""DCGAN's layers and generator in bfloat16, beside PyTorch's: as they are, compiled, and in TF32."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pygen
from bench.gpu.measure import Machine, Work, largest_error, with_tf32
from pygen import ops

SLOPE = 0.2
# By the norm: rounding decides for some numbers whether an activation lets them through.
GRADIENT_TOLERANCE = 0.05
LATENT, WIDTH = 100, 64


@dataclass(frozen=True)
class Layer:
    """Kernel 4, stride 2, padding 1; ``side`` is that of what goes in."""

    inputs: int
    outputs: int
    side: int
    transposed: bool
    activation: str
    norm: bool = True

    def flops(self, batch: int) -> float:
        """Of the convolution, as many as of each of its gradients."""
        small = self.side if self.transposed else self.side // 2
        return 2.0 * 16 * self.inputs * self.outputs * batch * small**2


G3 = Layer(256, 128, 8, True, "relu")
G4 = Layer(128, 64, 16, True, "relu")
G5 = Layer(64, 3, 32, True, "tanh", norm=False)
D2 = Layer(64, 128, 32, False, "leaky_relu")


class Tensors(NamedTuple):
    """A layer's; the norm's are float32 beside half precision."""

    x: Tensor
    weight: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def to(self, dtype: torch.dtype) -> "Tensors":
        """Copies of the same numbers, of which the first four have gradients."""
        real = torch.promote_types(dtype, torch.float32)
        copies = [t.detach().to(dtype if i < 2 else real, copy=True) for i, t in enumerate(self)]
        return Tensors(*(t.requires_grad_(i < 4) for i, t in enumerate(copies)))


def tensors(machine: Machine, layer: Layer, batch: int) -> Tensors:
    options: dict[str, Any] = {"generator": machine.generator(), "device": machine.device}
    x = torch.randn(batch, layer.inputs, layer.side, layer.side, **options)
    pair = (layer.inputs, layer.outputs) if layer.transposed else (layer.outputs, layer.inputs)
    weight = torch.randn(*pair, 4, 4, **options) / (4 * layer.inputs) ** 0.5
    x, weight = (
        t.to(torch.bfloat16, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for t in (x, weight)
    )
    scale, shift = 1 + torch.rand(2, layer.outputs, **options)
    mean, var = torch.zeros_like(scale), torch.ones_like(scale)
    return Tensors(x, weight, scale, shift, mean, var).to(torch.bfloat16)


def plain(layer: Layer, t: Tensors) -> Tensor:
    convolve = F.conv_transpose2d if layer.transposed else F.conv2d
    z = convolve(t.x, t.weight, stride=2, padding=1)
    if layer.norm:
        statistics = t.running_mean, t.running_var
        z = F.batch_norm(z, *statistics, t.norm_weight, t.norm_bias, training=True)
    if layer.activation == "leaky_relu":
        return F.leaky_relu(z, SLOPE, inplace=True)
    return z.relu_() if layer.activation == "relu" else z.tanh_()


def fused(layer: Layer, t: Tensors) -> Tensor:
    function = ops.conv_transpose_bn_act if layer.transposed else ops.conv_bn_act
    norm = t[2:] if layer.norm else ()
    options: dict[str, Any] = {"norm": "batch" if layer.norm else "none", "slope": SLOPE}
    return function(
        t.x, t.weight, None, *norm, stride=2, padding=1, activation=layer.activation, **options
    )


def compiled(machine: Machine, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    how: dict[str, Any] = {"backend": "eager"} if machine.rehearsal else {"options": options}
    return torch.compile(function, dynamic=False, fullgraph=True, **how)


Ways = Iterator[tuple[str, Callable[[Tensors], Tensor], torch.dtype]]


def ways(machine: Machine, layer: Layer) -> Ways:
    of_layer = partial(plain, layer)
    yield "pygen", partial(fused, layer), torch.bfloat16
    yield "eager, channels_last, bf16", of_layer, torch.bfloat16
    yield "compile, channels_last, bf16", compiled(machine, of_layer), torch.bfloat16
    yield "eager, channels_last, TF32", with_tf32(of_layer), torch.float32


def pictures(machine: Machine, batch: int) -> int:
    torch.backends.cudnn.benchmark = True
    return 8 if machine.rehearsal else machine.rows(batch, 2**23)


def forward(
    machine: Machine, layer: Layer, limit: float, beats: dict[str, float], batch: int = 1024
) -> Iterator[Work]:
    """In training: with statistics of the batch, keeping what the backward needs."""
    given = tensors(machine, layer, pictures(machine, batch))
    n = len(given.x)

    def error(function: Callable[[Tensors], Tensor], dtype: torch.dtype) -> float:
        fresh = tensors(machine, layer, n)
        expected = plain(layer, fresh.to(torch.float64)).detach()
        machine.poison(expected.numel() * 2)
        return largest_error(function(fresh.to(dtype)), expected)

    for name, function, dtype in ways(machine, layer):
        t = given.to(dtype)
        sides = 2 if layer.transposed else 0.5
        written = n * layer.outputs * (sides * layer.side) ** 2 * t.x.itemsize
        yield Work(
            name,
            partial(function, t),
            bytes=t.x.nbytes + written,
            flops=layer.flops(n),
            unit="tf32" if dtype == torch.float32 else "bfloat16",
            error=partial(error, function, dtype),
            tolerance=2**-6 if name == "pygen" else 2**-5,  # PyTorch may add up in bfloat16
            limit=limit if name == "pygen" else None,
            beats=beats if name == "pygen" else {},
        )


def gradients(y: Tensor, t: Tensors, grad: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(y, t[:4], grad.to(y.dtype))


def backward(
    machine: Machine, layer: Layer, limit: float, beats: dict[str, float], batch: int = 1024
) -> Iterator[Work]:
    """Gradients of all that has one; the forward is not timed."""
    given = tensors(machine, layer, pictures(machine, batch))
    n = len(given.x)
    with torch.no_grad():
        grad = torch.randn_like(plain(layer, given))

    def error(function: Callable[[Tensors], Tensor], dtype: torch.dtype) -> float:
        fresh = tensors(machine, layer, n)
        exact, t = fresh.to(torch.float64), fresh.to(dtype)
        expected = gradients(plain(layer, exact), exact, grad)
        y = function(t)
        machine.poison(t.x.nbytes)
        return max(
            float((found.double() - wanted).norm() / wanted.norm())
            for found, wanted in zip(gradients(y, t, grad), expected, strict=True)
        )

    for name, function, dtype in ways(machine, layer):
        t = given.to(dtype)
        of = grad.to(dtype)

        def prepare(
            function: Callable[[Tensors], Tensor] = function, t: Tensors = t, of: Tensor = of
        ) -> tuple[Any, ...]:
            return function(t), t, of

        yield Work(
            name,
            gradients,
            prepare=prepare,
            bytes=2.0 * t.x.nbytes + 2.0 * of.nbytes,
            flops=2 * layer.flops(n),
            unit="tf32" if dtype == torch.float32 else "bfloat16",
            error=partial(error, function, dtype),
            tolerance=GRADIENT_TOLERANCE,
            limit=limit if name == "pygen" else None,
            beats=beats if name == "pygen" else {},
        )


def generator(machine: Machine) -> nn.Sequential:
    """For 3x64x64, in evaluation."""
    width = 8 if machine.rehearsal else WIDTH
    layers: list[nn.Module] = [nn.ConvTranspose2d(LATENT, 8 * width, 4, bias=False)]
    for channels in (8 * width, 4 * width, 2 * width):
        layers += [
            nn.BatchNorm2d(channels),
            nn.ReLU(True),
            nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False),
        ]
    last = nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False)
    network = nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU(True), last, nn.Tanh()).eval()
    network.requires_grad_(False)
    return network.to(  # type: ignore[call-overload,no-any-return]
        machine.device, torch.bfloat16, memory_format=torch.channels_last
    )


def in_graph(machine: Machine, network: Callable[[Tensor], Tensor], z: Tensor) -> Callable[[], Any]:
    """Replays a pass, which the first call captures; rehearsed without a graph."""
    if machine.rehearsal:
        return partial(network, z)
    graph: list[torch.cuda.CUDAGraph] = []

    def run() -> None:
        if not graph:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    network(z)
            torch.cuda.current_stream().wait_stream(stream)
            graph.append(torch.cuda.CUDAGraph())
            with torch.cuda.graph(graph[0]):
                network(z)
        graph[0].replay()

    return run


def inference(
    machine: Machine, batch: int, limit: float, beats: dict[str, float]
) -> Iterator[Work]:
    """The generator, batch norm folded into its weights by whom that is known to; one picture in a graph."""
    n = 1 if batch == 1 else pictures(machine, batch)
    torch.backends.cudnn.benchmark = True
    network = generator(machine)
    exact = copy.deepcopy(network).double()
    codes = {"generator": machine.generator(), "device": machine.device, "dtype": torch.bfloat16}
    z = torch.randn(n, LATENT, 1, 1, **codes)  # type: ignore[call-overload]
    products = sum(
        p.numel() * side**2 for p, side in zip(weights(network), (1, 4, 8, 16, 32), strict=True)
    )

    def error(function: Callable[[Tensor], Tensor]) -> float:
        fresh = torch.randn(n, LATENT, 1, 1, **codes)  # type: ignore[call-overload]
        with torch.no_grad():
            return largest_error(function(fresh), exact(fresh.double()))

    freezing = {} if machine.rehearsal else {"freezing": True}
    for name, function in (
        ("pygen", pygen.accelerate(network, copy=True, verbose=False)),
        ("eager, channels_last, bf16", network),
        ("compile, freezing", compiled(machine, network, **freezing)),
    ):
        passed = torch.no_grad()(function)
        yield Work(
            name,
            in_graph(machine, passed, z) if batch == 1 else partial(passed, z),
            flops=2.0 * products * n,
            unit="bfloat16",
            error=partial(error, function),
            tolerance=0.05,
            limit=limit if name == "pygen" else None,
            beats=beats if name == "pygen" else {},
        )


def weights(network: nn.Module) -> list[Tensor]:
    return [m.weight for m in network.modules() if isinstance(m, nn.ConvTranspose2d)]


EAGER, COMPILE = "eager, channels_last, bf16", "compile, channels_last, bf16"
CASES: dict[str, Callable[[Machine], Iterator[Work]]] = {
    "conv-g3-forward": partial(
        forward, layer=G3, limit=150e-6, beats=dict.fromkeys((EAGER, COMPILE), 1.3)
    ),
    "conv-g4-forward": partial(
        forward, layer=G4, limit=150e-6, beats=dict.fromkeys((EAGER, COMPILE), 1.6)
    ),
    "conv-g5-forward": partial(forward, layer=G5, limit=55e-6, beats={EAGER: 2.0}),
    "conv-d2-backward": partial(
        backward, layer=D2, limit=320e-6, beats=dict.fromkeys((EAGER, COMPILE), 1.3)
    ),
    "generator-1024": partial(
        inference, batch=1024, limit=0.45e-3, beats={"compile, freezing": 1.3}
    ),
    "generator-1-in-graph": partial(inference, batch=1, limit=25e-6, beats={}),
}
