"""What can be asked for on the command line, and the texts of its help.

Nothing here may import torch or scikit-learn: `pygen --help` is to answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from tyro.conf import (
    FlagCreatePairsOff,
    OmitArgPrefixes,
    OmitSubcommandPrefixes,
    Positional,
    arg,
)


@dataclass(frozen=True)
class NaiveBayes:
    """Independent pixels, each a distribution over grey levels."""

    alpha: float = 1.0
    """Added to the count of every grey level (Laplace smoothing)."""
    device: str | None = None
    """Where to compute: cpu, cuda, cuda:1."""


@dataclass(frozen=True)
class GaussianBayes:
    """Independent pixels, each with a normal distribution."""

    var_smoothing: float = 1e-9
    """Share of the largest pixel variance that is added to all variances."""
    device: str | None = None
    """Where to compute: cpu, cuda, cuda:1."""


@dataclass(frozen=True)
class GaussianMixture:
    """Several normal distributions, fitted by expectation maximisation."""

    n_components: int = 1
    """Number of components (of each class, with --per-class)."""
    covariance_type: Literal["full", "tied", "diag", "spherical"] = "full"
    """Shape of the components' covariances."""
    tol: float = 1e-3
    """Gain in log-likelihood per image (nats) below which the fit has converged."""
    reg_covar: float = 1e-6
    """Added to the diagonal of every covariance."""
    max_iter: int = 100
    """Iterations of expectation maximisation, at most."""
    n_init: int = 1
    """Number of starts; the best is kept."""
    init_params: Literal["kmeans", "k-means++", "random", "random_from_data"] = "kmeans"
    """How the components start."""
    random_state: int | None = None
    """Seed of the start."""
    verbose: int = 0
    """1 or 2: report on each start, and on its iterations."""
    device: str | None = None
    """Where to compute: cpu, cuda, cuda:1."""
    dtype: Literal["float32", "float64"] | None = None
    """Type of the computation (default: that of the data, float32)."""
    batch_size: int | None = None
    """Images on the device at a time (default: all)."""


Model: TypeAlias = NaiveBayes | GaussianBayes | GaussianMixture


@dataclass(frozen=True)
class Demo:
    """Fit naive Bayes, Gaussian Bayes and mixtures to real images; leave a page to look at."""

    data: str = "digits"
    """digits, mnist, fashion_mnist, cifar10, or the path of a data set with labels."""
    out: Path = Path("runs/demo")
    """The folder for index.html, the pictures and the fitted models."""
    seed: int = 0
    """The same seed draws the same pictures."""


@dataclass(frozen=True)
class Fit:
    """Fit a model to images and save it."""

    model: OmitArgPrefixes[OmitSubcommandPrefixes[Model]]
    data: str
    """digits, mnist, fashion_mnist, cifar10, or the path of a data set."""
    out: Path
    """The folder in which the model is saved."""
    split: Literal["train", "test", "all"] = "train"
    """The part of the data to fit."""
    image_size: str | None = None
    """Crop and resize every image to this: 32, or HEIGHTxWIDTH."""
    per_class: bool = True
    """One density for each class, or one for all images."""
    levels: int | None = None
    """Reduce pixels to so many grey levels (naive Bayes, by default: 17 for digits, else 256) and,
    for the Gaussian models, add uniform noise (by default: pixels as they are)."""
    overwrite: FlagCreatePairsOff[bool] = False
    """Replace an earlier run in the folder."""


@dataclass(frozen=True)
class Sample:
    """Draw images from a fitted model."""

    run: Positional[Path]
    """The folder of a model: of pygen fit, or one of pygen demo's."""
    out: Path
    """The file to write: .png, a grid of the images; .npy, uint8 [N, C, H, W]."""
    n: Annotated[int, arg(name="n-samples", aliases=["-n"])] = 64
    """Number of images."""
    y: int | None = None
    """The class to draw from (default: all, as often as in the data)."""
    seed: int | None = None
    """The same seed draws the same images (default: new ones each time)."""


@dataclass(frozen=True)
class Info:
    """Show versions, the compiled extension, devices and data, and how to get what is missing."""


@dataclass(frozen=True)
class Pygen:
    """Classic generative models: fit them to images, draw new ones."""

    command: OmitArgPrefixes[OmitSubcommandPrefixes[Demo | Fit | Sample | Info]]
    debug: FlagCreatePairsOff[bool] = False
    """After an error, also show the traceback."""
