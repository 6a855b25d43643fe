"""What is trained: networks, their optimizers, and one update of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pygen.deep.ema import Ema


class Task(ABC):
    """One kind of training; a model fills the attributes and writes :meth:`step`.

    Attributes
    ----------
    networks : ModuleDict
        All trained networks by name, on their device.
    optimizers : dict of str to Optimizer
    averages : dict of str to Ema
        Moving averages, updated by :meth:`step`; may be empty.
    state : Tensor
        int64 ``[2]`` on the networks' device: the stream of the step's noise (``pygen.random.new_state``).
    losses : tuple of str
        The names that :meth:`step` returns.
    counters : dict of str to Tensor
        Whatever else a step changes, in place; saved and restored with the rest.
    gradient_clip : float or None
        Largest norm of all gradients of an optimizer together.
    autocast : callable
        Makes the context manager of the forward passes (``pygen.deep.precision.autocast``).
    """

    networks: nn.ModuleDict
    optimizers: dict[str, Optimizer]
    state: Tensor
    losses: tuple[str, ...]

    def __init__(self) -> None:
        self.averages: dict[str, Ema] = {}
        self.counters: dict[str, Tensor] = {}
        self.gradient_clip: float | None = None
        self.autocast: Callable[[], AbstractContextManager[object]] = nullcontext

    @abstractmethod
    def step(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        """Update the networks once.

        The host must not wait for the device in here: no ``.item()``, no ``if`` on a tensor.

        Parameters
        ----------
        x : Tensor
            A batch as the data holds it, ``[N, ...]``, on the networks' device.
        y : Tensor or None
            Its labels ``[N]``.

        Returns
        -------
        dict of str to Tensor
            Detached scalars on the device, one for each name in ``losses``.
        """

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.state.device

    def update(self, optimizer: Optimizer, loss: Tensor) -> None:
        """Take one step of an optimizer down the gradient of a scalar loss. Call it outside ``autocast``.

        Parameters
        ----------
        optimizer : Optimizer
        loss : Tensor
            Depends on the optimizer's parameters; other parameters that need no gradient get none.
        """
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.gradient_clip is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.gradient_clip)
        optimizer.step()

    def weights(self) -> dict[str, Tensor]:
        """Weights and buffers of the networks and their averages, by name: the tensors themselves, not copies."""
        return {
            f"{kind}.{name}.{key}": value
            for kind, modules in self._parts().items()
            for name, module in modules.items()
            for key, value in module.state_dict().items()
        }

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Copy weights, named as :meth:`weights` names them, into the networks and averages.

        Raises
        ------
        ValueError
            If names or shapes differ; then nothing was copied.
        """
        own = self.weights()
        for name in sorted({*own, *weights}):
            expected, found = (
                list(w[name].shape) if name in w else "nothing" for w in (own, weights)
            )
            if expected != found:
                raise ValueError(
                    f"The weights are of another architecture: {name} is {expected} here, {found} there."
                )
        for name, value in own.items():
            value.copy_(weights[name])

    def training_state(self) -> dict[str, Any]:
        """What a step changes besides the weights, for a checkpoint."""
        return {
            "optimizers": {n: optimizer.state_dict() for n, optimizer in self.optimizers.items()},
            "averages": {name: average.steps for name, average in self.averages.items()},
            "state": self.state,
            "counters": self.counters,
        }

    def load_training_state(self, saved: Mapping[str, Any]) -> None:
        """Put back what :meth:`training_state` returned."""
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(saved["optimizers"][name])
        for name, average in self.averages.items():
            average.steps.copy_(saved["averages"][name])
        for name, counter in self.counters.items():
            counter.copy_(saved["counters"][name])
        self.state.copy_(saved["state"])

    def _parts(self) -> dict[str, dict[str, nn.Module]]:
        averages = {name: average.module for name, average in self.averages.items()}
        return {"networks": dict(self.networks.items()), "averages": averages}
