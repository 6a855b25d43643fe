"""`pygen demo` from beginning to end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA

import pygen
from pygen.cli import main

Error = Callable[..., str]

QUICK = ("--steps", "4")
DENSITIES = ("naive_bayes", "gaussian_bayes", "mixture")
WITH_CODES = ("autoencoder", "vae")
NAMES = (*DENSITIES, *WITH_CODES, "gan", "dcgan")
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Reader(HTMLParser):
    """Collects the elements, their attributes and the cells; checks that elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th") and data.strip():
            self.cells.append(data.strip())


@pytest.fixture(scope="module")
def page(demo: Path) -> Reader:
    reader = Reader()
    reader.feed((demo / "index.html").read_text())
    reader.close()
    return reader


def test_files(demo: Path) -> None:
    again = {f"{name}_reconstructions" for name in WITH_CODES}
    pictures = {f"{name}.png" for name in (*NAMES, *again, "real", "overview")}
    assert {p.name for p in demo.iterdir()} == {*pictures, *NAMES, "index.html"}
    for name in (*NAMES, "real"):
        with Image.open(demo / f"{name}.png") as picture:
            assert picture.size == (10 * 48 + 9 * 4, 10 * 48 + 9 * 4)
    for name in again:
        with Image.open(demo / f"{name}.png") as picture:
            assert picture.size == (10 * 48 + 9 * 4, 4 * 48 + 3 * 4)


def test_page_is_whole_and_refers_to_nothing_outside(demo: Path, page: Reader) -> None:
    assert page.open == []
    images = [attributes for tag, attributes in page.found if tag == "img"]
    assert len(images) == 10
    for attributes in images:
        assert (attributes["src"] or "").startswith("data:image/png;base64,")
    assert ["10 rows of 10 images" in (a["alt"] or "") for a in images] == [True] * 4 + [False] * 6
    text = (demo / "index.html").read_text()
    numbers = re.findall(r"<figcaption>Figure (\d+)\. ", text)
    assert numbers == ["1", "2", "3", "5", "4", "6", "8"]
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"base64,[^\"]*", "", text))
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.found}
    assert not any(name.startswith("on") for _, a in page.found for name in a)


def table(page: Reader, width: int, first: str, n_rows: int) -> list[list[str]]:
    """A table's rows, from that of a name on; the empty cells of the page are left out."""
    start = page.cells.index(first)
    return [page.cells[i : i + width] for i in range(start, start + n_rows * width, width)]


def test_likelihoods(page: Reader) -> None:
    assert page.cells[:5] == [
        "model",
        "nats per image",
        "bits per dimension",
        "accuracy",
        "fit",
    ]
    rows = table(page, 5, "naive Bayes", 3)
    assert [row[0] for row in rows] == ["naive Bayes", "Gaussian Bayes", "mixtures"]
    nats, bits, accuracy = (
        [float(row[column].rstrip("%")) for row in rows] for column in (1, 2, 3)
    )
    # Knowing nothing is 0 nats, log2(17) bits and 10%.
    assert all(value > 40 for value in nats)
    for value, other in zip(bits, nats, strict=True):
        assert value == pytest.approx(np.log2(17) - other / 64 / np.log(2), abs=1e-3)
    assert accuracy[0] > 85
    assert accuracy[1] > 85
    assert accuracy[2] > 93
    assert nats[2] > nats[1]


