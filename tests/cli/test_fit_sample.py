"""`pygen fit` and `pygen sample`: what is written, read back, refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pygen
from pygen.cli import main

Error = Callable[..., str]


def fit(model: str, out: Path, *options: str) -> int:
    return main(["fit", model, "--data", "digits", "--out", str(out), *options])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fit") / "run"
    assert fit("naive-bayes", out, "--alpha", "0.5") == 0
    return out


def test_fit_writes_the_model_and_its_record(run: Path) -> None:
    assert {p.name for p in run.iterdir()} == {"config.json", "model.safetensors", "run.json"}
    model = pygen.load(run)
    images, labels = pygen.data.load("digits")
    levels = pygen.data.quantize(images, 17)
    expected = pygen.NaiveBayes(17, alpha=0.5).fit(levels, labels)
    assert torch.equal(model.score_samples(levels), expected.score_samples(levels))
    record = json.loads((run / "run.json").read_text())
    assert record["data"] == "digits"
    assert record["split"] == "train"
    assert record["pixels"] == {"kind": "levels", "levels": 17}
    assert record["image_shape"] == [1, 8, 8]
    assert record["n_images"] == len(images) == 1257
    assert record["score"] == pytest.approx(expected.score(levels), abs=1e-9)
    assert record["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("per_class", ["--per-class", "--no-per-class"])
@pytest.mark.parametrize("levels", [None, 17])
@pytest.mark.parametrize("model", ["gaussian-bayes", "gaussian-mixture"])
def test_gaussian_models(model: str, levels: int | None, per_class: str, tmp_path: Path) -> None:
    options = [per_class] + ([] if levels is None else ["--levels", str(levels)])
    if model == "gaussian-mixture":
        options += ["--n-components", "2", "--covariance-type", "diag", "--random-state", "0"]
        options += ["--reg-covar", "1e-3", "--dtype", "float64"]
    assert fit(model, tmp_path / "run", *options) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    kind = "unit" if levels is None else "dequantized"
    assert record["pixels"] == {"kind": kind, "levels": levels}
    out = tmp_path / "x.npy"
    assert main(["sample", str(tmp_path / "run"), "-n", "50", "--out", str(out)]) == 0
    images = np.load(out)
    assert images.shape == (50, 1, 8, 8)
    assert images.dtype == np.uint8
    # Digits are dark at the edge and bright in the middle.
    assert images[..., 0].mean() < 30 < 80 < images[..., 3:5].mean()
    if levels is not None:
        assert set(np.unique(images)) <= set(np.rint(np.arange(17) * 255 / 16).astype(int))


def test_options_may_stand_before_the_model(tmp_path: Path) -> None:
    out = tmp_path / "run"
    argv = ["fit", "--data", "digits", "--out", str(out), "gaussian-bayes", "--var-smoothing", "1"]
    assert main(argv) == 0
    assert pygen.load(out).var_smoothing == 1


def test_image_size_and_split(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert fit("gaussian-bayes", out, "--image-size", "6x4", "--split", "test") == 0
    record = json.loads((out / "run.json").read_text())
    assert record["image_shape"] == [1, 6, 4]
    assert record["image_size"] == [6, 4]
    assert record["n_images"] == 540
    assert main(["sample", str(out), "--out", str(tmp_path / "grid.png")]) == 0


def test_sample_grid(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    assert main(["sample", str(run), "-n", "10", "--out", str(out), "--seed", "1"]) == 0
    with Image.open(out) as picture:
        # 4 columns and 3 rows of 8x8 digits, 6 times as large, 4 pixels apart.
        assert picture.size == (4 * 48 + 3 * 4, 3 * 48 + 2 * 4)


def test_sample_seed(run: Path, tmp_path: Path) -> None:
    def sample(name: str, *options: str) -> bytes:
        assert main(["sample", str(run), "--out", str(tmp_path / name), *options]) == 0
        return (tmp_path / name).read_bytes()

    first = sample("a.png", "--seed", "1")
    assert sample("b.png", "--seed", "1") == first
    assert sample("c.png", "--seed", "2") != first
    assert sample("d.png") != sample("e.png")


def test_sample_of_one_class(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "zeros.npy"
    argv = ["sample", str(run), "--out", str(out), "--y", "0", "-n", "200", "--seed", "0"]
    assert main(argv) == 0
    levels = pygen.data.quantize(torch.from_numpy(np.load(out)), 17)
    assert (pygen.load(run).predict(levels) == 0).double().mean() > 0.95


def test_sample_is_the_models_own(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.npy"
    assert main(["sample", str(run), "--out", str(out), "-n", "5", "--seed", "3"]) == 0
    expected, _ = pygen.load(run).sample(5, random_state=3)
    levels = pygen.data.quantize(torch.from_numpy(np.load(out)), 17)
    assert torch.equal(levels, expected.to(levels.dtype))


def test_fit_refuses_to_overwrite(run: Path, tmp_path: Path, error: Error) -> None:
    before = (run / "config.json").read_bytes()
    argv = ["fit", "naive-bayes", "--data", "digits", "--out", run]
    assert "--overwrite" in error(*argv)
    assert (run / "config.json").read_bytes() == before

    (tmp_path / "thesis.tex").write_text("years of work")
    argv[-1] = tmp_path
    for more in ([], ["--overwrite"]):
        assert "thesis.tex" in error(*argv, *more)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_overwrite_replaces_the_run_and_keeps_other_files(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert fit("naive-bayes", out) == 0
    (out / "grid.png").write_bytes(b"a picture")
    assert fit("gaussian-bayes", out, "--overwrite") == 0
    assert type(pygen.load(out)).__name__ == "GaussianBayes"
    assert {p.name for p in out.iterdir()} == {
        "config.json",
        "grid.png",
        "model.safetensors",
        "run.json",
    }
    assert main(["sample", str(out), "--out", str(out / "grid.png")]) == 0


def test_failed_fit_leaves_an_earlier_run(tmp_path: Path, error: Error) -> None:
    out = tmp_path / "run"
    assert fit("naive-bayes", out) == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    argv = ["fit", "naive-bayes", "--data", "digits", "--out", out, "--overwrite"]
    assert "alpha" in error(*argv, "--alpha", "-1")
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--data", "dgits"], "digits, mnist"),
        (["--data", "./nowhere.npy"], "nowhere.npy"),
        (["--levels", "1"], "levels"),
        (["--levels", "257"], "levels"),
        (["--image-size", "8x8x8"], "image-size"),
        (["--image-size", "0"], "image_size"),
        (["--device", "abacus"], "device"),
        (["--device", "cuda:99"], "device"),
    ],
)
def test_fit_errors(options: list[str], expected: str, tmp_path: Path, error: Error) -> None:
    argv = ["fit", "naive-bayes", "--data", "digits", "--out", tmp_path / "run"]
    assert expected in error(*argv, *options)
    assert not list(tmp_path.iterdir())


def test_fit_into_what_is_no_folder(tmp_path: Path, error: Error) -> None:
    file = tmp_path / "file"
    file.write_text("")
    argv = ["fit", "naive-bayes", "--data", "digits", "--out"]
    assert "found a file" in error(*argv, file)
    assert str(file) in error(*argv, file / "run")
    assert list(tmp_path.iterdir()) == [file]


def test_truncated_data(tmp_path: Path, error: Error) -> None:
    file = tmp_path / "x.npy"
    np.save(file, np.zeros((10, 4, 4), np.uint8))
    file.write_bytes(file.read_bytes()[:-1])
    argv = ["fit", "naive-bayes", "--data", file, "--out", tmp_path / "run"]
    assert "expected 160 bytes" in error(*argv)
    assert list(tmp_path.iterdir()) == [file]


def test_sample_errors(run: Path, tmp_path: Path, error: Error) -> None:
    out = tmp_path / "grid.png"
    assert "nowhere" in error("sample", tmp_path / "nowhere", "--out", out)
    assert ".png or .npy" in error("sample", run, "--out", tmp_path / "grid.gif")
    assert "missing" in error("sample", run, "--out", tmp_path / "missing" / "grid.png")
    assert "n-samples" in error("sample", run, "--out", out, "-n", "0")
    assert "77" in error("sample", run, "--out", out, "--y", "77")
    assert "random_state" in error("sample", run, "--out", out, "--seed", "-1")
    out.mkdir()
    assert "could not write" in error("sample", run, "--out", out)
    assert list(tmp_path.iterdir()) == [out]


def test_sample_of_a_class_from_a_model_without(tmp_path: Path, error: Error) -> None:
    out = tmp_path / "run"
    assert fit("gaussian-bayes", out, "--no-per-class") == 0
    line = error("sample", out, "--out", tmp_path / "x.png", "--y", "3")
    assert "fitted without classes, found 3" in line


def test_unreadable_runs(tmp_path: Path, error: Error) -> None:
    out, grid = tmp_path / "run", tmp_path / "grid.png"
    assert fit("gaussian-bayes", out) == 0
    record = (out / "run.json").read_text()
    cases = {
        "damage": record[:-5],
        "levels": record.replace('"levels": null', '"levels": 5'),
        "unit": record.replace('"kind": "unit"', '"kind": "shades"'),
        "image_shape": record.replace('"image_shape"', '"shape"'),
        "shape [1, 8, 9]": record.replace("1,\n    8,\n    8", "1,\n    8,\n    9"),
        "format": record.replace('"format": 1', '"format": 99'),
        "another": record.replace('"config_sha256": "', '"config_sha256": "0'),
    }
    for expected, text in cases.items():
        assert text != record
        (out / "run.json").write_text(text)
        assert expected in error("sample", out, "--out", grid)
    (out / "run.json").unlink()
    assert "run.json" in error("sample", out, "--out", grid)
    (out / "model.safetensors").write_bytes(b"")
    assert "model.safetensors" in error("sample", out, "--out", grid)
    assert not grid.exists()
