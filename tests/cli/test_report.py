"""`pygen report`: what is on the page, and that it is what the models give."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from chromium import Browser, program
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

import pygen
from pygen.cli import evaluation, main
from pygen.cli.report_facts import n_parameters
from pygen.cli.runs import read_record
from pygen.metrics import Estimate
from pygen.pictures import grid, png_bytes

Error = Callable[..., str]

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
VOID = {"meta", "img", "br", "hr", "link"}
QUICK = ("--max-steps", "60", "--batch-size", "16", "--random-state", "0")
OPTIONS = {
    # Long enough to be evaluated twice.
    "plane": ("vae", "--latent-dim", "2", *QUICK[2:], "--max-steps", "240"),
    "told": ("autoencoder", "--latent-dim", "3", "--conditional", *QUICK),
    "dcgan": ("dcgan", "--width", "8", "--conditional", *QUICK),
    "mixtures": ("gaussian-mixture", "--n-components", "4", "--covariance-type", "diag"),
    "mixture": (
        "gaussian-mixture",
        "--no-per-class",
        "--n-components",
        "23",
        "--random-state",
        "0",
    ),
}


class Reader(HTMLParser):
    """Collects elements with their attributes, and the text of headings, cells, captions and terms."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def of(self, *tags: str) -> list[str]:
        """The texts directly in elements of these kinds."""
        return [text for tag, text in self.texts if tag in tags]

    def pictures(self) -> list[Image.Image]:
        sources = [a["src"] or "" for tag, a in self.elements if tag == "img"]
        data = [base64.b64decode(source.split("base64,")[1]) for source in sources]
        return [Image.open(io.BytesIO(found)) for found in data]


