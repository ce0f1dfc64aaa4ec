"""Several processes are watched: who dies or hangs is named, all are stopped, and begun again."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fromnoise.app import launch
from fromnoise.app.reporting import Silent
from fromnoise.app.requests import TrainRequest
from fromnoise.cli.main import run
from fromnoise.core.errors import TrainingError, UsageError
from fromnoise.core.group import LOST, STORE
from fromnoise.training.signals import Stopped

MEMBER = """
import json, os, pathlib, signal, sys, time
verb, request = sys.argv[1:]
rank = int(os.environ["RANK"])
told = json.loads(request)["recipe"].split(",")[rank]
log = pathlib.Path(os.environ["LOG"])
with log.open("a") as file:
    file.write(f"{rank} {os.environ['WORLD_SIZE']} {verb} {request}\\n")
if told == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if told == "once" and len(log.read_text().splitlines()) <= 2:
    os.kill(os.getpid(), signal.SIGKILL)
if told == "hang":
    time.sleep(100)
if told == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    log.with_name(f"ready-{rank}").touch()
    time.sleep(100)
if told == "orphan":
    sys.stdin.read()
    log.with_name(f"told-{rank}").touch()
sys.exit(int(told) if told.isdigit() else 0)
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Launch processes that do as their request says, and log themselves in this file."""
    (tmp_path / "doing_as_told.py").write_text(MEMBER)
    monkeypatch.setattr(launch, "MEMBER", "doing_as_told")
    monkeypatch.setattr(launch, "_GRACE", 0.5)
    monkeypatch.setattr(launch, "_GRACE_LOST", 0.2)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def _launch(*does: str, restarts: int = 0) -> tuple[int, Silent]:
    watcher = Silent()
    request = TrainRequest(recipe=",".join(does), processes=len(does), restarts=restarts)
    return launch.launch("train", request, len(does), watcher, restarts), watcher


def test_each_is_told_the_request_and_its_place(log: Path) -> None:
    assert _launch("ok", "ok", "ok")[0] == 0
    expected = [f'{i} 3 train {{"recipe":"ok,ok,ok"}}' for i in range(3)]
    assert sorted(log.read_text().splitlines()) == expected


@pytest.mark.parametrize(
    ("does", "code"), [(("1", "1"), 1), (("2", str(LOST)), 2), (("ok", "143"), 143)]
)
def test_the_exit_code_is_that_of_the_work(log: Path, does: tuple[str, ...], code: int) -> None:
    assert _launch(*does)[0] == code
    assert len(log.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("does", "message"),
    [
        (("hang", "die"), "process 1 of 2 was killed by SIGKILL; all were stopped"),
        ((str(LOST), "die"), "process 1 of 2 was killed by SIGKILL"),
        ((str(LOST), "hang"), "process 1 of 2 did not answer; all were stopped"),
        ((str(LOST), str(LOST)), "2 processes lost each other"),
    ],
)
def test_who_is_lost_is_named_and_all_are_stopped(
    log: Path, does: tuple[str, ...], message: str
) -> None:
    began = time.monotonic()
    with pytest.raises(TrainingError, match=f"{message}.*give the same command") as raised:
        _launch(*does)
    assert raised.value.exit_code == 1
    assert time.monotonic() - began < 10


ALONE = ["train", "points-flow", "--train.steps", "2", "--train.batch-size", "8"]


@pytest.mark.slow
def test_one_process_that_is_watched_trains(tmp_path: Path) -> None:
    """For the restarts alone: it has no group, and is not told that it has."""
    quiet = ["--train.validate-every", "0", "--train.sample-every", "0"]
    words = [*ALONE, *quiet, "--out", str(tmp_path / "run"), "--restarts", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "fromnoise", *words], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"trained 2 steps: {tmp_path / 'run'}"]


def test_one_process_is_told_of_no_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", STORE):
        monkeypatch.delenv(name, raising=False)
    told = launch._environment(0, 1, tmp_path / "store")
    assert told == dict(os.environ)
    assert launch._environment(1, 2, tmp_path / "store")["RANK"] == "1"


def test_all_begin_again_as_often_as_was_asked(log: Path) -> None:
    code, watcher = _launch("ok", "once", restarts=2)
    assert code == 0
    assert len(log.read_text().splitlines()) == 4
    (line,) = watcher.lines
    assert "process 1 of 2 was killed by SIGKILL" in line and "(1 of 2)" in line
    log.unlink()
    with pytest.raises(TrainingError, match="was killed"):
        _launch("ok", "die", restarts=1)
    assert len(log.read_text().splitlines()) == 4


def test_a_mistake_is_not_tried_again(log: Path) -> None:
    assert _launch("2", "2", restarts=3)[0] == 2
    assert len(log.read_text().splitlines()) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on(log: Path, number: int) -> None:
    def ask() -> None:
        while len(list(log.parent.glob("ready-*"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=ask).start()
    before = signal.getsignal(number)
    if number == signal.SIGTERM:
        assert _launch("wait", "wait", restarts=3)[0] == 143
    else:
        # Nobody caught this one: it is still no reason to begin again.
        with pytest.raises(Stopped) as stopped:
            _launch("wait", "wait", restarts=3)
        assert stopped.value.exit_code == 130
    assert signal.getsignal(number) == before
    assert len(log.read_text().splitlines()) == 2


def test_members_learn_that_their_launcher_is_gone(log: Path) -> None:
    program = (
        "from fromnoise.app import launch, reporting, requests; launch.MEMBER = 'doing_as_told';"
        "r = requests.TrainRequest(recipe='orphan,orphan', processes=2);"
        "launch.launch('train', r, 2, reporting.Silent())"
    )
    launcher = subprocess.Popen([sys.executable, "-c", program])
    while not log.exists() or len(log.read_text().splitlines()) < 2:
        assert launcher.poll() is None
        time.sleep(0.01)
    launcher.kill()
    launcher.wait()
    limit = time.monotonic() + 10
    while len(list(log.parent.glob("told-*"))) < 2:
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_launcher_within_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch.wanted(2) and launch.wanted(1, 1) and not launch.wanted(1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="inside of 4 processes"):
        launch.wanted(2)
    assert not launch.wanted(1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs", "list"], "`runs list` works in one process"),
        (["train", "digits", "--processes", "2"], "inside of 2 processes"),
        (["train", "digits", "--train.steps", "none"], "steps"),
        (["train", "digits", "--processes", "0"], "processes"),
    ],
)
@pytest.mark.parametrize("rank", ["0", "1"])
def test_what_all_were_asked_wrongly_only_the_first_says(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
    rank: str,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert run(words) == 2
    said = capfd.readouterr()
    assert said.out == ""
    assert (message in said.err) == (rank == "0")
    assert rank == "0" or said.err == ""