def test_figures_are_those_of_the_saved_models(demo: Path, page: Reader) -> None:
    images, labels = pygen.data.load("digits", "test")
    levels = pygen.data.quantize(images, 17)
    model = pygen.load(demo / "naive_bayes")
    nats = model.score_samples(levels).double().mean() + 64 * np.log(17)
    assert float(page.cells[6]) == pytest.approx(float(nats), abs=0.01)
    correct = (model.predict(levels) == labels).double().mean()
    assert float(page.cells[8].rstrip("%")) == pytest.approx(100 * float(correct), abs=0.06)

    # The bound depends on the noise between grey levels: other noise, nearly the same bound.
    vae = pygen.load(demo / "vae")
    ((_, bound, *_),) = table(page, 4, "VAE", 1)
    dequantized = (levels + torch.rand(levels.shape)) / 17
    assert float(bound.removeprefix("≥ ")) == pytest.approx(vae.score(dequantized), abs=2)
    autoencoder = pygen.load(demo / "autoencoder")
    (row,) = table(page, 4, "autoencoder", 1)
    assert row[1] == "16"
    assert float(row[2]) == pytest.approx(-autoencoder.score(images), rel=0.01)


def test_principal_components(page: Reader) -> None:
    train, test = (pygen.data.load("digits", part)[0] for part in ("train", "test"))
    train, test = (images.flatten(1).numpy() / 255 for images in (train, test))
    peer = PCA(16).fit(train)
    error = np.square(peer.inverse_transform(peer.transform(test)) - test).mean()
    ((_, n_components, found),) = table(page, 3, "principal components", 1)
    assert n_components == "16"
    assert float(found) == pytest.approx(error, abs=6e-5)


def test_samples_are_judged(page: Reader) -> None:
    rows = table(page, 4, "other real images", 9)
    titles = ["naive Bayes", "Gaussian Bayes", "mixtures", "autoencoder", "VAE", "GAN", "DCGAN"]
    assert [row[0] for row in rows] == ["other real images", *titles, "independent pixels"]
    figures = np.array([[float(cell) for cell in row[1:]] for row in rows])
    # Floor and baseline; the networks have only begun to learn.
    assert figures[:, 0].argmin() == 0
    assert (figures[0, 1:] > 0.9).all()
    assert figures[-1, 0] > 5 * figures[0, 0]


@pytest.mark.parametrize("name", NAMES)
def test_models_are_runs(demo: Path, name: str, tmp_path: Path) -> None:
    out = tmp_path / "x.npy"
    label = ["--y", "1"] if name in DENSITIES else []
    assert main(["sample", str(demo / name), *label, "-n", "8", "--out", str(out)]) == 0
    assert np.load(out).shape == (8, 1, 8, 8)


@pytest.mark.parametrize("name", WITH_CODES)
def test_models_with_codes_are_shown(demo: Path, name: str, tmp_path: Path) -> None:
    out = tmp_path / "x.npy"
    assert main(["reconstruct", str(demo / name), "-n", "4", "--out", str(out)]) == 0
    originals, again = np.load(out)
    assert originals.shape == again.shape == (4, 1, 8, 8)
    # The VAE learned from 17 grey levels, and gives them.
    levels = set(np.rint(np.arange(17) * 255 / 16).astype(int))
    assert (set(np.unique(again)) <= levels) == (name == "vae")
    assert main(["interpolate", str(demo / name), "-n", "2", "--out", str(out)]) == 0
    assert np.load(out).shape == (2, 10, 1, 8, 8)


