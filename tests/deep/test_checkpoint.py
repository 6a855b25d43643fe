"""Checkpoints: whole or not there, checked when read, the newest few and the best kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pygen.deep.checkpoint import Checkpoint, Checkpoints, check_identity

IDENTITY = {"model": "VAE", "latent_dim": 2, "encoder": {"channels": [32, 64], "norm": None}}


def checkpoint(step: int, **options: Any) -> Checkpoint:
    weights = {"a": torch.full((3, 4), float(step)), "b": torch.tensor(step)}
    training = {"adam": {"state": {0: {"exp_avg": torch.ones(3)}}}, "betas": (0.5, 0.9), "x": None}
    return Checkpoint(step, weights, training, IDENTITY, **options)


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "run/checkpoints")


@pytest.fixture
def three(store: Checkpoints) -> Checkpoints:
    store.keep = 3
    for step in (10, 20, 30):
        store.save(checkpoint(step))
    return store


def test_round_trip(store: Checkpoints) -> None:
    weights = {
        "layout": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "half": torch.randn(3).bfloat16(),
        "parameter": torch.nn.Parameter(torch.randn(2)),
        "scalar": torch.tensor(3),
    }
    weights["tied"] = weights["half"]
    training = {"state": torch.get_rng_state(), "lr": 0.1, "betas": (0.5, 0.9), "none": None}
    saved = Checkpoint(5, weights, training, IDENTITY, 1.5, 0.25, best_step=5, best_metric=0.25)
    path = store.save(saved)
    assert path == store.folder / "step-00000005"
    assert {p.name for p in path.iterdir()} == {"config.json", "model.safetensors", "training.pt"}
    found = store.newest(IDENTITY)
    assert found is not None
    assert found.weights.keys() == weights.keys()
    for name, value in weights.items():
        assert found.weights[name].dtype == value.dtype
        assert torch.equal(found.weights[name], value)
    state = found.training.pop("state")
    assert torch.equal(state, training.pop("state"))
    assert found.training == training
    assert (found.step, found.identity, found.seconds) == (5, IDENTITY, 1.5)
    assert (found.metric, found.best_step, found.best_metric) == (0.25, 5, 0.25)


def test_newest_and_best_are_kept(store: Checkpoints) -> None:
    for step in (10, 20, 30, 40, 50):
        store.save(checkpoint(step, best_step=20 if step >= 20 else 10, best_metric=1.0))
    assert store.steps() == [20, 40, 50]
    store.save(checkpoint(60, best_step=60, best_metric=0.5))
    assert store.steps() == [50, 60]
    assert [p.name for p in store.folder.iterdir() if p.name.startswith(".")] == []


def test_order_beyond_eight_digits(store: Checkpoints) -> None:
    for step in (99_999_999, 100_000_000):
        store.save(checkpoint(step))
    assert store.steps() == [99_999_999, 100_000_000]


def test_nothing_there(store: Checkpoints) -> None:
    assert store.newest(IDENTITY) is None
    assert not store.folder.exists()


def test_keep_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep: expected at least 1, found 0"):
        Checkpoints(tmp_path, 0)


# Damage


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "training.pt"])
def test_truncated_falls_back(three: Checkpoints, name: str, part: float) -> None:
    path = three.path(30) / name
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.warns(UserWarning, match=rf"step-00000030/{name}: expected.*checkpoint before it"):
        found = three.newest(IDENTITY)
    assert found is not None
    assert found.step == 20
    assert torch.equal(found.weights["a"], torch.full((3, 4), 20.0))


def test_one_bit_falls_back(three: Checkpoints) -> None:
    path = three.path(30) / "training.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.warns(UserWarning, match=r"training\.pt: expected the file that config.json"):
        assert three.newest(IDENTITY).step == 20  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "training.pt"])
def test_missing_file_falls_back(three: Checkpoints, name: str) -> None:
    (three.path(30) / name).unlink()
    with pytest.warns(UserWarning, match=rf"{name}.*using the checkpoint before it"):
        assert three.newest(IDENTITY).step == 20  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected a checkpoint of format 1, found None"),
        ('{"format": 2}', "expected a checkpoint of format 1, found 2"),
        ('{"format": 1, "step": "30"}', "expected step 30, found '30'"),
        ('{"format": 1, "step": 30}', "expected the file that config.json describes"),
        ("[" * 100_000, "expected JSON"),
    ],
    ids=range(5),
)
def test_wrong_config_falls_back(three: Checkpoints, text: str, message: str) -> None:
    (three.path(30) / "config.json").write_text(text)
    with pytest.warns(UserWarning, match=message):
        assert three.newest(IDENTITY).step == 20  # type: ignore[union-attr]


@pytest.mark.parametrize("key", ["identity", "seconds", "metric", "best"])
def test_incomplete_config_falls_back(three: Checkpoints, key: str) -> None:
    path = three.path(30) / "config.json"
    config = json.loads(path.read_text())
    del config[key]
    path.write_text(json.dumps(config))
    with pytest.warns(UserWarning, match=f"expected a checkpoint as pygen writes it.*{key}"):
        assert three.newest(IDENTITY).step == 20  # type: ignore[union-attr]


def test_pickled_code_is_not_run(three: Checkpoints, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "exploded",)

    bomb = checkpoint(40)
    bomb.training = {"x": Bomb()}
    three.save(bomb)
    with pytest.warns(UserWarning, match="expected a checkpoint as pygen writes it, found damage"):
        assert three.newest(IDENTITY).step == 30  # type: ignore[union-attr]
    assert not (tmp_path / "exploded").exists()


@pytest.mark.filterwarnings("ignore:.*using the checkpoint before it")
def test_all_damaged(three: Checkpoints) -> None:
    for step in three.steps():
        (three.path(step) / "config.json").write_text("")
    with pytest.raises(ValueError, match="found 3, all of them damaged; remove the folder"):
        three.newest(IDENTITY)


def test_a_damaged_one_is_replaced(three: Checkpoints) -> None:
    (three.path(30) / "config.json").write_text("")
    three.save(checkpoint(30))
    assert three.read(30).step == 30
    assert three.steps() == [10, 20, 30]


# Identity


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ({**IDENTITY, "latent_dim": 8}, "latent_dim: 2 there, 8 now"),
        ({**IDENTITY, "model": "GAN"}, "model: VAE there, GAN now"),
        (
            {**IDENTITY, "encoder": {"channels": [64], "norm": None}},
            r"encoder.channels: \[32, 64\] there, \[64\] now",
        ),
        ({**IDENTITY, "encoder": None}, "encoder: nothing there, None now"),
        ({**IDENTITY, "extra": 1}, "extra: nothing there, 1 now"),
        ({"model": "VAE", "encoder": IDENTITY["encoder"]}, "latent_dim: 2 there, nothing now"),
    ],
    ids=range(6),
)
def test_something_else_was_trained(three: Checkpoints, now: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"step-00000030: cannot go on from this.*{message}"):
        three.newest(now)


def test_identity_is_compared_as_json_has_it() -> None:
    check_identity("here", {"shape": [1, 28, 28], "x": 1.0}, {"shape": (1, 28, 28), "x": 1})


# Failing writes

FULL_DISK = """
import resource, signal, sys
import torch
from pygen.deep.checkpoint import Checkpoint, Checkpoints

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
store = Checkpoints(sys.argv[1], keep=4)
for limit in (0, 100, 5_000, 45_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        store.save(Checkpoint(40, {"a": torch.zeros(1000)}, {"b": torch.ones(10_000)}, {}))
    except OSError as error:
        print(error)
    else:
        print("saved", limit)
"""


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX's")
def test_disk_that_takes_no_more(three: Checkpoints) -> None:
    files = [p for p in three.folder.rglob("*") if p.is_file()]
    before = {p: p.read_bytes() for p in files}
    done = subprocess.run(
        [sys.executable, "-B", "-c", FULL_DISK, str(three.folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    problem = "could not write it, earlier checkpoints are kept: File too large"
    *failures, last = done.stdout.splitlines()
    assert [message.partition("] ")[2] for message in failures] == (
        [f"{problem}: {str(three.path(40))!r}"] * 3
    )
    assert last == "saved 45000"
    assert three.read(40).step == 40
    assert {p: p.read_bytes() for p in before} == before
    assert three.steps() == [10, 20, 30, 40]


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="could not write it, earlier checkpoints"):
        Checkpoints(tmp_path / "file/checkpoints").save(checkpoint(1))


@pytest.mark.parametrize("fails_at", range(6))
def test_crash_at_any_rename(
    three: Checkpoints, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """Three files and the folder take their names; then two old checkpoints give theirs up."""

    class Crash(BaseException):
        pass

    calls = 0

    def crashing(rename: Any) -> Any:
        def crash(source: Path, target: Path) -> Path:
            nonlocal calls
            calls += 1
            if calls > fails_at:
                raise Crash
            return rename(source, target)

        return crash

    three.keep = 2
    three.save(checkpoint(40))  # 10 and 20 go
    three.keep = 1
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", crashing(Path.replace))
        patched.setattr(Path, "rename", crashing(Path.rename))
        with pytest.raises(Crash):
            three.save(checkpoint(50))
    if fails_at < 4:
        assert [p.name for p in three.folder.iterdir() if p.name.startswith(".")] == []
    found = Checkpoints(three.folder).newest(IDENTITY)
    assert found is not None
    assert found.step == (50 if fails_at >= 4 else 40)
    three.save(checkpoint(60))
    assert [p.name for p in three.folder.iterdir()] == ["step-00000060"]
