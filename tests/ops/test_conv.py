from dataclasses import replace

import pytest
import torch
from convolutions import (
    ACTIVATIONS,
    FORMATS,
    GEOMETRIES,
    NORMS,
    Layer,
    eager,
    errors,
    fused,
    layers,
    results,
)
from hypothesis import given, settings
from torch.nn import functional as F

from pygen import ops
from pygen.ops.strided_conv import strided_conv_act
from pygen.ops.strided_conv_bn import strided_conv_bn_act

STRIDED = [False, True]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(layers())
def test_random_configurations_are_as_near_to_float64_as_eager(layer):
    """Results, running statistics and gradients, in their scales.

    Over 1000 configurations, of DCGAN's geometry the worst were 1.5e-5 (eager 1.6e-5), both of a
    norm's weight; of y 9e-7 (1.5e-6), of x's gradient 1.6e-6 (1.4e-5), of the convolution's weight
    3.4e-6 (3.4e-6), of running statistics 2.9e-7 (2.9e-7). Elsewhere a channel may hold little but
    its bias: then its statistics are roundings, eager's too.
    """
    found, peers = errors(layer, torch.float32, fused), errors(layer, torch.float32, eager)
    assert found.keys() == peers.keys()
    for name, error in found.items():
        assert error <= max(2e-5, 2 * peers[name]), (name, error, peers[name])


@pytest.mark.parametrize("transposed", STRIDED)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_float64_is_exact(device, transposed, norm, activation):
    layer = Layer(
        transposed, norm=norm, activation=activation, n_batches=2, bias=True, momentum=0.3
    )
    expected = results(layer, torch.float64, eager, device)
    for name, value in results(layer, torch.float64, fused, device).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("transposed", STRIDED)
def test_threads_do_not_show(transposed):
    layer = Layer(transposed, batch=9, inputs=24, outputs=40, sides=(12, 16), n_batches=3)
    threads, found = torch.get_num_threads(), []
    for number in (1, 2, 3, 7):
        try:
            torch.set_num_threads(number)
            found.append(results(layer, torch.float32, fused))
        finally:
            torch.set_num_threads(threads)
    for name, value in found[0].items():
        assert all(torch.equal(other[name], value) for other in found[1:]), name


