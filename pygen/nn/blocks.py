"""Convolution, batch norm and activation as one layer, with the parameters of PyTorch's three."""

from typing import Any

import torch
from torch import Tensor, nn

from pygen.nn.accelerated_layers import ACTIVATION_LAYERS, join
from pygen.nn.runs import layer_obstacle
from pygen.ops.convolution import Pair


class _Block(nn.Module):
    """The three layers, joined as `pygen.accelerate` would.

    Parameters
    ----------
    conv : nn.Conv2d or nn.ConvTranspose2d
    norm, activation, slope
        As of `ConvBnAct2d`.
    norm_options : dict
        Of `nn.BatchNorm2d`.
    """

    def __init__(
        self,
        conv: nn.Conv2d | nn.ConvTranspose2d,
        norm: str,
        norm_options: dict[str, Any],
        activation: str,
        slope: float,
    ) -> None:
        super().__init__()
        if norm not in ("batch", "none"):
            raise ValueError(f'norm must be "batch" or "none"; got {norm!r}.')
        if activation not in ("none", *ACTIVATION_LAYERS):
            expected = ", ".join(ACTIVATION_LAYERS)
            raise ValueError(f"activation must be none, {expected}; got {activation!r}.")
        self.conv = conv
        self.norm = nn.BatchNorm2d(conv.out_channels, **norm_options) if norm == "batch" else None
        options = {"negative_slope": slope} if activation == "leaky_relu" else {}
        self.activation = ACTIVATION_LAYERS[activation](**options) if activation != "none" else None
        members = tuple(self.children())
        if len(members) > 1 and not any(layer_obstacle(member) for member in members):
            join(members)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in_channels, H, W]`` to ``[N, out_channels, H', W']``."""
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)


class ConvBnAct2d(_Block):
    """Convolution, batch norm and activation, computed together.

    Its three layers are accelerated from the start; as with any others, `pygen.restore` undoes it,
    `pygen.accelerate` does it again, and `pygen.nn.fold` folds the batch norm.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode
        As of `torch.nn.Conv2d`; no bias unless asked for, for batch norm takes it away.
    norm : "batch" or "none"
        Whether there is a batch norm.
    eps, momentum, affine, track_running_stats
        As of `torch.nn.BatchNorm2d`.
    activation : "none", "relu", "leaky_relu", "tanh" or "sigmoid"
        What follows.
    slope : float
        Leaky ReLU's below 0.
    device, dtype
        Of parameters and buffers.

    Attributes
    ----------
    conv : torch.nn.Conv2d
    norm : torch.nn.BatchNorm2d or None
    activation : torch.nn.Module or None

    Raises
    ------
    ValueError
        If an option is unknown or does not fit.

    Notes
    -----
    The ``state_dict`` is that of an `nn.Sequential` whose layers are named conv and norm. Functions
    for `nn.Module.apply` that look for "Conv" in class names find it in this one's, too, which has
    no ``weight``: they should ask with `isinstance`, or see `dcgan_init_`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = False,
        padding_mode: str = "zeros",
        *,
        norm: str = "batch",
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        activation: str = "relu",
        slope: float = 0.01,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,  # type: ignore[arg-type]
            **where,
        )
        options = {"eps": eps, "momentum": momentum, "affine": affine, **where}
        options["track_running_stats"] = track_running_stats
        super().__init__(conv, norm, options, activation, slope)


class ConvTransposeBnAct2d(_Block):
    """Transposed convolution, batch norm and activation, as `ConvBnAct2d`.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation, padding_mode
        As of `torch.nn.ConvTranspose2d`; no bias unless asked for.
    norm, eps, momentum, affine, track_running_stats, activation, slope, device, dtype
        As of `ConvBnAct2d`.

    Attributes
    ----------
    conv : torch.nn.ConvTranspose2d
    norm : torch.nn.BatchNorm2d or None
    activation : torch.nn.Module or None

    Raises
    ------
    ValueError
        If an option is unknown or does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        output_padding: Pair = 0,
        groups: int = 1,
        bias: bool = False,
        dilation: Pair = 1,
        padding_mode: str = "zeros",
        *,
        norm: str = "batch",
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        activation: str = "relu",
        slope: float = 0.01,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        conv = nn.ConvTranspose2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            groups,
            bias,
            dilation,
            padding_mode,  # type: ignore[arg-type]
            **where,
        )
        options = {"eps": eps, "momentum": momentum, "affine": affine, **where}
        options["track_running_stats"] = track_running_stats
        super().__init__(conv, norm, options, activation, slope)
