"""What the tasks of all models share: rows as networks see them, calls of networks, Adam."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from pygen.deep.precision import memory_format
from pygen.deep.scaling import Scaling
from pygen.deep.task import Task
from pygen.random import new_state


class ModelTask(Task):
    """A task of networks that see the user's rows.

    Parameters
    ----------
    networks : ModuleDict
        On their device, in their memory layout.
    scaling : Scaling
        Of the user's numbers.
    shape : tuple of int
        Of a row as the networks see it.
    conditional : bool
        Whether networks are told labels.
    seed : int
        Of the noise.
    """

    def __init__(
        self,
        networks: nn.ModuleDict,
        scaling: Scaling,
        shape: tuple[int, ...],
        conditional: bool,
        seed: int,
    ) -> None:
        super().__init__()
        self.networks = networks
        self.state = new_state(seed, device_of(networks))
        self._layout = memory_format(networks)
        self._scaling, self._shape, self._conditional = scaling, shape, conditional

    def seen(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """A batch as the networks see it: rows in [0, 1], and labels if they are told any."""
        x = self._scaling.to_unit(x).reshape(-1, *self._shape)
        if x.dim() == 4:
            x = x.contiguous(memory_format=self._layout)
        return x, y.long() if self._conditional and y is not None else None


def call(network: Callable[..., Any], x: Tensor, y: Tensor | None) -> Tensor:
    """``network(x, y)``; without labels ``network(x)``, so that any module will do."""
    return network(x) if y is None else network(x, y)


def device_of(network: nn.Module) -> torch.device:
    """Where a network's weights are; the CPU of one that has none."""
    weights = chain(network.parameters(), network.buffers())
    return next((weight.device for weight in weights), torch.device("cpu"))


def adam(
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.Adam:
    """Adam in one kernel for all parameters, which a CUDA graph can capture."""
    return torch.optim.Adam(parameters, learning_rate, betas, fused=True)
