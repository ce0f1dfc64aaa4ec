"""A run killed anywhere and started again is, bit for bit, the run that was never killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faults import child, hooks
from training import toy

from fromnoise.training.metrics import read_metrics

EVERY = {"checkpoint_every": hooks.EVERY}
OTHERS: dict[str, dict[str, Any]] = {
    "bfloat16": {"precision": "bfloat16"},
    "three micro-steps": {"accumulation": 3},
    "post-hoc averages": {"post_hoc": [0.05, 0.1], "snapshot_every": 4},
}


@pytest.fixture(scope="module")
def whole(quick_disk: Path) -> tuple[Path, list[str]]:
    """The run that is not killed, and its trace."""
    folder = quick_disk / "whole"
    folder.mkdir()
    assert child.trained(folder / "run", EVERY, folder / "out") == 0
    return folder / "run", child.lines(folder / "out")


def check_equal(
    folder: Path, killed: list[str], resumed: list[str], whole: tuple[Path, list[str]]
) -> None:
    """All that was told, and all that is left, is that of the run that was not killed."""
    expected = whole[1]
    assert len(expected) == toy.SMALL["steps"]
    assert killed == expected[: len(killed)]
    assert resumed == expected[-len(resumed) :]
    # No more is lost than what came after the last checkpoint.
    start = len(expected) - len(resumed)
    assert len(killed) - hooks.EVERY < start <= len(killed) + 1
    assert start % hooks.EVERY == 0 and 4 < start < len(expected)
    assert child.final(folder) == child.final(whole[0])
    assert not child.temporaries(folder)
    measured = [
        [(m["step"], m["loss"], m.get("validation")) for m in read_metrics(f / "metrics.jsonl")]
        for f in (folder, whole[0])
    ]
    assert measured[0] == measured[1]


QUICK = list(hooks.PHASES)[::2]
KILLED = [(phase, 0) for phase in hooks.PHASES] + [
    pytest.param(phase, 2, marks=() if phase in QUICK else pytest.mark.slow)
    for phase in hooks.PHASES
]


@pytest.mark.parametrize(("phase", "workers"), KILLED)
def test_killed_in_any_phase(
    tmp_path: Path, whole: tuple[Path, list[str]], phase: str, workers: int
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    settings = {**EVERY, "workers": workers}
    code = child.trained(run, settings, out, hooks.PHASES[phase])
    assert code in (-signal.SIGKILL, -signal.SIGXFSZ)
    killed = child.lines(out)
    assert child.trained(run, settings, tmp_path / "rest") == 0
    check_equal(run, killed, child.lines(tmp_path / "rest"), whole)


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS)
def test_killed_in_other_arithmetic(tmp_path: Path, changes: dict[str, Any]) -> None:
    settings = {**EVERY, **changes}
    run, uncut = tmp_path / "run", tmp_path / "whole"
    assert child.trained(uncut, settings, tmp_path / "all") == 0
    code = child.trained(run, settings, tmp_path / "out", hooks.PHASES["saving begins"])
    assert code == -signal.SIGKILL
    assert child.trained(run, settings, tmp_path / "rest") == 0
    killed, resumed, all_ = (child.lines(tmp_path / name) for name in ("out", "rest", "all"))
    check_equal(run, killed, resumed, (uncut, all_))
    assert child.weights_outside(run) == child.weights_outside(uncut)


@pytest.mark.slow
def test_a_program_that_is_killed_goes_on(tmp_path: Path, whole: tuple[Path, list[str]]) -> None:
    program = [sys.executable, str(Path(toy.__file__)), str(tmp_path / "run"), json.dumps(EVERY)]
    first = subprocess.run([*program, "6"], capture_output=True, text=True, check=False)
    assert first.returncode == -signal.SIGKILL
    assert len(first.stdout.splitlines()) == 6
    assert child.trained(tmp_path / "run", EVERY, tmp_path / "rest") == 0
    told = [line.split() for line in (*first.stdout.splitlines(), *child.lines(tmp_path / "rest"))]
    assert [line[:5] for line in told] == [line.split()[:5] for line in whole[1]]


def test_killed_before_its_first_file_is_whole_it_begins_again(tmp_path: Path) -> None:
    def killed(number: int) -> None:
        hooks.at(os, "replace", number)
        list(toy.run(tmp_path / "run", {}).train())

    for number in (1, 2, 2, 2):
        assert child.outcome(partial(killed, number)) == -signal.SIGKILL
    assert len(list(toy.run(tmp_path / "run", {}).train())) == toy.SMALL["steps"]
    assert (tmp_path / "run" / "environment.json").exists()
    assert not child.temporaries(tmp_path / "run")


KILLS = 100


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_a_hundred_times_at_random(tmp_path: Path) -> None:
    """Short runs, each killed at random moments until it is done, with 0 and 2 workers in turn."""
    chance = random.Random(0)
    kills = runs = 0
    while kills < KILLS:
        settings = {
            "steps": 60,
            "checkpoint_every": 3,
            "seed": runs,
            "precision": ("float32", "bfloat16")[runs % 2],
            "accumulation": (1, 3)[runs // 2 % 2],
        }
        uncut, run = tmp_path / f"whole{runs}", tmp_path / f"run{runs}"
        assert child.trained(uncut, settings, tmp_path / f"all{runs}") == 0
        expected = child.lines(tmp_path / f"all{runs}")
        code = -signal.SIGKILL
        while code == -signal.SIGKILL:
            out = tmp_path / f"out{runs}-{kills}"
            life = {**settings, "workers": kills % 2 * 2}
            process = child.begin(partial(child.train, run, life, out))
            time.sleep(chance.uniform(0.05, 0.7))
            os.kill(process, signal.SIGKILL)
            code = child.ended(process)
            kills += code == -signal.SIGKILL
            told = child.lines(out)
            if told:
                start = expected.index(told[0])
                assert told == expected[start : start + len(told)]
        assert code == 0
        assert child.final(run) == child.final(uncut)
        assert not child.temporaries(run)
        runs += 1
    print(f"{kills} kills of {runs} runs")
