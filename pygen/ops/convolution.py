"""Plain convolutions of any geometry, and which of them there are faster ways for."""

import platform
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from pygen.ops.compiled import native
from pygen.ops.strided_conv import is_channels_last

HALF = (torch.bfloat16, torch.float16)
_DTYPES = (torch.float32, torch.float64, *HALF)


def _halves_of_the_cpu() -> tuple[torch.dtype, ...]:
    """Those that it has instructions for, so that PyTorch multiplies them faster than float32."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return HALF  # unknown
    # Private, but torch has no public names for them in 2.10 to 2.13.
    has_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)()
    has_float16 = getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: True)()
    return (torch.bfloat16,) * has_bfloat16 + (torch.float16,) * has_float16


_LEFT_TO_PYTORCH = {"cpu": _halves_of_the_cpu()}
# But for what kernels multiply by a matrix unit: pictures, whose number is a side of the matrices, and channels.
_MULTIPLIED = {"cpu": (torch.bfloat16,) if native and native.cpu_matrix_unit else ()}
_LEAST_PICTURES, _CHANNELS = 4, 32
# Of the smaller picture, from which on a pass over the weights costs less than leaving the layer to PyTorch.
_LEAST_PIXELS = 128
# A picture's channels, for which PyTorch's convolutions in half precision are slow.
_FEW_MAPS = 4

Pair = int | tuple[int, int]


def pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def is_left_to_pytorch(x: Tensor) -> bool:
    """Whether it is half precision that PyTorch multiplies fast."""
    return x.dtype in _LEFT_TO_PYTORCH.get(x.device.type, ())


def _is_multiplied(x: Tensor, weight: Tensor) -> bool:
    """Whether half precision has kernels that are faster than PyTorch: for all of DCGAN's layers."""
    few, many = sorted(weight.shape[:2])
    return (
        x.dtype in _MULTIPLIED.get(x.device.type, ())
        and x.shape[0] >= _LEAST_PICTURES
        and many % _CHANNELS == 0
        and (few % _CHANNELS == 0 or few <= _FEW_MAPS)
    )


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`torch.nn.functional.linear`; on a CPU without instructions for half precision by way of float32."""
    fits = x.dtype == weight.dtype == (x if bias is None else bias).dtype
    is_slow = x.device.type == "cpu" and x.dtype in HALF and not is_left_to_pytorch(x)
    if not (fits and is_slow):
        return F.linear(x, weight, bias)
    with torch.autocast(x.device.type, enabled=False):
        y = F.linear(x.float(), weight.float(), None if bias is None else bias.float())
        return y.to(x.dtype)


def _rows(x: Tensor, last: bool) -> Tensor:
    """``[N, C, H, W]`` as a matrix, channels last or first within a row."""
    return (x.permute(0, 2, 3, 1) if last else x).flatten(1)


def _maps(rows: Tensor, shape: torch.Size, last: bool) -> Tensor:
    """Rows that `_rows` would make of the result, of ``[C, H, W]`` each."""
    channels, height, width = shape
    if last:
        return rows.view(-1, height, width, channels).permute(0, 3, 1, 2)
    return rows.view(-1, channels, height, width)


def _by_parities(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A transposed convolution of kernel 4, stride 2, padding 1 as a plain one with four times the channels.

    Pixels whose rows and columns have one parity see 2x2 of the 4x4 taps, in a window of 3x3.
    """
    last = is_channels_last(x) or is_channels_last(weight)
    flipped = weight.flip(2, 3)
    taps = [
        F.pad(flipped[:, :, row::2, column::2], (column, 1 - column, row, 1 - row))
        for row in (0, 1)
        for column in (0, 1)
    ]
    kernel = torch.stack(taps, 2).flatten(1, 2).transpose(0, 1)
    if bias is not None:
        bias = bias.repeat_interleave(4)
    y = F.pixel_shuffle(F.conv2d(x, kernel, bias, padding=1), 2)
    return y.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


