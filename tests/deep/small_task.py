"""A small task with everything a real one has: dropout, noise, an average, two optimizers; and how to train it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pygen.deep.batches import Batches
from pygen.deep.ema import Ema
from pygen.deep.task import Task
from pygen.deep.trainer import Trainer
from pygen.ops import normal
from pygen.random import new_state

N = 64
X = torch.linspace(-1, 1, N)[:, None] * torch.tensor([1.0, -2.0, 0.5])
Y = X @ torch.tensor([[1.0], [2.0], [3.0]]) + 0.5


class Regression(Task):
    """Predicts Y from noisy X; a second network learns the error. Seeded apart from the trainer."""

    losses = ("error", "critic")

    def __init__(self, device: torch.device | str = "cpu", width: int = 8) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            body = [nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.2), nn.Tanh()]
            model = nn.Sequential(*body, nn.Linear(width, 1))
            critic = nn.Linear(1, 1)
        self.networks = nn.ModuleDict({"model": model, "critic": critic}).to(device)
        self.optimizers = {
            "model": torch.optim.Adam(model.parameters(), 0.01),
            "critic": torch.optim.SGD(critic.parameters(), 0.01, momentum=0.9),
        }
        self.averages = {"model": Ema(model, 0.99)}
        self.state = new_state(5, device)
        self.counters = {"steps": torch.zeros((), dtype=torch.int64, device=device)}
        self.before_step: Callable[[int], None] | None = None
        self.n_calls = 0
        self.seen: list[tuple[float, float]] = []

    def step(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        assert y is not None
        self.n_calls += 1
        if self.before_step is not None:
            self.before_step(self.n_calls)
        noise = normal(self.state, list(x.shape))
        with self.autocast():
            found = self.networks["model"](x + 0.01 * noise)
            error = (found - y.view(-1, 1)).float()
        loss = error.square().mean()
        self.update(self.optimizers["model"], loss)
        self.averages["model"].update()
        guess = self.networks["critic"](found.detach().float())
        critic = (guess - error.detach().abs()).square().mean()
        self.update(self.optimizers["critic"], critic)
        self.counters["steps"] += 1
        losses = {"critic": critic.detach(), "error": loss.detach()}
        self.seen.append((losses["error"].item(), losses["critic"].item()))
        return losses

    def test_error(self) -> float:
        with torch.no_grad():
            model = self.averages["model"].module
            device = self.state.device
            return (model(X.to(device)) - Y.to(device)).square().mean().item()


class Noisy(Dataset[Any]):
    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return X[i] + 0.01 * torch.randn(3), Y[i, 0]


SOURCES: dict[str, Callable[[], Any]] = {
    "tensors": lambda: (X, Y[:, 0]),
    "data set": Noisy,
    "loader": lambda: DataLoader(Noisy(), batch_size=10, shuffle=True),
}


def trainer(
    task: Task, max_steps: int, *, source: str = "tensors", seed: int = 1, **options: Any
) -> Trainer:
    batches = Batches(SOURCES[source](), batch_size=10, seed=seed, device=task.device)
    options = {"progress": False, "log_every": 7, "checkpoint_every": 10, **options}
    return Trainer(task, batches, max_steps=max_steps, **options)


def everything(task: Task) -> list[tuple[str, Any]]:
    """All that a task holds, by name; tensors as their bytes."""

    def flat(value: Any, name: str) -> list[tuple[str, Any]]:
        if isinstance(value, dict | list):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            return [leaf for k, v in items for leaf in flat(v, f"{name}.{k}")]
        if isinstance(value, Tensor):
            value = value.detach().cpu().contiguous().numpy().tobytes()
        return [(name, value)]

    return flat({**task.weights(), "training": task.training_state()}, "")


def without_time(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def read_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def interrupt_at(step: int, number: int) -> Callable[[int], None]:
    def interrupt(call: int) -> None:
        if call == step:
            os.kill(os.getpid(), number)

    return interrupt
