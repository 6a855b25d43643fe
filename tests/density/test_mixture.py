"""GaussianMixture against scikit-learn's, and what it adds."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Peer

import pygen
from pygen import GaussianMixture
from pygen.ops import native

TYPES = ["spherical", "diag", "tied", "full"]
ATTRIBUTES = [
    "weights_",
    "means_",
    "covariances_",
    "precisions_",
    "precisions_cholesky_",
    "lower_bounds_",
]

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def distance(mine, peer):
    """Largest difference, relative to the largest value."""
    mine, peer = np.asarray(mine, dtype=np.float64), np.asarray(peer, dtype=np.float64)
    return abs(mine - peer).max() / abs(peer).max()


def start(x, covariance_type, k):
    """The same start for both: the parameters of the clusters that scikit-learn's k-means finds."""
    x = x.astype(np.float64)
    labels = KMeans(k, n_init=1, random_state=0).fit(x).labels_
    parts = [x[labels == j] for j in range(k)]
    full = np.stack([np.cov(part.T, bias=True) + 1e-4 * np.eye(x.shape[1]) for part in parts])
    shares = np.array([len(part) for part in parts]) / len(x)
    tied = np.tensordot(shares, full, 1)
    return {
        "covariance_type": covariance_type,
        "weights_init": shares,
        "means_init": np.stack([part.mean(0) for part in parts]),
        "precisions_init": {
            "spherical": lambda: 1 / np.trace(full, axis1=1, axis2=2) * x.shape[1],
            "diag": lambda: 1 / np.diagonal(full, axis1=1, axis2=2),
            "tied": lambda: symmetric(np.linalg.inv(tied)),
            "full": lambda: symmetric(np.linalg.inv(full)),
        }[covariance_type](),
    }


def symmetric(matrix):
    return (matrix + np.swapaxes(matrix, -1, -2)) / 2


def digits():
    return load_digits().data / 16


def mnist(folder, n):
    images, _ = pygen.data.load(str(folder / "mnist"), split="train")
    return images[:n].flatten(1).numpy() / 255


@pytest.mark.parametrize("covariance_type", TYPES)
def test_float64_equals_scikit_learn_on_digits(covariance_type):
    x = digits()
    same = start(x, covariance_type, 6)
    mine = GaussianMixture(6, max_iter=20, tol=0, **same).fit(x)
    peer = Peer(6, max_iter=20, tol=0, **same).fit(x)
    for name in ATTRIBUTES:
        assert distance(getattr(mine, name), getattr(peer, name)) < 1e-9, name
    assert distance(mine.score_samples(x), peer.score_samples(x)) < 1e-9
    assert distance(mine.predict_proba(x), peer.predict_proba(x)) < 1e-9
    np.testing.assert_array_equal(mine.predict(x), peer.predict(x))
    assert mine.bic(x) == pytest.approx(peer.bic(x), rel=1e-9)
    assert mine.aic(x) == pytest.approx(peer.aic(x), rel=1e-9)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_float64_equals_scikit_learn_on_mnist(covariance_type, shared_data):
    x = mnist(shared_data, 2000)
    same = start(x, covariance_type, 3)
    mine = GaussianMixture(3, max_iter=3, **same).fit(x)
    peer = Peer(3, max_iter=3, **same).fit(x)
    for name in ("weights_", "means_", "covariances_", "lower_bounds_"):
        assert distance(getattr(mine, name), getattr(peer, name)) < 1e-9, name


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("data", ["digits", "mnist"])
def test_float32_equals_scikit_learns_float64(covariance_type, data, request):
    x = digits() if data == "digits" else mnist(request.getfixturevalue("shared_data"), 2000)
    x = x.astype(np.float32)
    same = start(x, covariance_type, 3)
    mine = GaussianMixture(3, max_iter=3, **same).fit(x)
    peer = Peer(3, max_iter=3, **same).fit(x.astype(np.float64))
    assert mine.means_.dtype == np.float32
    for name in ("weights_", "means_", "covariances_", "lower_bounds_"):
        assert distance(getattr(mine, name), getattr(peer, name)) < 2e-6, name


