"""Steps replayed as CUDA graphs: as many updates as calls, the same as without, and fresh noise in each."""

import copy
from collections.abc import Callable
from typing import TypeAlias

import pytest
import torch
from torch import Tensor, nn

from pygen import DCGAN
from pygen.deep.trainer import Trainer
from pygen.nn import CapturedStep
from pygen.ops import normal
from pygen.random import new_state

Training: TypeAlias = tuple[Callable[..., Tensor], torch.optim.Optimizer, Tensor]


def training(network: nn.Module, device: torch.device) -> Training:
    """A step that fits a network to noisy rows, its optimizer, and the noise's state."""
    state = new_state(0, device)
    adam = torch.optim.Adam(network.parameters(), 1e-3, fused=True)

    def step(x: Tensor) -> Tensor:
        noisy = x + normal(state, x.shape)
        loss = (network(noisy) - x).square().mean()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        return loss.detach()

    return step, adam, state


def test_calls_train_as_the_step_itself_does(cuda: torch.device, seed: int) -> None:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1)]
    network = nn.Sequential(*layers).to(cuda)
    other = copy.deepcopy(network)
    plain, _, state = training(network, cuda)
    step, adam, other_state = training(other, cuda)
    captured = CapturedStep(step, [adam])
    for i in range(10):
        # A batch of another size in between runs as it is.
        x = torch.randn(5 if i == 7 else 8, 1, 6, 6, device=cuda)
        torch.testing.assert_close(captured(x), plain(x))
    assert captured._graph is not None
    assert torch.equal(state, other_state)
    for mine, theirs in zip(
        other.state_dict().values(), network.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_each_replay_draws_new_noise(cuda: torch.device, seed: int) -> None:
    state = new_state(seed, cuda)
    captured = CapturedStep(lambda x: x + normal(state, x.shape), warmup=1)
    x = torch.zeros(64, device=cuda)
    drawn = torch.stack([captured(x).clone() for _ in range(4)])
    assert torch.equal(drawn.flatten(), normal(new_state(seed, cuda), [256]))


def test_models_are_trained_by_graphs(cuda: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    trainers = []
    run = Trainer.run

    def watched(self: Trainer, resume: bool = False) -> None:
        run(self, resume)
        trainers.append(self)

    monkeypatch.setattr(Trainer, "run", watched)
    X = torch.randint(256, (256, 1, 8, 8), dtype=torch.uint8, device=cuda)
    DCGAN(width=8, max_steps=12, batch_size=64, random_state=0).fit(X)
    step = trainers[0]._take_step
    assert isinstance(step, CapturedStep)
    assert step._graph is not None
