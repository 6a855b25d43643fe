"""scikit-learn's contract of an estimator, and what pygen adds for all density models."""

import json

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import pygen
from pygen import ClassConditional, GaussianBayes, GaussianMixture, NaiveBayes


@parametrize_with_checks(
    [
        GaussianMixture(),
        GaussianMixture(covariance_type="diag"),
        GaussianMixture(covariance_type="tied"),
        GaussianMixture(covariance_type="spherical"),
        GaussianBayes(),
        NaiveBayes(),
        ClassConditional(GaussianMixture()),
    ]
)
@pytest.mark.filterwarnings(
    "ignore:NaiveBayes takes categories", "ignore::sklearn.exceptions.ConvergenceWarning"
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def data(kind=np.float32):
    rng = np.random.default_rng(0)
    y = np.repeat([3, 5, 9], 40)
    x = (rng.random((120, 1, 4, 3)) < (y[:, None, None, None] / 10)) * 1.0
    return (x if kind == "categories" else x + 0.3 * rng.standard_normal(x.shape)).astype(
        np.uint8 if kind == "categories" else kind
    ), y


MODELS = [
    (NaiveBayes(2), "categories"),
    (GaussianBayes(), np.float32),
    (ClassConditional(GaussianMixture(2, covariance_type="diag", random_state=0)), np.float32),
]
IDS = [type(model).__name__ for model, _ in MODELS]


@pytest.mark.parametrize(("model", "kind"), MODELS, ids=IDS)
def test_images_in_images_out_for_arrays_and_tensors(model, kind):
    x, y = data(kind)
    in_numpy = clone(model).fit(x, y)
    in_torch = clone(model).fit(torch.from_numpy(x), torch.from_numpy(y))
    drawn, labels = in_numpy.sample(7, random_state=1)
    drawn_t, labels_t = in_torch.sample(7, random_state=1)
    assert isinstance(drawn, np.ndarray)
    assert isinstance(drawn_t, torch.Tensor)
    assert drawn.shape == drawn_t.shape == (7, 1, 4, 3)
    assert drawn.dtype == x.dtype
    assert drawn_t.dtype == torch.from_numpy(x).dtype
    np.testing.assert_allclose(drawn, drawn_t.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(labels, labels_t.numpy())
    for name in (
        "predict",
        "predict_proba",
        "predict_log_proba",
        "predict_joint_log_proba",
        "score_samples",
    ):
        got, got_t = getattr(in_numpy, name)(x), getattr(in_torch, name)(torch.from_numpy(x))
        assert isinstance(got_t, torch.Tensor)
        np.testing.assert_allclose(got, got_t.numpy(), rtol=1e-4, atol=1e-4)
    joint = in_numpy.predict_joint_log_proba(x)
    np.testing.assert_allclose(np.logaddexp.reduce(joint, 1), in_numpy.score_samples(x), rtol=1e-5)
    assert in_numpy.score(x, y) == (in_numpy.predict(x) == y).mean()
    assert in_numpy.score(x) == pytest.approx(in_numpy.score_samples(x).mean())


@pytest.mark.parametrize(("model", "kind"), MODELS, ids=IDS)
def test_sampling_what_is_asked_for(model, kind):
    x, y = data(kind)
    model = clone(model).fit(x, y)
    assert (model.sample(5, y=9)[1] == 9).all()
    assert model.sample(3, y=[3, 9, 5])[1].tolist() == [3, 9, 5]
    assert model.sample(2, y=range(3, 6, 2))[1].tolist() == [3, 5]
    for wrong, message in ((4, "label 4"), ([3, 5], "one label or 3"), ([3, 5, 1], "label 1")):
        with pytest.raises(ValueError, match=message):
            model.sample(3, y=wrong)
    with pytest.raises(ValueError, match="n_samples"):
        model.sample(0)
    many, labels = model.sample(3000, random_state=2)
    for label in (3, 5, 9):
        # 1000 expected, deviation 26.
        assert abs((labels == label).sum() - 1000) < 130
        own = many[labels == label].astype(np.float64)
        spread = own.std(0) / len(own) ** 0.5 + 1e-9
        # The models' mean is the data's (naive Bayes: smoothed towards 1/2 by 1/42).
        slack = 0.03 if kind == "categories" else 1e-4
        assert (abs(own.mean(0) - x[y == label].mean(0)) < 5 * spread + slack).all()


@pytest.mark.parametrize(("model", "kind"), MODELS, ids=IDS)
def test_first_samples_do_not_depend_on_how_many_are_drawn(model, kind):
    x, y = data(kind)
    model = clone(model).fit(x, y)
    few, many = model.sample(6, random_state=4), model.sample(1000, random_state=4)
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(a, b[:6])
    assert not np.array_equal(few[0], model.sample(6, random_state=5)[0])


@pytest.mark.parametrize(
    ("model", "kind"), [*MODELS, (GaussianMixture(2, random_state=0), np.float64)]
)
@pytest.mark.parametrize("tensors", [False, True])
def test_save_and_load(model, kind, tensors, tmp_path):
    x, y = data(kind)
    if tensors:
        x, y = torch.from_numpy(x), torch.from_numpy(y)
    model = clone(model).fit(x, y)
    model.save(tmp_path / "run")
    again = pygen.load(tmp_path / "run")
    assert type(again) is type(model)
    assert repr(again) == repr(model)
    for a, b in zip(
        model.sample(20, random_state=3), again.sample(20, random_state=3), strict=True
    ):
        assert type(a) is type(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    np.testing.assert_array_equal(
        np.asarray(model.score_samples(x)), np.asarray(again.score_samples(x))
    )
    assert (
        json.loads((tmp_path / "run" / "config.json").read_text())["class"] == type(model).__name__
    )


def test_pipeline_and_grid_search():
    x, y = data()
    x = x.reshape(len(x), -1)
    pipeline = make_pipeline(StandardScaler(), ClassConditional(GaussianMixture(random_state=0)))
    search = GridSearchCV(
        pipeline, {"classconditional__estimator__covariance_type": ["spherical", "diag"]}, cv=3
    ).fit(x, y)
    assert search.best_score_ > 0.6
    density = GridSearchCV(
        GaussianMixture(covariance_type="diag"), {"n_components": [1, 3]}, cv=3
    ).fit(x)
    assert density.best_params_["n_components"] in (1, 3)


@pytest.mark.parametrize("model", [NaiveBayes(2), GaussianBayes()])
def test_without_labels_there_are_no_classes(model):
    x, y = data("categories")
    model = clone(model).fit(x)
    drawn, origin = model.sample(4)
    assert drawn.shape == (4, 1, 4, 3)
    assert origin.tolist() == [0] * 4
    assert np.isfinite(model.score_samples(x)).all()
    with pytest.raises(AttributeError, match="fitted without labels"):
        model.predict(x)
    with pytest.raises(ValueError, match="every call"):
        model.partial_fit(x, y)


@pytest.mark.parametrize("model", [model for model, _ in MODELS], ids=IDS)
def test_labels_may_be_strings(model):
    x, y = data("categories" if isinstance(model, NaiveBayes) else np.float32)
    names = np.array(["zero", "one", "two"])[np.searchsorted([3, 5, 9], y)]
    model = clone(model).fit(torch.from_numpy(x), names)
    assert set(model.predict(torch.from_numpy(x))) <= set(names)
    assert model.sample(2, y="two")[1].tolist() == ["two", "two"]


@pytest.mark.parametrize("model", [GaussianMixture(), GaussianBayes(), NaiveBayes(2)])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.tensor([[1.0, torch.nan], [0.0, 1.0]]), "NaN or infinity"),
        (torch.tensor([1.0, 0.0]), "Expected .N, ...."),
        (torch.zeros(0, 3), "0 sample"),
        (torch.zeros(2, 2, dtype=torch.complex64), "Complex data"),
    ],
)
def test_bad_tensors_are_refused(model, x, message):
    with pytest.raises(ValueError, match=message):
        clone(model).fit(x)


def test_other_number_of_features_is_refused():
    model = GaussianMixture().fit(torch.randn(20, 1, 2, 2))
    assert model.feature_shape_ == (1, 2, 2)
    with pytest.raises(ValueError, match="X has 5 features, but GaussianMixture is expecting 4"):
        model.predict(torch.randn(3, 5))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2], "one weight for each row"),
        ([1, -1, 1], "non-negative"),
        ([0, 0, 0], "not all zero"),
        ([1, np.nan, 1], "finite"),
    ],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        GaussianBayes().fit([[1.0], [2.0], [3.0]], sample_weight=weights)
