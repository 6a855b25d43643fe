"""Every operator on a GPU against float64 on the CPU: kernels where there are some, plain PyTorch elsewhere.

The first test runs on the CPU, too, where it proves the table of cases.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from pygen.ops.covariance import full_em, full_log_density
from pygen.ops.dense import add_scatter, linear_em, whitened_norms
from pygen.ops.diagonal import diagonal_em, diagonal_log_density, diagonal_log_joint
from pygen.ops.gaussian import normal, uniform
from pygen.ops.kmeans import closer, lloyd
from pygen.ops.mixture import em_statistics, log_density, responsibilities
from pygen.ops.moments import count_categories, moments
from pygen.ops.reparameterize import reparameterize_backward, reparameterize_forward
from pygen.ops.sampling import pick, sample_gaussians
from pygen.ops.strided_conv import ACTIVATIONS, strided_conv_act, strided_conv_act_backward
from pygen.ops.strided_conv_bn import strided_conv_bn_act, strided_conv_bn_act_backward
from pygen.ops.together import diagonal_em_of_each, full_em_of_each
from pygen.ops.triangular import inverse_factors

N, K, D = 333, 5, 19
FLOAT = (torch.float32, torch.float64)
HALF = (torch.float16, torch.bfloat16)
Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """An operator and how its arguments are made on the CPU, of a generator, in a dtype."""

    operator: Callable[..., Any]
    make: Callable[[torch.Generator, torch.dtype], Arguments]
    dtypes: tuple[torch.dtype, ...] = FLOAT


def state(g: torch.Generator) -> Tensor:
    return torch.randint(2**62, (2,), generator=g)


def randn(g: torch.Generator, *size: int) -> Tensor:
    return torch.randn(size, generator=g, dtype=torch.float64)


def positive(g: torch.Generator, *size: int) -> Tensor:
    return torch.rand(size, generator=g, dtype=torch.float64) + 0.5


def factors(g: torch.Generator, *batch: int) -> Tensor:
    """Upper triangular, well conditioned."""
    matrices = 0.2 * randn(g, *batch, D, D).triu(1)
    matrices.diagonal(dim1=-2, dim2=-1).add_(positive(g, *batch, D))
    return matrices


def covariances(g: torch.Generator) -> Tensor:
    lower = factors(g, K).mT
    return lower @ lower.mT


def gaussians(g: torch.Generator, dtype: torch.dtype, scales: Tensor) -> Arguments:
    index = torch.randint(K, (N,), generator=g)
    return state(g), index, (3 * randn(g, K, D)).to(dtype), scales.to(dtype)


def encoded(g: torch.Generator, dtype: torch.dtype) -> Arguments:
    """State, and mu and logvar as an encoder's halves."""
    return state(g), *randn(g, N, 2 * D).to(dtype).chunk(2, 1)


def gradients(g: torch.Generator, dtype: torch.dtype) -> Arguments:
    real = torch.promote_types(dtype, torch.float32)
    return *encoded(g, dtype), randn(g, N, D).to(real), randn(g, N).to(real)