@pytest.mark.parametrize("transposed", STRIDED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_variance_keeps_its_digits_far_from_zero(device, transposed, dtype):
    """Mean 1000, standard deviation 1."""
    layer = Layer(transposed, batch=8, inputs=4, sides=(16, 16))
    (conv, *_), x, _ = layer.modules(dtype, device)
    axis = 0 if transposed else 1
    with torch.no_grad():
        # The inner taps, which meet padding nowhere, with weights of sum 1: the mean is x's.
        conv.weight[:, :, ::3], conv.weight[..., ::3] = 0, 0
        inner = conv.weight.abs()
        taps = (axis,) if transposed else (1, 2, 3)
        total = inner.sum(taps, keepdim=True)
        weight = torch.where(total > 0, inner / total, 0)
        norm = weight[:, :, 1:3, 1:3].square().sum(taps).sqrt().mean()
        x = 1e3 + x / norm
    mean, var = torch.ops.pygen.strided_conv_bn_act(
        x, weight, None, None, transposed, 2, 1e-5, 0, 0.0
    )[2:]
    convolution = F.conv_transpose2d if transposed else F.conv2d
    z = convolution(x.double(), weight.double(), None, 2, 1).unflatten(0, (2, -1))
    exact_var, exact_mean = torch.var_mean(z, (1, 3, 4), correction=0)
    assert 0.2 < exact_var.min() < exact_var.max() < 5
    torch.testing.assert_close(mean.double(), exact_mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(var.double(), exact_var, rtol=1e-4, atol=0)


@pytest.mark.parametrize("transposed", STRIDED)
def test_training_then_evaluation(device, transposed):
    """Running statistics of several batches, folded into the weights, are those of the modules."""
    layer = Layer(transposed, batch=6, activation="relu", bias=True)
    (conv, norm, activation), *_ = layer.modules(torch.float32, device)
    exact, *_ = layer.modules(torch.float64, device)
    with torch.no_grad():
        for seed in range(5):
            x = replace(layer, seed=seed).modules(torch.float32, device)[1]
            fused(layer, (conv, norm, activation), x)
            eager(layer, exact, x.double())
        exact[1].eval()
        found = fused(replace(layer, norm="running"), (conv, norm, activation), x)
        expected = eager(layer, exact, x.double())[1]
    close = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(norm.running_mean.double(), exact[1].running_mean, **close)
    torch.testing.assert_close(norm.running_var.double(), exact[1].running_var, **close)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_parts_of_a_batch_are_as_if_given_one_after_the_other(device):
    layer = Layer(batch=6, n_batches=3, bias=True)
    modules, x, _ = layer.modules(torch.float64, device)
    again, *_ = layer.modules(torch.float64, device)
    y = fused(layer, modules, x)
    one = replace(layer, n_batches=1)
    torch.testing.assert_close(y, torch.cat([fused(one, again, part) for part in x.chunk(3)]))
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(modules[1], name), getattr(again[1], name))


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("x_format", FORMATS)
@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("norm", NORMS)
def test_memory_format_is_eagers(name, x_format, weight_format, norm):
    layer = replace(GEOMETRIES[name], x_format=x_format, weight_format=weight_format, norm=norm)
    made = [run(layer, *layer.modules(torch.float32)[:2]) for run in (fused, eager)]
    for memory_format in FORMATS:
        found, expected = (
            y.is_contiguous(memory_format=memory_format) for y in (made[0], made[1][1])
        )
        assert found == expected
    torch.testing.assert_close(made[0], made[1][1], rtol=1e-4, atol=1e-4)
    gradient, peer = (results(layer, torch.float32, run)["x"] for run in (fused, eager))
    assert gradient.stride() == peer.stride() or 1 in gradient.shape


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("bias", [False, True])
def test_geometries_with_ways_of_their_own(device, name, bias):
    for x_format in FORMATS:
        layer = replace(GEOMETRIES[name], bias=bias, x_format=x_format, activation="tanh")
        for norm in NORMS:
            layer = replace(layer, norm=norm)
            expected = results(layer, torch.float64, eager, device)
            for key, value in results(layer, torch.float64, fused, device).items():
                torch.testing.assert_close(value, expected[key], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("transposed", STRIDED)
def test_inputs_that_are_not_contiguous(device, transposed):
    layer = Layer(transposed)
    modules, x, _ = layer.modules(torch.float64, device)
    expected = eager(layer, modules, x)[1]
    wide = torch.randn(4, 6, 9, 12, dtype=x.dtype, device=device)
    for memory_format in FORMATS:
        part = wide.contiguous(memory_format=memory_format)[:, ::2, 2:6, ::2]
        part.copy_(x.detach())
        torch.testing.assert_close(fused(layer, modules, part), expected)


@pytest.mark.parametrize("transposed", STRIDED)
@pytest.mark.parametrize(
    ("norm", "needed"),
    [("none", name) for name in ("x", "conv.weight", "conv.bias")]
    + [("batch", name) for name in ("x", "conv.weight", "conv.bias", "norm.weight", "norm.bias")],
)
def test_gradient_of_one_alone(transposed, norm, needed):
    layer = Layer(transposed, bias=True, norm=norm, activation="sigmoid")
    gradients = []
    for run in (fused, lambda *a: eager(*a)[1]):
        modules, x, grad = layer.modules()
        named = {"x": x}
        for prefix, module in zip(("conv", "norm"), modules, strict=False):
            if module is not None:
                named |= dict(module.named_parameters(prefix=prefix))
        for name, tensor in named.items():
            tensor.requires_grad_(name == needed)
        run(layer, modules, x).backward(grad)
        assert [name for name, tensor in named.items() if tensor.grad is not None] == [needed]
        gradients.append(named[needed].grad)
    torch.testing.assert_close(*gradients)


def test_bias_before_batch_norm_has_a_gradient_of_zero():
    layer = Layer(bias=True, affine=False)
    modules, x, grad = layer.modules()
    fused(layer, modules, x).backward(grad)
    assert torch.equal(modules[0].bias.grad, torch.zeros(5, dtype=torch.float64))


def test_the_result_is_not_kept_for_the_backward():
    """Of the batch only x and the convolution; eager keeps what batch norm gives as well."""
    kept = []
    modules, x, _ = Layer().modules(torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = fused(Layer(), modules, x)
    assert y.requires_grad
    assert sorted(t.numel() for t in kept if t.dim() == 4 and t.shape[0] == 4) == [120, 288]


@pytest.mark.parametrize("transposed", STRIDED)
@pytest.mark.parametrize("activation", range(len(ACTIVATIONS)))
def test_gradients_of_the_operators(transposed, activation):
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape):
        return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()

    x, weight, scale, shift = numbers(2, 2, 2, 4), numbers(2, 2, 4, 4), numbers(2), numbers(2)

    def act(x, weight, shift):
        return strided_conv_act(x, weight, shift, transposed, activation, 0.2)

    def bn_act(x, weight, scale, shift):
        options = transposed, 1, 1e-5, activation, 0.2
        return strided_conv_bn_act(x, weight, scale, shift, *options)[0]

    for function, inputs in ((act, (x, weight, shift)), (bn_act, (x, weight, scale, shift))):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("transposed", STRIDED)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ["none", "leaky_relu", "tanh"])
def test_gradcheck_and_gradgradcheck(device, transposed, norm, activation):
    """The second derivative is that of gradient penalties."""
    sides = (1, 2) if transposed else (2, 4)
    layer = Layer(
        transposed, 4, 2, 2, sides=sides, bias=True, norm=norm, activation=activation, n_batches=2
    )
    modules, x, _ = layer.modules(device=device)
    conv, batch_norm, _ = modules
    vectors = [] if batch_norm is None else [batch_norm.weight, batch_norm.bias]

    def function(x, weight, bias, *vectors):
        run = ops.conv_transpose_bn_act if transposed else ops.conv_bn_act
        statistics = (
            (batch_norm.running_mean, batch_norm.running_var) if norm == "running" else (None, None)
        )
        return run(
            x,
            weight,
            bias,
            *(vectors or (None, None)),
            *statistics,
            stride=2,
            padding=1,
            norm=norm,
            activation=activation,
            n_batches=2,
        )

    inputs = [t.detach().requires_grad_() for t in (x, conv.weight, conv.bias, *vectors)]
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


def arguments(transposed, dtype, device, memory_format=torch.contiguous_format, grad=True):
    """Of the two operators: x, weight, bias, and batch norm's weight and bias."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape, dtype=dtype):
        return torch.randn(*shape, generator=generator).to(device, dtype).requires_grad_(grad)

    x = draw(4, 3, 4, 6).detach().contiguous(memory_format=memory_format).requires_grad_(grad)
    weight = draw(3, 5, 4, 4) if transposed else draw(5, 3, 4, 4)
    wide = torch.promote_types(dtype, torch.float32)
    return x, weight, draw(5), draw(5, dtype=wide), draw(5, dtype=wide)


@pytest.mark.parametrize("transposed", STRIDED)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_opcheck(device, transposed, memory_format, dtype):
    pygen = torch.ops.pygen
    x, weight, bias, *norm = arguments(transposed, dtype, device, memory_format)
    # Gradients of a traced and of an untraced run differ by roundings of half precision.
    loose = {"rtol": 0.05, "atol": 0.05} if dtype.itemsize == 2 else {}
    torch.library.opcheck(
        pygen.strided_conv_act.default, (x, weight, bias, transposed, 2, 0.2), **loose
    )
    options = transposed, 2, 1e-5, 2, 0.2
    torch.library.opcheck(pygen.strided_conv_bn_act.default, (x, weight, *norm, *options), **loose)
    x, weight, bias, *norm = arguments(transposed, dtype, device, memory_format, grad=False)
    y = pygen.strided_conv_act(x, weight, None, transposed, 3, 0.0)
    for needs in ((True, False), (False, True), (False, False)):
        torch.library.opcheck(
            pygen.strided_conv_act_backward.default,
            (y.cos(), x, weight, y, transposed, 3, 0.0, *needs),
            **loose,
        )
        y, *kept = pygen.strided_conv_bn_act(x, weight, None, norm[1], *options)
        torch.library.opcheck(
            pygen.strided_conv_bn_act_backward.default,
            (y.cos(), x, weight, *kept, None, norm[1], *options, *needs),
            **loose,
        )


@pytest.mark.parametrize(("cast", "backend"), [(False, "inductor"), (True, "aot_eager")])
def test_compile_fullgraph(device, cast, backend):
    weight = torch.randn(5, 3, 4, 4, device=device, requires_grad=True)
    back = torch.randn(5, 3, 4, 4, device=device, requires_grad=True)
    square = torch.randn(7, 5, 2, 2, device=device, requires_grad=True)
    bias = torch.randn(5, device=device, requires_grad=True)
    x = torch.randn(4, 3, 4, 6, device=device)

    def step(x, mean, var):
        options = {"stride": 2, "padding": 1}
        y = ops.conv_bn_act(
            x, weight, bias, None, None, mean, var, **options, n_batches=2, activation="relu"
        )
        y = y + ops.conv_bn_act(x, weight, None, None, bias, mean, var, **options, norm="running")
        z = ops.conv_bn_act(y, square, norm="none", activation="sigmoid")
        y = ops.conv_transpose_bn_act(y, back, norm="none", activation="tanh", **options)
        return y.float().mean() + z.float().square().mean()

    wanted = []
    for run in (step, torch.compile(step, fullgraph=True, backend=backend)):
        mean, var = torch.zeros(5, device=device), torch.ones(5, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=cast):
            loss = run(x, mean, var)
        wanted.append([loss, mean, var, *torch.autograd.grad(loss, [weight, back, square, bias])])
    tolerance = {"rtol": 0.02, "atol": 1e-3} if cast else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(*wanted, **tolerance)


def test_padding_by_name(device):
    x = torch.randn(2, 3, 6, 5, device=device)
    weight = torch.randn(4, 3, 3, 5, device=device)
    for padding in ("same", "valid"):
        found = ops.conv_bn_act(x, weight, padding=padding, norm="none")
        torch.testing.assert_close(found, F.conv2d(x, weight, padding=padding))


def test_negative_slope_below_zero(device):
    modules, x, _ = Layer().modules(device=device)
    options = {"stride": 2, "padding": 1, "norm": "none", "activation": "leaky_relu", "slope": -0.5}
    y = ops.conv_bn_act(x, modules[0].weight, **options)
    expected = F.leaky_relu(modules[0](x), -0.5)
    torch.testing.assert_close(y, expected)
    found, wanted = (torch.autograd.grad(r.square().sum(), x)[0] for r in (y, expected))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("sides", [(4, 4), (5, 5)])
def test_empty_batch(sides):
    y = ops.conv_bn_act(torch.zeros(0, 3, *sides), torch.zeros(5, 3, 4, 4), stride=2, padding=1)
    assert y.shape == (0, 5, 2, 2)


def test_errors():
    x, weight, five = torch.zeros(3, 3, 4, 4), torch.zeros(5, 3, 4, 4), torch.zeros(5)
    options = {"stride": 2, "padding": 1}
    for message, arguments, wrong in (
        ("activation must be one of none, relu, .*; got 'gelu'", (), {"activation": "gelu"}),
        ("norm must be one of batch, running, none; got 'layer'", (), {"norm": "layer"}),
        ("n_batches must be at least 1 and divide the batch of 3; got 2", (), {"n_batches": 2}),
        ("n_batches must be at least 1", (), {"n_batches": 0}),
        ("needs running_mean and running_var; got None", (), {"norm": "running"}),
        (r"bias must be \[5\], .*; got \[3\]", (five[:3],), {}),
        (r"norm_weight must be \[5\], .*; got \[5, 1\]", (None, five[:, None]), {}),
        (r"running_var must be \[5\]", (None, None, None, five, five[:1]), {}),
    ):
        with pytest.raises(ValueError, match=message):
            ops.conv_bn_act(x, weight, *arguments, **options | wrong)
    with pytest.raises(ValueError, match=r"x must be \[N, C, H, W\] for batch norm; got \[3, 4, 4"):
        ops.conv_bn_act(x[0], weight, **options)
    for sides in (2, 3):
        with pytest.raises(ValueError, match="Expected more than 1 value per channel when train"):
            ops.conv_bn_act(x[:, :, :sides, :sides], weight, n_batches=3, **options)
    with pytest.raises(RuntimeError, match=r"expected input.* to have 3 channels"):
        ops.conv_bn_act(x[:, :2], weight, **options)
    with pytest.raises(RuntimeError, match="type"):
        ops.conv_bn_act(x.double(), weight, **options)
    with pytest.raises(ValueError, match=r"bias must be \[3\]"):
        ops.conv_transpose_bn_act(x, weight[:3], five, **options)
