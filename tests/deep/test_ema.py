"""The moving average of a network's weights and buffers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pygen.deep.ema import Ema


def network(device: torch.device, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 1, 3)]
    module = nn.Sequential(*layers).to(device, dtype)
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def train(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    module(torch.randn(5, 3, 8, 8, device=device, dtype=dtype)).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_follows_the_formula(device: torch.device, dtype: torch.dtype) -> None:
    module = network(device, dtype)
    decay = 0.6  # (1 + t) / (10 + t) reaches it at t = 13
    average = Ema(module, decay)
    expected = {name: value.double().clone() for name, value in module.state_dict().items()}
    for t in range(20):
        train(module, device, dtype)
        average.update()
        d = min(decay, (1 + t) / (10 + t))
        for name, value in module.state_dict().items():
            expected[name] = d * expected[name] + (1 - d) * value.double()
    found = average.module.state_dict()
    assert int(found["1.num_batches_tracked"]) == 20
    del found["1.num_batches_tracked"]
    # 20 roundings of each number and of the float32 weight.
    for name, value in found.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert int(average.steps) == 20


def test_first_update_forgets_most_of_the_initial_weights() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 0)
    average = Ema(module, 0.999)
    nn.init.constant_(module.weight, 1)
    average.update()
    assert average.module.weight.item() == pytest.approx(0.9)


def test_the_average_is_apart() -> None:
    module = network(torch.device("cpu"))
    average = Ema(module, 0.9)
    before = [p.clone() for p in module.parameters()]
    nn.init.zeros_(module[0].weight)
    assert not average.module.training
    assert module.training
    assert not any(p.requires_grad for p in average.module.parameters())
    average.update()
    assert torch.equal(module[0].weight, torch.zeros_like(before[0]))
    assert all(p.requires_grad for p in module.parameters())


def test_sees_weights_loaded_later() -> None:
    module, other = nn.Linear(2, 2), nn.Linear(2, 2)
    average = Ema(module, 0.0)  # the network itself
    module.load_state_dict(other.state_dict())
    average.update()

    def agree(a: Tensor, b: Tensor) -> None:
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)

    agree(average.module.weight, other.weight)
    agree(average.module.bias, other.bias)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_decay_out_of_range(decay: float) -> None:
    with pytest.raises(ValueError, match=r"decay: expected a number in \[0, 1\), found"):
        Ema(nn.Linear(1, 1), decay)
