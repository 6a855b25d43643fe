"""`pygen fit` of networks: what is written, going on, Ctrl-C, and what is refused."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest
import torch
from PIL import Image

import pygen
from pygen.cli import main

Error = Callable[..., str]

# A job that a script starts in the background ignores Ctrl-C, and so would its children.
COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pygen.cli import main
sys.exit(main())
"""
MODELS = {"autoencoder": "Autoencoder", "vae": "VAE", "gan": "GAN", "dcgan": "DCGAN"}
FILES = {"config.json", "model.safetensors", "run.json", "metrics.jsonl", "checkpoints", "samples"}
SMALL = ("--batch-size", "8", "--random-state", "0", "--keep", "last")


def arguments(model: str, out: Path, *options: object, data: object = "digits") -> list[str]:
    return [
        str(argument) for argument in ("fit", model, "--data", data, "--out", out, *SMALL, *options)
    ]


def train(model: str, out: Path, *options: object, data: object = "digits") -> int:
    return main(arguments(model, out, *options, data=data))


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train") / "vae"
    assert train("vae", out, "--max-steps", 6) == 0
    return out


@pytest.mark.parametrize("name", MODELS)
def test_fit_is_the_estimators(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "run"
    assert train(name, out, "--max-steps", 4, "--latent-dim", 3) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith(f"{out}: {MODELS[name]} trained on 1257 images for 4 steps in ")
    assert "kept those of step 4: " in printed.out
    assert {path.name for path in out.iterdir()} == FILES
    assert json.loads((out / "run.json").read_text())["seconds"] > 0
    (sample,) = (out / "samples").iterdir()
    with Image.open(sample) as picture:
        assert picture.size == (8 * 52 - 4, 8 * 52 - 4)
    images, _ = pygen.data.load("digits")
    estimator = getattr(pygen, MODELS[name])(
        3, max_steps=4, batch_size=8, random_state=0, keep="last"
    )
    expected = estimator.fit(images).sample(5, random_state=1)[0]
    file = tmp_path / "x.npy"
    assert main(["sample", str(out), "-n", "5", "--seed", "1", "--out", str(file)]) == 0
    assert torch.equal(torch.from_numpy(np.load(file)), expected)


@pytest.mark.parametrize("name", MODELS)
def test_resumed_is_as_uninterrupted(name: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(name, whole, "--max-steps", 7) == 0
    assert train(name, parts, "--max-steps", 3) == 0
    assert train(name, parts, "--max-steps", 7, "--resume") == 0
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    # Once more: nothing is left to do.
    assert train(name, parts, "--max-steps", 7, "--resume") == 0
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_seed_that_was_drawn_is_found_again(tmp_path: Path) -> None:
    argv = ["fit", "gan", "--data", "digits", "--out", str(tmp_path / "run"), "--max-steps"]
    assert main([*argv, "3"]) == 0
    assert main([*argv, "5", "--resume"]) == 0
    assert pygen.load(tmp_path / "run").n_steps_ == 5


def test_resume_begins_where_nothing_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    for _ in range(2):
        assert train("gan", out, "--max-steps", 2, "--resume") == 0
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("pygen: warning: ")
        assert "beginning at step 0" in line
        # As if it had been killed before its first checkpoint.
        rmtree(out / "checkpoints")
        (out / "config.json").unlink()


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path, error: Error) -> None:
    out = tmp_path / "run"
    endless = arguments("gan", out, "--max-steps", 10**9, "--overwrite")
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *endless],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = out / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_bytes()):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, line = process.communicate()
    assert printed == ""
    assert process.returncode == 130
    said, _, command = line.rstrip("\n").partition("; go on: ")
    step = int(said.removeprefix("pygen: interrupted; step ").removesuffix(" is saved"))
    name, *argv = shlex.split(command)
    assert name == "pygen"
    assert argv == [*(argument for argument in endless if argument != "--overwrite"), "--resume"]
    assert "go on with it" in error("sample", out, "--out", tmp_path / "x.png")

    last = str(step + 5)
    assert main([last if argument == str(10**9) else argument for argument in argv]) == 0
    assert train("gan", tmp_path / "whole", "--max-steps", last) == 0
    weights = [(folder / "model.safetensors").read_bytes() for folder in (out, tmp_path / "whole")]
    assert weights[0] == weights[1]