class Geometry(NamedTuple):
    """What `torch.nn.functional.conv2d` and `conv_transpose2d` are told besides tensors."""

    transposed: bool
    stride: tuple[int, int]
    padding: tuple[int, int] | str
    dilation: tuple[int, int]
    groups: int
    output_padding: tuple[int, int] = (0, 0)

    def channels(self, weight: Tensor) -> int:
        """Of the result."""
        return weight.shape[1] * self.groups if self.transposed else weight.shape[0]

    def has_operator(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
        """Whether `pygen.ops.strided_conv` computes it. What does not fit is left to PyTorch to refuse."""
        return (
            self._has_kernel(x, weight)
            and x.dtype == weight.dtype == (x if bias is None else bias).dtype
            and x.device == weight.device
        )

    def _has_kernel(self, x: Tensor, weight: Tensor) -> bool:
        """As `has_operator`, but for what autocast may yet change of the weight."""
        return (
            self[1:] == ((2, 2), (1, 1), (1, 1), 1, (0, 0))
            and x.dim() == weight.dim() == 4
            and weight.shape[2] == weight.shape[3] == 4
            and x.shape[1] == weight.shape[0 if self.transposed else 1]
            and (self.transposed or (x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0))
            and x.numel() > 0
            and weight.numel() > 0
            and x.dtype in _DTYPES
            and (not is_left_to_pytorch(x) or _is_multiplied(x, weight))
        )

    def folds(self, x: Tensor, weight: Tensor) -> bool:
        """Whether batch norm by running statistics is rather a pass over the weights.

        In the order of weights of several groups only a convolution's is that of the channels.
        """
        if self.transposed and self.groups > 1:
            return False
        if self._map_size(x, weight) >= weight.numel():
            return True
        # Operators know no such norm: but for folding, the layer is left to PyTorch.
        pixels = x.shape[0] * x.shape[2] * x.shape[3]
        enough = (pixels if self.transposed else pixels // 4) >= _LEAST_PIXELS
        return enough and self._has_kernel(x, weight)

    def _map_size(self, x: Tensor, weight: Tensor) -> int:
        """How many numbers the map has that weights are compared with: x, or what it is spread to."""
        if not self.transposed:
            return x.numel()
        spread = weight.shape[2:] if self._is_product(x, weight) else torch.Size(self.stride)
        return x.shape[0] * x.shape[2:].numel() * spread.numel() * self.channels(weight)

    def _is_product(self, x: Tensor, weight: Tensor) -> bool:
        """Whether every weight meets every picture once: the kernel spans the map, or spreads one pixel."""
        return (
            self[2:] == ((0, 0), (1, 1), 1, (0, 0))
            and x.dim() == 4
            and x.numel() > 0
            and (
                x.shape[1:] == (weight.shape[0], 1, 1)
                if self.transposed
                else x.shape[1:] == weight.shape[1:]
            )
        )

    def _has_few_maps(self, x: Tensor, weight: Tensor) -> bool:
        """Whether `_by_parities` is faster: in inference, where PyTorch has no fast kernel."""
        return (
            self[1:] == ((2, 2), (1, 1), (1, 1), 1, (0, 0))
            and x.dim() == weight.dim() == 4
            and weight.shape[1] <= _FEW_MAPS
            and weight.shape[2] == weight.shape[3] == 4
            and x.numel() > 0
            and is_left_to_pytorch(x)
            and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
        )

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """By one matrix product where that is all: 2 to 6 times faster on the CPU, backward too."""
        if self._is_product(x, weight):
            return self._product(x, weight, bias)
        if not self.transposed:
            return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        if self._has_few_maps(x, weight):
            return _by_parities(x, weight, bias)
        return F.conv_transpose2d(
            x,
            weight,
            bias,
            self.stride,
            cast(tuple[int, int], self.padding),
            self.output_padding,
            self.groups,
            self.dilation,
        )

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """In the memory formats that PyTorch's convolution chooses."""
        last_weight = is_channels_last(weight)
        last = last_weight or is_channels_last(x)
        if not self.transposed:
            rows = _linear(_rows(x, last), _rows(weight, last), bias)
            return _maps(rows, torch.Size((weight.shape[0], 1, 1)), last)
        # Of weights and result, the smaller is copied to the other's order, if there are two.
        is_one = weight.shape[1] == 1 or weight.shape[2:].numel() == 1
        is_larger = self._map_size(x, weight) >= weight.numel()
        order = last and (last_weight or is_one or is_larger)
        if bias is not None:
            pixels = weight.shape[2] * weight.shape[3]
            bias = bias.repeat(pixels) if order else bias.repeat_interleave(pixels)
        rows = _linear(x.flatten(1), _rows(weight, order).T, bias)
        maps = _maps(rows, weight.shape[1:], order)
        return maps.contiguous(memory_format=torch.channels_last) if last else maps