def clustered(g: torch.Generator, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows and centres, of which each row has a nearest one in any precision."""
    centres = randn(g, K, D)
    rows = centres[torch.randint(K, (N,), generator=g)] + 0.1 * randn(g, N, D)
    return rows.to(dtype), centres


def mixture(g: torch.Generator, dtype: torch.dtype, kind: str) -> Arguments:
    x, log_weights = randn(g, N, D).to(dtype), positive(g, K).log_softmax(0)
    made = {
        "spherical": lambda: positive(g, K),
        "diag": lambda: positive(g, K, D),
        "tied": lambda: factors(g),
        "full": lambda: factors(g, K),
    }
    return x, log_weights, 0.3 * randn(g, K, D), made[kind](), kind


def diagonal(g: torch.Generator, dtype: torch.dtype) -> Arguments:
    return randn(g, N, D).to(dtype), 0.3 * randn(g, K, D), positive(g, K, D), randn(g, K)


def layer(g: torch.Generator, dtype: torch.dtype, transposed: bool) -> Arguments:
    """Pictures and a layer's weight; gradients, the result's shape, and what batch norm holds."""
    x, weight = randn(g, 4, 19, 6, 10), 0.1 * randn(g, 19, 19, 4, 4)
    sides = (12, 20) if transposed else (3, 5)
    grad, z = randn(g, 4, 19, *sides), randn(g, 4, 19, *sides)
    return tuple(t.to(dtype) for t in (x, weight, grad, z, positive(g, 2, 19), positive(g, 19)))


def convolved(g: torch.Generator, dtype: torch.dtype, transposed: bool) -> Arguments:
    x, weight, *_, bias = layer(g, dtype, transposed)
    return x, weight, bias, transposed, ACTIVATIONS.index("leaky_relu"), 0.2


def convolved_back(g: torch.Generator, dtype: torch.dtype, transposed: bool) -> Arguments:
    x, weight, grad, y, *_ = layer(g, dtype, transposed)
    return grad, x, weight, y, transposed, ACTIVATIONS.index("leaky_relu"), 0.2, True, True


def normalised(g: torch.Generator, dtype: torch.dtype, transposed: bool) -> Arguments:
    x, weight, *_, scale = layer(g, dtype, transposed)
    return x, weight, scale, -scale, transposed, 2, 1e-5, ACTIVATIONS.index("relu"), 0.0


def normalised_back(g: torch.Generator, dtype: torch.dtype, transposed: bool) -> Arguments:
    x, weight, grad, z, spread, scale = layer(g, dtype, transposed)
    statistics = spread - 1, spread
    options = transposed, 2, 1e-5, ACTIVATIONS.index("tanh"), 0.0, True, True
    return grad, x, weight, z, *statistics, scale, -scale, *options


CASES = {
    "normal": Case(normal, lambda g, t: (state(g), [N, D], t), FLOAT + HALF),
    "normal fast": Case(normal, lambda g, t: (state(g), [N, D], t, True), FLOAT + HALF),
    "uniform": Case(uniform, lambda g, t: (state(g), [N, D], t)),
    "pick": Case(pick, lambda g, t: (state(g), positive(g, K).to(t), N)),
    "sample_gaussians diag": Case(
        sample_gaussians, lambda g, t: gaussians(g, t, positive(g, K, D))
    ),
    "sample_gaussians Cholesky": Case(
        sample_gaussians, lambda g, t: gaussians(g, t, factors(g, K).mT.contiguous())
    ),
    "reparameterize_forward": Case(reparameterize_forward, encoded, FLOAT + HALF),
    "reparameterize_backward": Case(reparameterize_backward, gradients, FLOAT + HALF),
    **{
        f"{operator.__name__} {kind}": Case(operator, lambda g, t, kind=kind: mixture(g, t, kind))
        for operator in (responsibilities, log_density, em_statistics)
        for kind in ("spherical", "diag", "tied", "full")
    },
    "em_statistics weighted": Case(
        em_statistics, lambda g, t: (*mixture(g, t, "diag"), positive(g, N))
    ),
    "diagonal_log_joint": Case(diagonal_log_joint, diagonal),
    "diagonal_log_density": Case(diagonal_log_density, diagonal),
    "diagonal_em": Case(diagonal_em, lambda g, t: (*diagonal(g, t), positive(g, N))),
    "full_em": Case(
        full_em,
        lambda g, t: (randn(g, N, D).to(t), 0.3 * randn(g, K, D), factors(g, K), randn(g, K)),
    ),
    "full_log_density": Case(
        full_log_density,
        lambda g, t: (randn(g, N, D).to(t), 0.3 * randn(g, K, D), factors(g, K), randn(g, K)),
    ),
    "linear_em": Case(
        linear_em,
        lambda g, t: (
            *(randn(g, N, D).to(t), randn(g, D), 0.3 * randn(g, K, D), randn(g, K)),
            *(randn(g, N), positive(g, N)),
        ),
    ),
    "diagonal_em_of_each": Case(
        diagonal_em_of_each,
        lambda g, t: (
            *(randn(g, N, D).to(t), 0.3 * randn(g, 2, K, D), positive(g, 2, K, D), randn(g, 2, K)),
            [0, N, 50, 81],
            positive(g, N),
        ),
    ),
    "full_em_of_each": Case(
        full_em_of_each,
        lambda g, t: (
            *(randn(g, N, D).to(t), 0.3 * randn(g, 2, K, D), factors(g, 2, K), randn(g, 2, K)),
            [0, N, 50, 81],
        ),
    ),
    "whitened_norms": Case(
        whitened_norms,
        lambda g, t: (
            *(x.to(t) for x in (randn(g, N, D), randn(g, D - 2), factors(g)[2:])),
            torch.arange(2, D),
            torch.randint(N, (50,), generator=g),
        ),
    ),
    "add_scatter": Case(
        add_scatter,
        lambda g, t: (
            *(randn(g, N, D).to(t), randn(g, D), positive(g, 50), randn(g, D)),
            covariances(g)[0],
            torch.randint(N, (50,), generator=g),
        ),
    ),
    "moments": Case(
        moments,
        lambda g, t: (
            *(randn(g, N, D).to(t), torch.randint(K, (50,), generator=g), randn(g, K, D)),
            *(positive(g, 50), torch.randint(N, (50,), generator=g)),
        ),
    ),
    "count_categories": Case(
        count_categories,
        lambda g, t: (
            torch.randint(12, (N, D), generator=g).to(t),
            *(torch.randint(K, (N,), generator=g), positive(g, N), K, 10),
        ),
        (torch.uint8, torch.int64),
    ),
    "closer": Case(
        closer, lambda g, t: (*clustered(g, t), 5 * positive(g, N), torch.zeros(K, N).double())
    ),
    "lloyd": Case(lloyd, lambda g, t: (*clustered(g, t), positive(g, N), 20, 0.0)),
    **{
        f"{operator.__name__}{' transposed' if transposed else ''}": Case(
            operator, lambda g, t, make=make, transposed=transposed: make(g, t, transposed)
        )
        for operator, make in (
            (strided_conv_act, convolved),
            (strided_conv_act_backward, convolved_back),
            (strided_conv_bn_act, normalised),
            (strided_conv_bn_act_backward, normalised_back),
        )
        for transposed in (False, True)
    },
    "inverse_factors": Case(inverse_factors, lambda g, t: (covariances(g),), (torch.float64,)),
}
EVERY = [pytest.param(name, t, id=f"{name}-{t}") for name, c in CASES.items() for t in c.dtypes]
# By the largest magnitude expected. float32: sums of some hundred terms, draws with fewer digits; fast draws: 1e-5.
TOLERANCES = {
    torch.float64: 1e-11,
    torch.float32: 2e-5,
    torch.float16: 1e-3,
    torch.bfloat16: 8e-3,
    torch.uint8: 0.0,
    torch.int64: 0.0,
}


def moved(arguments: Arguments, device: torch.device | str, change: Callable = Tensor.clone):
    """Tensors changed, on a device; everything else as it is."""
    return [change(a).to(device) if isinstance(a, Tensor) else a for a in arguments]


def called(case: Case, arguments: list[Any]) -> list[Tensor]:
    """The results, and the arguments after the call: some are written."""
    result = case.operator(*arguments)
    results = () if result is None else (result,) if isinstance(result, Tensor) else result
    return [*results, *(a for a in arguments if isinstance(a, Tensor))]


def double(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.double()
    return torch.float64 if isinstance(value, torch.dtype) else value


def expected(case: Case, arguments: Arguments) -> list[Tensor]:
    """By plain PyTorch on the CPU in float64."""
    exact = [double(a) for a in moved(arguments, "cpu")]
    return called(Case(case.operator.__wrapped__, case.make), exact)


def assert_close(found: list[Tensor], wanted: list[Tensor], dtype: torch.dtype) -> None:
    assert len(found) == len(wanted)
    for f, w in zip(found, wanted, strict=True):
        assert f.shape == w.shape
        if not w.is_floating_point():
            assert torch.equal(f.cpu(), w)
            continue
        error = (f.cpu().double() - w).abs().max() / w.abs().max()
        assert error <= TOLERANCES[dtype], f"{error:.2g}"  # NaN is not


def problem(name: str, dtype: torch.dtype, seed: int) -> tuple[Case, Arguments]:
    case = CASES[name]
    return case, case.make(torch.Generator().manual_seed(seed), dtype)


def test_every_operator_has_a_case():
    registered = {
        name.removeprefix("pygen::").partition(".")[0]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith("pygen::")
    }
    assert registered == {case.operator.__name__ for case in CASES.values()}


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("name", "dtype"), EVERY)
def test_equals_float64(device, name, dtype, seed):
    case, arguments = problem(name, dtype, seed)
    found = called(case, moved(arguments, device))
    assert all(f.device.type == device.type for f in found)
    assert_close(found, expected(case, arguments), dtype)


@pytest.mark.parametrize(("name", "dtype"), EVERY)
def test_on_another_stream(cuda, name, dtype, seed):
    """What is launched elsewhere reads the arguments before they are there."""
    case, arguments = problem(name, dtype, seed)
    right, late = moved(arguments, cuda), moved(arguments, cuda, torch.zeros_like)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        for target, source in zip(late, right, strict=True):
            if isinstance(target, Tensor):
                target.copy_(source)
        found = called(case, late)
    stream.synchronize()
    assert_close(found, expected(case, arguments), dtype)


class InBackward(torch.autograd.Function):
    """Runs a function when the gradient comes."""

    @staticmethod
    def forward(ctx, x, function):
        ctx.function = function
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.function()
        return gradient, None


@pytest.mark.parametrize(("name", "dtype"), EVERY)
def test_in_the_backward_thread(cuda, name, dtype, seed):
    case, arguments = problem(name, dtype, seed)
    late = moved(arguments, cuda)
    found, threads = [], []

    def run():
        threads.append(threading.get_ident())
        found.extend(called(case, late))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        x = torch.zeros(1, device=cuda, requires_grad=True)
        InBackward.apply(x, run).sum().backward()
    torch.cuda.synchronize()
    assert threads != [threading.get_ident()]
    assert_close(found, expected(case, arguments), dtype)


def has_kernel(name: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"pygen::{name}", "CUDA")


@pytest.mark.parametrize(
    "name", ["uniform", "pick", "sample_gaussians diag", "sample_gaussians Cholesky"]
)
@pytest.mark.parametrize("dtype", FLOAT)
def test_a_captured_graph_draws_anew_at_each_replay(cuda, name, dtype, seed):
    if "Cholesky" in name and not has_kernel("sample_gaussians"):
        pytest.skip("plain PyTorch reads the sizes of groups on the host")
    case, arguments = problem(name, dtype, seed)
    on_gpu = moved(arguments, cuda)
    start, later = on_gpu[0].clone(), moved(arguments, "cpu")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what a first call sets up must not happen in the capture
        case.operator(*on_gpu)
    torch.cuda.current_stream().wait_stream(stream)
    on_gpu[0].copy_(start)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        draws = case.operator(*on_gpu)
    seen = []
    for _ in range(3):
        graph.replay()
        wanted = expected(case, later)
        assert_close([draws, on_gpu[0]], [wanted[0], wanted[1]], dtype)
        later[0] = wanted[1]
        seen.append(draws.clone())
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
