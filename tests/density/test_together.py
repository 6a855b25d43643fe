"""Mixtures of several starts or classes, fitted at once: each comes to what it comes to alone."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from pygen import ClassConditional, GaussianMixture
from pygen.density import em, together

TYPES = ["spherical", "diag", "tied", "full"]
ATTRIBUTES = [
    "weights_",
    "means_",
    "covariances_",
    "precisions_",
    "precisions_cholesky_",
    "lower_bounds_",
]

ignored = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def digits(dtype=np.float64):
    x, y = load_digits(return_X_y=True)
    return x.astype(dtype) / 16, y


def mixture(covariance_type="diag", **changes):
    given = {"n_components": 4, "max_iter": 12, "tol": 5e-3, "reg_covar": 1e-3, "random_state": 3}
    return GaussianMixture(covariance_type=covariance_type, **{**given, **changes})


def assert_same(mine, alone):
    assert (mine.n_iter_, mine.converged_) == (alone.n_iter_, alone.converged_)
    assert mine.n_features_in_ == alone.n_features_in_
    for name in ATTRIBUTES:
        found, expected = np.asarray(getattr(mine, name)), np.asarray(getattr(alone, name))
        assert found.dtype == expected.dtype
        # The statistics are the same bits; a norm or a product may be summed in another order.
        tolerance = 1e-5 if found.dtype == np.float32 else 1e-9
        np.testing.assert_allclose(
            found,
            expected,
            rtol=tolerance,
            atol=tolerance * abs(expected).max(initial=0),
            err_msg=name,
        )


def weight(x):
    return None if x is None else np.random.default_rng(0).integers(0, 3, len(x)).astype(float)


@ignored
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_starts(covariance_type, dtype, weighted):
    """Those that converge leave the others, which go on."""
    x, _ = digits(dtype)
    x = x[:300]
    model = mixture(covariance_type, n_init=5, init_params="random_from_data", max_iter=40)
    assert together.pays(model, [len(x)] * 5, 64)
    rows = model._open(x, weight(x) if weighted else None)
    firsts = list(model._firsts(rows))
    runs = together.run(model, [rows] * 5, firsts)
    assert len({len(run.bounds) for run in runs}) > 1
    for run, first in zip(runs, firsts, strict=True):
        alone = em.run(model, rows, first, -np.inf, 0)
        assert run.converged == alone.converged
        np.testing.assert_allclose(run.bounds, alone.bounds, rtol=1e-9)
        assert run.bound == run.bounds[-1]
        for found, expected in zip(run.found, alone.found, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
            assert found.untyped_storage().nbytes() == found.numel() * 8


@ignored
@pytest.mark.parametrize("changes", [{}, {"init_params": "random"}, {"max_iter": 0}, {"tol": 0.0}])
def test_best_start(capsys, changes):
    x, _ = digits()
    mine = mixture(n_init=4, **changes).fit(x)
    assert capsys.readouterr().out == ""
    alone = mixture(n_init=4, verbose=1, verbose_interval=1, **changes).fit(x)
    assert_same(mine, alone)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line[-1].isdigit() and "Init" in line] == [
        f"Initialization {start}" for start in range(4)
    ]


@ignored
@pytest.mark.parametrize("as_type", [lambda x: x, torch.from_numpy], ids=["NumPy", "tensor"])
@pytest.mark.parametrize("n_init", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_classes(covariance_type, weighted, n_init, as_type):
    """Of any number of rows each."""
    x, y = digits()
    kept = np.concatenate([np.flatnonzero(y == k)[:n] for k, n in ((3, 150), (5, 4), (8, 61))])
    kept = np.random.default_rng(0).permutation(kept)
    x, y = x[kept].reshape(-1, 8, 8), y[kept]
    weights = weight(x) if weighted else None
    if weighted:
        weights[y == 5] += 1
    estimator = mixture(covariance_type, n_init=n_init)
    assert together.pays(estimator, [150] * n_init + [4] * n_init, 64)
    fitted = ClassConditional(estimator).fit(as_type(x), as_type(y), weights)
    assert fitted.classes_.tolist() == [3, 5, 8]
    for label, mine in zip(fitted.classes_, fitted.estimators_, strict=True):
        own = y == label
        alone = clone(estimator).fit(
            as_type(x[own]), sample_weight=weights[own] if weighted else None
        )
        assert isinstance(mine.means_, type(as_type(x)))
        assert mine.feature_shape_ == alone.feature_shape_ == (8, 8)
        assert_same(mine, alone)


@ignored
def test_one_class():
    x, y = digits()
    fitted = ClassConditional(mixture()).fit(x, np.zeros_like(y))
    assert_same(fitted.estimators_[0], mixture().fit(x))


@ignored
def test_on_a_device(device):
    x, y = (torch.from_numpy(a).to(device) for a in digits(np.float32))
    fitted = ClassConditional(mixture(n_init=2)).fit(x, y)
    for label, mine in zip(fitted.classes_, fitted.estimators_, strict=True):
        alone = mixture(n_init=2, batch_size=10**6).fit(x[y == label])
        assert mine.means_.device == alone.means_.device == x.device
        torch.testing.assert_close(mine.means_, alone.means_, rtol=1e-4, atol=1e-5)
        assert mine.n_iter_ == alone.n_iter_


@ignored
def test_random_state_is_that_of_a_clone():
    x, y = digits()

    def fitted():
        return ClassConditional(mixture(random_state=np.random.RandomState(5))).fit(x, y)

    for label, mine in zip(fitted().classes_, fitted().estimators_, strict=True):
        assert_same(mine, mixture(random_state=np.random.RandomState(5)).fit(x[y == label]))


def test_warnings():
    x, y = digits()
    with pytest.warns(ConvergenceWarning, match="did not converge") as caught:
        ClassConditional(mixture(max_iter=1)).fit(x, y)
    assert len(caught) == 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ClassConditional(mixture(tol=1e3, max_iter=2)).fit(x, y)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_a_class_that_fails_is_named(covariance_type):
    x, y = digits()
    x[y == 7] = 0.5
    with pytest.raises(
        ValueError, match=r"The class .*7.* \(179 rows\): Fitting the mixture model"
    ):
        ClassConditional(mixture(covariance_type, n_components=1, reg_covar=0)).fit(
            x[y > 6] + (y[y > 6] != 7)[:, None] * np.random.default_rng(0).random((533, 64)),
            y[y > 6],
        )
    with pytest.raises(ValueError, match=r"The class .*2.* \(3 rows\): Expected n_samples >="):
        ClassConditional(mixture(covariance_type)).fit(x[:200], np.where(np.arange(200) < 3, 2, 1))
    with pytest.raises(ValueError, match=r"The class .*0.*: The 'tol' parameter"):
        ClassConditional(mixture(covariance_type, tol=-1.0)).fit(x, y)


@ignored
def test_a_subclass_is_fitted_as_it_wants():
    class Own(GaussianMixture):
        def fit(self, X, y=None, sample_weight=None):
            self.seen_ = len(X)
            return super().fit(X, y, sample_weight)

    x, y = digits()
    fitted = ClassConditional(Own(2, covariance_type="diag")).fit(x, y)
    assert [own.seen_ for own in fitted.estimators_] == np.bincount(y).tolist()


def test_what_is_not_fitted_together():
    assert together.pays(mixture(), [100, 100], 64)
    assert not together.pays(mixture(), [100], 64)
    assert not together.pays(mixture(), [None, None], 64)
    assert not together.pays(mixture(verbose=1), [100, 100], 64)
    assert not together.pays(mixture(batch_size=50), [100, 100], 64)
    for covariance_type in TYPES:
        assert not together.pays(mixture(covariance_type), [100, 10**6], 64)
        assert not together.pays(mixture(covariance_type, n_components=3), [8] * 10**5, 64)
    assert not together.pays(mixture("full"), [10, 10], 784)  # parameters far larger than the data
