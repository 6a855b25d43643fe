"""Operators that are called while something is computed."""

from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pygen.ops.strided_conv import is_channels_last


class Call(NamedTuple):
    """An operator, as "aten.clone", and what its first argument is if that is a tensor."""

    name: str
    shape: torch.Size | None
    dtype: torch.dtype | None
    channels_last: bool


class OperatorCalls(TorchDispatchMode):
    """All of them, in order."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        first = args[0] if args and isinstance(args[0], torch.Tensor) else None
        last = first is not None and first.dim() == 4 and is_channels_last(first)
        facts = (None, None) if first is None else (first.shape, first.dtype)
        self.calls.append(Call(str(func.overloadpacket), *facts, last))
        return func(*args, **kwargs or {})

    def named(self, *beginnings):
        """Calls of operators whose names begin so."""
        return [call for call in self.calls if call.name.startswith(beginnings)]
