"""The models of the demo: how each is made for images of a kind, fitted, and drawn from."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pygen.cli.demo_images import Images, of_each_class
from pygen.cli.output import pairs
from pygen.cli.pixels import Pixels
from pygen.cli.runs import Run, digest, new_run, write_run
from pygen.deep import DCGAN, GAN, VAE, Autoencoder
from pygen.density import ClassConditional, GaussianBayes, GaussianMixture, NaiveBayes
from pygen.pictures import Picture, grid, save_png

SAMPLES_PER_CLASS = 10
# A model without classes draws as many as one of ten classes.
SAMPLES = 100
# Chosen from .05 to 1 and from 1e-6 to 1e-2 by log-likelihood on a fifth of the training split, of
# digits and of 12,000 images of MNIST; the test splits had no part in it.
ALPHA = 0.2
REG_COVAR = 1e-3
# The paper's "at most 10 components per class".
MAX_COMPONENTS = 10
# A held-out pixel of a grey level that its place never had in training costs a Gaussian the square
# of its distance in standard deviations, and dequantisation noise is the only deviation of a
# constant pixel: with 256 levels such pixels would be all that the likelihood shows.
LEVELS = 16
LEVELS_OF_DIGITS = 17
# With the paper's 2 numbers in a code, random codes of an autoencoder are seldom far from those of
# images, and one does not see that nothing brought them there.
LATENT_DIM = 16
# Images of sides up to this are small: a step takes milliseconds, and fewer and larger steps do.
SMALL_SIDE = 16
# Images on which models are judged by their samples, and images shown with reconstructions.
JUDGED, RECONSTRUCTED = 1000, 2


@dataclass(frozen=True)
class Family:
    """A kind of model: its name on the page and among the files, an estimator, its features."""

    title: str
    name: str
    estimator: Any
    pixels: Pixels

    @property
    def settings(self) -> str:
        """The estimator as it would be made, on one line."""
        return " ".join(repr(self.estimator).split())


@dataclass(frozen=True)
class Result:
    """What a fitted model reached on the held-out images, and what it drew.

    Attributes
    ----------
    seconds : float
        Of the fit.
    picture : Picture
        Samples, of a model with classes a row for each.
    samples : Tensor
        uint8 `[N, C, H, W]`, of all classes: as many as there are held-out images, at most JUDGED.
    nats, bits : float or None
        Of density models log p(x) per held-out image, and the same in bits per dimension; of a VAE
        the evidence lower bound.
    accuracy : float or None
        Of Bayes' rule, where there are classes.
    error : float or None
        Mean squared error of reconstructions, pixels counting from 0 to 1.
    reconstructions : Picture or None
        Held-out images above their reconstructions.
    """

    seconds: float
    picture: Picture
    samples: Tensor
    nats: float | None = None
    bits: float | None = None
    accuracy: float | None = None
    error: float | None = None
    reconstructions: Picture | None = None


def families(images: Images, seed: int, steps: int | None) -> list[Family]:
    """The seven models, with settings for images of this size and training of so many steps."""
    levels = LEVELS_OF_DIGITS if images.name == "digits" else LEVELS
    discrete, continuous = Pixels("levels", levels), Pixels("dequantized", levels)
    as_they_are = Pixels("bytes", None)
    smallest = int(images.train_labels.unique(return_counts=True)[1].min())
    mixture = GaussianMixture(
        min(MAX_COMPONENTS, smallest),
        covariance_type="diag",
        reg_covar=REG_COVAR,
        random_state=seed,
    )
    codes, gan, dcgan = _training(images.shape)
    every: dict[str, Any] = {"random_state": seed}
    if steps is not None:
        every["max_steps"] = steps
    if torch.cuda.is_available():
        every["device"] = "cuda"
    return [
        Family("naive Bayes", "naive_bayes", NaiveBayes(levels, alpha=ALPHA), discrete),
        Family("Gaussian Bayes", "gaussian_bayes", GaussianBayes(), continuous),
        Family("mixtures", "mixture", ClassConditional(mixture), continuous),
        Family(
            "autoencoder", "autoencoder", Autoencoder(LATENT_DIM, **(codes | every)), as_they_are
        ),
        Family("VAE", "vae", VAE(LATENT_DIM, **(codes | every)), continuous),
        Family("GAN", "gan", GAN(**(gan | every)), as_they_are),
        Family("DCGAN", "dcgan", DCGAN(**(dcgan | every)), as_they_are),
    ]


def _training(shape: tuple[int, int, int]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Training of autoencoder and VAE, of the GAN and of the DCGAN."""
    channels, height, width = shape
    if max(height, width) <= SMALL_SIDE:
        return (
            {"learning_rate": 1e-3, "batch_size": 64, "max_steps": 1000},
            {"learning_rate": 1e-3, "batch_size": 64, "max_steps": 2000},
            {"learning_rate": 5e-4, "width": 32, "max_steps": 1500},
        )
    return (
        {"learning_rate": 1e-3, "batch_size": 128, "max_steps": 3000},
        {"max_steps": 10_000},
        {"max_steps": 5000 if channels == 1 else 10_000},
    )


