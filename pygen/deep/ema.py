"""Exponential moving average of a network's weights."""

from __future__ import annotations

from copy import deepcopy
from itertools import chain

import torch
from torch import Tensor, nn


class Ema:
    """Average of a network over its updates: often better than the network itself (Polyak averaging).

    After update number t, counted from 0, every parameter and floating-point buffer is::

        average = d * average + (1 - d) * network,    d = min(decay, (1 + t) / (10 + t))

    so that the random initial weights are soon forgotten. Other buffers, such as counters, are copied.

    Parameters
    ----------
    network : Module
        Where it is trained: the average holds on to its tensors, so move it before, not after.
    decay : float
        In [0, 1).

    Attributes
    ----------
    module : Module
        The average: a copy of the network in eval mode that needs no gradient.
    steps : Tensor
        int64 scalar on the network's device: the number of updates.

    Raises
    ------
    ValueError
        If ``decay`` is outside [0, 1).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay: expected a number in [0, 1), found {decay}")
        self.decay = decay
        self.module = deepcopy(network).eval().requires_grad_(False)
        pairs = list(zip(_tensors(self.module), _tensors(network), strict=True))
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        other = [pair for pair in pairs if not pair[0].is_floating_point()]
        self._averages, self._live = [a for a, _ in floating], [b for _, b in floating]
        self._copies, self._originals = [a for a, _ in other], [b for _, b in other]
        device = self._averages[0].device if floating else torch.device("cpu")
        self.steps = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()
    def update(self) -> None:
        """Take the network's present weights into the average; the host waits for nothing."""
        # 1 - d, computed where the weights are, so that a captured graph replays the warm-up.
        weight = (9 / (self.steps + 10)).clamp_(min=1 - self.decay)
        self.steps += 1
        weights = [weight.to(average.dtype) for average in self._averages]
        torch._foreach_lerp_(self._averages, self._live, weights)
        if self._copies:
            torch._foreach_copy_(self._copies, self._originals)


def _tensors(module: nn.Module) -> chain[Tensor]:
    return chain(module.parameters(), module.buffers())