def test_own_pictures_of_mixed_sizes(tmp_path: Path, error: Error) -> None:
    rng = np.random.default_rng(0)
    data, out = tmp_path / "pictures", tmp_path / "run"
    for i in range(12):
        folder = data / ("cats" if i % 2 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (14 + i, 20, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    assert "image_size" in error(*arguments("dcgan", out, data=data))
    assert not out.exists()
    options = ["--image-size", "12x10", "--max-steps", 2, "--width", 4, "--conditional"]
    assert train("dcgan", out, *options, data=data) == 0
    file = tmp_path / "x.npy"
    assert main(["sample", str(out), "-n", "3", "--y", "1", "--out", str(file)]) == 0
    assert np.load(file).shape == (3, 3, 12, 10)
    assert main(["interpolate", str(out), "-n", "3", "--out", str(tmp_path / "x.png")]) == 0

    picture = data / "cats" / "3.png"
    picture.write_bytes(picture.read_bytes()[:200])
    assert str(picture) in error(*arguments("dcgan", out, *options, "--resume", data=data))
    picture.unlink()
    line = error(*arguments("dcgan", out, *options, "--resume", data=data))
    assert "expected the 12 images of this run" in line


def test_an_earlier_run_is_kept_or_replaced(vae: Path, tmp_path: Path, error: Error) -> None:
    out = tmp_path / "run"
    assert train("vae", out, "--max-steps", 2) == 0
    before = contents(out)
    line = error(*arguments("vae", out, "--max-steps", 6))
    assert "--resume" in line
    assert "--overwrite" in line
    assert "found both" in error(*arguments("vae", out, "--resume", "--overwrite"))
    assert "kl_warmup_steps" in error(*arguments("vae", out, "--overwrite", "--kl-warmup-steps=-1"))
    assert contents(out) == before
    assert train("vae", out, "--max-steps", 6, "--overwrite") == 0
    assert set(contents(out)) == set(contents(vae))
    assert (out / "model.safetensors").read_bytes() == (vae / "model.safetensors").read_bytes()
    density = ["fit", "naive-bayes", "--data", "digits", "--out", str(out), "--overwrite"]
    assert main(density) == 0
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors", "run.json"}
    assert "without checkpoints" in error(*arguments("vae", out, "--resume"))


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("vae", ["--latent-dim", "3"], "latent_dim: 2 there, 3 now"),
        ("vae", ["--batch-size", "9"], "batch_size: 8 there, 9 now"),
        ("autoencoder", [], "model: VAE there, Autoencoder now"),
        ("vae", ["--split", "test"], "expected the 1257 images of this run, digits (train)"),
        ("vae", ["--image-size", "9"], "expected the 1257 images of this run, digits (train)"),
    ],
)
def test_resume_of_something_else(
    vae: Path, model: str, options: list[str], expected: str, error: Error
) -> None:
    before = contents(vae)
    assert expected in error(*arguments(model, vae, "--resume", "--max-steps", 8, *options))
    assert contents(vae) == before


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("gan", ["--loss", "wgan-gp", "--label-smoothing", "0.1"], "label_smoothing"),
        ("dcgan", ["--r1", "1"], "batch norm"),
        ("dcgan", ["--width", "0"], "width"),
        ("vae", ["--likelihood", "bernoulli", "--reconstruction-weight", "3"], "squared error"),
        ("vae", ["--device", "abacus"], "device"),
        ("vae", ["--max-steps", "0"], "max_steps"),
        ("vae", ["--levels", "4"], "--levels"),
        ("vae", ["--learning-rate", "1e30", "--max-steps", "60"], "diverged"),
    ],
)
def test_errors_leave_nothing(
    model: str, options: list[str], expected: str, tmp_path: Path, error: Error
) -> None:
    assert expected in error(*arguments(model, tmp_path / "new" / "run", *options))
    assert not list(tmp_path.iterdir())


def test_a_folder_of_something_else(tmp_path: Path, error: Error) -> None:
    (tmp_path / "recipe.txt").write_text("flour, water")
    for option in ((), ("--resume",), ("--overwrite",)):
        assert "recipe.txt" in error(*arguments("vae", tmp_path, "--max-steps", 1, *option))
    assert contents(tmp_path) == {"recipe.txt": b"flour, water"}