class Runs(dict[str, Path]):
    """A run of each kind in `OPTIONS`, made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> Path:
        out = self.folder / name
        assert main(["fit", *OPTIONS[name], "--data", "digits", "--out", str(out)]) == 0
        self[name] = out
        return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("report"))


def report(*argv: object) -> Reader:
    """The page of runs, at the place its options name."""
    out = Path(str(argv[argv.index("--out") + 1])) if "--out" in argv else None
    if out is None:
        out = Path(str(argv[0])) / "report.html"
    assert main(["report", *map(str, argv)]) == 0
    return Reader(out.read_text())


def picture(page: Reader, alt: str) -> bytes:
    """The bytes of the picture that the alternative text begins with."""
    (source,) = [
        attributes["src"]
        for tag, attributes in page.elements
        if tag == "img" and (attributes["alt"] or "").startswith(alt)
    ]
    return base64.b64decode((source or "").split("base64,")[1])


def test_a_run_with_codes_in_the_plane(runs: Runs) -> None:
    page = report(runs["plane"])
    assert page.open == []
    assert page.of("h1") == ["VAE of digits"]
    assert page.of("h2") == [
        *("Samples", "Reconstructions", "Map of codes", "The plane of codes", "Traversals"),
        *("Interpolations", "Nearest training images", "Learning curves", "Figures"),
        "What was run",
    ]
    model = pygen.load(runs["plane"])
    samples, _ = model.sample(80, random_state=0)
    assert picture(page, "Samples of VAE fitted to digits") == png_bytes(grid(samples, 10))
    quantiles = torch.distributions.Normal(0, 1).icdf((torch.arange(10) + 0.5) / 10)
    # Row by row from above: the second number falls, the first grows along each row.
    codes = torch.tensor([[x, y] for y in reversed(quantiles.tolist()) for x in quantiles.tolist()])
    shown = np.asarray(Image.open(io.BytesIO(picture(page, "10 rows of 10 images"))), int)
    # Quantiles by another function differ in the last bit, and so may a pixel's rounding.
    expected = np.asarray(Image.open(io.BytesIO(png_bytes(grid(model.decode(codes), 10)))), int)
    assert shown.shape == expected.shape
    assert abs(shown - expected).max() <= 1
    images, _ = pygen.data.load("digits", "test")
    chosen = images[np.random.default_rng(0).choice(len(images), 40, replace=False)]
    again = model.reconstruct(chosen)
    found = Image.open(io.BytesIO(picture(page, "Rows of held-out")))
    for i, pair in enumerate(zip(chosen.split(10), again.split(10), strict=True)):
        # Twelve pixels between pairs of rows, four within.
        top = i * (2 * 48 + 4 + 12)
        part = found.crop((0, top, found.width, top + 2 * 48 + 4))
        assert part.tobytes() == grid(torch.cat(pair), 10).tobytes()


def test_traversals_change_one_number(runs: Runs) -> None:
    page = report(runs["plane"])
    model = pygen.load(runs["plane"])
    images, _ = pygen.data.load("digits", "test")
    images = images[np.random.default_rng(0).choice(len(images), len(images), replace=False)]
    codes = model.encode(images)
    ends = []
    for dimension in (0, 1):
        spread, mean = torch.std_mean(codes[:, dimension].double(), correction=0)
        for sign in (-1, 1):
            code = codes[:1].clone()
            code[0, dimension] = mean + sign * 2.5 * spread
            ends.append(grid(model.decode(code), 1))
    found = Image.open(io.BytesIO(picture(page, "2 rows of images, in each")))
    for i, expected in enumerate(ends):
        left, top = i % 2 * (found.width - expected.width), i // 2 * (expected.height + 4)
        part = found.crop((left, top, left + expected.width, top + expected.height))
        difference = np.asarray(part).astype(int) - np.asarray(expected).astype(int)
        assert abs(difference).max() <= 1


def test_codes_of_more_numbers_are_seen_along_principal_directions(runs: Runs) -> None:
    page = report(runs["told"])
    model = pygen.load(runs["told"])
    images, labels = pygen.data.load("digits", "test")
    peer = PCA(2).fit(model.encode(images, labels).numpy())
    text = next(text for text in page.of("p") if "principal directions" in text)
    share = peer.explained_variance_ratio_.sum()
    assert f"of the 3 numbers, which hold {share:.0%} of their variance" in text
    assert "never told" not in text
    # A dot for each image, a colour for each class; along the axes they spread as the peer's do.
    (dots,) = re.findall(
        r'<svg class="dots".*?</svg>', (runs["told"] / "report.html").read_text(), re.S
    )
    classes = re.findall(r'<path[^>]*d="([^"]*)"', dots)
    assert [shape.count("M") for shape in classes] == labels.bincount().tolist()
    places = np.array(re.findall(r"M([-\d.]+) ([-\d.]+)h0", dots), float)
    found = places.std(0)[0] / places.std(0)[1]
    expected = np.sqrt(peer.explained_variance_[0] / peer.explained_variance_[1])
    assert found == pytest.approx(expected, rel=0.01)


def test_a_model_that_knows_classes_has_a_row_for_each(runs: Runs) -> None:
    page = report(runs["dcgan"])
    model = pygen.load(runs["dcgan"])
    samples, _ = model.sample(100, y=np.repeat(np.arange(10), 10), random_state=0)
    assert picture(page, "Samples of DCGAN") == png_bytes(grid(samples, 10))
    assert page.of("li")[:10] == [str(i) for i in range(10)]
    assert "Reconstructions" not in page.of("h2")
    assert "Interpolations" in page.of("h2")


def test_components_are_sorted_by_weight(runs: Runs) -> None:
    page = report(runs["mixtures"])
    model = pygen.load(runs["mixtures"])
    weights = [sorted(part.weights_.tolist(), reverse=True) for part in model.estimators_]
    shares = [text for text in page.of("span") if text.endswith("%")]
    assert shares == [f"{weight:.1%}" for of in weights for weight in of]
    heaviest = model.estimators_[3].means_[model.estimators_[3].weights_.argmax()]
    first = next(
        attributes["src"]
        for tag, attributes in page.elements
        if tag == "img" and attributes["alt"] == "mean of a component of class 3"
    )
    expected = grid(heaviest.reshape(1, 1, 8, 8), 1)
    assert (first or "").endswith(base64.b64encode(png_bytes(expected)).decode())
    # Without classes, in rows of ten.
    page = report(runs["mixture"])
    assert len([text for text in page.of("span") if text.endswith("%")]) == 23


def test_neighbours_are_the_nearest(runs: Runs) -> None:
    page = report(runs["mixture"])
    model = pygen.load(runs["mixture"])
    samples = model.sample(8, random_state=0)[0].clamp(0, 1).mul(255).round().flatten(1)
    images, _ = pygen.data.load("digits")
    rows = images.flatten(1).numpy()
    distances, found = NearestNeighbors(n_neighbors=3).fit(rows).kneighbors(samples.numpy())
    expected = (distances / 255 / 8).T.reshape(-1)
    texts = [text for text in page.of("span") if re.fullmatch(r"\d\.\d\d", text)]
    assert [float(text) for text in texts] == pytest.approx(expected.tolist(), abs=0.006)
    shown = [
        base64.b64decode((a["src"] or "").split("base64,")[1])
        for tag, a in page.elements
        if tag == "img" and (a["alt"] or "").startswith("the training image most like it")
    ]
    for k in range(3):
        for i in range(8):
            image = images[found[i, k]][None]
            assert shown[8 * k + i] == png_bytes(grid(image, 1))


def test_curves_are_those_of_the_history(runs: Runs) -> None:
    page = report(runs["plane"])
    lines = [
        json.loads(line) for line in (runs["plane"] / "metrics.jsonl").read_text().splitlines()
    ]
    labels = [a["aria-label"] or "" for tag, a in page.elements if tag == "svg" and "role" in a]
    losses = next(label for label in labels if label.startswith("loss and reconstruction and kl"))
    assert f"at the end loss {lines[-1]['loss']:.4g}" in losses
    evaluated = [line for line in lines if line.get("metric") is not None]
    assert len(evaluated) == 2
    best = min(evaluated, key=lambda line: line["metric"])
    assert any(f"the weights of step {best['step']} are kept" in label for label in labels)
    assert f"kept: {best['metric']:.4g}".replace("-", "−") in page.of("text")


def test_how_it_was_run(runs: Runs) -> None:
    page = report(runs["mixtures"])
    facts = dict(zip(page.of("dt"), page.of("dd"), strict=True))
    options = " ".join(OPTIONS["mixtures"])
    command = f"pygen fit {options} --data digits --out {runs['mixtures']}"
    assert facts["Command"] == command
    assert facts["Versions"].startswith(f"pygen {pygen.__version__}, torch {torch.__version__}")
    assert facts["Data"].startswith("1,257 images of digits, split train; 8 x 8 pixels, 1 channel")
    # Ten classes of four means, variances and weights, which add up to 1 as the classes' shares do.
    assert facts["Parameters"] == f"{10 * (4 * 128 + 3) + 9:,}"
    assert "nats" in facts["Score"]
    facts = dict(zip(*(report(runs["plane"]).of(tag) for tag in ("dt", "dd")), strict=True))
    model = pygen.load(runs["plane"])
    weights = [*model.encoder_.parameters(), *model.decoder_.parameters()]
    assert facts["Parameters"] == f"{sum(value.numel() for value in weights):,}"
    assert facts["Fit"].endswith("s, 240 steps")
    assert facts["Seed"] == "0 of the fit, 0 of this page"


def test_records_without_a_command_are_read(runs: Runs, tmp_path: Path) -> None:
    shutil.copytree(runs["mixtures"], tmp_path / "old")
    record = json.loads((tmp_path / "old" / "run.json").read_text())
    del record["command"]
    (tmp_path / "old" / "run.json").write_text(json.dumps(record))
    assert read_record(tmp_path / "old")[0].command is None
    assert "Command" not in report(tmp_path / "old").of("dt")


def test_parameters_of_bayes() -> None:
    x, y = np.random.default_rng(0).integers(0, 3, (30, 5)), np.arange(30) % 2
    assert n_parameters(pygen.GaussianBayes().fit(x.astype(float), y)) == 2 * 2 * 5 + 1
    assert n_parameters(pygen.NaiveBayes(3).fit(x, y)) == 2 * 5 * 2 + 1
    assert n_parameters(pygen.NaiveBayes([3, 4, 3, 5, 3]).fit(x)) == 2 + 3 + 2 + 4 + 2


def test_all_runs_of_the_demo(demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "all.html"
    # As a shell gives them: pictures and the page are among the runs.
    page = report(*sorted(demo.iterdir()), "--out", out)
    names = ["autoencoder", "dcgan", "gan", "gaussian_bayes", "mixture", "naive_bayes", "vae"]
    assert page.open == []
    assert page.of("h1") == ["7 models of digits"]
    assert page.of("h2") == ["Side by side", "Models", "Figures", *names]
    assert page.of("a") == names
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert all(b <= a + 1 for a, b in pairwise(levels))
    side_by_side = page.of("figcaption")[:8]
    assert side_by_side[0] == "Real: digits"
    assert side_by_side[5] == "mixture: GaussianMixture per class"
    assert page.of("h3").count("Means") == 2
    text = out.read_text()
    assert not re.search(
        r"https?:|//[a-z]|url\(|@import|<script", re.sub(r"base64,[^\"]*", "", text)
    )
    for tag, attributes in page.elements:
        assert tag != "img" or attributes["alt"]
        assert tag != "th" or attributes["scope"] in ("col", "row")
        assert tag != "svg" or "role" not in attributes or attributes["aria-label"]
    for found in page.pictures():
        found.load()
    missing = next(text for text in page.of("p") if text.startswith("Not judged yet"))
    assert missing.count(str(demo)) == 7


def test_stored_figures_are_shown(runs: Runs, tmp_path: Path) -> None:
    folders = []
    for name, distance in (("mixtures", 21.5), ("mixture", 43.25)):
        folder = tmp_path / name
        shutil.copytree(runs[name], folder)
        folders.append(folder)
        figures = {"frechet_distance": Estimate(distance, distance - 1, distance + 1)}
        evaluation.write(
            evaluation.Evaluation(
                folder=folder,
                title=name,
                data="digits",
                data_sha256="0",
                split="test",
                reference="the test split",
                others="training images",
                n_reference=500,
                n_samples=500,
                features="a classifier",
                accuracy=0.97,
                seed=0 if name == "mixtures" else 1,
                pixels="",
                figures=figures,
                floor={"frechet_distance": Estimate(5.0)},
                baseline={"frechet_distance": Estimate(300.0)},
            )
        )
    page = report(folders[0])
    assert "21.5" in page.of("td")
    assert page.of("small") == ["±1.0"]
    assert not any(text.startswith("Not judged yet") for text in page.of("p"))
    # Of different seeds: each in a table of its own.
    page = report(*folders, "--out", tmp_path / "both.html")
    assert {"21.5", "43.2"} < set(page.of("td"))
    assert page.of("h2").count("Samples: digits") == 2


def test_places(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], error: Error
) -> None:
    folders = [str(runs["mixtures"]), str(runs["mixture"])]
    capsys.readouterr()  # of the fits
    assert main(["report", *folders]) == 0
    beside = runs["mixture"].parent / "report.html"
    assert capsys.readouterr().out.strip() == str(beside)
    # The same again, over the earlier one.
    before = beside.read_bytes()
    assert main(["report", str(runs["mixtures"]), str(runs["mixture"])]) == 0
    assert beside.read_bytes() == before
    beside.unlink()
    other = tmp_path / "report.html"
    other.write_text("<title>My homepage</title>")
    assert "expected a page of pygen" in error("report", runs["mixture"], "--out", other)
    assert other.read_text() == "<title>My homepage</title>"


def test_a_page_goes_with_its_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fit = ["fit", "gaussian-bayes", "--data", "digits", "--out", str(out)]
    assert main(fit) == 0
    report(out)
    assert main([*fit, "--overwrite"]) == 0
    assert not (out / "report.html").exists()


def test_seed(runs: Runs, tmp_path: Path) -> None:
    first, other = (
        report(runs["mixture"], "--seed", seed, "--out", tmp_path / "x.html") for seed in (0, 1)
    )
    assert picture(first, "Samples of") != picture(other, "Samples of")


def test_colour_pictures_of_few_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.array([4] * 9 + [7])
    data = tmp_path / "data.npz"
    np.savez(data, images=rng.integers(0, 256, (10, 6, 5, 3), np.uint8), labels=labels)
    argv = ["--data", str(data), "--out"]
    assert main(["fit", "gaussian-bayes", *argv, str(tmp_path / "bayes")]) == 0
    quick = ["--max-steps", "3", "--batch-size", "4", "--conditional"]
    assert main(["fit", "vae", *quick, *argv, str(tmp_path / "vae")]) == 0
    page = report(tmp_path / "bayes", tmp_path / "vae", "--out", tmp_path / "both.html")
    # The class of one image has no strip, and nothing is said of images that are not held out.
    assert page.of("h3").count("Interpolations") == 1
    text = unescape((tmp_path / "both.html").read_text())
    assert "images of its data" in text
    assert "held-out images" not in text
    assert "in colour" in text
    assert all(found.mode == "RGBA" for found in page.pictures())
    # The data has changed since.
    np.savez(data, images=rng.integers(0, 256, (10, 6, 5, 3), np.uint8), labels=labels)
    text = report(tmp_path / "bayes")
    assert any("the data there now does not have" in fact for fact in text.of("dd"))


def test_errors(runs: Runs, tmp_path: Path, error: Error) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(b"")
    assert "found only files" in error("report", file)
    assert "nowhere" in error(
        "report", runs["mixture"], tmp_path / "nowhere", "--out", tmp_path / "x.html"
    )
    (tmp_path / "empty").mkdir()
    assert "found none" in error("report", tmp_path / "empty")
    assert ".html" in error("report", runs["mixture"], "--out", tmp_path / "x.pdf")
    assert "make it first" in error("report", runs["mixture"], "--out", tmp_path / "no" / "x.html")
    assert "random_state" in error("report", runs["mixture"], "--seed", "-1")
    shutil.copytree(runs["mixture"], tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    assert "run.json" in error("report", tmp_path / "run")
    assert {path.name for path in tmp_path.iterdir()} == {"picture.png", "empty", "run"}


@pytest.mark.skipif(program() is None, reason="no chromium (Debian: apt-get install chromium)")
def test_in_a_browser(runs: Runs, demo: Path, tmp_path: Path) -> None:
    """Images load, nothing is asked of the network or said in the console, nothing is wider than the window."""
    pages = {"run": tmp_path / "run.html", "runs": tmp_path / "runs.html"}
    report(runs["plane"], "--out", pages["run"])
    several = [runs[name] for name in OPTIONS]
    report(*several, demo / "gaussian_bayes", demo / "naive_bayes", "--out", pages["runs"])
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    papers = set()
    with Browser() as browser:
        for name, path in pages.items():
            for width, dark in ((375, False), (375, True), (1280, False), (1280, True)):
                browser.open(path, width, dark=dark)
                images = browser.value(
                    "[...document.images].map(i => i.complete && i.naturalWidth)"
                )
                assert len(images) > 30
                assert all(images)
                assert browser.value("innerWidth") == width
                assert browser.value("document.documentElement.scrollWidth") <= width
                papers.add(browser.value("getComputedStyle(document.body).backgroundColor"))
                if dark == (width == 375):
                    browser.screenshot(SCREENSHOTS / f"report-{name}-{width}.png")
        assert browser.problems == []
        assert len(papers) == 2
        # What would be wrong is seen.
        wide = '<img src="data:image/png;base64,AA=="><p style="width: 2000px">x</p>'
        bad = tmp_path / "bad.html"
        bad.write_text(
            pages["run"].read_text().replace("<main>", f"<main>{wide}<script>y()</script>")
        )
        browser.open(bad, 375)
        assert not browser.value("[...document.images].every(i => i.naturalWidth > 0)")
        assert browser.value("document.documentElement.scrollWidth") > 375
        assert any("y is not defined" in problem for problem in browser.problems)
