"""Killed while it saves, at any system call or any moment: a whole checkpoint is always there."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from faults import child, hooks
from training import toy

from fromnoise.core.errors import FileError
from fromnoise.core.files import load_tensors, read_json, save_tensors, sweep
from fromnoise.training import checkpoint
from fromnoise.training.ema import EMA
from fromnoise.training.optimizers import Optimization

SIDE = 200
WATCHED = ("open", "os.", "shutil.")


class Saver:
    """Saves checkpoint after checkpoint of weights that are all equal to the step."""

    def __init__(self, run: Path) -> None:
        made = toy.run(run, {})
        self.run, self.objective, self.config = run, made.task.objective, made.config
        self.objective.register_buffer("ballast", torch.zeros(SIDE, SIDE))
        self.optimization = Optimization(self.objective.groups(), made.settings)
        self.average = EMA(self.objective, 0.9)

    def save(self, step: int) -> None:
        self.objective.get_buffer("ballast").fill_(step)
        checkpoint.save(
            self.run, step, self.objective, self.average, self.optimization, self.config
        )
        checkpoint.prune(self.run, 2)

    def newest(self) -> int:
        """The step of the newest checkpoint, which is whole: all of it is of that step."""
        path = checkpoint.latest(self.run, pytest.fail)
        if path is None:
            return 0
        ballast = checkpoint.load_tensors(path / "objective.safetensors")[0]["ballast"]
        step = int(read_json(path / "state.json")["step"])
        assert bool((ballast == step).all())
        return step


def _killed_at(saver: Saver, step: int, call: int) -> None:
    """Save, and die at the call-th time that the system is asked for something."""
    left = iter(range(call))

    def watch(event: str, arguments: Any) -> None:
        if event.startswith(WATCHED) and event != "os.kill" and next(left, None) is None:
            hooks.die()

    sys.addaudithook(watch)
    saver.save(step)


def _calls(saver: Saver, step: int) -> int:
    """How many times the system is asked for something in one save."""
    read, write = os.pipe()

    def count() -> None:
        seen = 0

        def watch(event: str, arguments: Any) -> None:
            nonlocal seen
            seen += event.startswith(WATCHED)

        sys.addaudithook(watch)
        saver.save(step)
        os.write(write, str(seen).encode())

    assert child.outcome(count) == 0
    return int(os.read(read, 20))


def _check_calls(run: Path, calls: Callable[[int], list[int]]) -> int:
    saver = Saver(run)
    for step in (1, 2, 3):
        saver.save(step)
    chosen = calls(_calls(saver, 4))
    sweep(run)
    newest = saver.newest()
    for call in chosen:
        assert child.outcome(partial(_killed_at, saver, newest + 1, call)) == -signal.SIGKILL
        found = saver.newest()
        assert found in (newest, newest + 1)
        # What is left of the dead is removed when a run begins, and only that.
        sweep(run)
        assert not child.temporaries(run)
        assert saver.newest() == found
        # One more for each that died before it could prune; the next that lives prunes them all.
        assert len(checkpoint.steps(run)) >= 2
        newest = found
    return len(chosen)


def test_twenty_kills_at_system_calls(tmp_path: Path) -> None:
    assert _check_calls(tmp_path, lambda count: list(range(2, count, count // 20))) >= 20


@pytest.mark.slow
def test_a_kill_at_every_system_call(tmp_path: Path) -> None:
    kills = _check_calls(tmp_path, lambda count: list(range(count)))
    assert kills > 80
    print(f"{kills} kills")


def _until_killed(saver: Saver, first: int, done: int) -> None:
    step = first
    while True:
        saver.save(step)
        os.write(done, step.to_bytes(4, "little"))
        step += 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_hundred_kills_at_random_moments(tmp_path: Path) -> None:
    saver, chance, lost, stale = Saver(tmp_path), random.Random(0), 0, 0
    saver.save(1)
    for _ in range(200):
        newest = saver.newest()
        read, write = os.pipe()
        process = child.begin(partial(_until_killed, saver, newest + 1, write))
        os.close(write)
        told = os.read(read, 4)
        time.sleep(chance.uniform(0.0, 0.05))
        os.kill(process, signal.SIGKILL)
        child.ended(process)
        while more := os.read(read, 4096):
            told = more[-4:]
        os.close(read)
        stale += bool(child.temporaries(tmp_path))
        found = saver.newest()
        acknowledged = int.from_bytes(told, "little")
        assert found in (acknowledged, acknowledged + 1)
        lost += found < acknowledged
        sweep(tmp_path)
        assert not child.temporaries(tmp_path)
    assert lost == 0 and stale > 20
    print(f"200 kills: 0 unloadable, {lost} lost, {stale} left temporaries, all swept")


def _plain(path: Path, value: float) -> None:
    path.write_bytes(safetensors.torch.save({"ballast": torch.full((SIDE, SIDE), value)}))


def _torch(path: Path, value: float) -> None:
    torch.save({"ballast": torch.full((SIDE, SIDE), value)}, path)


def _ours(path: Path, value: float) -> None:
    save_tensors(path, {"ballast": torch.full((SIDE, SIDE), value)})


@pytest.mark.parametrize(("write", "torn"), [(_plain, True), (_torch, True), (_ours, False)])
def test_a_writer_in_place_is_torn_by_such_a_kill(
    tmp_path: Path, write: Callable[[Path, float], None], torn: bool
) -> None:
    """The control: killed at byte 50,000, only a writer to another name keeps what was there."""
    path = tmp_path / "weights"
    write(path, 1.0)
    before = path.read_bytes()
    read = torch.load if write is _torch else load_tensors

    def killed() -> None:
        hooks.die_at_byte(50_000)
        write(path, 2.0)

    assert child.outcome(killed) == -signal.SIGXFSZ
    assert (path.read_bytes() != before) == torn
    with pytest.raises((FileError, RuntimeError, OSError)) if torn else nullcontext():
        read(path)
