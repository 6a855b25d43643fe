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

from pygen.cli.model_options import Model

Split: TypeAlias = Literal["train", "test", "all"]


@dataclass(frozen=True)
class Demo:
    """Fit all seven models to real images; leave a page to look at."""

    data: str = "digits"
    """digits, mnist, fashion_mnist, cifar10, or the path of a data set with labels. On two cores
    digits take two minutes, mnist 20 or more, cifar10 an hour or more."""
    out: Path = Path("runs/demo")
    """The folder for index.html, the pictures and the fitted models."""
    seed: int = 0
    """The same seed draws the same pictures."""
    steps: int | None = None
    """Train every network for so many steps: few for a quick look (default: as many as each needs
    for images of this size; the page has them)."""


@dataclass(frozen=True)
class Fit:
    """Fit a model to images and save it."""

    model: OmitArgPrefixes[OmitSubcommandPrefixes[Model]]
    data: str
    """digits, mnist, fashion_mnist, cifar10, or the path of a data set or a folder of pictures."""
    out: Path
    """The folder for the model, and for checkpoints, samples and metrics.jsonl of networks."""
    split: Split = "train"
    """The part of the data to fit."""
    image_size: str | None = None
    """Crop and resize every image to this: 32, or HEIGHTxWIDTH."""
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
class Reconstruct:
    """Show images above what an autoencoder or VAE makes of them."""

    run: Positional[Path]
    """The folder of a model: of pygen fit, or one of pygen demo's."""
    out: Path
    """The file to write: .png, rows of images above their reconstructions; .npy, uint8
    [2, N, C, H, W]."""
    data: str | None = None
    """As in pygen fit (default: the data of the run)."""
    split: Split | None = None
    """Its part (default: test, of a path train)."""
    n: Annotated[int, arg(name="n-images", aliases=["-n"])] = 20
    """Number of images."""
    seed: int = 0
    """Which images: the same seed chooses the same."""


@dataclass(frozen=True)
class Interpolate:
    """Show images between two real ones (autoencoder, VAE) or two made of noise (GANs), as strips."""

    run: Positional[Path]
    """The folder of a model: of pygen fit, or one of pygen demo's."""
    out: Path
    """The file to write: .png, a row for each strip; .npy, uint8 [N, STEPS, C, H, W]."""
    data: str | None = None
    """Of autoencoder and VAE: as in pygen fit (default: the data of the run)."""
    split: Split | None = None
    """Its part (default: test, of a path train)."""
    n: Annotated[int, arg(name="n-strips", aliases=["-n"])] = 8
    """Number of strips."""
    steps: int = 10
    """Images of a strip, with both ends."""
    y: int | None = None
    """The class, of a model that knows classes (default: another for each strip)."""
    seed: int = 0
    """Which ends: the same seed chooses the same."""


@dataclass(frozen=True)
class Evaluate:
    """Judge fitted models by their samples, beside other real images and independent pixels."""

    runs: Positional[tuple[Path, ...]]
    """Folders of models: of pygen fit, or those of pygen demo (runs/demo/*; files are passed over).
    Models of other data get another table."""
    n: Annotated[int | None, arg(name="n-samples", aliases=["-n"])] = None
    """Images drawn from each model (default: as many as there are held-out ones, at most 10000)."""
    features: Literal["classifier", "pixels"] = "classifier"
    """What images are compared by: the last layer of a small classifier that learns the data's
    labels, or the pixels themselves."""
    inception_weights: Path | None = None
    """Compare by Inception features instead, of the weights in this file: .pth or .safetensors."""
    split: Literal["train", "test"] = "test"
    """The reference: images that no model has seen, or those that all were fitted to."""
    seed: int = 0
    """The same seed gives the same figures."""
    resamples: int = 40
    """Halves of the images from which confidence intervals come; 0 for none."""
    out: Path | None = None
    """A file for all figures, .json."""


@dataclass(frozen=True)
class Report:
    """Make a page of one or several runs: samples, codes, learning curves, figures, how they were made."""

    runs: Positional[tuple[Path, ...]]
    """Folders of pygen fit or pygen demo; files among them are passed over."""
    out: Path | None = None
    """The page to write (default: report.html in the run, or beside the runs if there are several)."""
    seed: int = 0
    """Of samples, and of which images are shown."""


@dataclass(frozen=True)
class Info:
    """Show versions, the compiled extension, devices and data, and how to get what is missing."""


Command: TypeAlias = Demo | Fit | Sample | Reconstruct | Interpolate | Evaluate | Report | Info


@dataclass(frozen=True)
class Pygen:
    """Classic generative models: fit them to images, draw new ones."""

    command: OmitArgPrefixes[OmitSubcommandPrefixes[Command]]
    debug: FlagCreatePairsOff[bool] = False
    """After an error, also show the traceback."""
