"""The conditional mixture against the textbook's formulas, component by component."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits

from pygen import GaussianMixture

TYPES = ["spherical", "diag", "tied", "full"]


def fitted(covariance_type):
    x = load_digits().data[:, 18:26] / 16
    return GaussianMixture(3, covariance_type=covariance_type, reg_covar=1e-3, random_state=0).fit(
        x
    ), x


def covariance(fit, k):
    c, d = fit.covariances_, fit.means_.shape[1]
    return {
        "spherical": lambda: c[k] * np.eye(d),
        "diag": lambda: np.diag(c[k]),
        "tied": lambda: c,
        "full": lambda: c[k],
    }[fit.covariance_type]()


def analytic(fit, row, seen):
    """log p(observed), log weights, and per component the mean and covariance of the rest."""
    joint, parts = [], []
    for k in range(3):
        mean, cov = fit.means_[k], covariance(fit, k)
        joint.append(
            np.log(fit.weights_[k])
            + multivariate_normal.logpdf(row[seen], mean[seen], cov[np.ix_(seen, seen)])
        )
        gain = cov[np.ix_(~seen, seen)] @ np.linalg.inv(cov[np.ix_(seen, seen)])
        parts.append(
            (
                mean[~seen] + gain @ (row[seen] - mean[seen]),
                cov[np.ix_(~seen, ~seen)] - gain @ cov[np.ix_(seen, ~seen)],
            )
        )
    norm = logsumexp(joint)
    return norm, np.array(joint) - norm, parts


@pytest.mark.parametrize("covariance_type", TYPES)
def test_equals_the_analytic_conditional(covariance_type):
    fit, x = fitted(covariance_type)
    rng = np.random.default_rng(0)
    x = x[:30].copy()
    seen = rng.random(x.shape) < 0.6
    seen[:, 0], seen[:, 1] = True, False
    conditional = fit.condition(np.where(seen, x, np.nan), seen)
    mean = conditional.mean()
    np.testing.assert_array_equal(mean[seen], x[seen])
    for i in range(len(x)):
        norm, log_weights, parts = analytic(fit, x[i], seen[i])
        assert conditional.score_samples()[i] == pytest.approx(norm, rel=1e-6)
        np.testing.assert_allclose(
            np.exp(conditional.log_weights[i]), np.exp(log_weights), atol=1e-6
        )
        expected = sum(w * m for w, (m, _) in zip(np.exp(log_weights), parts, strict=True))
        np.testing.assert_allclose(mean[i][~seen[i]], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_samples_have_the_analytic_moments(covariance_type):
    fit, x = fitted(covariance_type)
    seen = np.arange(8) < 4
    n = 40_000
    drawn, component = fit.condition(x[:2], seen).sample(n, random_state=1)
    assert drawn.shape == (n, 2, 8)
    for i in range(2):
        _, log_weights, parts = analytic(fit, x[i], seen)
        np.testing.assert_array_equal(drawn[:, i, seen], np.broadcast_to(x[i][seen], (n, 4)))
        counts = np.bincount(component[:, i], minlength=3)
        weights = np.exp(log_weights)
        assert (abs(counts - n * weights) < 5 * np.sqrt(n * weights * (1 - weights)) + 1).all()
        k = weights.argmax()
        own = drawn[component[:, i] == k, i][:, ~seen]
        mean, cov = parts[k]
        scale = np.sqrt(np.diag(cov))
        assert (abs(own.mean(0) - mean) < 5 * scale / np.sqrt(len(own))).all()
        error = np.sqrt((np.outer(scale**2, scale**2) + cov**2) / len(own))
        assert (abs(np.cov(own.T) - cov) < 5 * error).all()


def test_nothing_seen_and_everything_seen():
    fit, x = fitted("full")
    nothing = fit.condition(x[:3], np.zeros(8, bool))
    np.testing.assert_allclose(
        np.exp(nothing.log_weights), np.tile(fit.weights_, (3, 1)), rtol=1e-9
    )
    np.testing.assert_allclose(nothing.mean()[0], fit.weights_ @ fit.means_, rtol=1e-9)
    everything = fit.condition(x[:3], np.ones(8, bool))
    np.testing.assert_array_equal(everything.mean(), x[:3])
    np.testing.assert_allclose(everything.score_samples(), fit.score_samples(x[:3]), rtol=1e-9)


def test_pictures_keep_their_shape_and_kind():
    x = torch.from_numpy(load_digits().images[:200, None] / 16).float()
    fit = GaussianMixture(2, covariance_type="diag", reg_covar=1e-2, random_state=0).fit(x)
    seen = torch.ones(1, 8, 8, dtype=torch.bool)
    seen[:, 4:] = False
    conditional = fit.condition(x[:5], seen)
    assert conditional.mean().shape == (5, 1, 8, 8)
    drawn, component = conditional.sample(2, random_state=0)
    assert drawn.shape == (2, 5, 1, 8, 8)
    assert drawn.dtype == torch.float32
    assert component.shape == (2, 5)
    assert torch.equal(drawn[..., :4, :], x[:5, :, :4].expand(2, -1, -1, -1, -1))


@pytest.mark.parametrize(
    ("x", "mask", "message"),
    [
        (np.zeros((2, 8)), np.ones(8), "must be boolean"),
        (np.zeros((2, 8)), np.ones(7, bool), "shape of X or of one row"),
        (np.zeros((2, 7)), np.ones(7, bool), "X must be"),
        (np.full((2, 8), np.nan), np.ones(8, bool), "NaN or infinity where"),
    ],
)
def test_bad_input(x, mask, message):
    fit, _ = fitted("diag")
    with pytest.raises(ValueError, match=message):
        fit.condition(x, mask)