@pytest.mark.parametrize("covariance_type", TYPES)
def test_float32_far_from_zero_fits_as_float64_does(covariance_type):
    # scikit-learn's float32 raises here: at 1e3 its sums keep four digits of a variance of 0.1.
    x = (digits() + 1e3).astype(np.float32)
    same = start(x, covariance_type, 5)
    mine = GaussianMixture(5, max_iter=15, **same).fit(x)
    double = GaussianMixture(5, max_iter=15, dtype=torch.float64, **same).fit(x)
    assert distance(mine.lower_bound_, double.lower_bound_) < 1e-4
    for name in ("weights_", "means_", "covariances_"):
        assert distance(getattr(mine, name), getattr(double, name)) < 1e-4, name


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
@pytest.mark.parametrize("covariance_type", TYPES)
def test_every_start_finds_three_clusters(covariance_type, init_params):
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    x = np.repeat(centres, 100, 0) + rng.standard_normal((300, 2))
    fit = GaussianMixture(
        3,
        covariance_type=covariance_type,
        init_params=init_params,
        n_init=10,
        random_state=1,
        tol=1e-10,
        max_iter=1000,
    ).fit(x)
    found = fit.means_[np.argsort(fit.means_ @ [1, 2])]
    np.testing.assert_allclose(found, centres[np.argsort(centres @ [1, 2])], atol=0.5)
    assert fit.converged_


@pytest.mark.parametrize("covariance_type", TYPES)
def test_the_likelihood_never_falls(covariance_type):
    x = torch.from_numpy(digits()).float()
    fit = GaussianMixture(
        8, covariance_type=covariance_type, max_iter=40, tol=0, reg_covar=1e-4, random_state=0
    ).fit(x)
    bounds = np.array(fit.lower_bounds_)
    # reg_covar is added after the maximum, so a drop of its size is EM's own.
    assert (np.diff(bounds) > -2e-4 * abs(bounds[1:])).all()
    assert bounds[-1] > bounds[0]


@pytest.mark.parametrize("covariance_type", TYPES)
def test_integer_weights_equal_repetition(covariance_type):
    rng = np.random.default_rng(1)
    x = digits()[:300, 10:20]
    weights = rng.integers(0, 4, len(x))
    settings = {"covariance_type": covariance_type, "max_iter": 10, "random_state": 3, "tol": 0}
    weighted = GaussianMixture(3, **settings).fit(x, sample_weight=weights)
    repeated = GaussianMixture(3, **settings).fit(np.repeat(x, weights, 0))
    for name in ATTRIBUTES:
        assert distance(getattr(weighted, name), getattr(repeated, name)) < 1e-8, name


@pytest.mark.parametrize("covariance_type", TYPES)
def test_any_chunking_equals_the_whole(covariance_type):
    x = digits()[:500]
    settings = {"covariance_type": covariance_type, "max_iter": 8, "random_state": 3, "tol": 0}
    whole = GaussianMixture(4, **settings).fit(x)
    tensors = torch.from_numpy(x)
    batched = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(tensors), batch_size=99)
    chunked = [
        GaussianMixture(4, batch_size=77, **settings).fit(x),
        GaussianMixture(4, **settings).fit(lambda: iter(np.array_split(x, 9))),
        GaussianMixture(4, **settings).fit(batched),
    ]
    for other in chunked:
        for name in ATTRIBUTES:
            assert distance(getattr(other, name), getattr(whole, name)) < 1e-10, name
    assert isinstance(chunked[1].means_, np.ndarray)
    assert isinstance(chunked[2].means_, torch.Tensor)


def test_memory_maps_are_read_in_place(tmp_path):
    np.save(tmp_path / "x.npy", digits().astype(np.float32))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    fit = GaussianMixture(3, covariance_type="diag", random_state=0).fit(x)
    assert fit.means_.dtype == np.float32
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit.score(x)


def test_an_iterator_is_refused():
    with pytest.raises(ValueError, match="fresh iterator"):
        GaussianMixture().fit(iter([np.zeros((3, 2))]))
    with pytest.raises(ValueError, match="no chunk"):
        GaussianMixture().fit(lambda: iter([]))


