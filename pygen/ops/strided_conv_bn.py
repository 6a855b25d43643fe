"""Convolutions of DCGAN - kernel 4, stride 2, padding 1 - with batch norm and an activation.

S. Ioffe, C. Szegedy: Batch normalization: accelerating deep network training by reducing internal
covariate shift (2015).
"""

from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from pygen.ops.operator import operator
from pygen.ops.strided_conv import (
    ACTIVATIONS,
    activate_,
    activation_backward,
    aten,
    convolve,
    convolve_backward,
    empty_gradients,
    empty_result,
    pull_back,
    statistics_dtype,
)

Tensors4 = tuple[Tensor, Tensor, Tensor, Tensor]


def _empty_bn_act(
    x: Tensor,
    weight: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    transposed: bool,
    n_batches: int,
    eps: float,
    activation: int,
    slope: float,
) -> Tensors4:
    y, z = (empty_result(x, weight, transposed) for _ in range(2))
    mean, var = (
        x.new_empty((n_batches, y.shape[1]), dtype=statistics_dtype(x.dtype)) for _ in range(2)
    )
    return y, z, mean, var


def _empty_bn_act_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    z: Tensor,
    mean: Tensor,
    var: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    transposed: bool,
    n_batches: int,
    eps: float,
    activation: int,
    slope: float,
    needs_x: bool,
    needs_weight: bool,
) -> Tensors4:
    vectors = (mean.new_empty(mean.shape[1]) for _ in range(2))
    grad_norm_weight, grad_norm_bias = vectors
    return *empty_gradients(x, weight, needs_x, needs_weight), grad_norm_weight, grad_norm_bias


def _keep_bn_act_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    grad, x, weight, _, _, _, norm_weight, norm_bias, *ctx.options = inputs
    ctx.save_for_backward(grad, x, weight, norm_weight, norm_bias)
    ctx.set_materialize_grads(False)


def _bn_act_double_backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    """By autograd through the forward, made again of differentiable parts."""
    transposed, n_batches, eps, activation, slope, *_ = ctx.options
    with torch.enable_grad():
        # Views, so that the way from one argument to another is not followed.
        arguments: list[Any] = [None if t is None else t.view_as(t) for t in ctx.saved_tensors]
        grad, x, weight, norm_weight, norm_bias = arguments
        z = convolve(x, weight, None, transposed)
        parts = z.to(statistics_dtype(z.dtype)).unflatten(0, (n_batches, -1))
        var, mean = torch.var_mean(parts, (1, 3, 4), correction=0, keepdim=True)
        u = (parts - mean) * (var + eps).rsqrt()
        if norm_weight is not None:
            u = u * norm_weight[:, None, None]
        if norm_bias is not None:
            u = u + norm_bias[:, None, None]
        y = activate_(u, activation, slope).flatten(0, 1).to(z.dtype)
        results = pull_back([y], [grad], [x, weight, norm_weight, norm_bias])
        found = pull_back(results, grads, arguments)
    return *found[:3], *repeat(None, 3), *found[3:], *repeat(None, 7)


