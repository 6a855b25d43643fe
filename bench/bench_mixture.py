"""Gaussian mixtures: an iteration of EM, scoring, k-means; beside scikit-learn's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sklearn.cluster
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture as PeerMixture

from pygen import ClassConditional, GaussianMixture
from pygen.density import em, parameters
from pygen.density.kmeans import kmeans_plusplus
from pygen.ops.kmeans import lloyd
from pygen.random import new_state

# Type of covariance, components, rows, dtype here and of the peer, ratio wanted. scikit-learn's users run float64.
ITERATIONS = [
    ("diag", 10, 20_000, "float32", "float32", 4.0),
    ("diag", 100, 20_000, "float32", "float32", 3.0),
    ("full", 10, 8_000, "float32", "float32", 7.0),
    ("tied", 10, 4_000, "float32", "float32", 4.0),
    ("spherical", 10, 20_000, "float32", "float32", None),
    ("diag", 10, 20_000, "float32", "float64", 8.0),
    ("diag", 100, 20_000, "float32", "float64", 8.0),
    ("full", 10, 8_000, "float32", "float64", 20.0),
    ("diag", 10, 20_000, "float64", "float64", 1.5),
    ("diag", 100, 20_000, "float64", "float64", 1.5),
    ("full", 10, 8_000, "float64", "float64", 3.0),
    ("tied", 10, 4_000, "float64", "float64", None),
    ("spherical", 10, 20_000, "float64", "float64", None),
]
# Relative, on the mean log-likelihood; in float32 it is scikit-learn's expanded squares that are off.
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}


@pytest.mark.parametrize(("kind", "n_components", "n", "dtype", "peer_dtype", "target"), ITERATIONS)
def test_em_iteration(
    rows: Callable[..., np.ndarray],
    mixtures: Callable[..., tuple[Any, Any]],
    versus: Callable[..., None],
    kind: str,
    n_components: int,
    n: int,
    dtype: str,
    peer_dtype: str,
    target: float | None,
) -> None:
    x, peer_x = rows(n, dtype), rows(n, peer_dtype)
    model, _ = mixtures(kind, n_components, n, dtype)
    _, peer = mixtures(kind, n_components, n, peer_dtype)
    start = dict(vars(peer))
    data = model._rows(x, None, reset=True, min_rows=2)
    current = model._current(data.device)

    def ours() -> tuple[float, np.ndarray, np.ndarray]:
        sums = em.sums(model, data, current)
        found = parameters.m_step(*sums[:3], current.means, kind, model.reg_covar)
        bound = float(sums.log_likelihood / sums.counts.sum())
        return bound, found.means.numpy(), found.precisions_cholesky.numpy()

    def theirs() -> tuple[float, np.ndarray, np.ndarray]:
        vars(peer).update(start)
        bound, log_resp = peer._e_step(peer_x)
        peer._m_step(peer_x, log_resp)
        return float(bound), peer.means_, peer.precisions_cholesky_

    def agree(mine: Any, other: Any) -> None:
        tolerance = TOLERANCE[dtype]
        assert mine[0] == pytest.approx(other[0], rel=tolerance)
        for value, expected in zip(mine[1:], other[1:], strict=True):
            assert np.linalg.norm(value - expected) <= 10 * tolerance * np.linalg.norm(expected)

    case = f"EM iteration, {kind} K={n_components}, {n // 1000}k x 784 {dtype}"
    if peer_dtype != dtype:
        case = f"{case}, beside {peer_dtype}"
    versus(case, ours, theirs, agree, target=target)


@pytest.mark.parametrize("n_components", [10, 100])
def test_em_iteration_beside_pomegranate(
    rows: Callable[..., np.ndarray],
    mixtures: Callable[..., tuple[Any, Any]],
    versus: Callable[..., None],
    n_components: int,
) -> None:
    gmm = pytest.importorskip("pomegranate.gmm")
    distributions = pytest.importorskip("pomegranate.distributions")
    x = rows(20_000, "float32")
    model, _ = mixtures("diag", n_components, len(x), "float32")
    data = model._rows(x, None, reset=True, min_rows=2)
    current = model._current(data.device)
    means, variances = current.means.float(), current.covariances.float()
    peer_data = torch.from_numpy(x)

    def ours() -> float:
        sums = em.sums(model, data, current)
        parameters.m_step(*sums[:3], current.means, "diag", model.reg_covar)
        return float(sums.log_likelihood)

    def theirs() -> float:
        normals = [
            distributions.Normal(mean.clone(), variance.clone(), covariance_type="diag")
            for mean, variance in zip(means, variances, strict=True)
        ]
        peer = gmm.GeneralMixtureModel(normals, priors=current.weights.float())
        log_likelihood = float(peer.summarize(peer_data).sum())
        peer.from_summaries()
        return log_likelihood

    def agree(mine: float, other: float) -> None:
        assert mine == pytest.approx(other, rel=1e-3)

    case = f"EM iteration, diag K={n_components}, 20k x 784 float32, beside pomegranate"
    versus(case, ours, theirs, agree, peer_name="pomegranate")


@pytest.mark.parametrize(
    ("kind", "n_components", "n"),
    [("diag", 10, 20_000), ("diag", 100, 20_000), ("full", 10, 8_000)],
)
def test_score_samples(
    rows: Callable[..., np.ndarray],
    mixtures: Callable[..., tuple[Any, Any]],
    versus: Callable[..., None],
    kind: str,
    n_components: int,
    n: int,
) -> None:
    x = rows(n, "float32")
    model, peer = mixtures(kind, n_components, n, "float32")

    def agree(mine: np.ndarray, other: np.ndarray) -> None:
        np.testing.assert_allclose(mine.mean(), other.mean(), rtol=TOLERANCE["float32"])

    case = f"score_samples, {kind} K={n_components}, {n // 1000}k x 784 float32"
    versus(case, lambda: model.score_samples(x), lambda: peer.score_samples(x), agree)


@pytest.mark.parametrize("n_clusters", [10, 100])
def test_kmeans_plusplus(
    rows: Callable[..., np.ndarray], versus: Callable[..., None], n_clusters: int
) -> None:
    x = rows(20_000, "float32")
    data = torch.from_numpy(x)

    def agree(mine: torch.Tensor, other: tuple[np.ndarray, np.ndarray]) -> None:
        assert inertia(data, data[mine]) == pytest.approx(inertia(data, other[0]), rel=0.1)

    versus(
        f"k-means++, K={n_clusters}, 20k x 784 float32",
        lambda: kmeans_plusplus(data, n_clusters, new_state(0), None),
        lambda: sklearn.cluster.kmeans_plusplus(x, n_clusters, random_state=0),
        agree,
        target=3.0,
    )


@pytest.mark.parametrize("n_clusters", [10, 100])
def test_lloyd(
    rows: Callable[..., np.ndarray], versus: Callable[..., None], n_clusters: int
) -> None:
    """From the same start: how many steps are needed depends on it."""
    x = rows(20_000, "float32")
    data = torch.from_numpy(x)
    start = data[kmeans_plusplus(data, n_clusters, new_state(0), None)]
    threshold = 1e-4 * float(data.double().var(0, unbiased=False).mean())
    peer = KMeans(n_clusters, n_init=1, init=start.numpy())

    def agree(mine: tuple[torch.Tensor, torch.Tensor], other: KMeans) -> None:
        assert (mine[0].numpy() == other.labels_).mean() > 0.99

    versus(
        f"k-means from a given start, K={n_clusters}, 20k x 784 float32",
        lambda: lloyd(data, start.double(), None, 300, threshold),
        lambda: peer.fit(x),
        agree,
        target=3.0,
    )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", ["spherical", "diag", "tied", "full"])
@pytest.mark.parametrize("of", ["starts", "classes"])
def test_fits_together(versus: Callable[..., None], of: str, kind: str) -> None:
    """Ten fits of 10 iterations: of all digits from ten starts, or of each digit."""
    x, y = load_digits(return_X_y=True)
    x = x / 16
    changes = {"covariance_type": kind, "random_state": 0, "reg_covar": 1e-3, "max_iter": 10}
    if of == "starts":
        changes["n_init"] = 10
    model = GaussianMixture(10, tol=0, **changes)
    peer = PeerMixture(10, tol=0, **changes)

    def ours() -> list[Any]:
        if of == "starts":
            return [model.fit(x)]
        return ClassConditional(model).fit(x, y).estimators_

    def theirs() -> list[Any]:
        if of == "starts":
            return [peer.fit(x)]
        return [clone(peer).fit(x[y == label]) for label in range(10)]

    def agree(mine: list[Any], other: list[Any]) -> None:
        # k-means starts elsewhere: the optimum differs, the work does not.
        for a, b in zip(mine, other, strict=True):
            assert a.n_iter_ == b.n_iter_ == 10
            assert a.lower_bound_ == pytest.approx(b.lower_bound_, abs=10)

    case = f"10 fits of 10 iterations, by {of}, {kind} K=10, digits (1797 x 64 float64)"
    versus(case, ours, theirs, agree)


def inertia(x: torch.Tensor, centres: Any) -> float:
    return float(torch.cdist(x, torch.as_tensor(centres)).amin(1).square().sum())
