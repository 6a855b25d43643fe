"""Convolution, batch norm and activation as one call, of every configuration that PyTorch's layers have.

A. Radford, L. Metz, S. Chintala: Unsupervised representation learning with deep convolutional
generative adversarial networks (2016); S. Ioffe, C. Szegedy: Batch normalization (2015).
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from pygen.ops.convolution import Geometry, Pair, pair
from pygen.ops.strided_conv import (
    ACTIVATIONS,
    statistics_dtype,
    strided_conv_act,
)
from pygen.ops.strided_conv_bn import strided_conv_bn_act

NORMS = ("batch", "running", "none")


class _Norm(NamedTuple):
    kind: str
    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    momentum: float
    eps: float
    n_batches: int

    def apply(self, z: Tensor) -> Tensor:
        if self.kind == "none":
            return z
        # A single chunk's gradient would be copied.
        is_one = self.kind == "running" or self.n_batches == 1
        parts = (z,) if is_one else z.chunk(self.n_batches)
        results = [
            F.batch_norm(
                part,
                self.running_mean,
                self.running_var,
                self.weight,
                self.bias,
                self.kind == "batch",
                self.momentum,
                self.eps,
            )
            for part in parts
        ]
        return results[0] if len(results) == 1 else torch.cat(results)

    def folded(
        self, geometry: Geometry, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Weight and bias of a convolution after which running statistics need no normalisation.

        The bias is not rounded to half precision.
        """
        dtype = statistics_dtype(weight.dtype)
        running_mean, running_var = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        running_mean = running_mean.to(dtype)
        scale = (running_var.to(dtype) + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        shift = -running_mean if bias is None else bias - running_mean
        shift = shift * scale
        if self.bias is not None:
            shift = shift + self.bias
        shape = (-1, 1, 1) if geometry.transposed else (-1, 1, 1, 1)
        return (weight * scale.view(shape)).to(weight.dtype), shift

    def update(self, mean: Tensor, var: Tensor, bias: Tensor | None, size: int) -> None:
        """As PyTorch does after a batch: the unbiased variance, of ``size`` numbers per channel."""
        with torch.no_grad():
            if bias is not None:
                mean = mean + bias
            for running, values, factor in (
                (self.running_mean, mean, self.momentum),
                (self.running_var, var, self.momentum * size / (size - 1)),
            ):
                if running is not None:
                    for value in values:
                        running.mul_(1 - self.momentum).add_(value, alpha=factor)


def _check(x: Tensor, channels: int, bias: Tensor | None, norm: _Norm, activation: str) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}.")
    if norm.kind not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}; got {norm.kind!r}.")
    vectors = {"bias": bias}
    if norm.kind != "none":
        vectors |= {
            "norm_weight": norm.weight,
            "norm_bias": norm.bias,
            "running_mean": norm.running_mean,
            "running_var": norm.running_var,
        }
        if x.dim() != 4:
            raise ValueError(f"x must be [N, C, H, W] for batch norm; got {list(x.shape)}.")
    for name, vector in vectors.items():
        if vector is not None and vector.shape != (channels,):
            raise ValueError(
                f"{name} must be [{channels}], a number for each channel of the result;"
                f" got {list(vector.shape)}."
            )
    if norm.kind == "running" and (norm.running_mean is None or norm.running_var is None):
        raise ValueError(
            'norm="running" needs running_mean and running_var; got None. Without them use "batch".'
        )
    if norm.kind == "batch" and (norm.n_batches < 1 or x.shape[0] % norm.n_batches):
        raise ValueError(
            f"n_batches must be at least 1 and divide the batch of {x.shape[0]};"
            f" got {norm.n_batches}."
        )


def _activate(z: Tensor, activation: str, slope: float) -> Tensor:
    """In place where PyTorch's backward allows it: ``z`` is nobody else's."""
    if activation == "none":
        return z
    if activation == "leaky_relu":
        return F.leaky_relu(z, slope, inplace=slope >= 0)
    return cast(Tensor, getattr(torch, f"{activation}_")(z))


