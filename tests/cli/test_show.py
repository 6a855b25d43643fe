"""`pygen sample`, `reconstruct` and `interpolate` of models made of networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pygen
from pygen.cli import main

Error = Callable[..., str]
Runs = dict[str, Path]

OPTIONS = {
    "autoencoder": [],
    "vae": ["--conditional"],
    "gan": ["--latent-dim", "5"],
    "dcgan": ["--conditional", "--width", "8"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A run of each model, and one of a density model."""
    folder = tmp_path_factory.mktemp("show")
    argv = ["--data", "digits", "--max-steps", "30", "--batch-size", "32", "--random-state", "0"]
    for name, options in OPTIONS.items():
        assert main(["fit", name, *argv, *options, "--out", str(folder / name)]) == 0
    density = ["fit", "gaussian-bayes", "--data", "digits", "--out", str(folder / "density")]
    assert main(density) == 0
    return {name: folder / name for name in (*OPTIONS, "density")}


def numbers(command: str, run: Path, *options: object) -> torch.Tensor:
    """What a command writes as .npy."""
    out = run.parent / "x.npy"
    assert main([command, str(run), "--out", str(out), *map(str, options)]) == 0
    array = np.load(out)
    assert array.dtype == np.uint8
    return torch.from_numpy(array)


def test_samples_of_a_run_with_a_seed_are_new_each_time(runs: Runs) -> None:
    first = numbers("sample", runs["gan"], "-n", 3)
    assert not torch.equal(numbers("sample", runs["gan"], "-n", 3), first)


def test_sample_of_a_class(runs: Runs) -> None:
    expected, _ = pygen.load(runs["dcgan"]).sample(7, y=3, random_state=2)
    assert torch.equal(numbers("sample", runs["dcgan"], "-n", 7, "--y", 3, "--seed", 2), expected)


def test_reconstruct(runs: Runs, tmp_path: Path) -> None:
    images, labels = pygen.data.load("digits", "test")
    for name in ("autoencoder", "vae"):
        originals, again = numbers("reconstruct", runs[name], "-n", 6)
        rows = [int((images == image).flatten(1).all(1).nonzero()[0]) for image in originals]
        assert len(set(rows)) == 6
        assert not torch.equal(originals, numbers("reconstruct", runs[name], "-n", 6, "--seed", 1))
        model = pygen.load(runs[name])
        y = labels[rows] if name == "vae" else None
        assert torch.equal(again, model.reconstruct(originals, y))
    out = tmp_path / "grid.png"
    assert main(["reconstruct", str(runs["vae"]), "--out", str(out), "-n", "20"]) == 0
    with Image.open(out) as picture:
        # Two rows of ten originals, a row of reconstructions below each.
        assert picture.size == (10 * 52 - 4, 4 * 52 - 4)


def test_reconstruct_other_data(runs: Runs, tmp_path: Path, error: Error) -> None:
    data = tmp_path / "data.npz"
    images, labels = pygen.data.load("digits", "test")
    np.savez(data, images=images[:5].numpy(), labels=labels[:5].numpy())
    originals, _ = numbers("reconstruct", runs["vae"], "-n", 5, "--data", data)
    assert {image.sum().item() for image in originals} == {x.sum().item() for x in images[:5]}
    argv = ["reconstruct", runs["vae"], "--out", tmp_path / "x.png", "--data", data]
    assert "expected at least 6 images, found 5" in error(*argv, "-n", 6)
    assert "test" in error(*argv, "-n", 5, "--split", "test")
    np.savez(data, images=images[:5].numpy(), labels=labels[:5].numpy() + 20)
    assert "known are [0, 1, 2" in error(*argv, "-n", 5)
    np.savez(data, images=np.zeros((5, 8, 9), np.uint8))
    assert "[1, 8, 9]" in error(*argv, "-n", 5)
    assert list(tmp_path.iterdir()) == [data]


def test_strips_go_from_reconstruction_to_reconstruction(runs: Runs) -> None:
    images, _ = pygen.data.load("digits", "test")
    model = pygen.load(runs["autoencoder"])
    again = {x.numpy().tobytes() for x in model.reconstruct(images)}
    strips = numbers("interpolate", runs["autoencoder"], "-n", 4, "--steps", 5)
    assert strips.shape == (4, 5, 1, 8, 8)
    ends = strips[:, [0, -1]].flatten(0, 1)
    assert all(end.numpy().tobytes() in again for end in ends)
    assert not torch.equal(strips[:, 1], strips[:, 0])


def test_strips_of_classes(runs: Runs, error: Error, tmp_path: Path) -> None:
    images, labels = pygen.data.load("digits", "test")
    model = pygen.load(runs["vae"])
    every = model.reconstruct(images, labels)
    again = {x.numpy().tobytes(): int(y) for x, y in zip(every, labels, strict=True)}

    def ends(*options: object) -> list[list[int]]:
        strips = numbers("interpolate", runs["vae"], *options)
        return [[again[x.numpy().tobytes()] for x in strip[[0, -1]]] for strip in strips]

    assert ends("-n", 12) == [[i % 10, i % 10] for i in range(12)]
    assert ends("-n", 3, "--y", 7) == [[7, 7]] * 3
    out = tmp_path / "x.png"
    assert "expected one of [0, 1, 2" in error("interpolate", runs["vae"], "--out", out, "--y", 11)


def test_strips_of_gans(runs: Runs, tmp_path: Path, error: Error) -> None:
    strips = numbers("interpolate", runs["gan"], "-n", 3, "--steps", 4)
    assert strips.shape == (3, 4, 1, 8, 8)
    assert len({strip.numpy().tobytes() for strip in strips.flatten(0, 1)}) == 12
    assert torch.equal(numbers("interpolate", runs["gan"], "-n", 3, "--steps", 4), strips)
    other = numbers("interpolate", runs["gan"], "-n", 3, "--steps", 4, "--seed", 1)
    assert not torch.equal(other, strips)
    classes = numbers("interpolate", runs["dcgan"], "-n", 2, "--y", 4)
    assert not torch.equal(classes, numbers("interpolate", runs["dcgan"], "-n", 2, "--y", 5))
    out = tmp_path / "grid.png"
    assert main(["interpolate", str(runs["dcgan"]), "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.size == (10 * 52 - 4, 8 * 52 - 4)
    assert "noise" in error("interpolate", runs["gan"], "--out", out, "--data", "digits")


def test_errors(runs: Runs, tmp_path: Path, error: Error) -> None:
    out = tmp_path / "x.png"
    for name in ("gan", "dcgan"):
        assert "autoencoder or a VAE" in error("reconstruct", runs[name], "--out", out)
    for command in ("reconstruct", "interpolate"):
        assert "found a GaussianBayes" in error(command, runs["density"], "--out", out)
        assert "nowhere" in error(command, tmp_path / "nowhere", "--out", out)
        assert ".png or .npy" in error(command, runs["vae"], "--out", tmp_path / "x.gif")
        assert "expected at least 1" in error(command, runs["vae"], "--out", out, "-n", 0)
    assert "steps" in error("interpolate", runs["vae"], "--out", out, "--steps", 1)
    for command in ("sample", "interpolate"):
        line = error(command, runs["gan"], "--out", out, "--y", 3)
        assert "fitted without classes, found 3" in line
    assert "known are [0, 1, 2" in error("sample", runs["dcgan"], "--out", out, "--y", 11)
    assert not list(tmp_path.iterdir())
