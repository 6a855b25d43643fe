"""What all deep estimators share: from ``fit`` to the trainer, and saving."""

import copy
import os
from abc import abstractmethod
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from pygen import io
from pygen.deep.batches import Batches
from pygen.deep.checkpoint import Checkpoints
from pygen.deep.data import Training, training
from pygen.deep.fitted import FittedNetworks
from pygen.deep.model_task import ModelTask
from pygen.deep.precision import autocast, place, resolve_precision
from pygen.deep.seeding import seeded
from pygen.deep.trainer import Trainer
from pygen.random import as_seed

# Parameters that say how long and where to train and what to show: a run may go on with others.
_MAY_CHANGE = frozenset(
    {"max_steps", "max_epochs", "device", "verbose", "random_state", "compile", "metric", "keep"}
)


class DeepEstimator(FittedNetworks):
    """Base of the models made of networks."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "latent_dim": [Interval(Integral, 1, None, closed="left")],
        "conditional": ["boolean"],
        "max_steps": [Interval(Integral, 1, None, closed="left"), None],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "gradient_clip": [Interval(Real, 0, None, closed="neither"), None],
        "metric": [StrOptions({"auto"}), callable, None],
        "keep": [StrOptions({"best", "last"})],
        "value_range": ["array-like", None],
        "precision": [StrOptions({"float32", "bf16"}), None],
        "compile": ["boolean"],
        "device": [str, torch.device, None],
        "random_state": ["random_state", np.random.Generator, torch.Generator],
        "verbose": ["verbose"],
    }
    # Without max_steps and max_epochs training takes this many steps or epochs, whichever is more.
    _default_steps: ClassVar[int]
    _default_epochs: ClassVar[int]

    max_steps: int | None
    max_epochs: int | None
    batch_size: int
    gradient_clip: float | None
    metric: Any
    keep: str
    value_range: Any
    precision: str | None
    compile: bool
    device: Any
    verbose: int

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        out: str | os.PathLike[str] | None = None,
        resume: bool = False,
        tensorboard: bool = False,
    ) -> Any:
        """Train the networks.

        Parameters
        ----------
        X : array-like, Tensor, Dataset or DataLoader
            ``[N, C, H, W]``, ``[N, H, W]`` or ``[N, D]``, finite: uint8; numbers in [0, 1] or [-1, 1]; or any others,
            which then lie between their smallest and largest (``value_range`` says otherwise). A Dataset or
            DataLoader gives tensors x, or pairs (x, y).
        y : array-like or Tensor, optional
            ``[N]``, class labels, for ``conditional=True``; else ignored.
        out : str or path, optional
            A folder for the run: checkpoints, ``metrics.jsonl``, samples, and at the end the model as :meth:`save`
            writes it.
        resume : bool, default=False
            Go on from the newest checkpoint in ``out``, bit for bit as if training had never stopped.
        tensorboard : bool, default=False
            Also write TensorBoard's event files there; needs ``pip install pygen[tensorboard]``.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If data, labels or parameters do not fit, or the run in ``out`` was of another model.
        FloatingPointError
            If losses or weights are no longer finite; says where and what to try.
        ImportError
            If TensorBoard is wanted and not installed.
        """
        self._validate_params()
        for name, asked in (("resume", resume), ("tensorboard", tensorboard)):
            if asked and out is None:
                raise ValueError(f"{name}=True needs out, the folder of the run.")
        seed = self._run_seed(Path(out) if out is not None and resume else None)
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)  # of an earlier fit
        data = self._take(X, y, seed)
        device = self._training_device(data)
        task = self._prepared(data, device, seed)
        batches = Batches(data.source, batch_size=self._step_rows(), seed=seed, device=device)
        steps = self.max_steps or batches.steps_per_epoch * (self.max_epochs or 0)
        if not steps:
            steps = max(self._default_steps, self._default_epochs * batches.steps_per_epoch)
        every = max(batches.steps_per_epoch, self._default_steps // 20)
        evaluate = self._evaluation(data, seed)
        draw = None if out is None else self._drawing(data, seed)
        trainer = Trainer(
            task,
            batches,
            max_steps=steps,
            folder=out,
            evaluate=evaluate,
            evaluate_every=None if evaluate is None else every,
            draw=draw,
            draw_every=None if draw is None else every,
            identity=self._identity(task, data, seed),
            progress=bool(self.verbose),
            tensorboard=tensorboard,
            capture=self._may_be_captured(),
        )
        trainer.run(resume=resume)
        if evaluate is not None and self.keep == "best":
            trainer.restore_best()
        self._finish(trainer, data)
        if out is not None:
            self.save(out)
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save to a folder, ``config.json`` and ``model.safetensors``; :func:`pygen.load` brings it back.

        Parameters
        ----------
        path : str or path
            The folder; made where it is missing.

        Raises
        ------
        OSError
            If the files cannot be written. An earlier save in the folder then is as it was.
        """
        io.save(self, path)

    # What a model says of itself

    @abstractmethod
    def _default_network(self, name: str, shape: tuple[int, ...], n_classes: int) -> nn.Module:
        """A new network where the user gave none."""

    @abstractmethod
    def _task(self, networks: nn.ModuleDict, seed: int) -> ModelTask:
        """What is trained."""

    @abstractmethod
    def _auto_metric(self, data: Training, seed: int) -> Callable[[], float] | None:
        """What is evaluated in training; the lower the better. None where it cannot be."""

    @abstractmethod
    def _check_networks(self) -> None:
        """Pass two rows through, to find at once what a user's networks do not fit."""

    def _step_rows(self) -> int:
        """Rows that one step takes."""
        return self.batch_size

    # Fitting

    def _run_seed(self, resumed: Path | None) -> int:
        """The seed of the run; one that was drawn is found again in the checkpoints."""
        if resumed is not None and not isinstance(self.random_state, Integral):
            checkpoints = Checkpoints(resumed / "checkpoints")
            for step in reversed(checkpoints.steps()):
                try:
                    return int(checkpoints.read(step).identity["random_state"])
                except (OSError, ValueError, KeyError, TypeError):
                    continue  # the trainer says what is wrong with it
        return as_seed(self.random_state)

    def _take(self, X: Any, y: Any, seed: int) -> Training:
        data = training(
            self,
            X,
            y,
            conditional=self.conditional,
            value_range=self.value_range,
            validation_fraction=getattr(self, "validation_fraction", 0.0),
            seed=seed,
        )
        self.feature_shape_ = data.feature_shape
        value_range = data.scaling.range()
        self.value_range_ = value_range.numpy() if data.numpy else value_range.to(data.device)
        if data.classes is not None and data.class_counts is not None:
            self.classes_ = data.classes
            self.class_prior_ = data.class_counts / data.class_counts.sum()
        return data

    def _training_device(self, data: Training) -> torch.device:
        if self.device is not None:
            return torch.device(self.device)
        if not data.numpy and isinstance(data.source, tuple):
            return data.device
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def _prepared(self, data: Training, device: torch.device, seed: int) -> ModelTask:
        n_classes = 0 if data.classes is None else len(data.classes)
        networks = nn.ModuleDict()
        with seeded(seed):
            for name in self._networks:
                given = getattr(self, name)
                if given is None:
                    given = self._default_network(name, self._network_shape(), n_classes)
                else:
                    given = copy.deepcopy(given)
                networks[name] = place(given.train(), device, compile=self.compile)
            task = self._task(networks, seed)
        task.gradient_clip = self.gradient_clip
        task.autocast = autocast(resolve_precision(self.precision, device), device)
        self._attach(task)
        self._check_networks()
        return task

    def _attach(self, task: ModelTask) -> None:
        """Make the task's networks, where there is one their average, the fitted attributes."""
        for name in self._networks:
            average = task.averages.get(name)
            network = task.networks[name] if average is None else average.module
            setattr(self, f"{name}_", network)

    def _may_be_captured(self) -> bool:
        """Whether each step is known to do the same: a user's networks may count, or wait for the device."""
        return not self.compile and all(getattr(self, name) is None for name in self._networks)

    def _evaluation(self, data: Training, seed: int) -> Callable[[], float] | None:
        if callable(self.metric):
            return lambda: float(self.metric(self))
        return None if self.metric is None else self._auto_metric(data, seed)

    def _drawing(self, data: Training, seed: int) -> Callable[[], Tensor] | None:
        """Makes the images that are written during training; None where rows are no images."""
        shape = self._network_shape()
        if len(shape) != 3 or shape[0] not in (1, 3, 4):
            return None

        def draw() -> Tensor:
            labels = None
            if self.conditional:
                n_classes = len(self.classes_)
                labels = torch.arange(64, device=self._network_device()) % n_classes
            return self._through(self._unit_rows, self._codes(64, seed), labels)

        return draw

    def _identity(self, task: ModelTask, data: Training, seed: int) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        params = {
            name: np.asarray(value).tolist()
            for name, value in self.get_params(deep=False).items()
            if name not in _MAY_CHANGE and name not in self._networks
        }
        networks = {name: _describe(task.networks[name]) for name in self._networks}
        return {
            "model": type(self).__name__,
            "feature_shape": list(data.feature_shape),
            "value_range": [data.scaling.low, data.scaling.high],
            "classes": None if data.classes is None else data.classes.tolist(),
            "random_state": seed,
            "parameters": params,
            "networks": networks,
        }

    def _finish(self, trainer: Trainer, data: Training) -> None:
        """Leave the fitted networks as loading them would make them."""
        self.n_steps_ = trainer.step
        self.history_ = list(trainer.history)
        for name in self._networks:
            network = getattr(self, f"{name}_").eval()
            network._compiled_call_impl = None
            for value in (*network.parameters(), *network.buffers()):
                value.data = value.data.clone(memory_format=torch.contiguous_format)
                value.grad = None


def _describe(network: nn.Module) -> Any:
    """A network for comparison: what makes it, or how torch prints it."""
    arguments = getattr(network, "arguments", None)
    if arguments is not None:
        return {"class": type(network).__name__, **arguments}
    return repr(network)