@pytest.mark.parametrize("covariance_type", TYPES)
def test_online_em_approaches_batch_em(covariance_type):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal((2000, 3)), 0.5 * rng.standard_normal((2000, 3)) + 4])
    rng.shuffle(x)
    online = GaussianMixture(2, covariance_type=covariance_type, random_state=0)
    for _ in range(3):
        for batch in np.array_split(x, 20):
            online.partial_fit(batch)
    batch = GaussianMixture(2, covariance_type=covariance_type, random_state=0).fit(x)
    assert online.score(x) > batch.score(x) - 0.02
    assert online.n_batches_seen_ == 60
    # The whole data as one batch, again and again, ends where EM does.
    settled = GaussianMixture(2, covariance_type=covariance_type, random_state=0)
    for _ in range(60):
        settled.partial_fit(x)
    assert settled.score(x) == pytest.approx(batch.score(x), abs=1e-3)


@pytest.mark.parametrize("covariance_type", TYPES)
def test_samples_have_the_moments_of_the_mixture(covariance_type):
    x = digits()[:, 18:24]
    fit = GaussianMixture(3, covariance_type=covariance_type, random_state=0, reg_covar=1e-3).fit(x)
    n = 100_000
    drawn, component = fit.sample(n, random_state=1)
    counts = np.bincount(component, minlength=3)
    deviation = np.sqrt(n * fit.weights_ * (1 - fit.weights_))
    assert (abs(counts - n * fit.weights_) < 5 * deviation).all()
    for k in range(3):
        own = drawn[component == k]
        covariance = {
            "spherical": lambda k: fit.covariances_[k] * np.eye(6),
            "diag": lambda k: np.diag(fit.covariances_[k]),
            "tied": lambda k: fit.covariances_,
            "full": lambda k: fit.covariances_[k],
        }[covariance_type](k)
        scale = np.sqrt(np.diag(covariance))
        assert (abs(own.mean(0) - fit.means_[k]) < 5 * scale / np.sqrt(len(own))).all()
        # The deviation of a sample covariance: sqrt((s_ii s_jj + s_ij^2) / n).
        error = np.sqrt((np.outer(scale**2, scale**2) + covariance**2) / len(own))
        assert (abs(np.cov(own.T) - covariance) < 5 * error).all()


@pytest.mark.parametrize("covariance_type", TYPES)
def test_samples_do_not_depend_on_threads_or_on_how_many_are_drawn(covariance_type):
    fit = GaussianMixture(3, covariance_type=covariance_type, random_state=0).fit(
        digits().astype(np.float32)
    )
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one, labels = fit.sample(5000, random_state=7)
        torch.set_num_threads(2)
        two, again = fit.sample(5000, random_state=7)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(labels, again)
    np.testing.assert_array_equal(one, two)
    few, _ = fit.sample(100, random_state=7)
    if native is not None or covariance_type in ("diag", "spherical"):
        np.testing.assert_array_equal(few, one[:100])
    else:  # a library's matrix product of another shape may round differently
        np.testing.assert_allclose(few, one[:100], rtol=0, atol=1e-6)


def test_random_states_of_all_kinds():
    fit = GaussianMixture(2, random_state=0).fit(digits()[:, 20:24])
    np.testing.assert_array_equal(fit.sample(3)[0], fit.sample(3)[0])
    for make in (
        np.random.RandomState,
        np.random.default_rng,
        lambda seed: torch.Generator().manual_seed(seed),
    ):
        generator = make(5)
        first, second = (
            fit.sample(3, random_state=generator)[0],
            fit.sample(3, random_state=generator)[0],
        )
        assert not np.array_equal(first, second)
        np.testing.assert_array_equal(first, fit.sample(3, random_state=make(5))[0])


@pytest.mark.parametrize("covariance_type", TYPES)
def test_constant_features_duplicates_and_empty_components_give_no_nan(covariance_type):
    x = np.zeros((60, 5))
    x[:20, 0], x[20:, 1] = 1, 2  # three distinct points for six components
    x[40:, 2] = 1
    for dtype in (np.float64, np.float32):
        fit = GaussianMixture(6, covariance_type=covariance_type, random_state=0, max_iter=20).fit(
            x.astype(dtype)
        )
        for name in ATTRIBUTES:
            assert np.isfinite(getattr(fit, name)).all(), name
        assert np.isfinite(fit.score_samples(x.astype(dtype))).all()
        assert fit.weights_.sum() == pytest.approx(1)
        assert np.isfinite(fit.sample(50)[0]).all()


