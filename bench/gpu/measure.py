"""Time on a device: what the device can do, and how long a piece of work takes there beside that.

What a case reads or writes should be several times the second-level cache, so that no call finds it there.
"""

import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

# Timed for about this long, but at least and at most so many calls.
SECONDS, FEWEST, MOST = 1.0, 5, 100
# What takes longer, in seconds, is called only once: what a first call sets up hardly counts then.
SLOW = 10.0
# Share of the free memory that a case may fill.
FILL = 0.8


@dataclass
class Work:
    """Something to time, and what it must do at the least.

    Parameters
    ----------
    name : str
    run : callable
        What is timed, called with what ``prepare`` returned.
    prepare : callable, optional
        Called before each timed call, untimed; returns a tuple.
    bytes : float
        The fewest that must go through device memory: each input read once, each output written once.
    flops : float
        Floating-point operations, of the rate ``unit`` of :attr:`Machine.rates`.
    error : callable, optional
        Error against float64 on fresh random inputs, called before anything is timed.
    tolerance : float
        The largest error that is still right.
    limit : float, optional
        Seconds it should take at most.
    memory : float, optional
        Bytes it should take at most beyond its inputs.
    beats : dict of str to float
        By how much it should be faster than other works of the same case.
    """

    name: str
    run: Callable[..., Any]
    prepare: Callable[[], tuple[Any, ...]] = tuple
    bytes: float = 0.0
    flops: float = 0.0
    unit: str = "float32"
    error: Callable[[], float] | None = None
    tolerance: float = 0.0
    limit: float | None = None
    memory: float | None = None
    beats: dict[str, float] = field(default_factory=dict)


@dataclass
class Row:
    """A work's measurement; seconds, bytes."""

    name: str
    median: float | None = None
    quartiles: tuple[float, float] | None = None
    calls: int = 0
    floor: float = 0.0
    bytes: float = 0.0
    flops: float = 0.0
    unit: str = "float32"
    error: float | None = None
    tolerance: float = 0.0
    extra_bytes: int | None = None
    limit: float | None = None
    memory: float | None = None
    beats: dict[str, float] = field(default_factory=dict)
    failure: str | None = None


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 matrix products and convolutions may take TF32's short mantissas."""
    backends: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = allowed
        yield
    finally:
        for backend, was in zip(backends, before, strict=True):
            backend.allow_tf32 = was


