"""`pygen demo`: seven models of the same images, judged alike, on one page."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import torch
from tqdm import tqdm

import pygen
from pygen.cli import demo_images, demo_models, demo_tables, demo_texts, options
from pygen.cli.demo_images import Images
from pygen.cli.demo_models import SAMPLES, SAMPLES_PER_CLASS, Family, Result
from pygen.cli.terminal import lines
from pygen.files import write_file
from pygen.pictures import GAP, Picture, beside, grid, save_png
from pygen.random import as_seed
from pygen.report import Figure, Page, Section, is_page, render

# Where pictures of samples stand beside one another, so many of their columns and rows are shown:
# of all models in overview.png, of two on the page.
OVERVIEW_COLUMNS = 5
PAGE_COLUMNS = PAGE_ROWS = 7


def run(asked: options.Demo) -> None:
    """Carry out `pygen demo`."""
    start = time.perf_counter()
    out = asked.out
    _check_place(out)
    seed = as_seed(asked.seed)
    if asked.steps is not None and asked.steps < 1:
        raise ValueError(f"steps: expected at least 1, found {asked.steps}")
    images = demo_images.load(asked.data, seed)
    families = demo_models.families(images, seed, asked.steps)
    out.mkdir(parents=True, exist_ok=True)
    every = demo_images.of_each_class(images.train, images.train_labels, SAMPLES_PER_CLASS)
    real = grid(every, SAMPLES_PER_CLASS)
    save_png(real, out / "real.png")
    results = {}
    with tqdm(families, unit="model", disable=None) as bar:
        for family in bar:
            bar.set_description(family.title)
            results[family.name] = demo_models.fit(family, images, seed, out)
        bar.set_description("judging")
        titles = {family.title: results[family.name] for family in families}
        tables = demo_tables.tables(images, titles, seed, asked.steps)
    pictures = [real, *(result.picture for result in results.values())]
    save_png(_overview(pictures, ["real", *titles]), out / "overview.png")
    page = Page(
        title="pygen demo",
        lead=f"Seven classic generative models learn {demo_texts.what(images.name)} and draw new "
        f"ones. Those that know classes draw {SAMPLES_PER_CLASS} of each, the others whatever "
        f"comes.",
        generator=f"pygen {pygen.__version__}",
        sections=_sections(images, families, real, results),
        tables=tables,
        facts=_facts(asked, images, families, time.perf_counter() - start),
    )
    write_file(out / "index.html", render(page).encode())
    for table in tables:
        print(*lines(table), "", sep="\n")
    print(out / "index.html")


def _check_place(out: Path) -> None:
    page = out / "index.html"
    if page.exists() and not is_page(page.read_bytes()):
        raise ValueError(f"{page}: expected a page of pygen demo or none, found another; move it")


def _overview(pictures: list[Picture], captions: list[str]) -> Picture:
    """The left part of each picture of samples, side by side."""
    return beside([_part(picture, OVERVIEW_COLUMNS, 1.0) for picture in pictures], captions)


def _part(picture: Picture, columns: int, rows: float) -> Picture:
    """The upper left part of a picture of samples: a number of columns, and a share of the rows."""
    width = columns * (picture.width + GAP) // SAMPLES_PER_CLASS - GAP
    return picture.crop((0, 0, width, round(rows * (picture.height + GAP)) - GAP))


def _sections(
    images: Images, families: list[Family], real: Picture, results: dict[str, Result]
) -> list[Section]:
    """A section for each model, and one for the two that have codes, to compare them."""
    labels = [str(label) for label in images.classes]
    drawn = f"{len(labels)} rows of {SAMPLES_PER_CLASS} images, a row for each class"
    of = {family.name: family for family in families}

    def figure(name: str, alt: str, row_labels: list[str] | None = None) -> Figure:
        model = name.removesuffix("_reconstructions")
        picture = results[model].picture
        reconstructions = results[model].reconstructions
        if reconstructions is not None:
            of_samples = _part(picture, PAGE_COLUMNS, PAGE_ROWS / (SAMPLES // SAMPLES_PER_CLASS))
            picture = of_samples if name == model else reconstructions
        alt = f"{alt} {of[model].title} fitted to {images.name}"
        return Figure(picture, alt, demo_texts.caption(name, images.name), row_labels or [])

    sections = [
        Section(
            "Real images",
            demo_texts.REAL,
            [Figure(real, f"{drawn}: real images of {images.name}", row_labels=labels)],
        )
    ]
    for name in ("naive_bayes", "gaussian_bayes", "mixture"):
        sections.append(_section(of[name], [figure(name, f"{drawn}: drawn by", labels)]))
    again = "rows of held-out images, each above its reconstructions by"
    codes = ("autoencoder", "vae")
    sections.append(
        Section(
            "Autoencoder and VAE",
            demo_texts.MODELS["codes"],
            [figure(f"{name}_reconstructions", again) for name in codes]
            + [figure(name, "rows of random codes decoded by") for name in codes],
            [of[name].settings for name in codes],
        )
    )
    for name in ("gan", "dcgan"):
        sections.append(_section(of[name], [figure(name, "rows of images drawn by")]))
    return sections


def _section(family: Family, figures: list[Figure]) -> Section:
    title = family.title[0].upper() + family.title[1:]
    return Section(title, demo_texts.MODELS[family.name], figures, [family.settings])


def _facts(
    asked: options.Demo, images: Images, families: list[Family], seconds: float
) -> dict[str, str]:
    channels, height, width = images.shape
    command = ["pygen", "demo", "--data", asked.data, "--out", str(asked.out)]
    command += ["--seed", str(asked.seed)]
    if asked.steps is not None:
        command += ["--steps", str(asked.steps)]
    where = f"{torch.get_num_threads()} threads of the CPU"
    if torch.cuda.is_available():
        where = f"networks on {torch.cuda.get_device_name()}, the rest on {where}"
    return {
        "Command": shlex.join(command),
        "Versions": f"pygen {pygen.__version__}, torch {torch.__version__}",
        "Data": f"{images.name}: {len(images.train):,} images to learn from, {len(images.test):,} "
        f"held out ({images.held_out}); {height} x {width} pixels, {channels} "
        f"{'channel' if channels == 1 else 'channels'}; for the likelihoods "
        f"{families[0].pixels.levels} grey levels",
        "Seed": f"{asked.seed}: the noise between grey levels, the mixtures' start, the networks' "
        "weights, batches and noise, the samples",
        "Settings": demo_texts.SETTINGS,
        "Figures": demo_texts.NUMBERS,
        "Time": f"{seconds:.1f} s in all, on {where}",
        "Files": "each picture and each fitted model lies beside this page; pygen sample draws "
        "more from a model's folder, pygen reconstruct and pygen interpolate show what its codes "
        "hold",
    }
