"""`pygen demo`: three families of models on the same images, judged alike, on one page."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import pygen
from pygen.cli import demo_texts, options
from pygen.cli.pixels import Pixels
from pygen.cli.runs import Run, new_run, write_run
from pygen.data import NAMES
from pygen.density import ClassConditional, GaussianBayes, GaussianMixture, NaiveBayes
from pygen.files import write_file
from pygen.pictures import Picture, beside, grid, save_png
from pygen.random import as_seed
from pygen.report import Page, Section, Table, render

SAMPLES_PER_CLASS = 10
HELD_OUT = 0.3
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


@dataclass(frozen=True)
class Images:
    """The data of the demo, as pictures uint8 [N, C, H, W] and labels int64 [N]."""

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    held_out: str

    @property
    def classes(self) -> list[int]:
        return self.train_labels.unique().tolist()

    @property
    def shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.train.shape
        return channels, height, width


@dataclass(frozen=True)
class Family:
    """A kind of model: its name on the page and among the files, an estimator, its features."""

    title: str
    name: str
    estimator: Any
    pixels: Pixels


@dataclass(frozen=True)
class Result:
    """What a fitted model reached on the held-out images."""

    nats: float
    bits: float
    accuracy: float
    seconds: float
    picture: Picture


def run(asked: options.Demo) -> None:
    """Carry out `pygen demo`."""
    start = time.perf_counter()
    out = asked.out
    _check_place(out)
    seed = as_seed(asked.seed)
    images = _load(asked.data, seed)
    families = _families(images, seed)
    out.mkdir(parents=True, exist_ok=True)
    real = grid(_real(images), SAMPLES_PER_CLASS)
    save_png(real, out / "real.png")
    results = {}
    with tqdm(families, unit="model", disable=None) as bar:
        for family in bar:
            bar.set_description(family.title)
            results[family.title] = _fit(family, images, seed, out)
    captions = ["real", *(family.title for family in families)]
    pictures = [real, *(result.picture for result in results.values())]
    save_png(beside(pictures, captions), out / "overview.png")
    table = _table(results)
    page = Page(
        title="pygen demo",
        lead=f"Three classic generative models learn {demo_texts.what(images.name)} and draw new "
        f"ones, {SAMPLES_PER_CLASS} of each class.",
        generator=f"pygen {pygen.__version__}",
        table=table,
        sections=_sections(images, families, real, results),
        facts=_facts(asked, images, families, time.perf_counter() - start),
    )
    write_file(out / "index.html", render(page).encode())
    print(*_lines(table), "", out / "index.html", sep="\n")


def _check_place(out: Path) -> None:
    page = out / "index.html"
    if page.exists() and b'name="generator" content="pygen ' not in page.read_bytes():
        raise ValueError(f"{page}: expected a page of pygen demo or none, found another; move it")


def _load(data: str, seed: int) -> Images:
    """Load training and held-out images; those without a test split are divided here."""
    train, train_labels = pygen.data.load(data)
    if data in NAMES:
        test, test_labels = pygen.data.load(data, "test")
        return Images(data, train, train_labels, test, test_labels, "the test split")
    every, every_labels = pygen.data.load(data, "all")
    n = len(train)
    if n < len(every):
        test, test_labels = every[n:], every_labels[n:]
        return Images(data, train, train_labels, test, test_labels, "the test split")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    k = math.floor(HELD_OUT * n)
    if k < 1:
        raise ValueError(f"{data}: expected at least 4 images, some to be held out, found {n}")
    test, test_labels = every[order[:k]], every_labels[order[:k]]
    train, train_labels = every[order[k:]], every_labels[order[k:]]
    return Images(
        data, train, train_labels, test, test_labels, f"{HELD_OUT:.0%}, drawn by the seed"
    )


def _families(images: Images, seed: int) -> list[Family]:
    levels = LEVELS_OF_DIGITS if images.name == "digits" else LEVELS
    discrete, continuous = Pixels("levels", levels), Pixels("dequantized", levels)
    smallest = int(images.train_labels.unique(return_counts=True)[1].min())
    mixture = GaussianMixture(
        min(MAX_COMPONENTS, smallest),
        covariance_type="diag",
        reg_covar=REG_COVAR,
        random_state=seed,
    )
    return [
        Family("naive Bayes", "naive_bayes", NaiveBayes(levels, alpha=ALPHA), discrete),
        Family("Gaussian Bayes", "gaussian_bayes", GaussianBayes(), continuous),
        Family("mixtures", "mixture", ClassConditional(mixture), continuous),
    ]


def _real(images: Images) -> Tensor:
    """Return the first training images of each class, as many as are drawn of it."""
    rows = []
    for label in images.classes:
        of = images.train[images.train_labels == label]
        rows.append(of[torch.arange(SAMPLES_PER_CLASS) % len(of)])
    return torch.cat(rows)


def _fit(family: Family, images: Images, seed: int, out: Path) -> Result:
    """Fit a model, save it, judge it on the held-out images, draw from it."""
    model, pixels = family.estimator, family.pixels
    rng = np.random.default_rng(seed)
    train, test = pixels.encode(images.train, rng), pixels.encode(images.test, rng)
    with new_run(out / family.name, overwrite=True) as stage:
        start = time.perf_counter()
        model.fit(train, images.train_labels)
        seconds = time.perf_counter() - start
        score = float(model.score_samples(train).double().mean())
        record = Run(
            data=images.name,
            split="train",
            image_size=None,
            pixels=pixels,
            image_shape=images.shape,
            n_images=len(train),
            seconds=seconds,
            score=score,
        )
        write_run(model, record, stage)
    n_features = math.prod(images.shape)
    nats = float(model.score_samples(test).double().mean()) + pixels.log_volume(n_features)
    correct = model.predict(test) == images.test_labels
    wanted = np.repeat(images.classes, SAMPLES_PER_CLASS)
    features, _ = model.sample(len(wanted), y=wanted, random_state=seed)
    picture = grid(pixels.decode(features), SAMPLES_PER_CLASS)
    save_png(picture, out / f"{family.name}.png")
    assert pixels.levels is not None
    bits = (math.log(pixels.levels) - nats / n_features) / math.log(2)
    return Result(nats, bits, float(correct.double().mean()), seconds, picture)


def _table(results: dict[str, Result]) -> Table:
    rows = [
        (
            title,
            f"{result.nats:.2f}",
            f"{result.bits:.3f}",
            f"{result.accuracy:.1%}",
            f"{result.seconds:.2f} s",
        )
        for title, result in results.items()
    ]
    columns = ("model", "nats per image", "bits per dimension", "accuracy", "fit")
    return Table(columns, rows, demo_texts.NOTES)


def _lines(table: Table) -> Iterator[str]:
    """Lay out a table for the terminal."""
    rows = [table.columns, *table.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    for row in rows:
        name, *cells = (cell.ljust(w) for cell, w in zip(row, widths, strict=True))
        yield "  ".join([name, *(c.strip().rjust(len(c)) for c in cells)])


def _sections(
    images: Images, families: list[Family], real: Picture, results: dict[str, Result]
) -> list[Section]:
    labels = [str(label) for label in images.classes]
    drawn = f"{len(labels)} rows of {SAMPLES_PER_CLASS} images, a row for each class"
    sections = [
        Section(
            "Real images",
            demo_texts.REAL,
            real,
            f"{drawn}: real images of {images.name}",
            row_labels=labels,
        )
    ]
    for family in families:
        sections.append(
            Section(
                family.title[0].upper() + family.title[1:],
                demo_texts.MODELS[family.name],
                results[family.title].picture,
                f"{drawn}: drawn by {family.title} fitted to {images.name}",
                settings=_settings(family.estimator),
                row_labels=labels,
            )
        )
    return sections


def _settings(estimator: Any) -> str:
    """Write an estimator as it would be made, on one line."""
    return " ".join(repr(estimator).split())


def _facts(
    asked: options.Demo, images: Images, families: list[Family], seconds: float
) -> dict[str, str]:
    channels, height, width = images.shape
    command = ["pygen", "demo", "--data", asked.data, "--out", str(asked.out)]
    return {
        "Command": shlex.join([*command, "--seed", str(asked.seed)]),
        "Versions": f"pygen {pygen.__version__}, torch {torch.__version__}",
        "Data": f"{images.name}: {len(images.train):,} images to learn from, {len(images.test):,} "
        f"held out ({images.held_out}); {height} x {width} pixels, {channels} "
        f"{'channel' if channels == 1 else 'channels'}, {families[0].pixels.levels} grey levels",
        "Seed": f"{asked.seed}: the noise between grey levels, the mixtures' start, the samples",
        "Settings": demo_texts.SETTINGS,
        "Time": f"{seconds:.1f} s in all",
        "Files": "each picture and each fitted model lies beside this page; pygen sample draws "
        "more from a model's folder",
    }
