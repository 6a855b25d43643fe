"""The trainer on a small task: losses, samples, the best weights, runs that diverge or cannot write."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from small_task import SOURCES, Regression, X, everything, interrupt_at, read_lines, trainer
from torch import Tensor
from torch.utils.data import TensorDataset

from pygen.deep.batches import Batches
from pygen.deep.checkpoint import Checkpoints
from pygen.deep.precision import autocast
from pygen.deep.trainer import Trainer, TrainingDiverged
from pygen.ops import normal

# Training


def test_learns(device: torch.device) -> None:
    task = Regression(device)
    before = task.test_error()
    trainer(task, 300).run()
    assert task.test_error() < 0.05 * before
    assert not task.networks.training
    assert int(task.counters["steps"]) == 300


@pytest.mark.parametrize("source", SOURCES)
def test_lines_hold_means_of_each_interval(tmp_path: Path, source: str) -> None:
    task = Regression()
    run = trainer(
        task,
        30,
        source=source,
        folder=tmp_path / "runs/a",
        evaluate=task.test_error,
        evaluate_every=11,
    )
    run.run()
    lines = read_lines(tmp_path / "runs/a")
    assert lines == run.history
    assert [line["step"] for line in lines] == [7, 11, 14, 21, 22, 28, 30]
    assert [("metric" in line) for line in lines] == [False, True, False, False, True, False, True]
    assert list(lines[1]) == ["step", "epoch", "seconds", "error", "critic", "metric"]
    seen = np.array(task.seen)
    for begin, line in zip([0, 7, 11, 14, 21, 22, 28], lines, strict=True):
        error, critic = seen[begin : line["step"]].mean(0)
        assert (line["error"], line["critic"]) == pytest.approx((error, critic), rel=1e-12)
        assert line["epoch"] == pytest.approx(line["step"] / run.batches.steps_per_epoch, abs=1e-4)
    times = [line["seconds"] for line in lines]
    assert times == sorted(times)
    assert lines[-1]["metric"] == task.test_error()


def test_the_seed_decides() -> None:
    def train(seed: int) -> list[tuple[str, Any]]:
        task = Regression()
        trainer(task, 12, seed=seed).run()
        return everything(task)

    first = train(1)
    torch.rand(3)
    assert train(1) == first
    assert train(2) != first


def test_global_generators_are_left_alone() -> None:
    def states() -> list[Any]:
        return [
            torch.get_rng_state().tolist(),
            random.getstate(),
            np.random.get_state()[1].tolist(),
        ]

    before = states()
    trainer(Regression(), 12, source="data set").run()
    assert states() == before


def test_looking_changes_nothing(tmp_path: Path) -> None:
    plain, watched = Regression(), Regression()
    trainer(plain, 25).run()

    def evaluate() -> float:
        assert not watched.networks.training
        normal(watched.state, [8])
        return torch.rand(()).item() + np.random.rand() + random.random()

    def draw() -> Tensor:
        return torch.rand(5, 3, 8, 8)

    options = {"evaluate_every": 3, "draw": draw, "draw_every": 4, "folder": tmp_path}
    trainer(watched, 25, evaluate=evaluate, **options).run()
    assert everything(watched) == everything(plain)


def test_samples_are_drawn(tmp_path: Path) -> None:
    draw = lambda: torch.rand(5, 3, 8, 6)  # noqa: E731
    trainer(Regression(), 25, folder=tmp_path, draw=draw, draw_every=10).run()
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == ["step-00000010.png", "step-00000020.png", "step-00000025.png"]
    # Three in a row, 6 times as large, 4 pixels apart.
    assert Image.open(tmp_path / "samples" / names[0]).size == (3 * 36 + 8, 2 * 48 + 4)


def test_bf16() -> None:
    task = Regression()
    task.autocast = autocast(torch.bfloat16, "cpu")
    before = task.test_error()
    trainer(task, 200).run()
    assert task.test_error() < 0.2 * before


def test_gradients_are_clipped() -> None:
    task = Regression()
    task.gradient_clip = 1e-3
    norms = []

    def measure(call: int) -> None:
        if call > 1:
            gradients = [p.grad for p in task.networks["model"].parameters()]
            norms.append(torch.stack([g.norm() for g in gradients if g is not None]).norm())

    task.before_step = measure
    trainer(task, 5).run()
    # Clipping divides by the norm plus 1e-6.
    torch.testing.assert_close(torch.stack(norms), torch.full((4,), 1e-3), rtol=1e-3, atol=0)


# The best


@pytest.mark.parametrize("in_folder", [True, False])
def test_best_is_kept(tmp_path: Path, in_folder: bool) -> None:
    task = Regression()
    metrics = iter([3.0, 1.0, float("nan"), 2.0, 1.0])
    weights = []

    def evaluate() -> float:
        weights.append({name: value.clone() for name, value in task.weights().items()})
        return next(metrics)

    folder = tmp_path if in_folder else None
    run = trainer(task, 50, folder=folder, evaluate=evaluate, evaluate_every=10)
    with pytest.warns(UserWarning, match="the metric at step 30 is nan; left out"):
        run.run()
    assert (run.best_step, run.best_metric) == (20, 1.0)
    assert [line["metric"] for line in run.history if "metric" in line] == [3, 1, None, 2, 1]
    last = task.weights()
    assert all(torch.equal(last[name], value) for name, value in weights[4].items())
    if in_folder:
        assert Checkpoints(tmp_path / "checkpoints").steps() == [20, 40, 50]
    run.restore_best()
    best = task.weights()
    assert all(torch.equal(best[name], value) for name, value in weights[1].items())
    assert any(not torch.equal(best[name], value) for name, value in weights[4].items())


def test_the_best_outlives_resuming(tmp_path: Path) -> None:
    options = {"folder": tmp_path, "evaluate_every": 10, "keep": 1}
    metrics = iter([1.0, 2.0, 3.0])
    trainer(Regression(), 20, evaluate=lambda: next(metrics), **options).run()
    task = Regression()
    run = trainer(task, 30, evaluate=lambda: next(metrics), **options)
    run.run(resume=True)
    assert (run.best_step, run.best_metric) == (10, 1.0)
    assert Checkpoints(tmp_path / "checkpoints").steps() == [10, 30]
    run.restore_best()
    best = Regression()
    trainer(best, 10).run()
    assert everything(best)[:3] == everything(task)[:3]


def test_without_a_metric_the_last_stays() -> None:
    task = Regression()
    run = trainer(task, 12)
    run.run()
    before = everything(task)
    run.restore_best()
    assert everything(task) == before
    assert run.best_step is None


# Divergence


def poison(task: Regression, call: int, what: str) -> Callable[[int], None]:
    def spoil(n_calls: int) -> None:
        if n_calls != call:
            return
        with torch.no_grad():
            if what == "weights":
                task.networks["model"][0].weight.mul_(float("nan"))
            else:
                task.averages["model"].module[0].weight[0, 0] = float("inf")

    return spoil


def test_divergence_is_diagnosed(tmp_path: Path) -> None:
    task = Regression()
    task.before_step = poison(task, 24, "weights")
    run = trainer(task, 60, folder=tmp_path)
    with pytest.raises(FloatingPointError) as raised:
        run.run()
    assert type(raised.value) is TrainingDiverged
    message = str(raised.value)
    # Step 24 is named though the losses are read at step 28.
    assert run.step == 28
    assert "diverged at step 24: loss 'error' is nan" in message
    assert "network 'model': weights 8 of 9 tensors are not finite, first 0.weight" in message
    assert "network 'critic': weights 2 of 2 tensors are not finite" in message
    assert f"Last good checkpoint: {tmp_path / 'checkpoints/step-00000020'}" in message
    assert "Try a lower learning rate" in message
    assert Checkpoints(tmp_path / "checkpoints").steps() == [10, 20]
    assert [line["step"] for line in read_lines(tmp_path)] == [7, 14, 21]
    # What is there is good to go on with.
    resumed, whole = Regression(), Regression()
    trainer(resumed, 60, folder=tmp_path).run(resume=True)
    trainer(whole, 60).run()
    assert everything(resumed) == everything(whole)


@pytest.mark.parametrize("in_folder", [True, False])
def test_weights_that_diverge_unseen_are_not_saved(tmp_path: Path, in_folder: bool) -> None:
    task = Regression()
    task.before_step = poison(task, 15, "average")
    with pytest.raises(TrainingDiverged, match=r"averages\.model\.0\.weight is not finite"):
        trainer(task, 20, folder=tmp_path if in_folder else None).run()
    if in_folder:
        assert Checkpoints(tmp_path / "checkpoints").steps() == [10]


def test_losses_that_diverge_before_a_signal_are_not_saved(tmp_path: Path) -> None:
    task = Regression()
    spoil, interrupt = poison(task, 12, "weights"), interrupt_at(13, signal.SIGTERM)
    task.before_step = lambda call: (spoil(call), interrupt(call))[0]
    with pytest.raises(TrainingDiverged, match="diverged at step 12: loss 'error' is nan"):
        trainer(task, 60, folder=tmp_path, log_every=50).run()
    assert Checkpoints(tmp_path / "checkpoints").steps() == [10]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    run = trainer(Regression(), 30, folder=tmp_path)
    task = run.task
    assert isinstance(task, Regression)

    def fill(call: int) -> None:
        if call == 11:
            (tmp_path / "metrics.jsonl").unlink()
            (tmp_path / "metrics.jsonl").symlink_to("/dev/full")

    task.before_step = fill
    with pytest.raises(OSError, match=r"could not write to it: No space left.*metrics\.jsonl"):
        run.run()
    assert Checkpoints(tmp_path / "checkpoints").steps() == [10]


# TensorBoard, an extra


def test_tensorboard(tmp_path: Path) -> None:
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        with pytest.raises(ImportError, match="tensorboard=True needs the package tensorboard"):
            trainer(Regression(), 14, folder=tmp_path, tensorboard=True)
        return
    run = trainer(Regression(), 14, folder=tmp_path, tensorboard=True)
    run.run()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("error")] == [
        (line["step"], pytest.approx(line["error"])) for line in run.history
    ]


def test_checkpoint_files_are_readable_alone(tmp_path: Path) -> None:
    trainer(Regression(), 10, folder=tmp_path).run()
    folder = tmp_path / "checkpoints/step-00000010"
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    model = Regression().networks["model"]
    model.load_state_dict(
        {n.removeprefix("networks.model."): w for n, w in weights.items() if "networks.model" in n}
    )
    assert torch.load(folder / "training.pt", weights_only=True)["seed"] == 1


def test_data_set_without_labels() -> None:
    class Unlabelled(Regression):
        def step(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
            assert y is None
            return super().step(x, x @ torch.ones(3))

    batches = Batches(TensorDataset(X), batch_size=10, seed=0, device="cpu")
    Trainer(Unlabelled(), batches, max_steps=3, progress=False).run()