def fit(family: Family, images: Images, seed: int, out: Path) -> Result:
    """Fit a model, save it, judge it on the held-out images, draw from it."""
    model, pixels = family.estimator, family.pixels
    rng = np.random.default_rng(seed)
    train, test = pixels.encode(images.train, rng), pixels.encode(images.test, rng)
    is_density = hasattr(model, "predict")
    with new_run(out / family.name, overwrite=True) as stage:
        start = time.perf_counter()
        if is_density:
            model.fit(train, images.train_labels)
        else:
            model.set_params(verbose=1).fit(train).set_params(verbose=0)
        seconds = time.perf_counter() - start
        score = float(model.score_samples(train).double().mean()) if is_density else None
        record = Run(
            data=images.name,
            split="train",
            image_size=None,
            data_sha256=digest(images.train, images.train_labels),
            pixels=pixels,
            image_shape=images.shape,
            n_images=len(train),
            seconds=seconds,
            score=score,
            divided_by=images.divided_by,
        )
        write_run(model, record, stage)
    drawn, picture = _draw(family, images, seed)
    save_png(picture, out / f"{family.name}.png")
    judged: dict[str, Any] = {}
    if not isinstance(model, (Autoencoder, GAN)):
        judged = _likelihood(family, images, test)
    again: dict[str, Any] = {}
    if isinstance(model, (Autoencoder, VAE)):
        again = _reconstruct(family, images, test)
        save_png(again["reconstructions"], out / f"{family.name}_reconstructions.png")
    return Result(seconds, picture, drawn, **judged, **again)


def _draw(family: Family, images: Images, seed: int) -> tuple[Tensor, Picture]:
    """Samples to judge by, and a picture of samples."""
    model, pixels = family.estimator, family.pixels
    n = min(JUDGED, len(images.test))
    if hasattr(model, "predict"):
        wanted = np.repeat(images.classes, SAMPLES_PER_CLASS)
        shown, _ = model.sample(len(wanted), y=wanted, random_state=seed)
        judged, _ = model.sample(n, random_state=seed)
    else:
        both, _ = model.sample(max(n, SAMPLES), random_state=seed)
        shown, judged = both[:SAMPLES], both[:n]
    return pixels.decode(judged), grid(pixels.decode(shown), SAMPLES_PER_CLASS)


def _likelihood(family: Family, images: Images, test: Tensor) -> dict[str, Any]:
    model, pixels = family.estimator, family.pixels
    n_features = math.prod(images.shape)
    nats = float(model.score_samples(test).double().mean()) + pixels.log_volume(n_features)
    assert pixels.levels is not None
    bits = (math.log(pixels.levels) - nats / n_features) / math.log(2)
    accuracy = None
    if hasattr(model, "predict"):
        accuracy = float((model.predict(test) == images.test_labels).double().mean())
    return {"nats": nats, "bits": bits, "accuracy": accuracy}


def _reconstruct(family: Family, images: Images, test: Tensor) -> dict[str, Any]:
    again = family.pixels.decode(family.estimator.reconstruct(test))
    shown = (
        of_each_class(part, images.test_labels, RECONSTRUCTED) for part in (images.test, again)
    )
    error = (again.double() - images.test.double()).div(255).square().mean()
    return {"error": float(error), "reconstructions": pairs(*shown)}
