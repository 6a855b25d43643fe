"""GaussianMixture on little, odd and degenerate data."""

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture as Peer

from pygen import GaussianMixture

TYPES = ["spherical", "diag", "tied", "full"]

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.parametrize("covariance_type", TYPES),
]


def rows(n, d, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


def test_fewer_rows_than_components(covariance_type):
    model = GaussianMixture(5, covariance_type=covariance_type)
    for X in (rows(4, 3), lambda: iter([rows(2, 3), rows(2, 3)])):
        with pytest.raises(ValueError, match="n_components = 5, n_samples = 4"):
            model.fit(X)
    with pytest.raises(ValueError, match="at least n_components = 5 rows, got 4"):
        model.partial_fit(rows(4, 3))


def test_one_row(covariance_type):
    model = GaussianMixture(covariance_type=covariance_type, random_state=0)
    for estimator in (model, Peer(covariance_type=covariance_type)):
        with pytest.raises(ValueError, match="minimum of 2 is required"):
            estimator.fit(rows(1, 3))
    x = rows(50, 3)
    every = model.fit(x).score_samples(x)
    np.testing.assert_allclose(model.score_samples(x[7:8]), every[7:8], rtol=1e-12)
    assert model.predict_proba(x[7:8]).tolist() == [[1]]
    alone = GaussianMixture(covariance_type=covariance_type).partial_fit(x[:1])
    np.testing.assert_allclose(alone.means_, x[:1], rtol=1e-12)


@pytest.mark.parametrize("d", [1, 3])
def test_one_component_equals_scikit_learns(covariance_type, d):
    x = rows(100, d)
    mine, peer = (
        kind(1, covariance_type=covariance_type).fit(x) for kind in (GaussianMixture, Peer)
    )
    for name in ("means_", "covariances_", "precisions_cholesky_"):
        np.testing.assert_allclose(getattr(mine, name), getattr(peer, name), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(mine.score_samples(x), peer.score_samples(x), rtol=1e-9)


def test_4096_features(covariance_type):
    n, d, varied = 40, 4096, 50
    x = rows(n, d)
    if covariance_type in ("tied", "full"):
        x[:, varied:] = 0.25  # exact: what does not vary has the variance that is added
    x = x.astype(np.float32)
    model = GaussianMixture(1, covariance_type=covariance_type, reg_covar=1e-2).fit(x)
    part = x.astype(np.float64)[:, : varied if covariance_type in ("tied", "full") else d]
    covariance = np.cov(part.T, bias=True) + 1e-2 * np.eye(part.shape[1])
    if covariance_type in ("diag", "spherical"):
        variances = np.diag(covariance)
        if covariance_type == "spherical":
            variances = np.full(d, variances.mean())
        wanted = -0.5 * ((part - part.mean(0)) ** 2 / variances + np.log(variances)).sum(1)
    else:
        centred = part - part.mean(0)
        wanted = -0.5 * (centred @ np.linalg.inv(covariance) * centred).sum(1)
        wanted -= 0.5 * (np.linalg.slogdet(covariance)[1] + (d - varied) * np.log(1e-2))
    wanted -= 0.5 * d * np.log(2 * np.pi)
    np.testing.assert_allclose(model.score_samples(x), wanted, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_identical_rows(covariance_type, dtype):
    x = np.full((20, 3), 0.1, dtype)
    model = GaussianMixture(3, covariance_type=covariance_type, random_state=0).fit(x)
    assert model.weights_.sum() == pytest.approx(1)
    np.testing.assert_allclose(model.means_, 0.1, rtol=1e-6)
    assert np.isfinite(model.score_samples(x)).all()
    # All that is left of the covariances is what was added.
    each = model.covariances_
    if covariance_type == "full":
        each = each.diagonal(axis1=1, axis2=2)
    elif covariance_type == "tied":
        each = each.diagonal()
    np.testing.assert_allclose(each, 1e-6, rtol=1e-3)


def test_rows_of_weight_zero_are_as_if_not_there(covariance_type):
    x, weights = rows(80, 3), np.zeros(80)
    weights[:50] = 1
    x[60:] *= 1e3
    model = GaussianMixture(2, covariance_type=covariance_type, random_state=0, means_init=x[:2])
    weighted = model.fit(x, sample_weight=weights).means_
    np.testing.assert_allclose(model.fit(x[:50]).means_, weighted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_million_deviations_away(covariance_type, dtype):
    model = GaussianMixture(2, covariance_type=covariance_type, random_state=0)
    model.fit(rows(100, 3).astype(dtype))
    far = np.array([[1e6] * 3, [-1e6, 0, 0]], dtype)
    assert np.isfinite(model.score_samples(far)).all()
    np.testing.assert_allclose(model.predict_proba(far).sum(1), 1, rtol=1e-5)
    assert np.isfinite(model.score(far))


def test_layout_and_permission_of_the_input_do_not_matter(covariance_type):
    x = rows(90, 6)
    model = GaussianMixture(2, covariance_type=covariance_type, random_state=0)
    expected = model.fit(x).score_samples(x)
    sealed = x.copy()
    sealed.flags.writeable = False
    for other in (
        sealed,
        np.asfortranarray(x),
        np.repeat(x, 2, 1)[:, ::2],
        x[::-1].copy()[::-1],
        torch.from_numpy(x).T.contiguous().T,
        torch.from_numpy(np.repeat(x, 2, 0))[::2],
        x.reshape(90, 2, 3).transpose(0, 2, 1).swapaxes(1, 2),
    ):
        before = np.asarray(other).copy()
        found = model.fit(other).score_samples(other)
        np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-9)
        np.testing.assert_array_equal(np.asarray(other), before)
