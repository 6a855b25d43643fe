"""Convolutions in half precision on a CPU, with instructions for it and without."""

from collections import defaultdict
from dataclasses import replace
from itertools import product

import pytest
import torch
from convolutions import FORMATS, GEOMETRIES, NORMS, Layer, eager, fused, results
from operator_calls import OperatorCalls
from torch.nn import functional as F

from pygen import ops
from pygen.ops import convolution, native


@pytest.fixture(params=[True, False], ids=["instructions", "no instructions"])
def half_precision_of_the_cpu(request, monkeypatch):
    """Of a CPU that has instructions for it, or has not."""
    both = (torch.bfloat16, torch.float16)
    monkeypatch.setattr(convolution, "_LEFT_TO_PYTORCH", {"cpu": both if request.param else ()})
    return request.param


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.usefixtures("half_precision_of_the_cpu")
def test_bfloat16_is_no_worse_than_eager_under_autocast(transposed):
    """Root mean square of the errors, by result. Left to PyTorch the ratios are 1.0000."""
    squares = defaultdict(lambda: [0.0, 0.0])
    for seed in range(20):
        layer = Layer(
            transposed, 8, 16, 24, activation="leaky_relu", seed=seed, n_batches=1 + seed % 2
        )
        exact = results(layer, torch.float64, eager)
        for column, run in enumerate((fused, eager)):
            with torch.autocast("cpu", torch.bfloat16):
                found = results(layer, torch.float32, run)
            assert found["y"].dtype == torch.bfloat16
            assert found["conv.weight"].dtype == found["norm.weight"].dtype == torch.float32
            for name, value in found.items():
                squares[name][column] += (value.double() - exact[name]).square().sum().item()
    for name, (ours, eagers) in squares.items():
        assert ours**0.5 <= 1.1 * eagers**0.5, name


needs_matrix_unit = pytest.mark.skipif(
    not (native and native.cpu_matrix_unit), reason="no kernels for a matrix unit of this CPU"
)
WIDE = Layer(batch=12, inputs=32, outputs=64, sides=(6, 8), activation="leaky_relu")


@needs_matrix_unit
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_bfloat16_by_a_matrix_unit(norm, transposed):
    """No worse than eager under autocast, in every memory format, by the operators in bfloat16."""
    squares = defaultdict(lambda: [0.0, 0.0])
    for seed, (x_format, weight_format, _) in enumerate(product(FORMATS, FORMATS, range(2))):
        layer = replace(
            WIDE,
            transposed=transposed,
            norm=norm,
            bias=norm == "none",
            n_batches=1 + seed % 2 if norm == "batch" else 1,
            x_format=x_format,
            weight_format=weight_format,
            seed=seed,
        )
        exact = results(layer, torch.float64, eager)
        for column, run in enumerate((fused, eager)):
            with torch.autocast("cpu", torch.bfloat16), OperatorCalls() as called:
                found = results(layer, torch.float32, run)
            if run is fused:
                assert {call.dtype for call in called.named("pygen.")} == {torch.bfloat16}
            for name, value in found.items():
                squares[name][column] += (value.double() - exact[name]).square().sum().item()
    for name, (ours, eagers) in squares.items():
        assert ours**0.5 <= 1.1 * eagers**0.5, name


