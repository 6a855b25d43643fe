"""Draw the pictures of docs/figures from digits: python docs/figures.py [NAME...]. Some minutes on two cores."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import pygen
from pygen import (
    DCGAN,
    GAN,
    VAE,
    Autoencoder,
    ClassConditional,
    GaussianBayes,
    GaussianMixture,
    NaiveBayes,
)
from pygen.data import load, quantize, to_unit
from pygen.pictures import Picture, beside, grid, save_png

FOLDER = Path(__file__).parent / "figures"
CLASSES = np.arange(10)
# Networks as `pygen demo` trains them on digits.
CODES: dict[str, Any] = {"learning_rate": 1e-3, "batch_size": 64, "random_state": 0}


@cache
def images(split: str = "train") -> tuple[Tensor, Tensor]:
    return load("digits", split)


def pixels(rows: Any) -> Tensor:
    """``[N, 1, 8, 8]`` of rows of any shape in [0, 1]."""
    return torch.as_tensor(rows).reshape(-1, 1, 8, 8).float().clamp(0, 1)


def spread(rows: Any) -> Tensor:
    """As `pixels`, the largest white."""
    rows = torch.as_tensor(rows)
    return pixels(rows / rows.max())


def by_column(*rows: Tensor) -> Picture:
    return grid(torch.cat(rows), len(rows[0]))


def naive_bayes() -> Picture:
    x, y = images()
    model = NaiveBayes(17, alpha=0.2).fit(quantize(x, 17), y)
    theta = torch.as_tensor(model.feature_log_prob_).exp()  # [10, 64, 17]
    mean = theta @ torch.arange(17, dtype=theta.dtype)
    drawn = [model.sample(10, y=CLASSES, random_state=seed)[0] for seed in range(3)]
    return beside(
        [by_column(pixels(mean / 16)), by_column(*(pixels(rows / 16) for rows in drawn))],
        ["mean of each class", "three samples of each class"],
    )


def gaussian_bayes() -> Picture:
    x, y = images()
    model = GaussianBayes(var_smoothing=1e-3).fit(to_unit(x), y)
    drawn = [model.sample(10, y=CLASSES, random_state=seed)[0] for seed in range(2)]
    return beside(
        [
            by_column(pixels(model.theta_), spread(torch.as_tensor(model.var_).sqrt())),
            by_column(*(pixels(rows) for rows in drawn)),
        ],
        ["means and standard deviations", "two samples of each class"],
    )


def gaussian_mixture() -> Picture:
    x = to_unit(images()[0])
    pictures = []
    kinds = ("spherical", "diag", "tied", "full")
    for kind in kinds:
        model = GaussianMixture(
            10, covariance_type=kind, reg_covar=1e-3, n_init=3, random_state=0
        ).fit(x)
        order = torch.as_tensor(model.weights_).argsort(descending=True)
        means = pixels(torch.as_tensor(model.means_)[order]).view(2, 5, 1, 8, 8)
        drawn = pixels(model.sample(10)[0]).view(2, 5, 1, 8, 8)
        pictures.append(grid(torch.cat([means, drawn]).flatten(0, 1), 5))
    return beside(pictures, kinds)


def condition() -> Picture:
    x, test = to_unit(images()[0]), to_unit(images("test")[0])[:10]
    model = GaussianMixture(10, reg_covar=1e-3, n_init=3, random_state=0).fit(x)
    seen = torch.zeros(1, 8, 8, dtype=torch.bool)
    seen[:, :4] = True
    given = model.condition(test, seen)
    drawn, _ = given.sample(2)
    rows = [test, test * seen, given.mean(), *drawn]
    return by_column(*map(pixels, rows))


def class_conditional() -> Picture:
    x, y = images()
    mixture = GaussianMixture(5, covariance_type="diag", reg_covar=1e-3, n_init=3, random_state=0)
    model = ClassConditional(mixture).fit(to_unit(x), y)
    means = torch.stack([torch.as_tensor(own.means_) for own in model.estimators_], 1)
    drawn = [model.sample(10, y=CLASSES, random_state=seed)[0] for seed in range(5)]
    return beside(
        [by_column(*map(pixels, means)), by_column(*map(pixels, drawn))],
        ["the five means of each class", "samples of each class"],
    )


def autoencoder() -> Picture:
    x, test = images()[0], images("test")[0][:10]
    model = Autoencoder(16, max_steps=1000, **CODES).fit(x)
    return beside(
        [grid(torch.cat([test, model.reconstruct(test)]), 10), grid(model.sample(20)[0], 10)],
        ["held-out digits over their reconstructions", "random codes decoded"],
    )


def vae() -> Picture:
    x, test = images()[0], images("test")[0][:10]
    model = VAE(16, max_steps=1000, **CODES).fit(x)
    return beside(
        [grid(torch.cat([test, model.reconstruct(test)]), 10), grid(model.sample(20)[0], 10)],
        ["held-out digits over their reconstructions", "random codes decoded"],
    )


def vae_map() -> Picture:
    model = VAE(2, max_steps=2000, **CODES).fit(images()[0])
    # Equal steps of probability: the code is normal.
    steps = torch.special.ndtri(torch.linspace(0.02, 0.98, 12))
    down, right = torch.meshgrid(-steps, steps, indexing="ij")
    plane = grid(model.decode(torch.stack([right, down], -1).flatten(0, 1)), 12)
    ends, labels = images("test")
    first, last = (ends[(labels == label).nonzero()[:12, 0]] for label in (4, 9))
    strips = model.interpolate(first, last, 10)
    return beside(
        [plane, grid(strips.flatten(0, 1), 10)], ["the plane of codes", "from a 4 to a 9"]
    )


def gan() -> Picture:
    model = GAN(learning_rate=1e-3, batch_size=64, max_steps=2000, random_state=0)
    return grid(model.fit(images()[0]).sample(30)[0], 10)


def dcgan() -> Picture:
    settings = {"learning_rate": 5e-4, "width": 32, "random_state": 0}
    model = DCGAN(max_steps=1500, **settings).fit(images()[0])
    told = DCGAN(conditional=True, max_steps=1500, **settings).fit(*images())
    drawn, _ = told.sample(30, y=np.tile(CLASSES, 3))
    return beside(
        [grid(model.sample(30)[0], 10), grid(drawn, 10)], ["samples", "samples of each class"]
    )


FIGURES: dict[str, Callable[[], Picture]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        naive_bayes,
        gaussian_bayes,
        gaussian_mixture,
        condition,
        class_conditional,
        autoencoder,
        vae,
        vae_map,
        gan,
        dcgan,
    )
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or FIGURES:
        picture = FIGURES[name]()
        save_png(picture.quantize(32) if picture.mode == "RGB" else picture, FOLDER / f"{name}.png")
        print(FOLDER / f"{name}.png", picture.size, f"pygen {pygen.__version__}")


if __name__ == "__main__":
    main()
