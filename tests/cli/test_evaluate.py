"""`pygen evaluate`: figures that are the library's, on the right images; what is kept, compared, refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import pygen
from pygen.cli import evaluation, judges, main
from pygen.cli.evaluate import evaluate_runs
from pygen.cli.evaluation import Evaluation
from pygen.metrics import frechet_distance, memorisation, nearest, prdc
from pygen.metrics.inception_network import InceptionNetwork

Error = Callable[..., str]
NAMES = ("naive_bayes", "gaussian_bayes", "mixture", "autoencoder", "vae", "gan", "dcgan")
PIXELS = ("--features", "pixels", "--resamples", "2")


@pytest.fixture(scope="module")
def found(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Evaluation]:
    """Of all seven models of the demo, in a copy of its folder."""
    copy = tmp_path_factory.mktemp("evaluate") / "demo"
    shutil.copytree(demo, copy)
    assert main(["evaluate", *map(str, sorted(copy.iterdir())), "--resamples", "4"]) == 0
    read = [evaluation.read(copy / name) for name in NAMES]
    return [one for one in read if one is not None]


def small(path: Path, n: int = 60, n_test: int = 50, classes: int = 2) -> Path:
    """Images of 2x3 pixels, dark and bright ones."""
    rng = np.random.default_rng(0)
    y = np.arange(n + n_test) % classes
    x = (rng.integers(0, 100, (n + n_test, 2, 3)) + 100 * (y % 2)[:, None, None]).astype(np.uint8)
    parts = {"x_train": x[:n], "y_train": y[:n], "x_test": x[n:], "y_test": y[n:]}
    np.savez(path, **{name: part for name, part in parts.items() if len(part)})
    return path


def fitted(data: Path | str, out: Path, *more: str) -> Path:
    assert main(["fit", "gaussian-bayes", "--data", str(data), "--out", str(out), *more]) == 0
    return out


def test_every_run_has_its_figures(found: list[Evaluation]) -> None:
    assert [one.folder.name for one in found] == list(NAMES)
    common = set(found[0].figures) - {"log_likelihood"}
    assert {"frechet_distance", "kernel_distance", "recall", "mmd_p_value"} < common
    for one in found:
        assert (one.n_samples, one.n_reference, one.split) == (540, 540, "test")
        assert one.accuracy is not None
        assert one.accuracy > 0.95
        likelihoods = set(one.figures) - common
        expected = {"vae": {"elbo", "iwae"}}.get(one.folder.name, set())
        assert likelihoods == expected | ({"log_likelihood"} if one in found[:3] else set())
        assert one.floor == found[0].floor
        assert one.baseline == found[0].baseline
        assert set(one.floor) == common - {"memorisation"}
        assert one.floor["frechet_distance"].value < one.figures["frechet_distance"].value
        for name, (value, low, high) in one.figures.items():
            if name != "mmd_p_value":
                assert low is not None
                assert high is not None
                assert low <= value <= high
    titles = ["NaiveBayes", "GaussianBayes", "GaussianMixture per class", "Autoencoder"]
    assert [one.title for one in found[:4]] == titles
    vae = found[4].figures
    assert vae["iwae"].value > vae["elbo"].value


def test_figures_are_those_of_samples_beside_held_out_images(tmp_path: Path) -> None:
    run = fitted("digits", tmp_path / "run", "--levels", "17")
    (one,) = evaluate_runs([run], features="pixels", n_samples=300, seed=5, n_resamples=2)
    train, test = (pygen.data.load("digits", part) for part in ("train", "test"))
    model = pygen.load(run)
    drawn, _ = model.sample(300, random_state=np.random.default_rng(5))
    made = (drawn * 17).floor().clamp(0, 16).mul(255 / 16).round()
    real, fake = test[0].flatten(1) / 255, made.flatten(1) / 255
    figures = {name: estimate.value for name, estimate in one.figures.items()}
    expected = frechet_distance(real, fake.float())
    assert figures["frechet_distance"] == pytest.approx(expected, rel=1e-6)
    chosen = torch.linspace(0, 539, 300).round().long()
    for name, value in prdc(real[chosen], fake.float())._asdict().items():
        assert figures[name] == pytest.approx(value, abs=1e-6)
    near, typical = (
        nearest(x.double(), train[0].double()).distances[:, 0] for x in (made, test[0])
    )
    assert figures["memorisation"] == pytest.approx(memorisation(near, typical), abs=1e-9)
    noise = (pygen.data.quantize(test[0], 17) + torch.rand(test[0].shape)) / 17
    likelihood = float(model.score_samples(noise).double().mean())
    assert figures["log_likelihood"] == pytest.approx(likelihood, abs=1)
    assert one.features == "raw pixels"
    assert one.accuracy is None
    assert "class_entropy" not in figures


def test_same_seed_same_figures(tmp_path: Path) -> None:
    run = fitted(small(tmp_path / "data.npz"), tmp_path / "run")
    first, again = (evaluate_runs([run], n_samples=50, features="pixels") for _ in range(2))
    assert first == again
    assert first == [evaluation.read(run)]
    (other,) = evaluate_runs([run], n_samples=50, features="pixels", seed=1)
    assert other.figures != first[0].figures


def test_table_and_json(
    found: list[Evaluation],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # a test process is told of a terminal's
    folders = [str(one.folder) for one in found[:2]]
    digits, out = str(found[0].folder), tmp_path / "all.json"
    other = str(fitted(small(tmp_path / "data.npz"), tmp_path / "other"))
    capsys.readouterr()
    assert main(["evaluate", digits, other, folders[1], *PIXELS, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("other real images  ") == printed.count("independent pixels  ") == 2
    first, second = printed.split("Samples: ")[1:]
    rows = [line.split("  ")[0] for line in first.splitlines()[1:6]]
    expected = ["model", "other real images", "naive_bayes", "gaussian_bayes", "independent pixels"]
    assert rows == expected
    assert "540 samples of each model beside 540 images, held out" in first
    assert "data.npz" in second.splitlines()[0]
    assert "raw pixels" in second
    content = json.loads(out.read_text())
    assert [one["folder"] for one in content] == [digits, other, folders[1]]
    value = content[0]["figures"]["frechet_distance"]["value"]
    assert f"{value:.1f} ±" in first
    evaluate_runs([Path(digits)], n_resamples=4)  # as the other tests know it


def test_table_names_what_is_not_comparable(found: list[Evaluation], tmp_path: Path) -> None:
    notes = evaluation.table(found).notes
    assert not any("not comparable" in note for note in notes)
    run = fitted("digits", tmp_path / "run")
    (other,) = evaluate_runs([run], n_resamples=4)
    notes = evaluation.table([found[1], other]).notes
    assert any("gaussian_bayes: a density on [0, 1] of 17" in note for note in notes)
    (other,) = evaluate_runs([run], n_resamples=4, n_samples=100)
    with pytest.raises(ValueError, match="n_samples 100 and 540; evaluate them together"):
        evaluation.table([found[1], other])


def test_an_evaluation_is_of_the_model_beside_it(tmp_path: Path, error: Error) -> None:
    data = small(tmp_path / "data.npz")
    run = fitted(data, tmp_path / "run")
    assert evaluation.read(run) is None
    assert main(["evaluate", str(run), *PIXELS]) == 0
    kept = (run / "evaluation.json").read_bytes()
    assert evaluation.read(run) is not None
    fitted(data, run, "--levels", "8", "--overwrite")
    assert not (run / "evaluation.json").exists()
    (run / "evaluation.json").write_bytes(kept)  # of the earlier model
    assert evaluation.read(run) is None
    (run / "evaluation.json").write_bytes(kept[:-9])
    with pytest.raises(ValueError, match=r"evaluation\.json: .* evaluate the run again"):
        evaluation.read(run)


def test_infinite_figures(tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    x = np.random.default_rng(0).integers(0, 128, (120, 2, 3)).astype(np.uint8)
    x[110:] += 128  # levels that no training image has
    np.savez(data, x_train=x[:60], x_test=x[60:])
    run = tmp_path / "run"
    command = ["fit", "naive-bayes", "--data", str(data), "--out", str(run), "--levels", "2"]
    assert main([*command, "--no-per-class", "--alpha", "0"]) == 0
    (one,) = evaluate_runs([run], features="pixels", n_resamples=2)
    assert one.figures["log_likelihood"] == (-np.inf, None, None)
    assert evaluation.read(run) == one
    assert "-inf" in evaluation.table([one]).rows[1]


def test_data_that_the_demo_divided(tmp_path: Path, error: Error) -> None:
    data, out = small(tmp_path / "data.npz", 80, 0), tmp_path / "demo"
    command = ["demo", "--data", str(data), "--out", str(out), "--steps", "2", "--seed", "3"]
    assert main(command) == 0
    (one,) = evaluate_runs([out / "mixture"], features="pixels")
    assert (one.n_reference, one.n_samples) == (24, 24)
    assert "30%, drawn by the seed" in one.reference
    # The same data, but no part of them is held out.
    run = fitted(data, tmp_path / "run")
    assert "expected a test split" in error("evaluate", run, *PIXELS)


def test_reference_of_training_images(tmp_path: Path) -> None:
    run = fitted(small(tmp_path / "data.npz"), tmp_path / "run")
    (one,) = evaluate_runs([run], features="pixels", split="train")
    assert (one.split, one.n_reference, one.others) == ("train", 60, "held-out images")
    assert "fitted to" in one.reference
    assert one.floor["memorisation"].value == 0.5  # held-out images beside themselves


def test_inception_features(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(InceptionNetwork().state_dict(), file)
    judge = judges.by_inception(file)
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    assert judge.features(images).shape == (2, 2048)
    assert judge.has_unit
    assert hashlib.sha256(file.read_bytes()).hexdigest()[:16] in judge.name
    assert "not the original" in judge.name


def test_refused(tmp_path: Path, error: Error) -> None:
    data = small(tmp_path / "data.npz")
    run = fitted(data, tmp_path / "run")
    (tmp_path / "empty").mkdir()
    assert "only files" in error("evaluate", data)
    assert "nothing there" in error("evaluate", tmp_path / "none")
    assert "empty: expected the folder of a run" in error("evaluate", run, tmp_path / "empty")
    assert "n-samples: expected at least 2" in error("evaluate", run, "-n", "1")
    assert "at most 60, as many as there are" in error("evaluate", run, "-n", "61", *PIXELS)
    assert "at least 7 samples" in error("evaluate", run, "-n", "6", *PIXELS)
    assert "at least 65 samples" in error("evaluate", run)
    assert "resamples" in error("evaluate", run, "--resamples", "-1")
    assert "make it first" in error("evaluate", run, "--out", tmp_path / "no" / "x.json")
    assert "w.pth" in error("evaluate", run, "--inception-weights", tmp_path / "w.pth")
    every = fitted(data, tmp_path / "all", "--split", "all")
    assert "fit it with --split train" in error("evaluate", every)
    one_class = small(tmp_path / "one.npz", classes=1)
    assert "--features pixels" in error("evaluate", fitted(one_class, tmp_path / "one"))
    small(data, 61, 49)
    assert "found 61 others; fit it again" in error("evaluate", run)
    assert not list(tmp_path.rglob("evaluation.json"))
