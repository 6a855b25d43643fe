"""What the deep models reach on the digits, learned from 70% and judged on the rest.

One seed here; bench/deep_quality.py prints the figures of five, and of more expensive recipes.
"""

import copy
import math

import pytest
import torch
from torch import nn

from pygen import DCGAN, VAE, Autoencoder
from pygen.data import load, to_unit
from pygen.metrics import Classifier, class_entropy, class_shares, compare_images
from pygen.nn import MLPDecoder, MLPEncoder
from pygen.ops import reparameterize
from pygen.random import new_state

SHAPE = (1, 8, 8)
# At least or at most, of the figures that pygen.metrics.compare_images gives.
AT_LEAST = {"class_entropy": 2.2, "smallest_share": 0.03, "coverage": 0.55, "precision": 0.65}
AT_MOST = {"frechet_distance": 80.0}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def train():
    return load("digits", "train")


@pytest.fixture(scope="module")
def held_out():
    return load("digits", "test")


@pytest.fixture(scope="module")
def classifier(train, held_out):
    classifier = Classifier(random_state=0).fit(*train)
    assert classifier.score(*held_out) >= 0.96
    return classifier


@pytest.fixture(scope="module")
def dcgan(train):
    return DCGAN(width=16, learning_rate=1e-3, max_steps=1500, random_state=0).fit(train[0])


def small_vae(latent_dim, **parameters):
    torch.manual_seed(0)  # draws the weights of the networks passed
    return VAE(
        latent_dim,
        encoder=MLPEncoder(SHAPE, 2 * latent_dim),
        decoder=MLPDecoder(latent_dim, SHAPE),
        learning_rate=1e-3,
        batch_size=64,
        random_state=0,
        **parameters,
    )


def pca_error(train, test, n_components):
    """Mean squared error of test rows on the principal components of training rows."""
    train, test = (to_unit(x).flatten(1).double() for x in (train, test))
    mean = train.mean(0)
    directions = torch.linalg.svd(train - mean, full_matrices=False)[2][:n_components]
    centred = test - mean
    return (centred - centred @ directions.T @ directions).square().mean().item()


@pytest.mark.parametrize("latent_dim", [2, 8])
def test_autoencoder_beats_principal_components(train, held_out, latent_dim):
    model = Autoencoder(
        latent_dim, learning_rate=1e-3, batch_size=64, max_steps=500, random_state=0
    ).fit(train[0])
    reconstructed = to_unit(model.reconstruct(held_out[0])).double()
    error = (reconstructed - to_unit(held_out[0])).square().mean().item()
    assert error <= 0.8 * pca_error(train[0], held_out[0], latent_dim)


def posterior_kl(vae, images):
    """Mean KL of the codes' distributions to N(0, I), in nats."""
    with torch.no_grad():
        mu, logvar = vae.encoder_(images).chunk(2, 1)
    return reparameterize(new_state(0), mu, logvar)[1].mean().item()


def test_vae_bounds_of_binarised_digits(train, held_out):
    binary, held_out_binary = ((images > 127).float() for images, _ in (train, held_out))
    vae = small_vae(8, likelihood="bernoulli", max_steps=1500).fit(binary)
    elbo = vae.score(held_out_binary)
    assert elbo >= -19.0
    assert vae.score_samples(held_out_binary, n_importance=100).mean() >= elbo
    assert 4 <= posterior_kl(vae, held_out_binary) <= 10
    # Independent pixels reach -24.6; a bound near 0 would be no bound.
    p = binary.mean(0).clamp(1e-3, 1 - 1e-3)
    entropy = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).sum().item()
    assert -entropy < elbo < -10


def test_reconstruction_weight_trades_error_for_code_length(train, held_out):
    errors, lengths = [], []
    for weight in (30.0, 300.0, 3000.0):
        vae = small_vae(8, reconstruction_weight=weight, max_steps=500).fit(train[0])
        reconstructed = to_unit(vae.reconstruct(held_out[0]))
        errors.append((reconstructed - to_unit(held_out[0])).square().mean().item())
        lengths.append(posterior_kl(vae, to_unit(held_out[0])))
    assert errors == sorted(errors, reverse=True)
    assert lengths == sorted(lengths)
    assert errors[0] > 1.5 * errors[-1]
    assert lengths[-1] > 1.5 * lengths[0]


def shortfalls(model, held_out, classifier):
    """Figures of a GAN's samples that miss their threshold, by name."""
    fake, _ = model.sample(1257, random_state=1)
    figures = compare_images(held_out[0], fake, classifier)
    short = {name for name, limit in AT_LEAST.items() if not figures[name] >= limit}
    return short | {name for name, limit in AT_MOST.items() if not figures[name] <= limit}


def test_dcgan_makes_digits_of_all_kinds(dcgan, held_out, classifier):
    assert dcgan.n_steps_ == 1500
    assert not shortfalls(dcgan, held_out, classifier)


class Collapsed(nn.Module):
    """A generator that makes only these images, as often each, whatever the code."""

    def __init__(self, images):
        super().__init__()
        self.images = nn.Parameter(images)

    def forward(self, x, y=None):
        share = (1 + torch.erf(x[:, 0] / math.sqrt(2))) / 2
        return self.images[(share * len(self.images)).long().clamp_max(len(self.images) - 1)]


@pytest.mark.parametrize(
    ("n_classes", "n_each", "expected"),
    [
        (1, 1, {"class_entropy", "smallest_share", "coverage", "frechet_distance"}),
        (3, 40, {"class_entropy", "smallest_share", "coverage"}),
        (10, 1, {"coverage"}),  # every class, but always the same digit
    ],
)
def test_a_collapsed_generator_falls_short(
    dcgan, train, held_out, classifier, n_classes, n_each, expected
):
    images, labels = train
    chosen = torch.cat([images[labels == c][:n_each] for c in range(n_classes)])
    planted = copy.deepcopy(dcgan)
    planted.generator_ = Collapsed(to_unit(chosen) * 2 - 1).eval()
    assert expected <= shortfalls(planted, held_out, classifier)


def test_class_conditional_samples_are_of_their_class(train, classifier):
    model = DCGAN(
        width=32, learning_rate=5e-4, conditional=True, max_steps=500, random_state=0
    ).fit(*train)
    labels = torch.arange(1000) % 10
    fake, asked = model.sample(1000, y=labels, random_state=1)
    assert torch.equal(torch.as_tensor(asked), labels)
    assert classifier.score(fake, labels) >= 0.9
    shares = class_shares(classifier.predict(model.sample(1000)[0]), classifier.classes_)
    assert class_entropy(shares) >= 2.2