def _autocast(device: str, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """As autocast casts what a convolution is given."""
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(
        t.to(dtype) if t is not None and t.is_floating_point() and t.dtype != torch.float64 else t
        for t in tensors
    )


def _batch_layer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: _Norm,
    transposed: bool,
    activation: int,
    slope: float,
) -> Tensor:
    """The operator with batch norm, and around it what an operator may not do."""
    dtype = statistics_dtype(x.dtype)
    norm_weight = None if norm.weight is None else norm.weight.to(dtype)
    norm_bias = None if norm.bias is None else norm.bias.to(dtype)
    if bias is not None and bias.requires_grad:
        # Batch norm takes it away again: its gradient is zero, but it has one.
        nothing = 0 * bias.to(dtype)
        norm_bias = nothing if norm_bias is None else norm_bias + nothing
    y, _, mean, var = strided_conv_bn_act(
        x,
        weight,
        norm_weight,
        norm_bias,
        transposed,
        norm.n_batches,
        norm.eps,
        activation,
        slope,
    )
    norm.update(mean, var, bias, y.numel() // mean.numel())
    return y


def _layer(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    norm: _Norm,
    activation: str,
    slope: float,
) -> Tensor:
    _check(x, geometry.channels(weight), bias, norm, activation)
    device = x.device.type
    (x,) = cast(tuple[Tensor], _autocast(device, x))
    folds = norm.kind == "running" and geometry.folds(x, weight)
    if folds:
        weight, bias = norm.folded(geometry, weight, bias)
        norm = norm._replace(kind="none")
    (weight,) = cast(tuple[Tensor], _autocast(device, weight))
    if not folds:
        (bias,) = _autocast(device, bias)
    if slope >= 0 and geometry.has_operator(x, weight, None if folds else bias):
        index = ACTIVATIONS.index(activation)
        if norm.kind == "none":
            return strided_conv_act(x, weight, bias, geometry.transposed, index, slope)
        if norm.kind == "batch" and _values_per_channel(x, geometry) > norm.n_batches:
            return _batch_layer(x, weight, bias, norm, geometry.transposed, index, slope)
    if folds:
        bias = cast(Tensor, bias).to(weight.dtype)
    return _activate(norm.apply(geometry.convolve(x, weight, bias)), activation, slope)


def _values_per_channel(x: Tensor, geometry: Geometry) -> int:
    """Of the result of kernel 4, stride 2, padding 1. PyTorch says what one value is too few for."""
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    return 4 * pixels if geometry.transposed else pixels // 4


def conv_bn_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
    norm: str = "batch",
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "none",
    slope: float = 0.01,
    n_batches: int = 1,
) -> Tensor:
    """Convolution, batch norm and activation: what three layers of PyTorch compute, in fewer passes.

    Kernels of 4, stride 2 and padding 1 on even sides, as in DCGAN, have operators of their own;
    other geometries are computed by PyTorch.

    Parameters
    ----------
    x : Tensor
        ``[N, C_in, H, W]``, any floating-point dtype, on any device. Under autocast it, ``weight``
        and ``bias`` are cast as those of a convolution.
    weight : Tensor
        ``[C_out, C_in / groups, kernel height, kernel width]``.
    bias : Tensor, optional
        ``[C_out]``, of the convolution. Before batch norm by the batch's statistics it changes only
        the running mean, and its gradient is zero.
    norm_weight, norm_bias : Tensor, optional
        ``[C_out]``: factor and summand after the normalisation, 1 and 0 if they are None.
    running_mean, running_var : Tensor, optional
        ``[C_out]``. With ``norm="batch"`` updated in place by the batch's mean and unbiased
        variance.
    stride, padding, dilation, groups
        As of `torch.nn.functional.conv2d`.
    norm : "batch", "running" or "none"
        Normalise by the statistics of the batch (training), by running_mean and running_var
        (inference), or not at all; then what belongs to the norm is not looked at.
    momentum : float
        Weight of the batch in the running statistics.
    eps : float
        Added to variances.
    activation : "none", "relu", "leaky_relu", "tanh" or "sigmoid"
        What follows.
    slope : float
        Leaky ReLU's below 0.
    n_batches : int
        With ``norm="batch"``: equal consecutive parts of the batch that are normalised each by its
        own statistics, as if they were given one after the other. 2 lets a discriminator see real
        and made pictures at once.

    Returns
    -------
    Tensor
        ``[N, C_out, H', W']``, ``act((z - mean) / sqrt(var + eps) * norm_weight + norm_bias)`` where
        z is the convolution with its bias; in channels-last format if x or weight is.

    Raises
    ------
    ValueError
        If an option is unknown, a vector is not ``[C_out]``, running statistics are missing,
        ``n_batches`` does not divide N, or a batch has one value per channel.
    RuntimeError
        If x and weight do not fit.
    """
    geometry = Geometry(
        False,
        pair(stride),
        padding if isinstance(padding, str) else pair(padding),
        pair(dilation),
        groups,
    )
    statistics = norm_weight, norm_bias, running_mean, running_var
    options = _Norm(norm, *statistics, momentum, eps, n_batches)
    return _layer(x, weight, bias, geometry, options, activation, slope)


def conv_transpose_bn_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    norm: str = "batch",
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "none",
    slope: float = 0.01,
    n_batches: int = 1,
) -> Tensor:
    """Transposed convolution, batch norm and activation, as `conv_bn_act`.

    Parameters
    ----------
    x : Tensor
        ``[N, C_in, H, W]``.
    weight : Tensor
        ``[C_in, C_out / groups, kernel height, kernel width]``.
    stride, padding, output_padding, groups, dilation
        As of `torch.nn.functional.conv_transpose2d`.
    bias, norm_weight, norm_bias, running_mean, running_var, norm, momentum, eps, activation, slope, n_batches
        As of `conv_bn_act`.

    Returns
    -------
    Tensor
        ``[N, C_out, H', W']``, in channels-last format if x or weight is.

    Raises
    ------
    ValueError, RuntimeError
        As `conv_bn_act`.
    """
    geometry = Geometry(
        True, pair(stride), pair(padding), pair(dilation), groups, pair(output_padding)
    )
    statistics = norm_weight, norm_bias, running_mean, running_var
    options = _Norm(norm, *statistics, momentum, eps, n_batches)
    return _layer(x, weight, bias, geometry, options, activation, slope)
