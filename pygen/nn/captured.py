"""A training step as one CUDA graph: hundreds of kernels, launched by one call."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class CapturedStep:
    """Call a training step, on a GPU as a CUDA graph that was captured once and is replayed.

    The first calls run the step as it is, the next one captures it, later ones copy their inputs to
    where the graph reads them and replay it. Each call makes exactly one step, with the result of
    the step itself. On another device, and for inputs of other shapes than those captured, the step
    runs as it is.

    What a graph repeats is the device's work, not Python's: the step must do the same at each call,
    keep what it changes in tensors, in place, and never wait for the device (``.item()``, ``if`` on
    a tensor). Random numbers are fresh at each replay: those of ``pygen.ops`` (their state is a
    tensor) and those of torch.

    Parameters
    ----------
    step : callable
        ``step(*inputs)``; inputs are tensors or other values, results tensors in any nesting.
    optimizers : iterable of Optimizer
        Those that the step takes steps of. Their counters must be on the device: made with
        ``fused=True`` or ``capturable=True``.
    warmup : int
        Calls before the capture, at least 1; libraries choose kernels and allocate in them.

    Raises
    ------
    ValueError
        If ``warmup`` is below 1.

    Notes
    -----
    A replayed call returns the same tensors each time, overwritten by the next call.
    """

    def __init__(
        self, step: Callable[..., Any], optimizers: Iterable[Optimizer] = (), *, warmup: int = 3
    ) -> None:
        if warmup < 1:
            raise ValueError(f"warmup: expected at least 1, found {warmup}")
        self.step, self.optimizers, self.warmup = step, tuple(optimizers), warmup
        self._kind: tuple[Hashable, ...] | None = None
        self._seen = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Any, ...] = ()
        self._result: Any = None
        self._stream: torch.cuda.Stream | None = None

    def __call__(self, *inputs: Any) -> Any:
        """Make one step."""
        device = next((x.device for x in inputs if isinstance(x, Tensor) and x.is_cuda), None)
        if device is None:
            return self.step(*inputs)
        kind = tuple(_kind(value) for value in inputs)
        if self._graph is None:
            self._seen = self._seen + 1 if kind == self._kind else 1
            self._kind = kind
            if self._seen <= self.warmup:
                return self._warm_up(device, inputs)
            self._capture(inputs)
        elif kind != self._kind:
            return self.step(*inputs)
        return self._replay(inputs)

    def _warm_up(self, device: torch.device, inputs: tuple[Any, ...]) -> Any:
        # On the stream of the capture: the backward pass remembers the stream of its first run.
        if self._stream is None:
            self._stream = torch.cuda.Stream(device)
        present = torch.cuda.current_stream(device)
        self._stream.wait_stream(present)
        with torch.cuda.stream(self._stream):
            result = self.step(*inputs)
        present.wait_stream(self._stream)
        return result

    def _capture(self, inputs: tuple[Any, ...]) -> None:
        static = tuple(x.clone() if isinstance(x, Tensor) else x for x in inputs)
        graph = torch.cuda.CUDAGraph()
        with _capturable(self.optimizers), torch.cuda.graph(graph, stream=self._stream):
            result = self.step(*static)
        self._graph, self._inputs, self._result = graph, static, result

    def _replay(self, inputs: tuple[Any, ...]) -> Any:
        for to, value in zip(self._inputs, inputs, strict=True):
            if isinstance(value, Tensor):
                to.copy_(value)
        assert self._graph is not None
        self._graph.replay()
        return self._result


def _kind(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device
    return value


@contextmanager
def _capturable(optimizers: Iterable[Optimizer]) -> Iterator[None]:
    """What torch asks of optimizers in a capture; outside of one it would warn of it."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    before = [group.get("capturable") for group in groups]
    for group in groups:
        if "capturable" in group:
            group["capturable"] = True
    try:
        yield
    finally:
        for group, value in zip(groups, before, strict=True):
            if value is not None:
                group["capturable"] = value
