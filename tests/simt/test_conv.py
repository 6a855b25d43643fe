"""The CUDA kernels of the conv family, executed on the CPU: what they compute and where they write."""

import pytest
import torch
from harness import Program
from torch.nn import functional as F

FUNCTIONS = BYTES, BACKWARD_BYTES, ACT, BN_ACT, BACKWARD = tuple(
    f"pygen::{name}"
    for name in (
        *("conv_bytes", "conv_backward_bytes"),
        *("launch_conv_act", "launch_conv_bn_act", "launch_conv_backward"),
    )
)
PROGRAM = Program(
    "csrc/conv/cuda.h",
    FUNCTIONS,
    [f"csrc/conv/{name}.cu" for name in ("cuda", "few", "norm", "product")],
)
pytestmark = pytest.mark.xdist_group("conv")  # they share what is compiled
# In the order of pygen::Real.
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
ACTIVATIONS = ("none", "relu", "leaky_relu", "tanh", "sigmoid")
EPS, SLOPE = 1e-5, 0.2
# By the largest magnitude expected: what is left of a sum that was rounded once.
TOLERANCES = {
    torch.float32: 5e-6,
    torch.float64: 1e-12,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
}


class Problem:
    """A convolution, or a transposed one, of random maps."""

    def __init__(self, batch, height, width, small, large, transposed, dtype, offset=0.0):
        self.sizes = batch, height, width, small, large, int(transposed)
        self.transposed, self.dtype = transposed, dtype
        self.real = torch.promote_types(dtype, torch.float32)
        self.channels = large if transposed else small
        g = torch.Generator().manual_seed(sum(self.sizes))
        self.generator = g
        maps = (batch, small, height, width), (batch, large, 2 * height, 2 * width)
        from_shape, self.to_shape = maps if transposed else maps[::-1]
        self.x = (torch.randn(from_shape, generator=g, dtype=torch.float64) + offset).to(dtype)
        weight = torch.randn(small, large, 4, 4, generator=g, dtype=torch.float64)
        self.weight = (weight / (4 * (4 * small) ** 0.5)).to(dtype)
        self.grad = torch.randn(self.to_shape, generator=g, dtype=torch.float64).to(dtype)

    def vector(self, dtype):
        return torch.randn(self.channels, generator=self.generator, dtype=torch.float64).to(dtype)

    def convolve(self, x, weight):
        function = F.conv_transpose2d if self.transposed else F.conv2d
        return function(x, weight, stride=2, padding=1)

    def workspace(self, program, function, *sizes):
        arguments = *self.sizes, *sizes, torch.zeros(1, dtype=torch.int64)
        *_, needed = PROGRAM.call(function, *arguments, **program)
        return torch.full((int(needed),), 255, dtype=torch.uint8)


def last(x):
    """Memory as kernels have it."""
    return x.movedim(1, -1).contiguous()


def first(x):
    return x.movedim(-1, 1)


def nan(shape, dtype):
    return torch.full(tuple(shape), torch.nan, dtype=dtype)


def activate(x, activation):
    if activation == "none":
        return x
    return F.leaky_relu(x, SLOPE) if activation == "leaky_relu" else getattr(torch, activation)(x)


def assert_close(found, wanted, dtype, times=1.0):
    error = (found.double() - wanted).abs().max() / wanted.abs().max()
    assert error <= times * TOLERANCES[dtype], f"{error:.2g}"  # NaN is not


def gradients(p, before):
    """Of x and the weight, from the gradient of the convolution's result."""
    x, weight = (t.double().requires_grad_() for t in (p.x, p.weight))
    return torch.autograd.grad(p.convolve(x, weight), (x, weight), before)


def parts(x, n_batches):
    """[n_batches, C, elements]"""
    return x.unflatten(0, (n_batches, -1)).transpose(1, 2).flatten(2)


def run_backward(program, p, from_, norm, n_batches, activation, taps_last, needs, options):
    """grad_x, grad_weight, grad_norm_weight, grad_bias; norm: mean, var, weight, bias, or nothing."""
    code = DTYPES.index(p.dtype)
    out = p.real if norm else p.dtype
    small, large = p.sizes[3:5]
    weight_shape = (small, large, 16) if taps_last else (small, 16, large)
    outputs = [
        nan(last(p.x).shape, p.dtype) if needs[0] else None,
        nan(weight_shape, p.dtype) if needs[1] else None,
        nan([p.channels], out) if norm else None,
        nan([p.channels], out),
    ]
    found = iter(
        program.call(
            BACKWARD,
            *(last(p.grad), last(p.x), last(p.weight), last(from_), *(norm or [None] * 4)),
            *(*p.sizes, n_batches, EPS, ACTIVATIONS.index(activation), SLOPE, code, int(taps_last)),
            p.workspace(options, BACKWARD_BYTES, n_batches, code, int(needs[1])),
            *(*outputs, None),
            **options,
        )[-sum(o is not None for o in outputs) :]
    )
    grad_x, grad_weight, *vectors = (None if o is None else next(found) for o in outputs)
    if grad_weight is not None:
        grad_weight = grad_weight if taps_last else grad_weight.transpose(1, 2)
        grad_weight = grad_weight.reshape(p.weight.shape)
    return None if grad_x is None else first(grad_x), grad_weight, *vectors