def test_same_seed_same_bytes(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--steps", "20", "--out", str(tmp_path), "--seed", "0"]) == 0
    for picture in demo.glob("*.png"):
        assert (tmp_path / picture.name).read_bytes() == picture.read_bytes()
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["model", "naive", "Gaussian", "mixtures"]
    assert len({len(line) for line in lines[:5]}) == 1
    assert lines[-1] == str(tmp_path / "index.html")
    assert printed.err == ""
    # Over the earlier one, and with another seed.
    assert main(["demo", *QUICK, "--out", str(tmp_path), "--seed", "1"]) == 0
    assert (tmp_path / "real.png").read_bytes() == (demo / "real.png").read_bytes()
    for name in NAMES:
        assert (tmp_path / f"{name}.png").read_bytes() != (demo / f"{name}.png").read_bytes()


def test_colour_pictures_without_a_test_part(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    # Two classes, dark and bright, the second of 7 images: fewer than 10 components.
    labels = np.array([4] * 33 + [9] * 7)
    images = rng.integers(0, 100, (40, 5, 6, 3)) + 100 * (labels == 9)[:, None, None, None]
    data, out = tmp_path / "data.npz", tmp_path / "demo"
    np.savez(data, images=images.astype(np.uint8), labels=labels)
    assert main(["demo", *QUICK, "--data", str(data), "--out", str(out)]) == 0
    text = (out / "index.html").read_text()
    assert "28 images to learn from, 12 held out (30%, drawn by the seed)" in text
    assert "5 x 6 pixels, 3 channels; for the likelihoods 16 grey levels" in text
    assert "Likelihood" in text
    assert "Fréchet" not in text  # of 12 images no distance is worth its name
    with Image.open(out / "mixture.png") as picture:
        assert picture.size == (10 * 48 + 9 * 4, 2 * 40 + 4)
    with Image.open(out / "dcgan.png") as picture:
        assert picture.size == (10 * 48 + 9 * 4, 10 * 40 + 9 * 4)
    model = pygen.load(out / "mixture")
    assert model.classes_.tolist() == [4, 9]
    assert model.estimator.n_components < 10


def test_parts_of_a_path(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (50, 4, 4), np.uint8)
    y = np.arange(50) % 2
    data, out = tmp_path / "data.npz", tmp_path / "demo"
    np.savez(data, x_train=x[:30], y_train=y[:30], x_test=x[30:], y_test=y[30:])
    assert main(["demo", *QUICK, "--data", str(data), "--out", str(out)]) == 0
    text = (out / "index.html").read_text()
    assert "30 images to learn from, 20 held out (the test split)" in text


def test_errors(tmp_path: Path, error: Error) -> None:
    assert "digits, mnist" in error("demo", "--data", "dgits", "--out", tmp_path / "demo")
    file = tmp_path / "file"
    file.write_text("")
    assert str(file) in error("demo", "--out", file)
    assert str(file) in error("demo", "--out", file / "demo")
    assert "steps" in error("demo", "--steps", "0", "--out", tmp_path / "demo")
    assert "random_state" in error("demo", "--seed", "-1", "--out", tmp_path / "demo")
    few = tmp_path / "few.npy"
    np.save(few, np.zeros((3, 4, 4), np.uint8))
    assert "at least 4" in error("demo", "--data", few, "--out", tmp_path / "demo")
    assert {p.name for p in tmp_path.iterdir()} == {"file", "few.npy"}


def test_other_pages_and_folders_are_kept(tmp_path: Path, error: Error) -> None:
    (tmp_path / "index.html").write_text("<title>My homepage</title>")
    assert "index.html" in error("demo", "--out", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]
    (tmp_path / "index.html").unlink()
    (tmp_path / "mixture").mkdir()
    (tmp_path / "mixture" / "recipe.txt").write_text("flour, water")
    assert "recipe.txt" in error("demo", "--out", tmp_path)
    assert (tmp_path / "mixture" / "recipe.txt").read_text() == "flour, water"


def test_mnist(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYGEN_DATA", str(shared_data))
    images, labels = pygen.data.load("mnist")
    held_out, held_out_labels = pygen.data.load("mnist", "test")
    data, out = tmp_path / "mnist.npz", tmp_path / "demo"
    # A part of it: the whole takes half an hour.
    np.savez(
        data,
        x_train=images[:2500],
        y_train=labels[:2500],
        x_test=held_out[:200],
        y_test=held_out_labels[:200],
    )
    assert main(["demo", *QUICK, "--data", str(data), "--out", str(out)]) == 0
    model = pygen.load(out / "mixture")
    record = json.loads((out / "mixture" / "run.json").read_text())
    assert record["image_shape"] == [1, 28, 28]
    held_out = pygen.data.quantize(held_out[1000:2000], 16).float().add(0.5).div(16)
    accuracy = (model.predict(held_out) == held_out_labels[1000:2000]).double().mean()
    assert accuracy > 0.8