def with_tf32(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        with tf32(True):
            return function(*args)

    return call


class Machine:
    """A device and what it can do, measured.

    Parameters
    ----------
    device : str
        "cuda"; "cpu" rehearses: tiny sizes, three calls, figures that mean nothing.

    Attributes
    ----------
    bandwidth : float
        Bytes a second, read and written, of a device-to-device copy.
    rates : dict of str to float
        Floating-point operations a second of a large matrix product, by precision. ``3xtf32`` is what is left for
        float32 accuracy from three TF32 products.
    """

    def __init__(self, device: str) -> None:
        self._seed = secrets.randbits(48)
        self.device = torch.device(device)
        self.rehearsal = self.device.type != "cuda"
        with tf32(False):
            self.bandwidth = self._copy_bandwidth()
            self.rates = {"float32": self._matrix_rate(torch.float32)}
        with tf32(True):
            self.rates["tf32"] = self._matrix_rate(torch.float32)
        self.rates["3xtf32"] = self.rates["tf32"] / 3
        self.rates["bfloat16"] = self._matrix_rate(torch.bfloat16)
        if not self.rehearsal:
            torch.cuda.empty_cache()  # so that `rows` sees all of the free memory

    def _copy_bandwidth(self) -> float:
        source = torch.randn(2**16 if self.rehearsal else 2**29, device=self.device)
        target = torch.empty_like(source)
        copy = Work("copy", lambda: target.copy_(source))
        return 2 * source.nbytes / statistics.median(self._timed(copy, 10))

    def _matrix_rate(self, dtype: torch.dtype) -> float:
        size = 64 if self.rehearsal else 8192
        a, b = (torch.randn(size, size, device=self.device, dtype=dtype) for _ in range(2))
        product = Work("product", lambda: a @ b)
        self._timed(product, 3)
        return 2 * size**3 / statistics.median(self._timed(product, 10))

    def rows(self, n: int, bytes_each: float, *, multiple: int = 1) -> int:
        """n, or as many rows, each so large with all that is made of it, as fit; halved until they do."""
        if self.rehearsal:
            return min(n, 1024 - 1024 % multiple)
        free = torch.cuda.mem_get_info(self.device)[0] * FILL
        while n * bytes_each > free and n >= 2 * multiple:
            n //= 2
        return n - n % multiple

    def poison(self, size: int) -> None:
        """Leave NaN where the next tensor of so many bytes is made: what is not written then shows."""
        torch.full((size // 4 + 1,), torch.nan, device=self.device)

    def generator(self) -> torch.Generator:
        """Fresh random numbers."""
        self._seed += 1
        return torch.Generator(self.device).manual_seed(self._seed)

    def measure(self, work: Work) -> Row:
        """Check a work, then time it. What goes wrong is told in the row's ``failure``."""
        kept = {name: value for name, value in vars(work).items() if name in Row.__annotations__}
        row = Row(**kept | {"error": None})
        row.floor = max(work.bytes / self.bandwidth, work.flops / self.rates[work.unit])
        try:
            if work.error is not None:
                row.error = work.error()
                if not row.error <= work.tolerance:
                    row.failure = f"wrong: error {row.error:.2g}, allowed {work.tolerance:.2g}"
                    return row
            first = self._first_call(work, row)
            self._time(work, row, first)
        except torch.OutOfMemoryError:
            row.failure = "out of memory"
        except Exception as error:
            row.failure = f"{type(error).__name__}: {error}"[:500]
        return row

    def _first_call(self, work: Work, row: Row) -> float:
        """Seconds of a call that sets up; its memory."""
        prepared = work.prepare()
        if not self.rehearsal:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        begin = time.perf_counter()
        result = work.run(*prepared)
        if not self.rehearsal:
            torch.cuda.synchronize()
            row.extra_bytes = torch.cuda.max_memory_allocated() - before
        del result
        return time.perf_counter() - begin

    def _time(self, work: Work, row: Row, first: float) -> None:
        if first > SLOW:
            times = [first]
        else:
            seconds = statistics.median(self._timed(work, 2))
            calls = max(FEWEST, min(MOST, int(SECONDS / seconds)))
            times = self._timed(work, 3 if self.rehearsal else calls)
        row.calls = len(times)
        low, row.median, high = (
            statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
        )
        row.quartiles = (low, high)

    def _timed(self, work: Work, calls: int) -> list[float]:
        """Seconds of each call, by the device's own clock where it has one."""
        if self.rehearsal:
            return [self._by_host(work) for _ in range(calls)]
        events = []
        for _ in range(calls):
            prepared = work.prepare()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            result = work.run(*prepared)
            end.record()
            del result, prepared
            events.append((begin, end))
        torch.cuda.synchronize()
        return [begin.elapsed_time(end) / 1e3 for begin, end in events]

    @staticmethod
    def _by_host(work: Work) -> float:
        prepared = work.prepare()
        begin = time.perf_counter()
        result = work.run(*prepared)
        seconds = time.perf_counter() - begin
        del result
        return max(seconds, 1e-9)

    def facts(self) -> dict[str, Any]:
        """What the figures depend on, for the results."""
        return {
            "copy bandwidth, B/s": self.bandwidth,
            "matrix rates, 1/s": self.rates,
            "last seed": self._seed,
        }


def largest_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference by the largest expected magnitude; NaN if anything is not a number."""
    expected = expected.detach().double()
    difference = (found.detach().to(expected.device).double() - expected).abs().max()
    return float(difference / expected.abs().max())


def windows(n: int, size: int) -> list[slice]:
    """Where the first, the middle and the last ``size`` of n rows are."""
    size = min(n, size)
    return [slice(start, start + size) for start in (0, (n - size) // 2, n - size)]
