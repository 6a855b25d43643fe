"""Convolutions of DCGAN - kernel 4, stride 2, padding 1, plain or transposed - with an activation.

`pygen.ops.conv` has the functions for all geometries, which call these operators where they fit.
"""

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from pygen.ops.operator import operator

aten = torch.ops.aten

ACTIVATIONS = ("none", "relu", "leaky_relu", "tanh", "sigmoid")
"""What ``activation`` counts in the operators."""


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """Of sums, statistics and batch norm's parameters: half precision is computed in float32."""
    return torch.promote_types(dtype, torch.float32)


def is_channels_last(x: Tensor) -> bool:
    """By the strides, as a convolution of PyTorch decides on its result's memory format."""
    if x.stride(1) == 0 or 0 in x.shape:
        return False
    least = 0
    for dim in (1, 3, 2, 0):
        if x.stride(dim) < least or (dim == 0 and least == x.stride(1)):
            return False
        least = x.stride(dim) * x.shape[dim]
    return True


def _format(*tensors: Tensor) -> torch.memory_format:
    last = any(is_channels_last(tensor) for tensor in tensors)
    return torch.channels_last if last else torch.contiguous_format


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    z = aten.convolution(x, weight, bias, [2, 2], [1, 1], [1, 1], transposed, [0, 0], 1)
    return z.contiguous(memory_format=_format(x, weight))


def convolve_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    transposed: bool,
    needs_x: bool,
    needs_weight: bool,
    needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiable. What is not needed comes as an empty tensor."""
    channels = weight.shape[1 if transposed else 0]
    needs = [needs_x, needs_weight, needs_bias]
    found = aten.convolution_backward(
        grad, x, weight, [channels], [2, 2], [1, 1], [1, 1], transposed, [0, 0], 1, needs
    )
    formats = _format(x, weight), _format(weight), torch.contiguous_format
    grad_x, grad_weight, grad_bias = (
        gradient.contiguous(memory_format=memory_format) if needed else x.new_empty(0)
        for gradient, memory_format, needed in zip(found, formats, needs, strict=True)
    )
    return grad_x, grad_weight, grad_bias


def activate_(x: Tensor, activation: int, slope: float) -> Tensor:
    name = ACTIVATIONS[activation]
    if name == "leaky_relu":
        return aten.leaky_relu_(x, slope)
    return x if name == "none" else getattr(aten, f"{name}_")(x)


def activation_backward(
    grad: Tensor, y: Tensor, activation: int, slope: float, out: Tensor | None = None
) -> Tensor:
    """Gradient before the activation, from its result y. Written to ``out`` if that is given."""
    name = ACTIVATIONS[activation]
    if name == "none":
        return grad
    arguments: dict[str, tuple[Any, ...]] = {
        "relu": (aten.threshold_backward, 0),
        "leaky_relu": (aten.leaky_relu_backward, slope, True),
        "tanh": (aten.tanh_backward,),
        "sigmoid": (aten.sigmoid_backward,),
    }
    function, *rest = arguments[name]
    return function(grad, y, *rest) if out is None else function(grad, y, *rest, grad_input=out)


def _result_shape(x: Tensor, weight: Tensor, transposed: bool) -> list[int]:
    n, _, height, width = x.shape
    if transposed:
        return [n, weight.shape[1], 2 * height, 2 * width]
    return [n, weight.shape[0], height // 2, width // 2]


def empty_result(x: Tensor, weight: Tensor, transposed: bool) -> Tensor:
    return torch.empty(
        _result_shape(x, weight, transposed),
        dtype=x.dtype,
        device=x.device,
        memory_format=_format(x, weight),
    )


def empty_gradients(
    x: Tensor, weight: Tensor, needs_x: bool, needs_weight: bool
) -> tuple[Tensor, Tensor]:
    grad_x, grad_weight = (
        torch.empty(like.shape, dtype=x.dtype, device=x.device, memory_format=memory_format)
        if needed
        else x.new_empty(0)
        for like, memory_format, needed in (
            (x, _format(x, weight), needs_x),
            (weight, _format(weight), needs_weight),
        )
    )
    return grad_x, grad_weight


def _empty_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    transposed: bool,
    activation: int,
    slope: float,
) -> Tensor:
    return empty_result(x, weight, transposed)


def _empty_act_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    transposed: bool,
    activation: int,
    slope: float,
    needs_x: bool,
    needs_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_bias = weight.new_empty(weight.shape[1 if transposed else 0])
    return *empty_gradients(x, weight, needs_x, needs_weight), grad_bias


def _keep_act_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.transposed, ctx.activation, ctx.slope, ctx.needs_x, ctx.needs_weight = inputs
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _act_double_backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    """By autograd through PyTorch's own backward; y is as good an argument as the others."""
    with torch.enable_grad():
        # Views, so that the way from one argument to another is not followed.
        grad, x, weight, y = arguments = [t.view_as(t) for t in ctx.saved_tensors]
        before = activation_backward(grad, y, ctx.activation, ctx.slope)
        results = convolve_backward(
            before, x, weight, ctx.transposed, ctx.needs_x, ctx.needs_weight, True
        )
        found = pull_back(results, grads, arguments)
    return *found, *repeat(None, 5)