@needs_matrix_unit
@pytest.mark.parametrize(
    ("change", "has_kernel"),
    [
        ({"batch": 4}, True),
        ({"batch": 3}, False),
        ({"inputs": 1}, True),
        ({"outputs": 4}, True),
        ({"outputs": 5}, False),
        ({"inputs": 48}, False),
    ],
)
def test_what_a_matrix_unit_leaves_to_pytorch(change, has_kernel):
    layer = replace(WIDE, norm="none", activation="none", **change)
    exact = results(layer, torch.float64, eager)
    with OperatorCalls() as called:
        found = results(layer, torch.bfloat16, fused)
    assert bool(called.named("pygen.")) == has_kernel
    for name, value in found.items():
        error = (value.double() - exact[name]).abs().max()
        assert error <= 4 * torch.finfo(torch.bfloat16).eps * exact[name].abs().max(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.usefixtures("half_precision_of_the_cpu")
def test_layers_all_in_half_precision(dtype, norm):
    """Parameters and running statistics too: the statistics are computed in float32, then rounded."""
    layer = Layer(norm=norm, batch=16)
    found, peer = results(layer, dtype, fused), results(layer, dtype, eager)
    exact = results(layer, torch.float64, eager)
    for name, value in found.items():
        assert value.dtype == dtype
        error, peers = ((x.double() - exact[name]).norm() for x in (value, peer[name]))
        assert error <= 1.1 * peers + torch.finfo(dtype).eps * exact[name].norm(), name


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.usefixtures("half_precision_of_the_cpu")
def test_under_autocast_as_eager(norm):
    for layer in (Layer(norm=norm, bias=True), Layer(norm=norm, bias=True, sides=(5, 5))):
        with torch.autocast("cpu", torch.bfloat16):
            found, expected = (results(layer, torch.float32, run) for run in (fused, eager))
            twice = results(layer, torch.float64, fused)
        exact = results(layer, torch.float64, eager)
        for name, value in found.items():
            assert value.dtype == expected[name].dtype
            error, peers = ((r[name] - exact[name]).norm() for r in (found, expected))
            assert error <= max(1.5 * peers, 0.01 * exact[name].norm()), name
        # Autocast leaves float64 alone.
        torch.testing.assert_close(twice, exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["strided", "spans its map", "transposed, one pixel"])
def test_half_precision_on_the_cpu(half_precision_of_the_cpu, name, dtype):
    """Left to PyTorch, or computed by the kernels, or as a product in float32."""
    layer = replace(GEOMETRIES[name], norm="none", bias=True)
    with OperatorCalls() as called:
        found = results(layer, dtype, fused)
    if name == "strided":
        given = {call.dtype for call in called.named("pygen.strided_conv_act")}
        assert given == (set() if half_precision_of_the_cpu else {dtype})
    else:
        product = dtype if half_precision_of_the_cpu else torch.float32
        assert {call.dtype for call in called.named("aten.addmm")} == {product}
    exact = results(layer, torch.float64, eager)
    for key, value in found.items():
        error = (value.double() - exact[key]).abs().max()
        assert error <= 4 * torch.finfo(dtype).eps * exact[key].abs().max(), key


@pytest.mark.usefixtures("half_precision_of_the_cpu")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["strided", "spans its map", "transposed, one pixel"])
def test_half_precision_of_x_alone_is_an_error(name, dtype):
    """As for PyTorch's convolutions."""
    layer = replace(GEOMETRIES[name], norm="none")
    (conv, *_), x, _ = layer.modules(torch.float32)
    function = ops.conv_transpose_bn_act if layer.transposed else ops.conv_bn_act
    with pytest.raises(RuntimeError):
        function(x.to(dtype), conv.weight, norm="none", stride=layer.stride, padding=layer.padding)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_precision_by_parities_is_the_transposed_convolution(channels, layout):
    """To a rounding of bfloat16, in the scale of the result, and in the same memory format."""
    torch.manual_seed(0)
    x = torch.randn(2, 24, 5, 6, dtype=torch.bfloat16).to(memory_format=layout)
    weight = torch.randn(24, channels, 4, 4, dtype=torch.bfloat16)
    bias = torch.randn(channels, dtype=torch.bfloat16)
    options = {"stride": 2, "padding": 1}
    exact = F.conv_transpose2d(x.double(), weight.double(), bias.double(), **options)
    with torch.no_grad():
        y = ops.conv_transpose_bn_act(x, weight, bias, norm="none", **options)
        peer = F.conv_transpose2d(x, weight, bias, **options)
    assert y.dtype == torch.bfloat16
    assert y.stride() == peer.stride()
    assert (y - exact).abs().max() <= 2**-8 * exact.abs().max()
