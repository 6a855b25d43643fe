"""How networks compute: precision, memory layout, compilation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import nn

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}


def resolve_precision(precision: str | None, device: torch.device | str) -> torch.dtype:
    """Data type of the matrix products and convolutions of training.

    Parameters
    ----------
    precision : None, "float32" or "bf16"
        None: bf16 where the hardware multiplies it faster than float32 (CUDA from compute capability 8.0 on, CPUs
        with AMX), else float32.
    device : torch.device or str

    Returns
    -------
    torch.dtype
        ``torch.float32`` or ``torch.bfloat16``.

    Raises
    ------
    ValueError
        If ``precision`` is something else.
    """
    if precision is None:
        return torch.bfloat16 if _has_fast_bf16(torch.device(device)) else torch.float32
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected None, 'float32' or 'bf16', found {precision!r}")
    return PRECISIONS[precision]


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Private, but torch has no public name for it in 2.10 to 2.13.
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device.type == "cpu" and has_amx is not None and bool(has_amx())


def autocast(
    dtype: torch.dtype, device: torch.device | str
) -> Callable[[], AbstractContextManager[object]]:
    """What a step enters around its networks' forward passes and losses, never around ``backward``.

    Parameters
    ----------
    dtype : torch.dtype
        As :func:`resolve_precision` returns it.
    device : torch.device or str

    Returns
    -------
    callable
        Makes the context manager; for float32 one that does nothing.
    """
    if dtype == torch.float32:
        return nullcontext
    return partial(torch.autocast, torch.device(device).type, dtype)


def memory_format(module: nn.Module) -> torch.memory_format:
    """``torch.channels_last`` for a network with two-dimensional convolutions, else ``torch.contiguous_format``.

    Convert its images with ``x.contiguous(memory_format=...)``.
    """
    convolutions = (nn.Conv2d, nn.ConvTranspose2d)
    if any(isinstance(part, convolutions) for part in module.modules()):
        return torch.channels_last
    return torch.contiguous_format


def place(module: nn.Module, device: torch.device | str, *, compile: bool = False) -> nn.Module:  # noqa: A002
    """Move a network to where it is trained, in the layout that is fastest there.

    Call it before optimizers and averages are made of the network.

    Parameters
    ----------
    module : Module
        Changed in place.
    device : torch.device or str
    compile : bool
        Compile its forward pass with ``torch.compile``; names in its ``state_dict`` stay as they are.

    Returns
    -------
    Module
        The same.
    """
    if memory_format(module) == torch.channels_last:
        # torch changes the tensors of four dimensions and leaves the others.
        module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    else:
        module.to(device)
    if compile:
        module.compile()
    return module