def pull_back(
    results: Sequence[Tensor | None],
    grads: Sequence[Tensor | None],
    arguments: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Gradients of the results with respect to the arguments that need one, differentiable."""
    given = [
        (result, grad)
        for result, grad in zip(results, grads, strict=True)
        if grad is not None and result is not None and result.requires_grad
    ]
    wanted = [x for x in arguments if x is not None and x.requires_grad]
    if not given or not wanted:
        return [None] * len(arguments)
    found = iter(
        torch.autograd.grad(
            [result for result, _ in given],
            wanted,
            [grad for _, grad in given],
            create_graph=True,
            allow_unused=True,
        )
    )
    return [next(found) if x is not None and x.requires_grad else None for x in arguments]


@operator(fake=_empty_act_backward, backward=_act_double_backward, setup_context=_keep_act_backward)
def strided_conv_act_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    transposed: bool,
    activation: int,
    slope: float,
    needs_x: bool,
    needs_weight: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `strided_conv_act`.

    Parameters
    ----------
    grad, y : Tensor
        Gradient of the result, and the result.
    x, weight, transposed, activation, slope
        What the forward was given.
    needs_x, needs_weight : bool
        Whether these gradients are wanted; one that is not comes as an empty tensor ``[0]``.

    Returns
    -------
    grad_x, grad_weight, grad_bias : Tensor
        The last is ``[C_out]``, dtype of ``weight``, whether there was a bias or not.
    """
    before = activation_backward(grad, y, activation, slope)
    return convolve_backward(before, x, weight, transposed, needs_x, needs_weight, True)


def _keep_act(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, ctx.transposed, ctx.activation, ctx.slope = inputs
    ctx.save_for_backward(x, weight, output)


def _act_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad[:3]
    x, weight, y = ctx.saved_tensors
    found = strided_conv_act_backward(
        grad, x, weight, y, ctx.transposed, ctx.activation, ctx.slope, *needs[:2]
    )
    gradients = (g if needed else None for g, needed in zip(found, needs, strict=True))
    return *gradients, *repeat(None, 3)


@operator(fake=_empty_act, backward=_act_backward, setup_context=_keep_act)
def strided_conv_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    transposed: bool,
    activation: int,
    slope: float,
) -> Tensor:
    """Convolution of kernel 4, stride 2, padding 1, and an activation.

    Parameters
    ----------
    x : Tensor
        ``[N, C_in, H, W]``; for a convolution that is not transposed H and W are even.
    weight : Tensor
        ``[C_out, C_in, 4, 4]``, transposed ``[C_in, C_out, 4, 4]``.
    bias : Tensor, optional
        ``[C_out]``, in the dtype of x or, where that is half precision, in float32.
    transposed : bool
        Whether sides are doubled instead of halved.
    activation : int
        Index in `ACTIVATIONS`.
    slope : float
        Leaky ReLU's below 0; at least 0.

    Returns
    -------
    Tensor
        ``[N, C_out, H / 2, W / 2]`` or ``[N, C_out, 2 H, 2 W]``, in channels-last format if x or
        weight is.
    """
    rounded = None if bias is None else bias.to(x.dtype)
    return activate_(convolve(x, weight, rounded, transposed), activation, slope)
