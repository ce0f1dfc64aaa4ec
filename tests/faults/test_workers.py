"""A process that loads data and dies, hangs or stops is an error that names it, never a wait."""

import os
import signal
import time
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import child, hooks
from torch import Tensor
from torch.utils.data import DataLoader
from training import toy

from fromnoise.core.errors import FileError, FromNoiseError, TrainingError
from fromnoise.core.files import lock
from fromnoise.data import Loader
from fromnoise.training import checkpoint

SOON = 4.0
"""Seconds within which an error must come; the timeout here is 1."""


class Faulty(toy.Points):
    """Points whose sample 5 has a fault where a worker reads it, once."""

    def __init__(self, fault: str, note: Path) -> None:
        super().__init__()
        self._fault, self._note, self._home = fault, note, os.getpid()

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        away = os.getpid() != self._home
        if away and (indices == 5).any() and not self._note.exists():
            self._note.write_text(str(os.getpid()))
            if self._fault == "raises":
                raise FileError("cat.png is damaged")
            if self._fault == "bug":
                raise RuntimeError("a bug")
            if self._fault == "dies":
                hooks.die()
            if self._fault == "exits":
                os._exit(3)
            if self._fault == "stops":
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(60)
        return super().samples(indices)


FAULTS: list[tuple[str, type[FromNoiseError], str]] = [
    ("raises", FileError, r"^cat\.png is damaged$"),
    ("bug", TrainingError, "^loading data failed: RuntimeError: a bug"),
    ("dies", TrainingError, r"died: worker \d of 2 .process \d+, signal 9. at step \d+, samples"),
    ("exits", TrainingError, r"died: worker \d of 2 .process \d+, exit code 3. at step"),
    ("hangs", TrainingError, r"no data came within 1 s: worker \d of 2 .process \d+. hangs at"),
    ("stops", TrainingError, r"no data came within 1 s: worker \d of 2 .*--train.timeout"),
]


SETTINGS = {"workers": 2, "timeout": 1.0, "checkpoint_every": 1, "steps": 8}


@pytest.fixture(scope="module")
def whole(quick_disk: Path) -> dict[str, Any]:
    """What is left by the run that no worker disturbs."""
    list(toy.run(quick_disk / "undisturbed", {**SETTINGS, "workers": 0}).train())
    return child.final(quick_disk / "undisturbed")


@pytest.mark.parametrize(("fault", "error", "message"), FAULTS)
def test_a_fault_of_a_worker_ends_training_soon_and_the_run_goes_on(
    tmp_path: Path,
    whole: dict[str, Any],
    fault: str,
    error: type[FromNoiseError],
    message: str,
) -> None:
    note = tmp_path / "pid"
    made = toy.run(tmp_path / "run", SETTINGS, Faulty(fault, note))
    began = time.monotonic()
    with pytest.raises(error, match=message) as caught:
        list(made.train())
    assert time.monotonic() - began < SOON
    if "of 2" in message:
        assert " 5" in str(caught.value)
    assert not child.alive(int(note.read_text()))
    # Mended, it goes on with what it had.
    taken = len(checkpoint.steps(tmp_path / "run"))
    list(toy.run(tmp_path / "run", SETTINGS, Faulty(fault, note)).train())
    assert taken <= 2 and child.final(tmp_path / "run") == whole


def _pids(loader: Loader, batches: Any) -> list[int]:
    before = set(child.children())
    next(batches)
    return sorted(set(child.children()) - before)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_workers_hit_from_outside_between_two_batches(number: int) -> None:
    loader = Loader(toy.Points(), 4, seed=0, workers=2, timeout=1)
    batches = loader.start(0)
    workers = _pids(loader, batches)
    assert len(workers) == 2
    time.sleep(0.3)
    for worker in workers:
        os.kill(worker, number)
    began = time.monotonic()
    with pytest.raises(TrainingError, match="died" if number == signal.SIGKILL else "hangs"):
        list(islice(batches, 20))
    assert time.monotonic() - began < SOON
    assert not any(child.alive(worker) for worker in workers)


def _torch_waits() -> None:
    """torch's own loader with its default: a worker that is stopped is waited for, for ever."""
    signal.signal(signal.SIGALRM, lambda *_: os._exit(99))
    batches = iter(DataLoader(list(range(100)), num_workers=1))
    worker = child.children()[0]
    next(batches)
    os.kill(worker, signal.SIGSTOP)
    signal.alarm(3)
    try:
        list(batches)
    finally:
        os.kill(worker, signal.SIGKILL)


@pytest.mark.slow
def test_the_loader_of_torch_would_wait() -> None:
    """The control, which is given three times the timeout of the tests above."""
    assert child.outcome(_torch_waits) == 99


def _train_with_workers(folder: Path, told: int) -> None:
    for _ in toy.run(folder, {"workers": 2, "steps": 10_000, "validate_every": 0}).train():
        os.write(told, " ".join(map(str, child.children())).encode() + b"\n")
        time.sleep(0.01)


def _begun(folder: Path) -> tuple[int, list[int]]:
    """A child that trains with two workers, and their numbers."""
    read, write = os.pipe()
    process = child.begin(partial(_train_with_workers, folder, write))
    os.close(write)
    workers = [int(number) for number in os.read(read, 100).split(b"\n")[0].split()]
    assert len(workers) == 2 and all(map(child.alive, workers))
    os.close(read)
    return process, workers


def _gone(processes: list[int], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while any(map(child.alive, processes)) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(map(child.alive, processes))


def test_workers_end_with_the_process_that_was_killed_and_free_its_folder(tmp_path: Path) -> None:
    process, workers = _begun(tmp_path / "run")
    os.kill(process, signal.SIGKILL)
    child.ended(process)
    # At once: a worker that lives for a moment longer does not hold the lock.
    with lock(tmp_path / "run"):
        pass
    assert _gone(workers, 3.0)


def test_a_lock_would_be_held_by_what_is_forked(tmp_path: Path) -> None:
    """The control: a plain lock stays with a child of the process that held it."""
    import fcntl

    handle = os.open(tmp_path / "plain", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    sleeper = child.begin(lambda: time.sleep(20))
    os.close(handle)
    again = os.open(tmp_path / "plain", os.O_RDWR)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(sleeper, signal.SIGKILL)
        child.ended(sleeper)
        os.close(again)


def test_a_signal_to_the_whole_group_does_not_take_the_workers_first(tmp_path: Path) -> None:
    """Ctrl-C reaches every process of a terminal: the workers read on until the step is saved."""
    process, workers = _begun(tmp_path / "run")
    for number in (*workers, process):
        os.kill(number, signal.SIGINT)
    for number in workers:
        os.kill(number, signal.SIGTERM)
    assert child.ended(process) in (130, child.BUG)
    assert len(checkpoint.steps(tmp_path / "run")) >= 1
    assert _gone(workers, 3.0)
