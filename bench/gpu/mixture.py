"""Cases of EM for Gaussian mixtures: one iteration, beside scikit-learn's and torch's matrix products on the GPU."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import sklearn
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from bench.gpu.measure import Machine, Work, largest_error, with_tf32
from pygen import ops
from pygen.density.parameters import Parameters, m_step
from pygen.ops.diagonal import diagonal_em

# Rows on which results are compared with float64.
CHECKED = 4096
# Elements of a peer's largest temporary.
CHUNK = 2**28
# What float32 responsibilities leave in sums over rows.
STATISTICS = 1e-4

Statistics = tuple[Tensor, Tensor, Tensor, Tensor]


def parameters(machine: Machine, kind: str, k: int, d: int, apart: float) -> Parameters:
    options: dict[str, Any] = {
        "generator": machine.generator(),
        "device": machine.device,
        "dtype": torch.float64,
    }
    weights = torch.rand(k, **options) + 0.5
    means = apart * torch.randn(k, d, **options)
    if kind == "diag":
        factors = torch.rand(k, d, **options) + 0.5
        covariances = factors.square().reciprocal()
    else:
        factors = 0.3 * torch.randn(k, d, d, **options).triu(1) / d**0.5
        factors.diagonal(dim1=1, dim2=2).add_(torch.rand(k, d, **options) + 0.5)
        covariances = torch.linalg.inv(factors @ factors.mT)
    return Parameters(weights / weights.sum(), means, covariances, factors)


def data(machine: Machine, means: Tensor, n: int) -> Tensor:
    """float32 ``[n, D]``, about the means."""
    generator = machine.generator()
    x = torch.randn(n, means.shape[1], generator=generator, device=machine.device)
    for rows in x.split(2**20):
        index = torch.randint(len(means), (len(rows),), generator=generator, device=machine.device)
        rows += means.float()[index]
    return x


def constants(p: Parameters, kind: str) -> Tensor:
    """``[K]``: log joint density at the mean."""
    diagonals = p.precisions_cholesky
    if kind == "full":
        diagonals = diagonals.diagonal(dim1=1, dim2=2)
    log_scale = diagonals.log().sum(1)
    return p.weights.log() + log_scale - 0.5 * p.means.shape[1] * math.log(2 * math.pi)


def log_joint(p: Parameters, kind: str, x: Tensor) -> Tensor:
    """The definition, ``[n, K]``, in the precision of x; one component after another."""
    columns = []
    for mean, factor in zip(p.means.to(x.dtype), p.precisions_cholesky.to(x.dtype), strict=True):
        white = (x - mean) * factor if kind == "diag" else (x - mean) @ factor
        columns.append(-0.5 * white.square().sum(1))
    return torch.stack(columns, 1) + constants(p, kind).to(x.dtype)


def pygen_statistics(p: Parameters, kind: str, x: Tensor) -> Statistics:
    return ops.em_statistics(x, p.weights.log(), p.means, p.precisions_cholesky, kind)


def fast_statistics(p: Parameters, kind: str, x: Tensor) -> Statistics:
    precisions = p.precisions_cholesky.square()
    return diagonal_em(x, p.means, precisions, constants(p, kind), None, True)


def pygen_iteration(
    statistics: Callable[..., Statistics], p: Parameters, kind: str, x: Tensor
) -> Parameters:
    return m_step(*statistics(p, kind, x)[:3], p.means, kind, 1e-6)


def error_of_pygen(
    statistics: Callable[..., Statistics], p: Parameters, kind: str, x: Tensor
) -> float:
    """Of the log-likelihood; raises if the other statistics are off."""
    counts, sums, _, log_likelihood = statistics(p, kind, x)
    x = x.double()
    joint = log_joint(p, kind, x)
    resp = joint.softmax(1)
    expected = resp.sum(0), resp.T @ x - resp.sum(0)[:, None] * p.means
    off = max(largest_error(f, e) for f, e in zip((counts, sums), expected, strict=True))
    if not off <= STATISTICS:
        raise ArithmeticError(f"counts or sums are off by {off:.2g}, allowed {STATISTICS:.2g}")
    return abs(float(log_likelihood / joint.logsumexp(1).sum()) - 1)


def matrix_products_diag(p: Parameters, x: Tensor) -> Tensor:
    """An EM iteration of expanded squares; its log-likelihood."""
    precisions = p.precisions_cholesky.square()
    linear = precisions * p.means
    constant = (constants(p, "diag") - 0.5 * (p.means * linear).sum(1)).float()
    weights = torch.cat([-0.5 * precisions, linear], 1).float()
    k, d = p.means.shape
    counts, sums, total = x.new_zeros(k), x.new_zeros(k, 2 * d), x.new_zeros((), dtype=torch.double)
    for rows in x.split(max(1, CHUNK // max(k, 2 * d))):
        both = torch.cat([rows.square(), rows], 1)
        joint = torch.addmm(constant, both, weights.T)
        norm = joint.logsumexp(1)
        resp = joint.sub_(norm[:, None]).exp_()
        counts += resp.sum(0)
        sums.addmm_(resp.T, both)
        total += norm.sum(dtype=torch.double)
    squares, firsts = (sums / counts[:, None]).split(d, 1)
    (squares - firsts.square()).clamp_min_(1e-6).rsqrt_()
    return total


def matrix_products_full(p: Parameters, x: Tensor) -> Tensor:
    """An EM iteration by ``torch.bmm``; its log-likelihood."""
    factors, constant = p.precisions_cholesky.float(), constants(p, "full").float()
    shift = -(p.means[:, None] @ p.precisions_cholesky).float()
    k, d = p.means.shape
    counts, sums = x.new_zeros(k), x.new_zeros(k, d)
    scatter, total = x.new_zeros(k, d, d), x.new_zeros((), dtype=torch.double)
    for rows in x.split(max(1, CHUNK // (k * d))):
        every = rows.expand(k, *rows.shape)
        joint = constant[:, None] - 0.5 * torch.baddbmm(shift, every, factors).square_().sum(2)
        norm = joint.logsumexp(0)
        resp = joint.sub_(norm).exp_()
        counts += resp.sum(1)
        sums.addmm_(resp, rows)
        scatter.baddbmm_((every * resp[:, :, None]).mT, every)
        total += norm.sum(dtype=torch.double)
    means = sums / counts[:, None]
    covariances = scatter / counts[:, None, None] - means[:, :, None] * means[:, None]
    covariances.diagonal(dim1=1, dim2=2).add_(1e-6)
    torch.linalg.cholesky_ex(covariances)
    return total


def scikit_learn(p: Parameters, kind: str) -> GaussianMixture:
    """In the same state, on tensors where they lie."""
    version = tuple(map(int, sklearn.__version__.split(".")[:2]))
    if version < (1, 8):
        raise RuntimeError(f"needs scikit-learn >= 1.8 for tensors, found {sklearn.__version__}")
    model = GaussianMixture(len(p.means), covariance_type=kind)
    model.weights_, model.means_, model.covariances_, model.precisions_cholesky_ = (
        value.float() for value in p
    )
    return model


def scikit_learn_iteration(p: Parameters, kind: str, x: Tensor, steps: bool = True) -> float:
    """Its log-likelihood; without ``steps`` the E-step alone, which no covariance can break."""
    model = scikit_learn(p, kind)
    with sklearn.config_context(array_api_dispatch=True):
        bound, log_resp = model._e_step(x)
        if steps:
            model._m_step(x, log_resp)
    return float(bound) * len(x)


def error_of_peer(iteration: Callable[[Tensor], Any], p: Parameters, kind: str, x: Tensor) -> float:
    expected = log_joint(p, kind, x.double()).logsumexp(1).sum()
    return abs(float(iteration(x)) / float(expected) - 1)


def em(
    machine: Machine,
    kind: str,
    n: int,
    d: int,
    k: int,
    limit: float | None = None,
    memory: float | None = None,
    apart: float = 0.5,
    fast_limit: float | None = None,
) -> Iterator[Work]:
    if machine.rehearsal:
        d = min(d, 64)
    n = machine.rows(n, 4 * 1.5 * d)
    p = parameters(machine, kind, k, d, apart)
    x = data(machine, p.means, n)
    checked = data(machine, p.means, min(n, CHECKED))
    work: dict[str, Any] = {
        "bytes": 4.0 * n * d,
        "flops": 8.0 * n * d * k if kind == "diag" else 2.0 * n * d * d * k,
        "unit": "3xtf32",
    }
    product = "torch matrix products" if kind == "diag" else "torch bmm"
    peers = {"scikit-learn, CUDA tensors": 5.0} if kind == "diag" else {product: 3.0}
    yield Work(
        "pygen",
        partial(pygen_iteration, pygen_statistics, p, kind, x),
        **work,
        error=partial(error_of_pygen, pygen_statistics, p, kind, checked),
        tolerance=1e-6,
        limit=limit,
        memory=memory,
        beats=peers if limit is not None else {},
    )
    if kind == "diag":
        yield Work(
            "pygen, fast",
            partial(pygen_iteration, fast_statistics, p, kind, x),
            **work,
            error=partial(error_of_pygen, fast_statistics, p, kind, checked),
            tolerance=1e-5,
            limit=fast_limit,
        )
    iteration = partial(matrix_products_diag if kind == "diag" else matrix_products_full, p)
    sklearn_step = partial(scikit_learn_iteration, p, kind)
    for name, function, check in (
        (product, iteration, iteration),
        (f"{product}, TF32", with_tf32(iteration), with_tf32(iteration)),
        ("scikit-learn, CUDA tensors", sklearn_step, partial(sklearn_step, steps=False)),
    ):
        yield Work(
            name,
            partial(function, x),
            **work,
            error=partial(error_of_peer, check, p, kind, checked),
            tolerance=math.inf,
        )


CASES: dict[str, Callable[[Machine], Iterator[Work]]] = {
    "em-diag-1e6x784-k100": partial(
        em, kind="diag", n=10**6, d=784, k=100, limit=2.6e-3, fast_limit=2.6e-3
    ),
    "em-diag-1e7x64-k1000": partial(
        em, kind="diag", n=10**7, d=64, k=1000, limit=65e-3, memory=256e6
    ),
    "em-full-1e7x64-k100": partial(em, kind="full", n=10**7, d=64, k=100, limit=130e-3),
    "em-full-6e4x784-k10": partial(em, kind="full", n=60_000, d=784, k=10),
    # As far apart as pictures of digits: most components are known by a part of the squares not to matter.
    "em-full-6e4x784-k10-apart": partial(em, kind="full", n=60_000, d=784, k=10, apart=2),
}
