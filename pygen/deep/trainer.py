"""The training loop of all deep models: batches, losses, samples, checkpoints, the best and the last."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from pygen.deep.batches import Batches
from pygen.deep.checkpoint import Checkpoint, Checkpoints
from pygen.deep.divergence import TrainingDiverged, diverged, non_finite
from pygen.deep.history import History
from pygen.deep.interruption import Interruption
from pygen.deep.seeding import seeded
from pygen.deep.task import Task
from pygen.nn import CapturedStep
from pygen.pictures import grid, save_png

__all__ = ["Task", "Trainer", "TrainingDiverged"]

# Second number of the key that seeds what evaluate and draw draw from torch's, NumPy's and Python's generators.
_LOOK = 3


class Trainer:
    """Trains a task for a number of steps; what happens between two losses read is up to the device.

    A folder, where given, holds ``metrics.jsonl`` (one line per interval: step, epoch, seconds, the mean of each loss
    over the interval, the metric where evaluated), ``samples/step-00000500.png`` and ``checkpoints/``
    (``pygen.deep.checkpoint``). A run that was stopped or killed goes on from its newest whole checkpoint and ends, on
    the same machine, bit for bit where it would have without.

    Parameters
    ----------
    task : Task
    batches : Batches
        Its seed also governs dropout and other draws from torch's global generators; these are as they were when
        the run ends.
    max_steps : int
        Updates in all, those before resuming included.
    folder : path, optional
        Made where it is missing. Without it the best weights are kept in memory, nothing is written, and the run
        cannot be resumed.
    log_every : int
        Steps per interval. Losses stay on the device until its end.
    evaluate : callable, optional
        ``evaluate() -> float``; lower is better. Called with the networks in eval mode every ``evaluate_every`` steps
        and after the last. Neither it nor ``draw`` changes what is trained, however many random numbers they draw.
    evaluate_every : int, optional
    draw : callable, optional
        ``draw() -> Tensor``: images ``[N, C, H, W]``, uint8 or in [0, 1], written as a grid every ``draw_every`` steps
        and after the last. Needs a folder.
    draw_every : int, optional
    checkpoint_every : int, optional
        Checkpoints are also written when the metric is the best so far, when interrupted, and at the end.
    keep : int
        How many of the newest checkpoints are kept, besides the best.
    identity : mapping, optional
        What is trained: architecture, data shape, hyperparameters; strings, numbers, None, lists and dicts. Must agree
        when a run is resumed.
    progress : bool
        Show a progress bar, where standard error is a terminal.
    tensorboard : bool
        Write TensorBoard's event files, too.
    capture : bool
        On a GPU replay the step as a CUDA graph; for steps that repeat as `pygen.nn.CapturedStep` says.

    Attributes
    ----------
    step : int
        Updates made.
    history : list of dict
        The lines of ``metrics.jsonl``.
    best_step, best_metric : int, float or None
        None before the first evaluation.
    seconds : float
        Training time, that before resuming included.

    Raises
    ------
    ValueError
        If a number of steps is below 1.
    ImportError
        If TensorBoard is wanted and not installed.
    """

    def __init__(
        self,
        task: Task,
        batches: Batches,
        *,
        max_steps: int,
        folder: str | os.PathLike[str] | None = None,
        log_every: int = 50,
        evaluate: Callable[[], float] | None = None,
        evaluate_every: int | None = None,
        draw: Callable[[], Tensor] | None = None,
        draw_every: int | None = None,
        checkpoint_every: int | None = 1000,
        keep: int = 2,
        identity: Mapping[str, Any] | None = None,
        progress: bool = True,
        tensorboard: bool = False,
        capture: bool = False,
    ) -> None:
        intervals = {
            "max_steps": max_steps,
            "log_every": log_every,
            "evaluate_every": evaluate_every,
            "draw_every": draw_every,
            "checkpoint_every": checkpoint_every,
        }
        for name, value in intervals.items():
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, found {value}")
        self.task, self.batches, self.max_steps = task, batches, max_steps
        self._take_step: Callable[..., dict[str, Tensor]] = task.step
        if capture:
            self._take_step = CapturedStep(task.step, task.optimizers.values())
        self.folder = None if folder is None else Path(folder)
        self.log_every, self.evaluate_every = log_every, evaluate_every
        self.draw_every, self.checkpoint_every = draw_every, checkpoint_every
        self.evaluate, self.draw, self.progress = evaluate, draw, progress
        data = {"n_rows": batches.n_rows, "batch_size": batches.batch_size}
        self.identity = {**data, **(identity or {})}
        self.step, self.seconds = 0, 0.0
        self.best_step: int | None = None
        self.best_metric: float | None = None
        self._best_weights: dict[str, Tensor] | None = None
        self._history = History(self.folder, tensorboard)
        self._checkpoints = None
        if self.folder is not None:
            self._checkpoints = Checkpoints(self.folder / "checkpoints", keep)
        self._saved_step: int | None = None
        # The losses of the open interval, one row per step.
        self._losses = torch.zeros(log_every, len(task.losses), device=task.device)
        self._n_open = 0

    @property
    def history(self) -> list[dict[str, Any]]:
        return self._history.lines

    def run(self, resume: bool = False) -> None:
        """Train until ``max_steps`` updates are made; leaves the last weights, in eval mode.

        Parameters
        ----------
        resume : bool
            Go on from the newest checkpoint in the folder; where there is none, begin, with a warning.

        Raises
        ------
        FileExistsError
            If the folder holds checkpoints and ``resume`` is False.
        ValueError
            If the run cannot be resumed: no folder, something else was trained, every checkpoint is damaged.
        TrainingDiverged
            If losses or weights are NaN or infinite; no checkpoint holds them.
        KeyboardInterrupt
            After Ctrl-C or SIGTERM, once the step is finished and a checkpoint written.
        OSError
            If something cannot be written.
        """
        with seeded(self.batches.seed, device=self.task.device), Interruption() as interruption:
            self._begin(resume)
            self.task.networks.train()
            try:
                self._loop(interruption)
            finally:
                self.task.networks.eval()
                self._history.end()

    def restore_best(self) -> None:
        """Put the weights with the lowest metric back into the task, if ``evaluate`` was ever called.

        Raises
        ------
        OSError, ValueError
            If their checkpoint was removed or damaged since.
        """
        if self._checkpoints is not None and self.best_step is not None:
            self.task.load_weights(self._checkpoints.read(self.best_step).weights)
        elif self._best_weights is not None:
            self.task.load_weights(self._best_weights)

    # Beginning

    def _begin(self, resume: bool) -> None:
        if self._checkpoints is None:
            if resume:
                raise ValueError(
                    "resume=True: expected the folder of the run to go on with, found None"
                )
            self._history.begin(0)
            return
        self._checkpoints.remove_leftovers()
        steps = self._checkpoints.steps()
        if steps and not resume:
            raise FileExistsError(
                f"{self.folder}: expected no earlier run, found one of {steps[-1]} steps; go on with it by resume=True,"
                " or give another folder"
            )
        checkpoint = self._checkpoints.newest(self.identity)
        if checkpoint is not None:
            self._restore(checkpoint)
        elif resume:
            warnings.warn(
                f"{self.folder}: no checkpoint to go on from; beginning at step 0",
                UserWarning,
                stacklevel=3,
            )
        self._history.begin(self.step)

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.task.load_weights(checkpoint.weights)
        training = checkpoint.training
        self.task.load_training_state(training["task"])
        torch.set_rng_state(training["random"]["cpu"])
        if self.task.device.type == "cuda" and training["random"]["cuda"] is not None:
            torch.cuda.set_rng_state(training["random"]["cuda"], self.task.device)
        self.batches.seed = training["seed"]
        self.step = self._saved_step = checkpoint.step
        # Fewer than were open where log_every is smaller now.
        losses = training["losses"]
        self._n_open = min(len(losses), self.step % self.log_every)
        self._losses[: self._n_open] = losses[len(losses) - self._n_open :]
        self.seconds = checkpoint.seconds
        self.best_step, self.best_metric = checkpoint.best_step, checkpoint.best_metric

    # Each step

    def _loop(self, interruption: Interruption) -> None:
        begun = time.perf_counter() - self.seconds
        left = max(0, self.max_steps - self.step)
        disable = None if self.progress else True
        with tqdm(total=self.max_steps, initial=self.step, unit="step", disable=disable) as bar:
            for x, y in islice(self.batches.starting_at(self.step), left):
                losses = self._take_step(x, y)
                torch.stack(
                    [losses[name] for name in self.task.losses], out=self._losses[self._n_open]
                )
                self._n_open += 1
                self.step += 1
                bar.update()
                if self._something_is_due():
                    self.seconds = time.perf_counter() - begun
                    self._look(bar)
                if interruption.requested:
                    self.seconds = time.perf_counter() - begun
                    self._stop()

    def _is_due(self, every: int | None) -> bool:
        return self.step == self.max_steps or (every is not None and self.step % every == 0)

    def _something_is_due(self) -> bool:
        intervals = (self.log_every, self.evaluate_every, self.draw_every, self.checkpoint_every)
        return any(self._is_due(every) for every in intervals)

    def _stop(self) -> None:
        where = "nothing is kept, for want of a folder"
        if self._checkpoints is not None:
            if self._saved_step != self.step:
                self._save(None)
            where = f"{self._checkpoints.path(self.step)} holds it; resume=True goes on from there"
        raise KeyboardInterrupt(f"interrupted after step {self.step}; {where}")

    def _look(self, bar: Any) -> None:
        """At the end of an interval: read the losses, evaluate, draw, save, as is due."""
        evaluates = self.evaluate is not None and self._is_due(self.evaluate_every)
        metric, is_best = None, False
        if evaluates or self._is_due(self.log_every):
            line = self._close_interval()
            bar.set_postfix({name: f"{line[name]:.4g}" for name in self.task.losses}, refresh=False)
            if evaluates:
                metric, is_best = self._evaluate()
                line["metric"] = metric
            self._history.add(line)
        if self.draw is not None and self.folder is not None and self._is_due(self.draw_every):
            self._draw(self.draw, self.folder / "samples")
        if is_best or self._is_due(self.checkpoint_every):
            self._save(metric)
            if is_best and self._checkpoints is None:
                self._best_weights = {n: w.clone() for n, w in self.task.weights().items()}

    def _close_interval(self) -> dict[str, Any]:
        means = self._open_losses().mean(0).tolist()
        self._n_open = 0
        return {
            "step": self.step,
            "epoch": round(self.step / self.batches.steps_per_epoch, 4),
            "seconds": round(self.seconds, 3),
            **dict(zip(self.task.losses, means, strict=True)),
        }

    def _open_losses(self) -> Tensor:
        """The open interval's losses, float64 ``[steps, losses]`` on the CPU; raises if one is not finite."""
        losses = self._losses[: self._n_open].cpu().double()
        bad = losses.isfinite().logical_not_().nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            name, value = self.task.losses[column], float(losses[row, column])
            step = self.step - self._n_open + 1 + row
            raise self._diverged(step, f"loss {name!r} is {value}")
        return losses

    def _diverged(self, step: int, what: str) -> TrainingDiverged:
        last_good = None
        if self._checkpoints is not None and self._saved_step is not None:
            last_good = self._checkpoints.path(self._saved_step)
        return diverged(self.task, step, what, last_good)

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """Eval mode, and random numbers apart: looking does not change what is trained."""
        state = self.task.state.clone()
        self.task.networks.eval()
        try:
            with seeded(self.batches.seed, _LOOK, self.step, device=self.task.device):
                yield
        finally:
            self.task.networks.train()
            self.task.state.copy_(state)

    def _evaluate(self) -> tuple[float | None, bool]:
        """The metric, None if it is not finite, and whether it is the best so far."""
        assert self.evaluate is not None
        with self._looking():
            metric = float(self.evaluate())
        if not math.isfinite(metric):
            warnings.warn(f"the metric at step {self.step} is {metric}; left out", stacklevel=2)
            return None, False
        is_best = self.best_metric is None or metric < self.best_metric
        if is_best:
            self.best_step, self.best_metric = self.step, metric
        return metric, is_best

    def _draw(self, draw: Callable[[], Tensor], folder: Path) -> None:
        with self._looking():
            images = draw()
        folder.mkdir(exist_ok=True)
        columns = math.isqrt(max(0, len(images) - 1)) + 1
        save_png(grid(images, columns), folder / f"step-{self.step:08d}.png")
        self._history.add_images(images, self.step)

    def _save(self, metric: float | None) -> None:
        """Write a checkpoint where there is a folder, once everything is seen to be finite."""
        losses = self._open_losses()
        state = self.task.training_state()
        training = {
            "task": state,
            "random": {"cpu": torch.get_rng_state(), "cuda": self._cuda_random_state()},
            "seed": self.batches.seed,
            "losses": losses.float(),
        }
        bad = non_finite({**self.task.weights(), **state["optimizers"]})
        if bad:
            raise self._diverged(self.step, f"{bad[0]} is not finite")
        if self._checkpoints is None:
            return
        self._history.flush()
        self._checkpoints.save(
            Checkpoint(
                step=self.step,
                weights=self.task.weights(),
                training=training,
                identity=self.identity,
                seconds=self.seconds,
                metric=metric,
                best_step=self.best_step,
                best_metric=self.best_metric,
            )
        )
        self._saved_step = self.step

    def _cuda_random_state(self) -> Tensor | None:
        device = self.task.device
        return torch.cuda.get_rng_state(device) if device.type == "cuda" else None
