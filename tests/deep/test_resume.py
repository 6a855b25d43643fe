"""Runs that stop and go on: at the end, by a signal, killed; they end where one that never stopped does."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from small_task import (
    SOURCES,
    Regression,
    X,
    Y,
    everything,
    interrupt_at,
    read_lines,
    trainer,
    without_time,
)

from pygen.deep.batches import Batches
from pygen.deep.checkpoint import Checkpoints
from pygen.deep.history import History
from pygen.deep.interruption import Interruption
from pygen.deep.trainer import Trainer
from pygen.files import remove_leftovers

# Going on


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("stop", [30, 26])
def test_stop_and_resume_is_the_same(
    tmp_path: Path, device: torch.device, source: str, stop: int
) -> None:
    whole = Regression(device)
    reference = trainer(whole, 60, source=source, log_every=20)
    reference.run()
    interrupted = Regression(device)
    interrupted.before_step = interrupt_at(stop, signal.SIGINT)
    options = {"source": source, "folder": tmp_path, "log_every": 20}
    with pytest.raises(KeyboardInterrupt):
        trainer(interrupted, 60, **options).run()
    resumed = Regression(device)
    # The seed of the checkpoint counts, not this one.
    run = trainer(resumed, 60, seed=99, **options)
    run.run(resume=True)
    assert resumed.n_calls == 60 - stop
    assert everything(resumed) == everything(whole)
    assert without_time(run.history) == without_time(reference.history)
    assert read_lines(tmp_path) == run.history


def test_going_on_beyond_the_end(tmp_path: Path) -> None:
    trainer(Regression(), 30, folder=tmp_path).run()
    task, whole = Regression(), Regression()
    run = trainer(task, 60, folder=tmp_path)
    run.run(resume=True)
    trainer(whole, 60).run()
    assert everything(task) == everything(whole)
    times = [line["seconds"] for line in run.history]
    assert times == sorted(times)
    # And once more, with nothing left to do.
    finished = Regression()
    again = trainer(finished, 60, folder=tmp_path)
    again.run(resume=True)
    assert (again.step, finished.n_calls) == (60, 0)
    assert everything(finished) == everything(whole)
    assert again.history == run.history


def test_other_intervals_on_resuming(tmp_path: Path) -> None:
    whole, task = Regression(), Regression()
    reference = trainer(whole, 60, log_every=8)
    reference.run()
    task.before_step = interrupt_at(30, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer(task, 60, folder=tmp_path, log_every=50).run()
    resumed = Regression()
    run = trainer(resumed, 60, folder=tmp_path, log_every=8)
    run.run(resume=True)
    assert everything(resumed) == everything(whole)
    assert without_time(run.history) == without_time(reference.history)[3:]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "training.pt"])
def test_a_truncated_checkpoint_is_passed_over(tmp_path: Path, name: str) -> None:
    whole = Regression()
    reference = trainer(whole, 40)
    reference.run()
    trainer(Regression(), 20, folder=tmp_path).run()
    path = tmp_path / "checkpoints/step-00000020" / name
    path.write_bytes(path.read_bytes()[:-20])
    task = Regression()
    run = trainer(task, 40, folder=tmp_path)
    with pytest.warns(
        UserWarning, match=rf"step-00000020/{name}: .*using the checkpoint before it"
    ):
        run.run(resume=True)
    assert task.n_calls == 30
    assert everything(task) == everything(whole)
    assert without_time(run.history) == without_time(reference.history)


def test_refusals(tmp_path: Path) -> None:
    trainer(Regression(), 20, folder=tmp_path, identity={"lr": 0.1}).run()
    with pytest.raises(FileExistsError, match="found one of 20 steps; go on with it by resume"):
        trainer(Regression(), 20, folder=tmp_path).run()
    with pytest.raises(ValueError, match=r"trained - lr: 0\.1 there, 0\.2 now"):
        trainer(Regression(), 30, folder=tmp_path, identity={"lr": 0.2}).run(resume=True)
    fewer = Batches((X[:32], Y[:32, 0]), batch_size=10, seed=0, device="cpu")
    run = Trainer(Regression(), fewer, max_steps=30, folder=tmp_path, identity={"lr": 0.1})
    with pytest.raises(ValueError, match="trained - n_rows: 64 there, 32 now"):
        run.run(resume=True)
    run = trainer(Regression(width=9), 30, folder=tmp_path, identity={"lr": 0.1})
    with pytest.raises(ValueError, match=r"averages.model.0.bias is \[9\] here, \[8\] there"):
        run.run(resume=True)
    with pytest.raises(ValueError, match="resume=True: expected the folder"):
        trainer(Regression(), 20).run(resume=True)
    with pytest.raises(ValueError, match="log_every: expected at least 1, found 0"):
        trainer(Regression(), 20, log_every=0)


def test_nothing_to_go_on_from(tmp_path: Path) -> None:
    task, whole = Regression(), Regression()
    with pytest.warns(UserWarning, match="no checkpoint to go on from; beginning at step 0"):
        trainer(task, 12, folder=tmp_path / "new").run(resume=True)
    trainer(whole, 12).run()
    assert everything(task) == everything(whole)


def test_a_cut_line_is_written_again(tmp_path: Path) -> None:
    trainer(Regression(), 30, folder=tmp_path).run()
    reference = read_lines(tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    run = trainer(Regression(), 30, folder=tmp_path)
    run.run(resume=True)
    assert run.history == reference[:-1]


# Interruptions


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_interrupts(tmp_path: Path, number: int) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    task = Regression()
    task.before_step = interrupt_at(13, number)
    run = trainer(task, 60, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt, match=r"after step 13; .*step-00000013 holds"):
        run.run()
    assert (run.step, task.n_calls) == (13, 13)
    assert not task.networks.training
    assert Checkpoints(tmp_path / "checkpoints").steps() == [10, 13]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_signal_after_a_checkpoint_leaves_it(tmp_path: Path) -> None:
    task = Regression()
    task.before_step = interrupt_at(10, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer(task, 60, folder=tmp_path, evaluate=lambda: 0.5, evaluate_every=10).run()
    assert Checkpoints(tmp_path / "checkpoints").read(10).metric == 0.5


def test_a_signal_without_a_folder() -> None:
    task = Regression()
    task.before_step = interrupt_at(3, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="after step 3; nothing is kept"):
        trainer(task, 60).run()
    assert task.n_calls == 3


def test_a_second_signal_interrupts_at_once(tmp_path: Path) -> None:
    task = Regression()

    def twice(call: int) -> None:
        if call == 13:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    task.before_step = twice
    with pytest.raises(KeyboardInterrupt):
        trainer(task, 60, folder=tmp_path).run()
    assert len(task.seen) == 12
    assert Checkpoints(tmp_path / "checkpoints").steps() == [10]


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            assert not interruption.requested
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_processes_leave_ctrl_c_to_their_parent() -> None:
    with Interruption() as interruption:
        process = os.fork()
        if process == 0:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
            except SystemExit:
                os._exit(17)
            finally:
                os._exit(1)
        _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 17
    assert not interruption.requested


# Killed at random moments

# Imports once and then forks a process per request, so that a run begins within milliseconds.
SERVER = """
import os, sys, time, warnings
from pathlib import Path

warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from small_task import Regression, trainer

Regression()  # the first optimizer imports more of torch
print("ready", flush=True)
for line in sys.stdin:
    process = os.fork()
    if process == 0:
        task = Regression()
        run = trainer(task, 600, folder=line.strip(), log_every=25, evaluate=task.test_error,
                      evaluate_every=60)
        run.run(resume=True)
        os._exit(0)
    print(process, flush=True)
    sys.stdin.readline()  # until then its number stands for no other process
    _, status = os.waitpid(process, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


def result(folder: Path) -> tuple[Any, ...]:
    store = Checkpoints(folder / "checkpoints")
    newest = store.read(600)
    weights = {n: w.numpy().tobytes() for n, w in newest.weights.items()}
    training = repr(newest.training)
    best = (newest.metric, newest.best_step, newest.best_metric)
    names = sorted(path.name for path in folder.rglob("*"))
    return weights, training, best, store.steps(), names, without_time(read_lines(folder))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-B", "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert server.stdin is not None
    assert server.stdout is not None
    requests, answers = server.stdin, server.stdout

    def start(folder: Path) -> int:
        print(folder, file=requests, flush=True)
        return int(answers.readline())

    def ended() -> int:
        print(file=requests, flush=True)
        return int(answers.readline())

    with server:
        assert answers.readline() == "ready\n"
        began = time.perf_counter()
        start(tmp_path / "whole")
        assert ended() == 0
        longest = (time.perf_counter() - began) / 4
        expected = result(tmp_path / "whole")
        moments = random.Random()
        kills, runs = 0, 0
        while kills < 10:
            folder = tmp_path / f"killed-{runs}"
            runs += 1
            status = -signal.SIGKILL
            while status:
                process = start(folder)
                if kills < 10:
                    time.sleep(moments.uniform(0, longest))
                    os.kill(process, signal.SIGKILL)
                status = ended()
                assert status in (0, -signal.SIGKILL)
                kills += status != 0
            assert result(folder) == expected
        requests.close()


def test_result_sees_a_difference(tmp_path: Path) -> None:
    """The comparison of the test above fails where one thing differs."""
    outcomes = []
    for seed in (1, 1, 2):
        folder = tmp_path / str(len(outcomes))
        trainer(Regression(), 600, folder=folder, seed=seed, checkpoint_every=600).run()
        outcomes.append(result(folder))
    assert outcomes[0] == outcomes[1]
    assert all(a != b for a, b in zip(outcomes[0][:2], outcomes[2][:2], strict=True))


def test_what_a_killed_process_left_half_written_goes(tmp_path):
    left = tmp_path / ".metrics.jsonl.0123abcd.tmp"
    kept = tmp_path / ".notes.tmp"
    for path in (left, kept):
        path.write_text("half")
    remove_leftovers(tmp_path)
    assert not left.exists()
    assert kept.exists()
    history = History(tmp_path)
    left.write_text("half")
    history.begin(0)
    assert not left.exists()