def check_act(
    program, p, activation="none", *, biased=True, taps_last=True, needs=(1, 1), **options
):
    bias = p.vector(p.dtype) if biased else None
    *_, y = program.call(
        ACT,
        *(last(p.x), last(p.weight), bias, *p.sizes, ACTIVATIONS.index(activation), SLOPE),
        *(DTYPES.index(p.dtype), nan(last(p.grad).shape, p.dtype), None),
        **options,
    )
    y = first(y)
    z = p.convolve(p.x.double(), p.weight.double())
    if biased:
        z = z + bias.double()[:, None, None]
    assert_close(y, activate(z, activation), p.dtype)

    u = y.double().requires_grad_()  # the derivative by the result
    slope = {
        "none": torch.ones_like,
        "relu": lambda y: (y > 0).double(),
        "leaky_relu": lambda y: torch.where(y > 0, 1.0, y.new_tensor(SLOPE)),
        "tanh": lambda y: 1 - y * y,
        "sigmoid": lambda y: y * (1 - y),
    }[activation](u.detach())
    before = p.grad.double() * slope
    found = run_backward(program, p, y, None, 1, activation, taps_last, needs, options)
    wanted = *gradients(p, before), None, before.sum((0, 2, 3))
    compare(found, wanted, p.dtype)


def compare(found, wanted, dtype):
    for mine, theirs in zip(found, wanted, strict=True):
        if mine is not None:
            assert_close(mine, theirs, dtype, 2)  # products of rounded numbers


def check_bn(
    program, p, activation="relu", *, n_batches=1, affine=True, taps_last=False, **options
):
    code = DTYPES.index(p.dtype)
    norm = [p.vector(p.real) + 1, p.vector(p.real)] if affine else [None, None]
    shape = last(p.grad).shape
    *_, y, z, mean, var = program.call(
        BN_ACT,
        *(last(p.x), last(p.weight), *norm, *p.sizes, n_batches, EPS),
        *(ACTIVATIONS.index(activation), SLOPE, code),
        p.workspace(options, BYTES, n_batches, code),
        *(nan(shape, p.dtype), nan(shape, p.dtype)),
        *(nan([n_batches, p.channels], p.real), nan([n_batches, p.channels], p.real)),
        None,
        **options,
    )
    y, z = first(y), first(z)
    exact = p.convolve(p.x.double(), p.weight.double())
    assert_close(z, exact, p.dtype)
    exact_var, exact_mean = torch.var_mean(parts(exact, n_batches), 2, correction=0)
    for found, wanted in ((mean, exact_mean), (var, exact_var)):
        assert_close(found, wanted, p.real, 10)

    # From here on by what the kernels were given.
    u = z.double()
    scale = [None if v is None else v.double() for v in norm]
    given = parts(u, n_batches)
    deviation = (var.double() + EPS).sqrt()[..., None]
    normal = ((given - mean.double()[..., None]) / deviation).requires_grad_()
    weight, bias = (
        torch.full([p.channels], c, dtype=torch.float64) if v is None else v
        for v, c in zip(scale, (1.0, 0.0), strict=True)
    )
    wanted = activate(normal * weight[:, None] + bias[:, None], activation)
    assert_close(parts(y, n_batches), wanted.detach(), p.dtype)
    (grad,) = torch.autograd.grad(wanted, normal, parts(p.grad.double(), n_batches))
    normal = normal.detach()
    average = grad.mean(2, keepdim=True) + normal * (grad * normal).mean(2, keepdim=True)
    before = ((grad - average) / deviation).unflatten(2, (-1, *exact.shape[2:]))
    before = before.transpose(1, 2).flatten(0, 1)
    grad = grad / weight[:, None]
    vectors = (grad * normal).sum((0, 2)), grad.sum((0, 2))
    found = run_backward(
        program, p, z, [mean, var, *norm], n_batches, activation, taps_last, (1, 1), options
    )
    compare(found, (*gradients(p, before), *vectors), p.dtype)


def exercise(program, **options):
    for transposed in (False, True):
        p = Problem(2, 2, 5, 3, 2, transposed, torch.float32)
        check_bn(program, p, n_batches=2, **options)
    # Four slices: the last is read where results are put together.
    check_bn(program, Problem(2, 5, 7, 16, 8, True, torch.float32), **options)
    # Four tiles of three blocks, in two stages each.
    options = {**options, "multiprocessors": 1}
    check_act(program, Problem(2, 3, 18, 20, 3, True, torch.float32), needs=(0, 0), **options)


