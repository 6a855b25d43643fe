"""Cases of drawing: normals, rows of Gaussian mixtures, and the sampling step of a VAE."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.gpu.measure import Machine, Work, largest_error, windows
from pygen import ops
from pygen.ops.box_muller import box_muller
from pygen.ops.philox import NORMAL, random_words

# Rows that are compared with float64, at three places; draws likewise.
CHECKED, CHECKED_DRAWS = 1024, 2**18


def fresh_state(machine: Machine) -> Tensor:
    seed = torch.randint(2**62, (), generator=machine.generator(), device=machine.device)
    return torch.stack([seed, torch.zeros_like(seed)])


def noise(state: Tensor, start: int, n: int, width: int) -> Tensor:
    """``[n, width]``, float64, on the CPU: the draws from row ``start`` of a call that began at the state.

    Of a float32 draw's 32 digits, (x0 + 1/2) / 2**32 and x1: float64 draws have more, which far from
    zero changes them by more than any rounding.
    """
    blocks = start * width // 4, (start + n) * width // 4
    x0, x1, x2, x3 = random_words(state.cpu(), *blocks, NORMAL)
    low = torch.full_like(x0, 2**31), torch.zeros_like(x0)
    return torch.stack([*box_muller(x0, x1, low), *box_muller(x2, x3, low)], 1).view(n, width)


def written(x: Tensor) -> float:
    """0, or NaN if anything is not finite."""
    return 0.0 if all(bool(part.isfinite().all()) for part in x.split(2**20)) else float("nan")


def normal(machine: Machine, dtype: torch.dtype, targets: bool) -> Iterator[Work]:
    n = machine.rows(2**28, 4 * dtype.itemsize, multiple=4)
    state = fresh_state(machine)
    # The float32 draw's own error, and what rounding to bfloat16 adds to the largest draws.
    rounding = 2e-6 + (2**-6 if dtype == torch.bfloat16 else 0)

    def error(fast: bool) -> float:
        state = fresh_state(machine)
        start = state.clone()
        machine.poison(n * dtype.itemsize)
        draws = ops.normal(state, [n], dtype, fast)
        worst = written(draws)
        for part in windows(n // 4, CHECKED_DRAWS // 4):
            found = draws[4 * part.start : 4 * part.stop].cpu().view(-1, 4)
            expected = noise(start, part.start, len(found), 4)
            worst = max(worst, float((found.double() - expected).abs().max()), key=_nan_last)
        return worst

    for name, fast, share in (("pygen, fast", True, 0.85), ("pygen, exact", False, 0.55)):
        yield Work(
            name,
            partial(ops.normal, state, [n], dtype, fast),
            bytes=n * dtype.itemsize,
            error=partial(error, fast),
            tolerance=rounding + 1e-5 * fast,
            beats={"memset": share, "torch.randn": 1.2} if targets else {},
        )
    out = torch.empty(n, dtype=dtype, device=machine.device)
    yield Work("memset", out.zero_, bytes=out.nbytes)
    randn = partial(torch.randn, n, dtype=dtype, device=machine.device)
    yield Work("torch.randn", randn, bytes=out.nbytes)


def _nan_last(value: float) -> float:
    return float("inf") if value != value else value


def gaussians(
    machine: Machine, kind: str, n: int, d: int, k: int, limit: float | None
) -> Iterator[Work]:
    # Output, noise and gathered parameters of the peer, four bytes each.
    n = machine.rows(n, 4 * 4 * d + 16, multiple=k)
    generator = machine.generator()
    options: dict[str, Any] = {"generator": generator, "device": machine.device}
    means = 3 * torch.randn(k, d, **options)
    if kind == "diag":
        scales = torch.rand(k, d, **options) + 0.5
    else:
        scales = torch.randn(k, d, d, **options).tril() / d**0.5 + torch.eye(
            d, device=machine.device
        )
    index = torch.randint(k, (n,), **options)
    state = fresh_state(machine)

    def error() -> float:
        state = fresh_state(machine)
        start = state.clone()
        machine.poison(4 * n * d)
        x = ops.sample_gaussians(state, index, means, scales)
        worst = written(x)
        for part in windows(n, CHECKED):
            components = index[part].cpu()
            eps = noise(start, part.start, len(components), d + -d % 4)[:, :d]
            expected = torch.empty_like(eps)
            for component in components.unique().tolist():
                rows = components == component
                scale = scales[component].double().cpu()
                scaled = eps[rows] * scale if kind == "diag" else eps[rows] @ scale.T
                expected[rows] = means[component].double().cpu() + scaled
            worst = max(worst, largest_error(x[part], expected), key=_nan_last)
        return worst

    work: dict[str, Any] = {"bytes": 4.0 * n * d + 8 * n}
    unit = "float32"
    if kind == "cholesky":
        work["bytes"] += scales.nbytes / 2
        work["flops"], unit = 1.0 * n * d * (d + 1), "3xtf32"
    peer = "indexed torch" if kind == "diag" else "torch bmm, rows sorted"
    yield Work(
        "pygen",
        lambda: ops.sample_gaussians(state, index, means, scales),
        **work,
        unit=unit,
        error=error,
        tolerance=1e-5 if kind == "diag" else 3e-5,  # sums of up to d products in float32
        limit=limit,
        beats={peer: 4.0} if kind == "diag" else {},
    )
    if kind == "diag":
        yield Work(
            peer,
            lambda: means[index] + scales[index] * torch.randn(n, d, device=machine.device),
            **work,
        )
    else:
        # As generous as can be: as many rows of each component, which need not be gathered or scattered.
        yield Work(
            peer,
            lambda: torch.baddbmm(
                means[:, None], torch.randn(k, n // k, d, device=machine.device), scales.mT
            ),
            **work,
            unit=unit,
        )


def eager(mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
    return z, -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1)


def reparameterize(machine: Machine, part: str) -> Iterator[Work]:
    """``part``: "forward", "backward" or "both"."""
    columns = 512
    rows = machine.rows(2**26 // columns, 4 * 12 * columns)
    shape = (rows, columns)
    options: dict[str, Any] = {"generator": machine.generator(), "device": machine.device}
    inputs = tuple(torch.randn(shape, **options).requires_grad_() for _ in range(2))
    weights = torch.randn(shape, **options), torch.randn(rows, **options)
    state = fresh_state(machine)

    def gradient(z: Tensor, kl: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((z, kl), inputs, weights)

    def error(function: Callable[..., Any], start: Tensor | None) -> float:
        """Of everything where the noise is known; of the divergence alone where it is not."""
        machine.poison(4 * rows * columns)
        z, kl = function(*inputs)
        found = (z, kl, *gradient(z, kl))
        worst = sum(map(written, found))
        for part in windows(rows, CHECKED):
            mu, logvar = (x.detach()[part].cpu().double().requires_grad_() for x in inputs)
            expected_kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1)
            expected: tuple[Tensor, ...] = (expected_kl,)
            compared = found[1:2]
            if start is not None:
                eps = noise(start, part.start, len(mu), columns)
                expected_z = mu + torch.exp(logvar / 2) * eps
                outside = [w[part].cpu().double() for w in weights]
                gradients = torch.autograd.grad(
                    (expected_z, expected_kl), (mu, logvar), outside, retain_graph=True
                )
                expected, compared = (expected_z, expected_kl, *gradients), found
            for f, e in zip(compared, expected, strict=True):
                worst = max(worst, largest_error(f[part], e), key=_nan_last)
        return worst

    # Four bytes of: mu, logvar, z; then mu, logvar, grad_z, grad_mu, grad_logvar.
    tensors = {"forward": 3, "backward": 5, "both": 8}[part]
    limit = {"forward": 0.24e-3, "backward": 0.39e-3}.get(part)
    # In a rehearsal the compiler only traces: its own compiler would take a minute.
    compiled = torch.compile(eager, backend="eager" if machine.rehearsal else "inductor")
    checked = fresh_state(machine)
    functions: list[tuple[str, Callable[..., Any], Callable[[], float], float | None]] = [
        (
            "pygen",
            partial(ops.reparameterize, state),
            lambda: error(partial(ops.reparameterize, checked), checked.clone()),
            limit,
        ),
        ("eager", eager, partial(error, eager, None), None),
        ("torch.compile", compiled, partial(error, compiled, None), None),
    ]
    for name, function, check, seconds in functions:
        forward = partial(function, *inputs)
        runs: dict[str, dict[str, Any]] = {
            "forward": {"run": forward},
            "backward": {"run": gradient, "prepare": forward},
            "both": {"run": lambda forward=forward: gradient(*forward())},
        }
        yield Work(
            name,
            **runs[part],
            bytes=4.0 * (tensors * columns + 1) * rows,
            error=check,
            tolerance=1e-5,
            limit=seconds,
            beats={"eager": 5.0, "torch.compile": 1.3} if name == "pygen" else {},
        )


CASES: dict[str, Callable[[Machine], Iterator[Work]]] = {
    "normal-float32": partial(normal, dtype=torch.float32, targets=True),
    "normal-bfloat16": partial(normal, dtype=torch.bfloat16, targets=False),
    "sample-diag-1e7x64-k100": partial(gaussians, kind="diag", n=10**7, d=64, k=100, limit=0.9e-3),
    "sample-diag-1e6x784-k10": partial(gaussians, kind="diag", n=10**6, d=784, k=10, limit=1.3e-3),
    "sample-cholesky-1e6x784-k10": partial(
        gaussians, kind="cholesky", n=10**6, d=784, k=10, limit=6e-3
    ),
    "reparameterize-forward": partial(reparameterize, part="forward"),
    "reparameterize-backward": partial(reparameterize, part="backward"),
    "reparameterize-both": partial(reparameterize, part="both"),
}