def _batch_norm_arguments(
    z: Tensor, norm_weight: Tensor | None, norm_bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Scale and shift that are always there: without them PyTorch rounds statistics of half precision."""
    options: dict[str, Any] = {"dtype": statistics_dtype(z.dtype), "device": z.device}
    return (
        torch.ones(z.shape[1], **options) if norm_weight is None else norm_weight,
        torch.zeros(z.shape[1], **options) if norm_bias is None else norm_bias,
    )


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@operator(
    fake=_empty_bn_act_backward,
    backward=_bn_act_double_backward,
    setup_context=_keep_bn_act_backward,
)
def strided_conv_bn_act_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    z: Tensor,
    mean: Tensor,
    var: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    transposed: bool,
    n_batches: int,
    eps: float,
    activation: int,
    slope: float,
    needs_x: bool,
    needs_weight: bool,
) -> Tensors4:
    """Gradients of `strided_conv_bn_act`.

    Parameters
    ----------
    grad : Tensor
        Gradient of the result y.
    z, mean, var : Tensor
        Other results of the forward. The convolution is not made again, batch norm is.
    x, weight, norm_weight, norm_bias, transposed, n_batches, eps, activation, slope
        What the forward was given.
    needs_x, needs_weight : bool
        Whether these gradients are wanted; one that is not comes as an empty tensor ``[0]``.

    Returns
    -------
    grad_x, grad_weight : Tensor
        Like x and weight.
    grad_norm_weight, grad_norm_bias : Tensor
        ``[C_out]``, dtype of ``mean``, whether there were such parameters or not.
    """
    scale, shift = _batch_norm_arguments(z, norm_weight, norm_bias)
    grads_z = []
    grad_scale, grad_shift = torch.zeros_like(mean[0]), torch.zeros_like(mean[0])
    for g, part, m, v in zip(grad.chunk(n_batches), z.chunk(n_batches), mean, var, strict=True):
        if ACTIVATIONS[activation] != "none":
            u, _, _ = aten.native_batch_norm(part, scale, shift, m, v, False, 0.0, eps)
            if ACTIVATIONS[activation] in ("tanh", "sigmoid"):
                u = activate_(u, activation, slope)
            g = activation_backward(g, u, activation, slope, out=u)
        grad_z, for_scale, for_shift = aten.native_batch_norm_backward(
            g, part, scale, None, None, m, (v + eps).rsqrt(), True, eps, [True, True, True]
        )
        grads_z.append(grad_z)
        grad_scale += for_scale
        grad_shift += for_shift
    grad_x, grad_weight, _ = convolve_backward(
        _joined(grads_z), x, weight, transposed, needs_x, needs_weight, False
    )
    return grad_x, grad_weight, grad_scale, grad_shift


def _keep_bn_act(ctx: Any, inputs: tuple[Any, ...], output: Tensors4) -> None:
    x, weight, norm_weight, norm_bias, *ctx.options = inputs
    _, z, mean, var = output
    ctx.save_for_backward(x, weight, z, mean, var, norm_weight, norm_bias)
    ctx.mark_non_differentiable(z, mean, var)
    ctx.set_materialize_grads(False)


def _bn_act_backward(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad[:4]
    found: tuple[Tensor | None, ...] = (None,) * 4
    if grad is not None:
        found = strided_conv_bn_act_backward(grad, *ctx.saved_tensors, *ctx.options, *needs[:2])
    gradients = (g if needed else None for g, needed in zip(found, needs, strict=True))
    return *gradients, *repeat(None, 5)


@operator(fake=_empty_bn_act, backward=_bn_act_backward, setup_context=_keep_bn_act)
def strided_conv_bn_act(
    x: Tensor,
    weight: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    transposed: bool,
    n_batches: int,
    eps: float,
    activation: int,
    slope: float,
) -> Tensors4:
    """Convolution of kernel 4, stride 2, padding 1, batch norm by statistics of the batch, and an activation.

    Parameters
    ----------
    x, weight, transposed, activation, slope
        As for `strided_conv_act`.
    norm_weight, norm_bias : Tensor, optional
        ``[C_out]``, float32, or float64 if x is: factor and summand after the normalisation.
    n_batches : int
        Equal consecutive parts of the batch, each with statistics of its own, of more than one
        number per channel.
    eps : float
        Added to variances.

    Returns
    -------
    y : Tensor
        ``act((z - mean) / sqrt(var + eps) * norm_weight + norm_bias)``. Only it has a gradient.
    z : Tensor
        The convolution.
    mean, var : Tensor
        ``[n_batches, C_out]``, float32, or float64 if x is. The variance is the biased one.
    """
    z = convolve(x, weight, None, transposed)
    scale, shift = _batch_norm_arguments(z, norm_weight, norm_bias)
    mean, var = torch.zeros(
        (2, n_batches, z.shape[1]), dtype=statistics_dtype(z.dtype), device=z.device
    )
    # As running statistics that forget all, PyTorch's kernel returns mean and unbiased variance.
    y = _joined(
        [
            aten.native_batch_norm(part, scale, shift, m, v, True, 1.0, eps)[0]
            for part, m, v in zip(z.chunk(n_batches), mean, var, strict=True)
        ]
    )
    size = z.numel() // mean.numel()
    return activate_(y, activation, slope), z, mean, var * ((size - 1) / size)
