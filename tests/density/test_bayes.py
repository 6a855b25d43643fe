"""NaiveBayes and GaussianBayes against scikit-learn's, and what they add."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.naive_bayes import CategoricalNB, GaussianNB

from pygen import GaussianBayes, NaiveBayes

X, Y = load_digits(return_X_y=True)


@pytest.mark.parametrize("weighted", [False, True])
def test_gaussian_bayes_equals_gaussian_nb(weighted):
    weights = np.random.default_rng(0).random(len(X)) if weighted else None
    # GaussianNB takes the largest variance for smoothing without the weights.
    smoothing = 1e-9 * (1 if weights is None else 0) + 1e-30
    mine = GaussianBayes(var_smoothing=smoothing).fit(
        X + 1e-3 * np.arange(len(X))[:, None] % 1, Y, weights
    )
    peer = GaussianNB(var_smoothing=smoothing).fit(
        X + 1e-3 * np.arange(len(X))[:, None] % 1, Y, weights
    )
    for name in ("class_count_", "class_prior_", "theta_", "var_", "epsilon_"):
        np.testing.assert_allclose(getattr(mine, name), getattr(peer, name), rtol=1e-6, atol=1e-12)


def test_gaussian_bayes_predicts_as_gaussian_nb():
    mine, peer = (
        GaussianBayes(var_smoothing=1e-3).fit(X, Y),
        GaussianNB(var_smoothing=1e-3).fit(X, Y),
    )
    np.testing.assert_array_equal(mine.predict(X), peer.predict(X))
    for name in ("predict_log_proba", "predict_joint_log_proba", "predict_proba"):
        np.testing.assert_allclose(
            getattr(mine, name)(X), getattr(peer, name)(X), rtol=1e-6, atol=1e-9
        )
    single = GaussianBayes(var_smoothing=1e-3).fit(X.astype(np.float32), Y)
    np.testing.assert_allclose(single.var_, peer.var_, rtol=1e-6)
    np.testing.assert_allclose(
        single.predict_joint_log_proba(X.astype(np.float32)),
        peer.predict_joint_log_proba(X),
        rtol=1e-5,
    )


@pytest.mark.parametrize("alpha", [1.0, 0.1])
@pytest.mark.parametrize("n_categories", [None, 17])
@pytest.mark.parametrize("weighted", [False, True])
def test_naive_bayes_equals_categorical_nb(alpha, n_categories, weighted):
    weights = np.random.default_rng(0).random(len(X)) if weighted else None
    x = X.astype(np.int64)
    mine = NaiveBayes(n_categories, alpha=alpha).fit(x, Y, weights)
    peer = CategoricalNB(alpha=alpha, min_categories=n_categories).fit(x, Y, weights)
    np.testing.assert_array_equal(mine.n_categories_, peer.n_categories_)
    for d, table in enumerate(peer.feature_log_prob_):
        np.testing.assert_allclose(mine.feature_log_prob_[:, d, : table.shape[1]], table, rtol=1e-6)
        assert np.isneginf(mine.feature_log_prob_[:, d, table.shape[1] :]).all()
    np.testing.assert_array_equal(mine.predict(x), peer.predict(x))
    np.testing.assert_allclose(
        mine.predict_log_proba(x), peer.predict_log_proba(x), rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(
        mine.predict_joint_log_proba(x), peer.predict_joint_log_proba(x), rtol=1e-6
    )


def test_naive_bayes_without_smoothing_is_the_share_of_rows():
    x = np.array([[0, 1], [0, 2], [1, 2], [0, 2]])
    model = NaiveBayes(3, alpha=0).fit(x)
    np.testing.assert_allclose(
        np.exp(model.feature_log_prob_[0]), [[0.75, 0.25, 0], [0, 0.25, 0.75]], atol=1e-12
    )
    assert model.score_samples([[0, 2]])[0] == pytest.approx(np.log(0.75 * 0.75))
    assert model.score_samples([[2, 2]])[0] == -np.inf
    drawn, _ = model.sample(2000, random_state=0)
    assert set(map(tuple, drawn)) <= {(a, b) for a in (0, 1) for b in (1, 2)}


def fit_in_parts(model, x, y, cuts, weights=None):
    for part in np.split(np.arange(len(x)), sorted(cuts)):
        if len(part):
            weight = None if weights is None else weights[part]
            model.partial_fit(x[part], y[part], classes=np.unique(y), sample_weight=weight)
    return model


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 299), max_size=6))
def test_any_split_into_batches_equals_fit(cuts):
    x, y = X[:300], Y[:300]
    whole, parts = GaussianBayes().fit(x, y), fit_in_parts(GaussianBayes(), x, y, cuts)
    for name in ("class_count_", "theta_", "var_", "class_prior_"):
        np.testing.assert_allclose(
            getattr(parts, name), getattr(whole, name), rtol=1e-10, atol=1e-10
        )
    whole, parts = NaiveBayes(17).fit(x, y), fit_in_parts(NaiveBayes(17), x, y, cuts)
    for name in ("class_count_", "category_count_", "feature_log_prob_"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-10)


@pytest.mark.parametrize("model", [GaussianBayes, lambda: NaiveBayes(17)])
def test_integer_weights_equal_repetition(model):
    weights = np.random.default_rng(0).integers(0, 4, len(X))
    weighted = model().fit(X, Y, sample_weight=weights)
    repeated = model().fit(np.repeat(X, weights, 0), np.repeat(Y, weights))
    np.testing.assert_allclose(weighted.score_samples(X), repeated.score_samples(X), rtol=1e-8)


def test_float32_far_from_zero():
    x = (X + 1e4).astype(np.float32)
    far, near = GaussianBayes().fit(x, Y), GaussianNB().fit(x.astype(np.float64), Y)
    np.testing.assert_allclose(far.var_, near.var_, rtol=1e-5, atol=1e-6)


def test_streams_without_labels():
    whole, stream = GaussianBayes().fit(X), GaussianBayes().fit(lambda: iter(np.array_split(X, 7)))
    np.testing.assert_allclose(stream.var_, whole.var_, rtol=1e-10, atol=1e-12)
    x = torch.from_numpy(X.astype(np.uint8))
    whole, stream = NaiveBayes().fit(x), NaiveBayes().fit(lambda: iter(x.split(100)))
    assert torch.equal(stream.category_count_, whole.category_count_)
    with pytest.raises(ValueError, match="stream is for fitting without labels"):
        GaussianBayes().fit(lambda: iter([X]), Y)


def test_partial_fit_needs_the_classes_once():
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        GaussianBayes().partial_fit(X, Y)
    model = GaussianBayes().partial_fit(X, Y, classes=range(10))
    with pytest.raises(ValueError, match="not the same as on last call"):
        model.partial_fit(X, Y, classes=range(11))
    with pytest.raises(ValueError, match="do not exist in the initial classes"):
        model.partial_fit(X, Y + 1)


def test_a_class_that_has_not_come_yet_is_never_predicted():
    model = GaussianBayes().partial_fit(X[Y < 5], Y[Y < 5], classes=range(10))
    assert model.predict(X).max() < 5
    assert (model.predict_proba(X)[:, 5:] == 0).all()


@pytest.mark.parametrize(
    ("x", "message"),
    [([[0, -1]], "categories start at 0"), ([[0, 3]], "Feature 1 has the value 3.* 3 categories")],
)
def test_values_that_are_no_categories_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        NaiveBayes(3).fit(x)
    with pytest.raises(ValueError, match=message):
        NaiveBayes(3).fit([[0, 0], [1, 2]]).score_samples(x)


def test_dropped_fractions_are_not_silent():
    with pytest.warns(UserWarning, match="pygen.data.quantize"):
        NaiveBayes().fit([[0.5, 1.0], [0.0, 0.2]])


def test_n_categories_of_each_feature():
    model = NaiveBayes([2, 5]).fit([[0, 1], [1, 4]])
    np.testing.assert_array_equal(model.n_categories_, [2, 5])
    with pytest.raises(ValueError, match="one for each of the 2 features, got 3"):
        NaiveBayes([2, 5, 5]).fit([[0, 1], [1, 4]])


def test_constant_features_without_smoothing_say_what_to_do():
    model = GaussianBayes(var_smoothing=0).fit(X, Y)
    with pytest.raises(ValueError, match="set var_smoothing above 0"):
        model.predict(X)
