"""GaussianMixture in float32 against float64 on MNIST, whose background pixels hardly vary, near and far from zero."""

import numpy as np
import pytest
import torch

import pygen
from pygen import ClassConditional, GaussianMixture

TYPES = ["spherical", "diag", "tied", "full"]
# Added to the pixels, multiples of 1/256: float32 holds the sums exactly.
SHIFTS = [0, 1e3, 1e4]

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def images():
    try:
        return pygen.data.load("mnist")[0][:1500].flatten(1).numpy().astype(np.float32)
    except FileNotFoundError as error:
        pytest.skip(f"no MNIST: {error}")


def shifted(images, shift):
    return images / np.float32(256) + np.float32(shift)


def fit(x, covariance_type, **more):
    settings = {"max_iter": 3, "tol": 0, "reg_covar": 1e-6, "random_state": 0}
    return GaussianMixture(3, covariance_type=covariance_type, **(settings | more)).fit(x)


@pytest.fixture(scope="module")
def truth(images):
    """``truth(covariance_type, shift)``: a start, float64's course of the bound from there, and its scores."""
    known = {}

    def make(covariance_type, shift):
        key = covariance_type, shift
        if key not in known:
            first = fit(images / np.float64(256), covariance_type, max_iter=1)
            start = {
                "weights_init": first.weights_,
                "means_init": first.means_ + shift,
                "precisions_init": first.precisions_,
            }
            x = shifted(images, shift)
            model = fit(x, covariance_type, dtype=torch.float64, **start)
            known[key] = start, np.array(model.lower_bounds_), model.score_samples(x)
        return known[key]

    return make


@pytest.mark.parametrize(
    ("precision", "bound", "row"),
    [("high", 1e-6, 1e-2), ("fast", 1e-6, 1e-2), ("exact", 1e-9, 5e-3)],
)
@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("covariance_type", TYPES)
def test_float32_is_as_good_as_float64(
    images, truth, covariance_type, shift, precision, bound, row
):
    x = shifted(images, shift)
    start, bounds, scores = truth(covariance_type, shift)
    model = fit(x, covariance_type, precision=precision, **start)
    found = model.score_samples(x)
    assert model.means_.dtype == found.dtype == np.float32
    # A log-density may happen to be near zero; half a nat for each feature is the size of what it is the sum of.
    size = np.maximum(abs(bounds), x.shape[1] / 2)
    assert (abs(model.lower_bounds_ - bounds) <= bound * size).all()
    # A score itself is rounded to float32, the parameters of a fit were.
    assert abs(found - scores).max() <= row
    assert abs(found.mean(dtype=np.float64) - scores.mean()) <= 1e-6 * size[-1]


@pytest.mark.parametrize("shift", [0, 1e4])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_fifty_iterations_of_float32_never_fall(images, covariance_type, shift):
    x = shifted(images[:1000], shift)
    model = fit(x, covariance_type, max_iter=50, init_params="random_from_data")
    bounds = np.array(model.lower_bounds_)
    assert len(bounds) == 50
    assert (np.diff(bounds) >= -1e-6 * abs(bounds[1:])).all()
    assert bounds[-1] > bounds[0]


def test_each_class_gets_the_precision():
    x = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    model = ClassConditional(GaussianMixture(precision="exact")).fit(x, np.arange(40) % 2)
    assert [part.precision for part in model.estimators_] == ["exact", "exact"]


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision"):
        GaussianMixture(precision="double").fit(np.zeros((5, 2)))


def test_means_that_are_set_by_hand_have_no_lower_part():
    x = (1e4 + np.random.default_rng(0).standard_normal((100, 3))).astype(np.float32)
    model = GaussianMixture(random_state=0).fit(x)
    assert model.means_low_.any()
    model.means_ = np.zeros_like(model.means_)
    moved = model.score_samples(x - np.float32(1e4))
    del model.means_low_
    np.testing.assert_array_equal(moved, model.score_samples(x - np.float32(1e4)))
