"""SIGTERM and SIGINT at any time: the step is finished and saved, and the run goes on exactly."""

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from faults import child, hooks
from training import toy

from fromnoise.training import Run, Stopped, checkpoint, signals

LONG = {"steps": 150, "checkpoint_every": 50, "validate_every": 50}
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


@pytest.fixture(scope="module")
def whole(quick_disk: Path) -> tuple[Path, list[str]]:
    """The run that nobody stops, and its trace."""
    run, out = quick_disk / "signals", quick_disk / "signals-out"
    assert child.trained(run, LONG, out) == 0
    return run, child.lines(out)


def _stopped_at_random(
    tmp_path: Path, whole: tuple[Path, list[str]], number: signal.Signals, seed: int
) -> None:
    run, out, told = tmp_path / "run", tmp_path / "out", tmp_path / "told"
    process = child.begin(partial(child.train, run, LONG, out), told)
    while len(child.lines(out)) < 2:
        time.sleep(0.005)
    time.sleep(random.Random(seed).uniform(0.0, 0.3))
    asked = time.monotonic()
    os.kill(process, number)
    assert child.ended(process) == CODES[number]
    assert time.monotonic() - asked < 5.0
    stopped = child.lines(out)
    assert f"stopped after step {len(stopped)} of 150" in told.read_text()
    assert checkpoint.steps(run)[-1].name == f"step-{len(stopped):08d}"
    assert child.trained(run, LONG, out) == 0
    # Nothing is done twice and nothing is left out.
    assert child.lines(out) == whole[1]
    assert child.final(run) == child.final(whole[0])


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_stopped_at_a_random_time(
    tmp_path: Path, whole: tuple[Path, list[str]], number: signal.Signals
) -> None:
    _stopped_at_random(tmp_path, whole, number, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_stopped_at_ten_random_times(
    tmp_path: Path, whole: tuple[Path, list[str]], seed: int
) -> None:
    _stopped_at_random(tmp_path, whole, list(CODES)[seed % 2], seed)


def _signalled_again_in_the_save(folder: Path, again: int) -> None:
    """A SIGTERM in step 3, and another signal while that step is being saved."""
    made = toy.run(folder, {"checkpoint_every": 0})
    hooks.at(checkpoint, "save_tensors", 2, lambda *_: os.kill(os.getpid(), again))
    for event in made.train():
        if event.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_sigterm_in_the_save_changes_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    work = partial(_signalled_again_in_the_save, run, signal.SIGTERM)
    assert child.outcome(work, tmp_path / "told") == 143
    assert [p.name for p in checkpoint.steps(run)] == ["step-00000003"]
    checkpoint.latest(run, pytest.fail)
    list(toy.run(run, {"checkpoint_every": 0}).train())
    list(toy.run(tmp_path / "whole", {"checkpoint_every": 0}).train())
    assert child.final(run) == child.final(tmp_path / "whole")


def test_a_second_ctrl_c_in_the_save_leaves_at_once_and_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    # Within a second it would be taken for the same one, passed on by a launcher.
    monkeypatch.setattr(signals, "_SAME", 0.0)

    def work() -> None:
        with pytest.raises(KeyboardInterrupt):
            _signalled_again_in_the_save(run, signal.SIGINT)

    assert child.outcome(work) == 0
    assert checkpoint.steps(run) == [] and not child.temporaries(run)
    assert len(list(toy.run(run, {"checkpoint_every": 0}).train())) == 12


def test_without_the_handler_the_step_is_lost(tmp_path: Path) -> None:
    """The control: SIGTERM as the system has it."""
    run = tmp_path / "run"

    def work() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for event in toy.run(run, {"checkpoint_every": 0}).train():
            if event.step == 3:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGTERM)

    assert child.outcome(work) == -signal.SIGTERM
    assert checkpoint.steps(run) == []


@pytest.mark.parametrize(("number", "code"), CODES.items())
def test_handlers_are_put_back(tmp_path: Path, number: signal.Signals, code: int) -> None:
    before = signal.getsignal(number)
    made: Run = toy.run(tmp_path / "run", {})
    with pytest.raises(Stopped, match="stopped after step 6 of 12") as stopped:
        for event in made.train():
            if event.step == 6:
                os.kill(os.getpid(), number)
    assert stopped.value.exit_code == code
    assert signal.getsignal(number) == before
