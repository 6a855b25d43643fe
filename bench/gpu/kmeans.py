"""Cases of k-means: sums over labelled rows, distances from a few centres, and one step of Lloyd's algorithm."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.gpu.measure import Machine, Work, largest_error, with_tf32
from pygen.ops.kmeans import closer, lloyd
from pygen.ops.moments import moments

# Rows on which results are compared with float64.
CHECKED = 4096
# Elements of a peer's largest temporary.
CHUNK = 2**28


def heaps(machine: Machine, n: int, d: int, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """float32 rows ``[n, D]`` about centres far apart, the heap of each, and points near the centres ``[K, D]``.

    The heaps are of one size, so that none is empty: which rows Lloyd's algorithm moves to empty ones
    may turn on the last digit of a distance.
    """
    generator = machine.generator()
    options: dict[str, Any] = {"generator": generator, "device": machine.device}
    centres = 2 * torch.randn(k, d, **options, dtype=torch.float64)
    groups = torch.randperm(n, **options) % k
    x = torch.randn(n, d, **options)
    for rows, index in zip(x.split(2**20), groups.split(2**20), strict=True):
        rows += centres.float()[index]
    # Numbers that float32 has, so that its error is that of the sums alone.
    near = centres + 0.1 * torch.randn(k, d, **options, dtype=torch.float64)
    return x, groups, near.float().double()


def sized(machine: Machine, n: int, d: int) -> tuple[int, int]:
    d = min(d, 64) if machine.rehearsal else d
    return machine.rows(n, 4 * 1.5 * d), d


def index_add(x: Tensor, groups: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Counts and sums in float32, in an order that changes from run to run."""
    sums = torch.zeros_like(centres, dtype=x.dtype).index_add_(0, groups, x)
    return torch.bincount(groups, minlength=len(centres)), sums


def sums(machine: Machine, n: int, d: int, k: int) -> Iterator[Work]:
    n, d = sized(machine, n, d)
    x, groups, centres = heaps(machine, n, d, k)
    checked = heaps(machine, min(n, CHECKED), d, k)

    def error() -> float:
        rows, index, about = checked
        expected = moments.__wrapped__(rows.double(), index, about)
        pairs = zip(moments(rows, index, about), expected, strict=True)
        return max(largest_error(f, e) for f, e in pairs)

    work: dict[str, Any] = {"bytes": 4.0 * n * d + 8.0 * n}
    yield Work("pygen", partial(moments, x, groups, centres), **work, error=error, tolerance=1e-11)
    yield Work("plain PyTorch", partial(moments.__wrapped__, x, groups, centres), **work)
    yield Work("index_add_, first sums alone", partial(index_add, x, groups, centres), **work)


def cdist_closer(x: Tensor, centres: Tensor, closest: Tensor, found: Tensor) -> None:
    torch.minimum(torch.cdist(centres.float(), x).square_(), closest, out=found)


def few_centres(machine: Machine, n: int, d: int, k: int) -> Iterator[Work]:
    n, d = sized(machine, n, d)
    x, _, centres = heaps(machine, n, d, k)
    rows, _, checked = heaps(machine, min(n, CHECKED), d, k)
    options: dict[str, Any] = {"device": machine.device, "dtype": torch.float64}
    closest = torch.full((n,), torch.inf, **options)
    found = torch.empty((k, n), **options)
    none = torch.full((len(rows),), torch.inf, **options)
    work: dict[str, Any] = {
        "bytes": 4.0 * n * d + 8.0 * n * (k + 1),
        "flops": 2.0 * n * d * k,
        "unit": "3xtf32",
    }
    for name, function, tolerance in (
        ("pygen", closer, 1e-5),
        ("plain PyTorch", closer.__wrapped__, math.inf),
        ("torch.cdist", cdist_closer, math.inf),
    ):
        yield Work(
            name,
            partial(function, x, centres, closest, found),
            **work,
            error=partial(error_of_closer, function, rows, checked, none),
            tolerance=tolerance,
        )


def error_of_closer(
    function: Callable[..., None], x: Tensor, centres: Tensor, closest: Tensor
) -> float:
    found, expected = (closest.new_empty(len(centres), len(x)) for _ in range(2))
    function(x, centres, closest, found)
    closer.__wrapped__(x.double(), centres, closest, expected)
    return largest_error(found, expected)


def cdist_step(x: Tensor, centres: Tensor) -> Tensor:
    """The centres after a step."""
    places = [
        torch.cdist(rows, centres.float()).argmin(1)
        for rows in x.split(max(1, CHUNK // len(centres)))
    ]
    return means(x, torch.cat(places), centres)


def product_step(x: Tensor, centres: Tensor) -> Tensor:
    """The same as scikit-learn does it: a product of matrices, without the rows' own norms."""
    c = centres.float()
    norms = c.square().sum(1)
    places = [
        torch.addmm(norms, rows, c.T, alpha=-2).argmin(1)
        for rows in x.split(max(1, CHUNK // len(c)))
    ]
    return means(x, torch.cat(places), centres)


def means(x: Tensor, groups: Tensor, centres: Tensor) -> Tensor:
    counts, total = index_add(x, groups, centres)
    return total / counts.clamp_min(1)[:, None]


def pygen_step(x: Tensor, centres: Tensor) -> Tensor:
    return lloyd(x, centres, None, 1, 0.0)[1]


def plain_step(x: Tensor, centres: Tensor) -> Tensor:
    return lloyd.__wrapped__(x, centres, None, 1, 0.0)[1]


def error_of_step(function: Callable[..., Tensor], x: Tensor, centres: Tensor) -> float:
    return largest_error(function(x, centres), plain_step(x.double(), centres))


def step(machine: Machine, n: int, d: int, k: int) -> Iterator[Work]:
    n, d = sized(machine, n, d)
    x, _, centres = heaps(machine, n, d, k)
    rows, _, checked = heaps(machine, min(n, CHECKED), d, k)
    for name, function in (
        ("pygen", pygen_step),
        ("plain PyTorch", plain_step),
        ("torch.cdist and argmin", cdist_step),
        ("matrix product and argmin", product_step),
        ("matrix product and argmin, TF32", with_tf32(product_step)),
    ):
        yield Work(
            name,
            partial(function, x, centres),
            bytes=4.0 * n * d + 8.0 * n,
            flops=2.0 * n * d * k,
            unit="3xtf32",
            error=partial(error_of_step, function, rows, checked),
            tolerance=1e-9 if name == "pygen" else math.inf,
        )


CASES: dict[str, Callable[[Machine], Iterator[Work]]] = {
    "moments-1e6x784-k100": partial(sums, n=10**6, d=784, k=100),
    "closer-1e6x784-k6": partial(few_centres, n=10**6, d=784, k=6),
    "lloyd-step-1e6x784-k10": partial(step, n=10**6, d=784, k=10),
    "lloyd-step-1e6x784-k100": partial(step, n=10**6, d=784, k=100),
    "lloyd-step-1e7x64-k1000": partial(step, n=10**7, d=64, k=1000),
}
