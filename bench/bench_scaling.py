"""How time grows: with rows, features and components of a mixture, and with the batch of DCGAN's generator.

Rows are MNIST's, its pictures reduced to fewer pixels. plots.py draws what was kept.
"""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as PeerMixture
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from pygen import GaussianMixture
from pygen.density import em, parameters
from pygen.nn import DCGANGenerator, restore

# What each is when another grows.
BASE = {"N": 8000, "D": 196, "K": 10}
GROWTH = {
    "N": (500, 2000, 8000, 32_000),
    "D": (4, 16, 49, 196, 784),
    "K": (2, 5, 10, 20, 50, 100),
}
BATCHES = (1, 4, 16, 64, 256)
POINTS = [(axis, value) for axis, values in GROWTH.items() for value in values]
ROWS_OF_A_STATE = 4000


@pytest.fixture(scope="session")
def pictures(mnist: tuple[np.ndarray, np.ndarray]) -> Callable[[int], Tensor]:
    """``pictures(D)``: float32 ``[60000, D]`` in [0, 1], D a square."""

    @cache
    def reduced(n_features: int) -> Tensor:
        x = torch.from_numpy(mnist[0]).view(-1, 1, 28, 28).float() / 255
        return adaptive_avg_pool2d(x, round(n_features**0.5)).flatten(1)

    return reduced


@pytest.fixture(scope="session")
def fitted(pictures: Callable[[int], Tensor]) -> Callable[..., GaussianMixture]:
    """``fitted(kind, D, K)``: after k-means and two iterations on the first rows."""

    @cache
    def fit(kind: str, n_features: int, n_components: int) -> GaussianMixture:
        model = GaussianMixture(
            n_components,
            covariance_type=kind,
            reg_covar=1e-3,
            tol=0,
            max_iter=2,
            random_state=0,
        )
        with pytest.warns(ConvergenceWarning):
            return model.fit(pictures(n_features)[:ROWS_OF_A_STATE].numpy())

    return fit


@pytest.fixture
def grows(
    benchmark: BenchmarkFixture, versus: Callable[..., None]
) -> Callable[[str, str, int], Callable[..., None]]:
    """``grows(what, axis, value)``: `versus` for a point of a plot."""

    def of(what: str, axis: str, value: int) -> Callable[..., None]:
        def compare(*functions: Callable[..., Any], peer_name: str = "scikit-learn") -> None:
            benchmark.extra_info["scaling"] = {"what": what, "axis": axis, "value": value}
            versus(f"scaling, {what}, {axis}={value}", *functions, peer_name=peer_name)

        return compare

    return of


def peer_of(model: GaussianMixture, dtype: str) -> PeerMixture:
    peer = PeerMixture(
        model.n_components, covariance_type=model.covariance_type, reg_covar=1e-3, random_state=0
    )
    for name in ("weights_", "means_", "covariances_", "precisions_cholesky_"):
        setattr(peer, name, getattr(model, name).astype(dtype))
    peer.n_features_in_ = model.n_features_in_
    return peer


@pytest.mark.parametrize(("axis", "value"), POINTS)
@pytest.mark.parametrize("kind", ["diag", "full"])
def test_em_iteration(
    pictures: Callable[[int], Tensor],
    fitted: Callable[..., GaussianMixture],
    grows: Callable[..., Callable[..., None]],
    kind: str,
    axis: str,
    value: int,
) -> None:
    size = BASE | {axis: value}
    x = pictures(size["D"])[: size["N"]].numpy()
    model = fitted(kind, size["D"], size["K"])
    peer = peer_of(model, "float32")
    start = dict(vars(peer))
    data = model._rows(x, None, reset=False, min_rows=2)
    current = model._current(data.device)

    def ours() -> float:
        sums = em.sums(model, data, current)
        parameters.m_step(*sums[:3], current.means, kind, model.reg_covar)
        return float(sums.log_likelihood / sums.counts.sum())

    def theirs() -> float:
        vars(peer).update(start)
        bound, log_resp = peer._e_step(x)
        peer._m_step(x, log_resp)
        return float(bound)

    def agree(mine: float, other: float) -> None:
        assert mine == pytest.approx(other, rel=1e-3, abs=1e-2)

    grows(f"EM iteration, {kind}", axis, value)(ours, theirs, agree)


@pytest.mark.parametrize(("axis", "value"), POINTS)
@pytest.mark.parametrize("kind", ["diag", "full"])
def test_sample(
    fitted: Callable[..., GaussianMixture],
    grows: Callable[..., Callable[..., None]],
    kind: str,
    axis: str,
    value: int,
) -> None:
    """scikit-learn draws float64, of parameters in float64."""
    size = BASE | {axis: value}
    model = fitted(kind, size["D"], size["K"])
    peer = peer_of(model, "float64")
    n = size["N"]

    def agree(mine: tuple[np.ndarray, Any], other: tuple[np.ndarray, Any]) -> None:
        error = np.abs(mine[0].mean(0, dtype=np.float64) - other[0].mean(0))
        # Six standard deviations of the difference of two means.
        assert (error <= 6 * other[0].std(0) * (2 / n) ** 0.5 + 1e-6).all()

    grows(f"sample, {kind}", axis, value)(lambda: model.sample(n), lambda: peer.sample(n), agree)


@pytest.mark.parametrize("n", BATCHES)
def test_generator(grows: Callable[..., Callable[..., None]], n: int) -> None:
    torch.manual_seed(0)
    network = DCGANGenerator(100, (3, 32, 32)).eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = restore(copy.deepcopy(network))
    z = torch.randn(n, 100)

    def agree(mine: Tensor, other: Tensor) -> None:
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)

    with torch.no_grad():
        grows("generator", "batch", n)(
            lambda: network(z), lambda: plain(z), agree, peer_name="eager"
        )
