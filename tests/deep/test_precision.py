"""Precision, layout and compilation of networks."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from pygen.deep.precision import autocast, memory_format, place, resolve_precision


def test_resolve_precision(device: torch.device) -> None:
    assert resolve_precision("float32", device) == torch.float32
    assert resolve_precision("bf16", device) == torch.bfloat16
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        cpu = Path("/proc/cpuinfo")
        fast = cpu.exists() and "amx_bf16" in cpu.read_text()
    assert resolve_precision(None, device) == (torch.bfloat16 if fast else torch.float32)


@pytest.mark.parametrize("precision", ["fp16", "bfloat16", 32, torch.float32])
def test_unknown_precision(precision: object) -> None:
    with pytest.raises(ValueError, match="precision: expected None, 'float32' or 'bf16', found"):
        resolve_precision(precision, "cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast(device: torch.device, dtype: torch.dtype) -> None:
    network = nn.Linear(3, 2).to(device)
    context = autocast(dtype, device)
    for _ in range(2):
        with context():
            assert network(torch.ones(1, 3, device=device)).dtype == dtype


def test_place(device: torch.device) -> None:
    convolutions = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))
    convolutions(torch.zeros(1, 3, 8, 8))
    assert memory_format(convolutions) == torch.channels_last
    assert place(convolutions, device) is convolutions
    weight = convolutions[0].weight
    assert weight.device.type == device.type
    assert weight.is_contiguous(memory_format=torch.channels_last)
    linear = nn.Linear(3, 4)
    assert memory_format(linear) == torch.contiguous_format
    assert place(linear, device).weight.is_contiguous()


def test_compiled_networks_keep_their_names() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    plain = copy.deepcopy(network)
    compiled = place(network, "cpu", compile=True)
    x = torch.randn(5, 3)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), plain(x))
    assert list(compiled.state_dict()) == list(plain.state_dict())