# Odd numbers of channels; whole tiles and parts of them; one pixel; more channels than a tile has.
SIZES = [(2, 3, 5, 3, 2), (2, 5, 7, 24, 16), (3, 1, 1, 8, 80), (1, 2, 3, 72, 8)]
RACY = [(2, 2, 3, 5, 3), (2, 3, 5, 16, 8)]


# ThreadSanitizer is slow: what keeps all warps busy. What finds wrong results alone runs in the tests below.
RUNS = [
    *(("address", True, sizes) for sizes in SIZES),
    *(("thread", False, sizes) for sizes in RACY),
]


@pytest.mark.parametrize(("mode", "backwards", "sizes"), RUNS)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_kernels_are_the_operators(dtype, transposed, sizes, backwards, mode):
    p = Problem(*sizes, transposed, dtype)
    n_batches = sizes[0] if sizes[1] > 1 else 1
    check_bn(PROGRAM, p, n_batches=n_batches, mode=mode, backwards=backwards)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_activations(dtype, activation):
    options = {"taps_last": activation != "relu", "affine": activation != "tanh"}
    p = Problem(4, 2, 3, 8, 16, True, dtype)
    check_bn(PROGRAM, p, activation, n_batches=2, **options)
    check_act(PROGRAM, p, activation)
    check_act(PROGRAM, Problem(2, 2, 3, 9, 3, False, dtype), activation, mode="address")


# Large, narrow and small tiles: by channels, and by how many multiprocessors are to have one.
@pytest.mark.parametrize(
    ("small", "large", "multiprocessors"), [(72, 72, 1), (72, 40, 1), (40, 40, 1000)]
)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tiles_of_every_shape(dtype, transposed, small, large, multiprocessors):
    p = Problem(3, 5, 5, small, large, transposed, dtype)
    check_act(PROGRAM, p, "leaky_relu", multiprocessors=multiprocessors)


# One pixel; a tile and parts of others; more tiles than blocks, more channels than a stage has.
@pytest.mark.parametrize(
    ("sizes", "mode", "backwards"),
    [
        ((3, 1, 1, 8, 1), "address", True),
        ((1, 17, 33, 24, 3), "address", False),
        ((2, 16, 5, 72, 4), "thread", False),
        ((4, 3, 20, 40, 2), "thread", True),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_maps_of_few_channels(dtype, sizes, mode, backwards):
    options = {"mode": mode, "backwards": backwards, "multiprocessors": 1}
    check_act(PROGRAM, Problem(*sizes, True, dtype), "tanh", needs=(0, 0), **options)
    p = Problem(*sizes, False, dtype)
    check_act(PROGRAM, p, "leaky_relu", biased=False, needs=(1, 0), **options)


def test_a_map_of_few_channels_does_not_depend_on_the_order_of_blocks():
    p = Problem(4, 5, 17, 16, 3, True, torch.bfloat16)
    runs = [
        PROGRAM.call(
            ACT,
            *(last(p.x), last(p.weight), None, *p.sizes, 0, SLOPE),
            *(DTYPES.index(p.dtype), nan(last(p.grad).shape, p.dtype), None),
            backwards=backwards,
            multiprocessors=multiprocessors,
        )[-1]
        for backwards, multiprocessors in ((False, 1), (True, 8))
    ]
    assert torch.equal(*runs)


@pytest.mark.parametrize("needs", [(0, 0), (0, 1), (1, 0)])
def test_gradients_that_are_not_needed(needs):
    check_act(PROGRAM, Problem(2, 2, 3, 8, 8, True, torch.float32), "relu", needs=needs)
    check_act(PROGRAM, Problem(2, 2, 3, 8, 8, False, torch.float32), biased=False, needs=needs)


@pytest.mark.parametrize("sizes", [(4, 6, 5, 3, 2), (4, 6, 5, 16, 8)])
@pytest.mark.parametrize("transposed", [False, True])
def test_variance_far_from_zero(sizes, transposed):
    """Channels whose mean is a thousand times their deviation, at the border, too."""
    p = Problem(*sizes, transposed, torch.float32, offset=1e3)
    p.weight.zero_()
    to = torch.arange(p.channels)
    taps = p.weight if transposed else p.weight.transpose(0, 1)
    taps[to % p.x.shape[1], to, 1:3, 1:3] = 1 if transposed else 0.5
    check_bn(PROGRAM, p, n_batches=2)


def test_results_do_not_depend_on_the_order_of_blocks():
    p = Problem(4, 5, 5, 16, 24, True, torch.bfloat16)
    norm = [torch.full([1, p.channels], value) for value in (0.1, 2.0)] + [None, None]
    runs = [
        run_backward(PROGRAM, p, p.grad, norm, 1, "relu", False, (1, 1), {"backwards": backwards})
        for backwards in (False, True)
    ]
    assert all(map(torch.equal, *runs))


def test_what_barriers_are_tested_by_is_right():
    exercise(PROGRAM)