@pytest.mark.parametrize("covariance_type", TYPES)
def test_collapse_without_regularisation_is_an_error(covariance_type):
    with pytest.raises(ValueError, match="ill-defined empirical covariance"):
        GaussianMixture(2, covariance_type=covariance_type, reg_covar=0).fit(np.ones((10, 3)))


@pytest.mark.parametrize("covariance_type", TYPES)
@pytest.mark.parametrize("shape", [(2, 1), (5, 5), (40, 1), (3, 200)])
def test_small_and_wide_data(covariance_type, shape):
    x = np.random.default_rng(0).standard_normal(shape)
    for k in (1, shape[0]):
        fit = GaussianMixture(k, covariance_type=covariance_type, random_state=0).fit(x)
        assert np.isfinite(fit.score(x))
        assert fit.sample(3)[0].shape == (3, shape[1])


def test_layout_of_the_input_does_not_matter():
    x = digits()[:200]
    fit = GaussianMixture(3, covariance_type="diag", random_state=0).fit(x)
    for other in (np.asfortranarray(x), x[::-1][::-1], np.repeat(x, 2, 1)[:, ::2], x.tolist()):
        again = GaussianMixture(3, covariance_type="diag", random_state=0).fit(other)
        assert distance(again.means_, fit.means_) < 1e-12


def test_warm_start_goes_on():
    x = digits()[:, 10:30]
    fit = GaussianMixture(4, warm_start=True, max_iter=2, random_state=0, reg_covar=1e-3, tol=0)
    first = fit.fit(x).lower_bound_
    assert fit.fit(x).lower_bounds_[0] > first
    straight = GaussianMixture(4, max_iter=4, random_state=0, reg_covar=1e-3, tol=0).fit(x)
    assert distance(fit.means_, straight.means_) < 1e-9


def test_warnings_and_errors_are_scikit_learns():
    x = digits()
    with pytest.warns(ConvergenceWarning, match="did not converge"):
        GaussianMixture(5, max_iter=1, random_state=0).fit(x)
    for settings, message in (
        ({"n_components": 0}, "n_components"),
        ({"covariance_type": "round"}, "covariance_type"),
        ({"weights_init": [0.5, 0.6], "n_components": 2}, "should be normalized"),
        ({"weights_init": [1.5, -0.5], "n_components": 2}, "in the range"),
        ({"means_init": [[1.0]]}, "should have the shape of"),
        ({"precisions_init": -np.ones((1, 64)), "covariance_type": "diag"}, "should be positive"),
        (
            {"precisions_init": -np.eye(64), "covariance_type": "tied"},
            "symmetric, positive-definite",
        ),
        ({"dtype": torch.int32}, "dtype must be"),
    ):
        with pytest.raises(ValueError, match=message):
            GaussianMixture(**{"random_state": 0, **settings}).fit(x)
    with pytest.raises(ValueError, match="Expected n_samples >= n_components"):
        GaussianMixture(9).fit(x[:5])


def test_progress_is_printed_as_scikit_learn_prints_it(capsys):
    GaussianMixture(2, verbose=1, verbose_interval=1, max_iter=2, tol=0, random_state=0).fit(
        digits()
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "Initialization 0",
        "  Iteration 1",
        "  Iteration 2",
        "Initialization did not converge.",
    ]


def test_parameters_may_be_set_by_hand():
    model = GaussianMixture(2, covariance_type="diag")
    model.weights_ = np.array([0.5, 0.5])
    model.means_ = np.array([[0.0, 0.0], [9.0, 9.0]])
    model.covariances_ = np.ones((2, 2))
    model.precisions_cholesky_ = np.ones((2, 2))
    assert model.sample(4, y=1)[0].mean() > 5
    assert model.predict(np.array([[0.0, 1.0], [8.0, 9.0]])).tolist() == [0, 1]
