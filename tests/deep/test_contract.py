"""What all deep models share: scikit-learn's contract, every form of data, labels, saving, resuming, refusals."""

import json
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import pygen
from pygen import DCGAN, GAN, VAE, Autoencoder
from pygen.nn import MLPDecoder, MLPEncoder

MODELS = [Autoencoder(3), VAE(3), GAN(5), DCGAN(5, width=8)]
IDS = [type(model).__name__ for model in MODELS]
every_model = pytest.mark.parametrize("model", MODELS, ids=IDS)


def small(model, **parameters):
    """A fresh copy that trains for a moment."""
    return clone(model).set_params(
        **{"max_steps": 3, "batch_size": 16, "random_state": 0, **parameters}
    )


def images(*shape, n=48, seed=0):
    """uint8 ``[n, *shape]``."""
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


LABELS = np.repeat([3, 5, 9], 16)


def weights(model):
    return {
        f"{name}.{key}": value
        for name in model._networks
        for key, value in getattr(model, f"{name}_").state_dict().items()
    }


def assert_same_bits(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def assert_same_weights(a, b):
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


# scikit-learn's contract

NOISE = "each row's code is drawn: its bound depends on the row's place, and not on the row alone"


def expected_failures(estimator):
    if not isinstance(estimator, VAE):
        return {}
    return dict.fromkeys(
        ["check_methods_sample_order_invariance", "check_methods_subset_invariance"], NOISE
    )


@parametrize_with_checks(
    [cls(2, max_steps=2, random_state=0) for cls in (Autoencoder, VAE, GAN)],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@every_model
def test_parameters_are_stored_and_copied(model):
    given = clone(model).set_params(learning_rate=0.5, verbose=1)
    copied = clone(given)
    assert copied.get_params() == given.get_params()
    assert repr(copied) == repr(given)
    assert not [name for name in vars(given) if name.endswith("_")]
    x = images(1, 8, 8)
    fitted = small(model)
    assert fitted.fit(x) is fitted
    assert fitted.n_steps_ == 3
    assert fitted.n_features_in_ == 64
    assert fitted.feature_shape_ == (1, 8, 8)
    assert fitted.history_[-1]["step"] == 3
    assert all(not getattr(fitted, f"{name}_").training for name in fitted._networks)


@every_model
def test_the_same_random_state_gives_the_same_model(model):
    x = images(1, 8, 8)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, same, other = (small(model, random_state=seed).fit(x) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert_same_weights(one, same)
    assert_same_bits(one.sample(5), same.sample(5))
    assert not np.array_equal(one.sample(5)[0], other.sample(5, random_state=0)[0])


# What data looks like


@every_model
@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (8, 8), (3, 28, 28), (4, 33, 47), (2, 9, 8), (1, 64, 64)], ids=str
)
def test_images_of_every_size(model, shape):
    x = images(*shape, n=20)
    fitted = small(model, max_steps=1).fit(x)
    made, codes = fitted.sample(3)
    assert made.shape == (3, *shape)
    assert made.dtype == np.uint8
    assert codes.shape == (3, fitted.latent_dim)
    assert_same_bits([fitted.decode(codes)], [made])


@pytest.mark.parametrize("model", MODELS[:3], ids=IDS[:3])
def test_rows_that_are_no_images(model):
    fitted = small(model).fit(images(10).astype(np.float64) * 3 - 7)
    made, _ = fitted.sample(4)
    assert made.shape == (4, 10)
    assert made.dtype == np.float64


@every_model
def test_arrays_and_tensors(model):
    x = images(1, 8, 8)
    in_numpy, in_torch = small(model).fit(x), small(model).fit(torch.from_numpy(x))
    for one, other in zip(in_numpy.sample(5), in_torch.sample(5), strict=True):
        assert isinstance(one, np.ndarray)
        assert isinstance(other, torch.Tensor)
        np.testing.assert_array_equal(one, other.numpy())
    codes = in_numpy.sample(4)[1]
    assert isinstance(in_torch.decode(codes), np.ndarray)
    assert isinstance(in_numpy.decode(torch.from_numpy(codes)), torch.Tensor)


RANGES = {
    "uint8": (np.uint8, 0, 255, (0, 255)),
    "unit": (np.float32, 0, 0.75, (0, 1)),
    "signed": (np.float32, -0.5, 1, (-1, 1)),
    "other": (np.float64, -3, 16, (-3, 16)),
    "integers": (np.int64, 0, 16, (0, 16)),
    "bool": (np.bool_, 0, 1, (0, 1)),
}


@every_model
@pytest.mark.parametrize("name", RANGES)
def test_numbers_come_out_as_they_went_in(model, name):
    dtype, low, high, expected = RANGES[name]
    x = images(1, 8, 8) / 255
    x.flat[:2] = 0, 1
    x = (x * (high - low) + low).round(0 if np.dtype(dtype).kind in "iub" else 9).astype(dtype)
    fitted = small(model).fit(x)
    assert fitted.value_range_.tolist() == list(expected)
    made, _ = fitted.sample(6)
    assert made.dtype == dtype
    assert made.min() >= expected[0]
    assert made.max() <= expected[1]
    wider = small(model, value_range=(-20, 300)).fit(x.astype(np.float32))
    assert wider.value_range_.tolist() == [-20, 300]


class Flat(nn.Module):
    """An encoder that changes nothing."""

    def forward(self, x):
        return x.flatten(1)


class Logits(nn.Module):
    """Its inverse, in logits."""

    def forward(self, z):
        return torch.logit(z).unflatten(1, (8, 8))[:, None]


@pytest.mark.parametrize(
    "x", [images(8, 8), images(1, 8, 8) / 7 - 3, images(8, 8) > 100, images(8, 8) / 255]
)
def test_numbers_are_followed_there_and_back(x):
    model = small(Autoencoder(64)).fit(x)
    model.encoder_, model.decoder_ = Flat(), Logits()
    got = model.reconstruct(x)
    assert got.dtype == x.dtype
    assert got.shape == x.shape
    np.testing.assert_allclose(got.astype(float), x.astype(float), atol=1e-5)
    assert model.score(x) == pytest.approx(0, abs=1e-10)


class Pairs(Dataset):
    """Items (x, y)."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], self.y[index]


@every_model
@pytest.mark.parametrize("conditional", [False, True])
def test_datasets_and_loaders(model, conditional):
    x = images(1, 8, 8)
    labels = LABELS if conditional else np.zeros(48, np.int64)
    dataset = Pairs(x, labels)
    fitted = small(model, conditional=conditional).fit(dataset)
    made, origin = fitted.sample(5)
    assert isinstance(made, torch.Tensor)
    assert made.shape == (5, 1, 8, 8)
    assert made.dtype == torch.uint8
    # The same rows in memory are seen in the same order.
    in_memory = small(model, conditional=conditional).fit(x, labels)
    assert_same_weights(fitted, in_memory)
    places = np.searchsorted([3, 5, 9], labels)
    loader = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(places)), batch_size=16)
    looped = small(model, conditional=conditional).fit(loader)
    made, origin = looped.sample(5)
    assert made.shape == (5, 1, 8, 8)
    if conditional:
        assert set(origin.tolist()) <= {0, 1, 2}
        assert in_memory.classes_.tolist() == [3, 5, 9]


def test_a_dataset_without_labels():
    x = torch.from_numpy(images(1, 8, 8)).float() / 255
    plain = small(VAE(2)).fit(Plain(x))
    assert plain.sample(2)[0].dtype == torch.float32
    with_y = small(VAE(2), conditional=True).fit(Plain(x), LABELS)
    assert with_y.sample(2, y=5)[1].tolist() == [5, 5]


class Plain(Dataset):
    """Items x."""

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index]


# Labels


@every_model
@pytest.mark.parametrize("kind", ["integers", "strings", "tensor"])
def test_conditional_models(model, kind):
    x, y = images(1, 8, 8), LABELS
    if kind == "strings":
        y = np.array(["three", "five", "nine"])[np.searchsorted([3, 5, 9], y)]
    if kind == "tensor":
        x, y = torch.from_numpy(x), torch.from_numpy(y)
    fitted = small(model, conditional=True).fit(x, y)
    known = np.unique(np.asarray(y))
    assert fitted.classes_.tolist() == known.tolist()
    np.testing.assert_allclose(fitted.class_prior_.sum(), 1)
    origin = fitted.sample(40)[1]
    assert set(np.asarray(origin)) <= set(known)
    assert isinstance(origin, torch.Tensor) == (kind == "tensor")
    one, other = (fitted.sample(4, y=label)[0] for label in known[:2])
    assert not np.array_equal(one, other)
    assert_same_bits(fitted.sample(3, y=[*known])[:1], [fitted.decode(fitted_codes(fitted), known)])
    assert np.asarray(fitted.sample(2, y=known[0])[1]).tolist() == [known[0]] * 2
    for wrong, message in (("never", "label never"), (known[:2], "one label or 3")):
        with pytest.raises(ValueError, match=message):
            fitted.sample(3, y=wrong)
    with pytest.raises(ValueError, match="conditional: give the labels"):
        fitted.decode(fitted_codes(fitted))
    with pytest.raises(ValueError, match=r"needs labels: fit\(X, y\)"):
        small(model, conditional=True).fit(x)


def fitted_codes(fitted):
    """The codes of sample(3)."""
    return fitted._codes(3, 0).numpy()


def test_classes_are_drawn_as_often_as_they_were_seen():
    y = np.repeat([0, 1], [36, 12])
    fitted = small(GAN(4), conditional=True).fit(images(1, 8, 8), y)
    share = fitted.sample(4000)[1].mean()
    assert abs(share - 0.25) < 5 * (0.25 * 0.75 / 4000) ** 0.5


# Samples


@every_model
@pytest.mark.parametrize("conditional", [False, True])
def test_a_sample_does_not_depend_on_its_batch(model, conditional):
    x = images(1, 8, 8).astype(np.float32) / 255
    fitted = small(model, conditional=conditional).fit(x, LABELS)
    few, many = fitted.sample(5), fitted.sample(150)
    assert_same_bits(few, [part[:5] for part in many])
    for network in weights_modules(fitted):
        network.train()  # a user may have gone on with it
    assert_same_bits(few, fitted.sample(5))
    assert all(network.training for network in weights_modules(fitted))
    assert not np.array_equal(few[0], fitted.sample(5, random_state=1)[0])
    codes = fitted._codes(70, 3).numpy()
    labels = LABELS[0] if conditional else None
    assert_same_bits([fitted.decode(codes[:3], labels)], [fitted.decode(codes, labels)[:3]])


def weights_modules(model):
    return [getattr(model, f"{name}_") for name in model._networks]


# Saving and resuming


@every_model
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_save_and_load(model, conditional, kind, tmp_path):
    x, y = images(1, 9, 8), LABELS
    if kind == "torch":
        x, y = torch.from_numpy(x), torch.from_numpy(y)
    fitted = small(model, conditional=conditional).fit(x, y)
    fitted.save(tmp_path / "run")
    state = torch.get_rng_state()
    loaded = pygen.load(tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), state)
    assert repr(loaded) == repr(fitted)
    assert vars(loaded).keys() == vars(fitted).keys()
    assert_same_weights(loaded, fitted)
    for a, b in zip(loaded.sample(70), fitted.sample(70), strict=True):
        assert type(a) is type(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    if hasattr(model, "encode"):
        label = 5 if conditional else None
        assert_same_bits([loaded.encode(x, label)], [fitted.encode(x, label)])
        assert_same_bits([loaded.score_samples(x, label)], [fitted.score_samples(x, label)])
    assert not any(network.training for network in weights_modules(loaded))


@every_model
def test_thirty_and_thirty_steps_are_sixty(model, tmp_path):
    x = images(1, 8, 8)

    def run(steps, out, **options):
        own = small(model, max_steps=steps, keep="last", conditional=True)
        return own.fit(x, LABELS, out=tmp_path / out, **options)

    whole = run(60, "whole")
    half = run(30, "parts")
    resumed = run(60, "parts", resume=True)
    assert resumed.n_steps_ == 60
    assert_same_weights(resumed, whole)
    assert not all(torch.equal(weights(half)[key], value) for key, value in weights(whole).items())
    assert_same_bits(resumed.sample(5), whole.sample(5))
    loaded = pygen.load(tmp_path / "parts")
    assert_same_bits(loaded.sample(5), whole.sample(5))
    assert list((tmp_path / "whole" / "samples").glob("*.png"))
    lines = (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == 60


def test_a_seed_that_was_drawn_is_found_again(tmp_path):
    x = images(1, 8, 8)
    runs = []
    for resume in (False, True):
        np.random.seed(7)
        model = small(VAE(2), random_state=None, keep="last", max_steps=20)
        if resume:
            small(model, random_state=None, max_steps=10).fit(x, out=tmp_path / "parts")
            np.random.seed(8)
        runs.append(model.fit(x, out=tmp_path / ("parts" if resume else "whole"), resume=resume))
    assert_same_weights(*runs)


@every_model
def test_another_model_cannot_go_on_with_a_run(model, tmp_path):
    x = images(1, 8, 8)
    small(model).fit(x, out=tmp_path)

    def resume(x=x, y=None, **parameters):
        return small(model, max_steps=6, **parameters).fit(x, y, out=tmp_path, resume=True)

    for message, attempt in {
        "latent_dim": lambda: resume(latent_dim=7),
        "learning_rate": lambda: resume(learning_rate=0.1),
        "random_state: 0 there, 4 now": lambda: resume(random_state=4),
        "feature_shape": lambda: resume(images(1, 9, 9)),
        "classes": lambda: resume(y=LABELS, conditional=True),
    }.items():
        with pytest.raises(ValueError, match=message) as caught:
            attempt()
        assert "\n" not in str(caught.value)
    with pytest.raises(FileExistsError, match="resume=True"):
        small(model).fit(x, out=tmp_path)
    assert resume().n_steps_ == 6


# Networks of the user's own


class MyEncoder(nn.Module):
    def __init__(self, n_outputs=6):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, n_outputs))

    def forward(self, x):
        return self.layers(x)


def test_networks_are_copied_and_need_not_know_of_labels():
    encoder, decoder = MyEncoder(), MLPDecoder(3, (1, 8, 8))
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    fitted = small(VAE(3), encoder=encoder, decoder=decoder).fit(images(1, 8, 8))
    assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())
    assert isinstance(fitted.encoder_, MyEncoder)
    assert not torch.equal(fitted.encoder_.layers[1].weight, encoder.layers[1].weight)
    assert clone(fitted).get_params()["encoder"] is not encoder


def test_networks_of_the_users_own_are_saved_by_their_weights(tmp_path):
    x = images(1, 8, 8)
    fitted = small(VAE(3), encoder=MyEncoder()).fit(x)
    fitted.save(tmp_path)
    with pytest.raises(ValueError, match=r"encoder is a .*MyEncoder.*networks=\{'encoder'"):
        pygen.load(tmp_path)
    loaded = pygen.load(tmp_path, networks={"encoder": MyEncoder()})
    assert_same_weights(loaded, fitted)
    assert_same_bits([loaded.score_samples(x)], [fitted.score_samples(x)])
    # What is passed is where training starts: it was saved, too.
    assert_same_weights(loaded.fit(x), fitted)


def test_frozen_weights_stay_frozen():
    encoder = MyEncoder().requires_grad_(False)
    fitted = small(VAE(3), encoder=encoder).fit(images(1, 8, 8))
    assert torch.equal(fitted.encoder_.layers[1].weight, encoder.layers[1].weight)


class Wrong(nn.Module):
    """A network whose result has another shape."""

    def __init__(self, *shape):
        super().__init__()
        self.shape, self.weight = shape, nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.weight * torch.zeros(len(x), *self.shape)


@pytest.mark.parametrize(
    ("model", "name", "network", "message"),
    [
        (VAE(3), "encoder", MLPEncoder((1, 8, 8), 3), r"encoder: .*\['N', 6\], got \[2, 3\]"),
        (VAE(3), "decoder", Wrong(64), r"decoder: .*\['N', 1, 8, 8\], got \[2, 64\]"),
        (Autoencoder(3), "encoder", MLPEncoder((64,), 3), r"MLPEncoder expects \['N', 64\]"),
        (GAN(3), "generator", Wrong(8, 8), r"generator: .*\['N', 1, 8, 8\], got \[2, 8, 8\]"),
        (GAN(3), "discriminator", Wrong(1), r"discriminator: .*\['N'\], got \[2, 1\]"),
    ],
)
def test_networks_that_do_not_fit(model, name, network, message):
    with pytest.raises(ValueError, match=message):
        small(model, **{name: network}).fit(images(1, 8, 8))


# Bad input

X = images(1, 8, 8)
NAN = np.where(X[:, :, :, :] == X[3, 0, 2, 2], np.nan, X / 255.0)


@every_model
@pytest.mark.parametrize(
    ("parameters", "x", "y", "message"),
    [
        ({}, NAN, None, "NaN"),
        ({}, torch.from_numpy(NAN), None, "NaN"),
        ({}, X[:0], None, r"0 sample\(s\)"),
        ({}, torch.zeros(5), None, r"Expected \[N, \.\.\.\]"),
        (
            {},
            [np.zeros((8, 8)), np.zeros((9, 8))],
            None,
            r"rows of one shape; got \(8, 8\), \(9, 8\)",
        ),
        ({}, X.reshape(48, 8, 8, 1), None, r"Move them: X\.transpose\(0, 3, 1, 2\)"),
        ({}, X, LABELS[:-1], "one label for each of the 48 rows of X; got 47"),
        ({"conditional": True}, X, LABELS[:-1], "one label for each of the 48 rows of X; got 47"),
        ({"conditional": True}, X, np.linspace(0, 1, 48), "continuous"),
        ({"value_range": (0, 100)}, X, None, r"value_range is \(0, 100\), but X has values from 0"),
        ({"value_range": (1, 0)}, X, None, "two finite numbers with low < high"),
        ({"latent_dim": 0}, X, None, "'latent_dim' parameter"),
        ({"learning_rate": -1.0}, X, None, "'learning_rate' parameter"),
        ({"metric": "fid"}, X, None, "'metric' parameter"),
        ({"precision": "float16"}, X, None, "'precision' parameter"),
    ],
    ids=range(15),
)
def test_bad_input_gives_one_clear_line(model, parameters, x, y, message):
    with pytest.raises(ValueError, match=message) as caught:
        small(model, **parameters).fit(x, y)
    assert "\n" not in str(caught.value) or "NaN" in message  # scikit-learn's own text


@every_model
def test_bad_questions_to_a_fitted_model(model):
    fitted = small(model).fit(X)
    for message, ask in {
        "n_samples": lambda: fitted.sample(0),
        "no classes to choose from": lambda: fitted.sample(2, y=3),
        "latent_dim=": lambda: fitted.decode(np.zeros((2, 99))),
        "NaN or infinity": lambda: fitted.decode(np.full((2, fitted.latent_dim), np.nan)),
    }.items():
        with pytest.raises(ValueError, match=message):
            ask()
    with pytest.raises(ValueError, match="resume=True needs out"):
        small(model).fit(X, resume=True)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (Plain(torch.zeros(0, 1, 8, 8)), ValueError, "empty"),
        (Plain(["a", "b"]), TypeError, "tensors or NumPy arrays.* got a str"),
        (Plain(torch.full((9, 1, 8, 8), 7.0)), ValueError, r"value_range=\(low, high\)"),
        (
            Plain([torch.zeros(8, 8), torch.zeros(9, 8)]),
            ValueError,
            r"one shape.*\(8, 8\), \(9, 8\)",
        ),
        (DataLoader(Plain(torch.zeros(0, 1)), batch_size=2), ValueError, "no batch"),
    ],
)
def test_bad_datasets(source, error, message):
    with pytest.raises(error, match=message):
        small(VAE(2)).fit(source)


def test_bad_labels_of_datasets():
    x = torch.zeros(9, 1, 8, 8)
    with pytest.raises(ValueError, match=r"must give \(x, y\), or fit be given y"):
        small(VAE(2), conditional=True).fit(Plain(x))
    loader = DataLoader(TensorDataset(x, torch.arange(9) + 1), batch_size=3)
    with pytest.raises(ValueError, match="must be 0 to K - 1"):
        small(VAE(2), conditional=True).fit(loader)
    with pytest.raises(ValueError, match="must come with the batches"):
        small(VAE(2), conditional=True).fit(loader, np.arange(9))


# What governs training


@every_model
def test_the_metric_chooses_the_weights(model, tmp_path):
    """The lowest of what a callable gives, at the model's own intervals and at the end."""
    seen = []

    def metric(estimator):
        seen.append({key: value.clone() for key, value in weights(estimator).items()})
        estimator.sample(2)
        return [3.0, 1.0, 2.0][len(seen) - 1]

    every = model._default_steps // 20
    best = small(model, metric=metric, max_steps=2 * every + 5, batch_size=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        best.fit(images(1, 8, 8, n=8))
    assert [line["metric"] for line in best.history_ if "metric" in line] == [3.0, 1.0, 2.0]
    final = weights(best)
    assert all(torch.equal(value, final[key]) for key, value in seen[1].items())
    with pytest.warns(UserWarning, match="metric: a function cannot be saved"):
        best.save(tmp_path)
    assert pygen.load(tmp_path).metric is None


@every_model
def test_gradients_are_clipped_and_divergence_is_told(model):
    clipped = small(model, gradient_clip=1e-6, max_steps=2).fit(X)
    free = small(model, max_steps=2).fit(X)
    assert not torch.equal(*(next(iter(weights(m).values())) for m in (clipped, free)))
    with pytest.raises(FloatingPointError, match="diverged at step"):
        small(model, learning_rate=1e30, max_steps=60).fit(X)


@every_model
def test_bf16_trains(model):
    fitted = small(model, precision="bf16", max_steps=2).fit(X)
    assert all(value.dtype != torch.bfloat16 for value in weights(fitted).values())
    assert np.isfinite(fitted.history_[-1][next(iter(fitted.history_[-1]))])
