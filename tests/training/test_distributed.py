"""Several processes train as one does, stop as one does, and none waits for one that is gone."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training import toy
from training.group import Group

from fromnoise.core.errors import TrainingError
from fromnoise.core.files import read_json
from fromnoise.core.group import LOST
from fromnoise.data import Loader
from fromnoise.training import (
    EMA,
    Draws,
    Optimization,
    Phase,
    Run,
    TrainSettings,
    checkpoint,
    ranks,
    train,
)
from fromnoise.training.metrics import read_metrics
from fromnoise.training.ranks import Ranks

QUIET = {"validate_every": 0, "checkpoint_every": 0}


def slowly(*values: Any) -> Any:
    """A case that only the slow suite runs."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def _imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What training imports is imported once, before the forks below."""
    list(toy.run(tmp_path_factory.mktemp("warm") / "run", {"steps": 1}).train())


def _made(folder: Path, settings: dict[str, Any], dropout: float = 0.0) -> Run:
    return toy.run(folder, settings, dropout=dropout)


def _print(made: Run, each: Callable[[int], None] = lambda step: None) -> None:
    """Train, printing a line for each step, and what is left after an error."""
    try:
        for event in made.train():
            print(toy.trace(event, made), flush=True)
            each(event.step)
    except TrainingError:
        print(toy.digest(made.task.objective), flush=True)
        raise


def _losses(lines: list[str]) -> list[float]:
    return [float.fromhex(line.split()[1]) for line in lines if len(line.split()) == 5]


def _alone(folder: Path, settings: dict[str, Any]) -> list[float]:
    return [event.loss for event in _made(folder, settings).train()]


def _final(folder: Path) -> dict[str, bytes]:
    path = checkpoint.steps(folder)[-1]
    return {
        f"{name} {key}": value.numpy().tobytes()
        for name in ("objective", "ema", "optimizer")
        for key, value in checkpoint.load_tensors(path / f"{name}.safetensors")[0].items()
    }


@pytest.mark.parametrize(("batch", "accumulation"), [(8, 1), (9, 2), slowly(8, 2), slowly(9, 1)])
def test_two_processes_have_the_losses_of_one(
    tmp_path: Path, batch: int, accumulation: int
) -> None:
    settings = {**QUIET, "steps": 24, "batch_size": batch, "accumulation": accumulation}
    group = Group(tmp_path / "g", lambda rank: _print(_made(tmp_path / "two", settings)))
    assert group.end() == [0, 0]
    # Both hold the same weights after every step, bit for bit.
    assert group.lines(0) == group.lines(1)
    losses = _losses(group.lines(0))
    assert len(losses) == 24
    one = _alone(tmp_path / "one", {**QUIET, "steps": 24, "batch_size": batch})
    assert losses == pytest.approx(one, abs=1e-5)
    assert [m["step"] for m in read_metrics(tmp_path / "two" / "metrics.jsonl")] == list(
        range(1, 25)
    )
    assert not list(tmp_path.rglob("*.tmp-*"))


def test_draws_by_the_place_within_a_process_would_show(tmp_path: Path) -> None:
    """The control of the comparison above."""
    settings = {**QUIET, "steps": 4}

    def work(rank: int) -> None:
        right = Draws.of_step
        Draws.of_step = classmethod(  # type: ignore[method-assign, assignment]
            lambda cls, seed, step, span, total: right(seed, step, range(len(span)), total)
        )
        _print(_made(tmp_path / "two", settings))

    group = Group(tmp_path / "g", work)
    assert group.end() == [0, 0]
    assert _losses(group.lines(0)) != pytest.approx(_alone(tmp_path / "one", settings), abs=1e-3)


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    """The other one trains in a folder that it must not write."""
    written: list[str] = []

    def work(rank: int) -> None:
        if rank:
            real = os.replace
            os.replace = lambda *names: written.append(str(names)) or real(*names)  # type: ignore[assignment,func-returns-value]
        _print(_made(tmp_path / "two", {"sample_every": 6, "tensorboard": True}))
        assert not written

    group = Group(tmp_path / "g", work)
    assert group.end() == [0, 0]
    assert (tmp_path / "two" / ".lock").read_text() == str(group.processes[0])
    assert len(list((tmp_path / "two" / "samples").iterdir())) == 2
    assert len(list((tmp_path / "two" / "tensorboard").iterdir())) == 1
    assert read_json(checkpoint.steps(tmp_path / "two")[-1] / "state.json")["processes"] == 2


class Breaking(toy.Counting):
    """A value that is not finite, in the loss or the gradient of one process at one step."""

    where = ("", 0, 0, 0.0)

    def phases(self, batch: Any, draws: Draws) -> Iterator[Phase]:
        kind, rank, step, value = self.where
        for phase in super().phases(batch, draws):
            if int(os.environ["RANK"]) != rank or self.taken + 1 != step:
                yield phase
            elif kind == "loss":
                yield replace(phase, loss=phase.loss * value)
            else:
                # The slope of sqrt at 0 is infinite, and 0 times that is NaN.
                zero = next(self.parameters()).sum() * 0.0
                yield replace(phase, loss=phase.loss + torch.sqrt(zero))


def _everything(objective: Any, optimization: Optimization, ema: EMA) -> dict[str, Tensor]:
    state = {**objective.state_dict(), **optimization.state()}
    state |= {f"ema {name}": value for name, value in ema.shadow.items()}
    return {name: value.clone() for name, value in state.items()}


def _break(*where: Any) -> None:
    """Train in one process of a group until a broken value; nothing may have changed since."""
    settings = TrainSettings(**{**toy.SMALL, **QUIET})
    objective = toy.counting(dropout=0.0)
    objective.__class__ = Breaking
    objective.where = where  # type: ignore[attr-defined]
    optimization = Optimization(objective.groups(), settings)
    ema = EMA(objective, settings.ema)
    loop = train(objective, Loader(toy.Points(), 8, 0), optimization, ema, 12)
    before = _everything(objective, optimization, ema)
    try:
        for _ in loop:
            before = _everything(objective, optimization, ema)
    finally:
        after = _everything(objective, optimization, ema)
        same = all(torch.equal(value, before[name]) for name, value in after.items())
        print(f"taken {int(objective.taken)} unchanged {same} {toy.digest(objective)}")


@pytest.mark.parametrize(
    ("kind", "value", "what"),
    [
        ("loss", float("nan"), "the loss is nan by process 1 of 2"),
        slowly("loss", float("inf"), "the loss is inf by process 1 of 2"),
        ("slope", 0.0, "its gradient is nan by process 1 of 2"),
    ],
)
def test_a_value_that_is_not_finite_in_one_process_stops_all(
    tmp_path: Path, kind: str, value: float, what: str
) -> None:
    group = Group(tmp_path / "g", lambda rank: _break(kind, 1, 6, value))
    assert group.end() == [1, 1]
    (left, error), (other, quiet) = group.lines(0), group.lines(1)
    assert left == other and left.startswith("taken 5 unchanged True")
    assert f"TrainingError: step 6: {what}; stopped before this step changed anything" in error
    assert quiet == f"{error.rstrip()} (quiet)"


def test_without_agreement_one_process_would_go_on(tmp_path: Path) -> None:
    """The control of the test above: each checks its own loss before it adds up gradients."""

    def work(rank: int) -> None:
        agreed = Ranks.together

        @contextmanager
        def lonely(self: Ranks) -> Iterator[Any]:
            with agreed(self) as shared:
                yield shared
            shared.all = [shared.mine]

        Ranks.together = lonely  # type: ignore[assignment, method-assign]
        Ranks.add = lambda self, tensors: list(tensors)  # type: ignore[method-assign]
        _break("loss", 1, 6, float("nan"))

    group = Group(tmp_path / "g", work)
    codes = group.end()
    assert codes[0] in (0, LOST) and codes[1] == 1
    assert group.lines(0)[0] != group.lines(1)[0]


@pytest.mark.parametrize("rank", [slowly(0), 1])
def test_one_that_is_killed_stops_the_others_and_all_go_on_bit_for_bit(
    tmp_path: Path, rank: int
) -> None:
    folder = tmp_path / "parts"

    def work(own: int) -> None:
        def die(step: int) -> None:
            if step == 6 and own == rank:
                os.kill(os.getpid(), signal.SIGKILL)

        _print(_made(folder, {}), die)

    whole = Group(tmp_path / "whole-g", lambda own: _print(_made(tmp_path / "whole", {})))
    group = Group(tmp_path / "g", work)
    assert group.end(ranks=(rank,)) == [-signal.SIGKILL]
    gone = time.monotonic()
    group.end()
    assert time.monotonic() - gone < 10
    assert group.codes[1 - rank] == LOST
    assert f"LostProcess: process {rank} of 2 died" in group.said(1 - rank)
    again = Group(tmp_path / "again", lambda own: _print(_made(folder, {})))
    assert again.end() == whole.end() == [0, 0]
    expected = whole.lines(0)
    assert [*group.lines(1 - rank)[:4], *again.lines(0)] == expected
    assert again.lines(0) == again.lines(1)
    assert _final(folder) == _final(tmp_path / "whole")
    assert not list(folder.rglob("*.tmp-*"))


def test_another_number_of_processes_goes_on_closely_and_says_so(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        loop = _made(tmp_path / "two", {}).train()
        while next(loop).step < 5:
            pass
        loop.close()

    assert Group(tmp_path / "g", work).end() == [0, 0]
    with pytest.warns(UserWarning, match=r"written by 2 processes and 1 go on.*not bit for bit"):
        losses = _alone(tmp_path / "two", {})
    assert losses == pytest.approx(_alone(tmp_path / "one", {})[4:], abs=1e-5)


@pytest.mark.slow
def test_one_that_hangs_ends_all_after_the_timeout(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        def hang(step: int) -> None:
            if step == 3 and rank == 1:
                os.kill(os.getpid(), signal.SIGSTOP)

        ranks._ROLL_CALL = 0.5
        _print(_made(tmp_path / "two", {**QUIET, "group_timeout": 1.0}), hang)

    group = Group(tmp_path / "g", work)
    group.until(lambda: len(group.lines(1)) == 3)
    began = time.monotonic()
    assert group.end(ranks=(0,)) == [LOST]
    assert 1.0 < time.monotonic() - began < 1.0 + 5.0
    assert "LostProcess: process 1 of 2 does not answer (for 1 s)" in group.said(0)
    group.kill()


def _data_that_breaks(rank: int, folder: Path) -> None:
    made = _made(folder, {})
    if rank == 1:
        good = made.task.data.samples

        def samples(indices: Any) -> Tensor:
            if made.task.objective.get_buffer("taken") >= 5:
                raise TrainingError("the disk with the pictures is gone")
            return good(indices)

        made.task.data.samples = samples  # type: ignore[method-assign]
    _print(made)


def test_the_error_of_one_process_is_told_once_and_ends_all(tmp_path: Path) -> None:
    group = Group(tmp_path / "g", lambda rank: _data_that_breaks(rank, tmp_path / "two"))
    assert group.end() == [1, 1]
    assert group.said(0).endswith(
        "TrainingError: process 1 of 2: the disk with the pictures is gone \n"
    )
    assert group.said(1).endswith("TrainingError: the disk with the pictures is gone (quiet)\n")


def test_what_the_first_process_finds_wrong_at_the_start_ends_all(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "thesis.txt").write_text("years of work")
    group = Group(tmp_path / "g", lambda rank: _print(_made(tmp_path / "two", {})))
    assert group.end() == [2, 2]
    assert "FileError" in group.said(0) and "holds no run" in group.said(0)
    assert "(quiet)" not in group.said(0) and "(quiet)" in group.said(1)


def test_a_batch_that_is_too_small_to_split_is_refused(tmp_path: Path) -> None:
    settings = {"batch_size": 3, "accumulation": 2}
    group = Group(tmp_path / "g", lambda rank: _print(_made(tmp_path / "two", settings)))
    assert group.end() == [2, 2]
    assert "a batch of 3 cannot be split over 2 processes of 2 micro-steps" in group.said(0)


def _stopped(folder: Path, to: tuple[int, ...], number: int, step: int) -> None:
    """Send a signal to some of two processes when they are at a step; they stop and go on."""
    settings = {"steps": 24, "checkpoint_every": 9, "validate_every": 10}

    def group(name: str, run: str) -> Group:
        def work(rank: int) -> None:
            _print(_made(folder / run, settings), lambda step: time.sleep(0.01))

        return Group(folder / name, work)

    stopped, whole = group("stopped-g", "run"), group("whole-g", "whole")
    stopped.until(lambda: len(stopped.lines(0)) >= step)
    for rank in to:
        stopped.send(rank, number)
    codes = stopped.end(30)
    assert whole.end() == [0, 0]
    if codes == [0, 0] and step > 15:
        return
    assert codes == [128 + number] * 2
    lines = _traces(stopped.lines(0))
    assert lines == _traces(stopped.lines(1))
    assert int(checkpoint.steps(folder / "run")[-1].name[5:]) == len(lines)
    assert "(quiet)" in stopped.said(1) and "(quiet)" not in stopped.said(0)
    again = group("again-g", "run")
    assert again.end() == [0, 0]
    assert [*lines, *again.lines(0)] == whole.lines(0)
    assert _final(folder / "run") == _final(folder / "whole")


def _traces(lines: list[str]) -> list[str]:
    return [line for line in lines if len(line.split()) == 5]


@pytest.mark.parametrize(
    ("to", "number"),
    [
        ((1,), signal.SIGTERM),
        pytest.param((0, 1), signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_one_or_all_stops_all_after_the_same_step(
    tmp_path: Path, to: tuple[int, ...], number: int
) -> None:
    _stopped(tmp_path, to, number, 7)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_signal_at_any_time(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    to = chance.choice([(0,), (1,), (0, 1)])
    number = chance.choice([signal.SIGTERM, signal.SIGINT])
    _stopped(tmp_path, to, number, chance.randrange(1, 22))


def test_more_signals_while_saving_do_not_tear_it(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        real = checkpoint.write_json

        def slow(path: Path, value: Any) -> None:
            print("saving", flush=True)
            time.sleep(0.5)
            real(path, value)

        checkpoint.write_json = slow  # type: ignore[assignment]
        _print(_made(tmp_path / "run", {**QUIET, "steps": 10_000}))

    group = Group(tmp_path / "g", work)
    group.until(lambda: len(group.lines(0)) >= 3)
    group.send(1, signal.SIGTERM)
    group.until(lambda: "saving" in group.said(0))
    for _ in range(5):
        group.send(0, signal.SIGTERM)
        group.send(1, signal.SIGTERM)
        time.sleep(0.02)
    assert group.end() == [143, 143]
    (saved,) = checkpoint.steps(tmp_path / "run")
    assert checkpoint.latest(tmp_path / "run") == saved


class Watching(toy.Counting):
    """Keeps what it is told of each sample of a step."""

    def phases(self, batch: Any, draws: Draws) -> Iterator[Phase]:
        for phase in super().phases(batch, draws):
            each = torch.stack([draws.positions.double(), batch.x[:, 0].double()], dim=1)
            yield replace(phase, each=each)

    def observed(self, positions: Tensor, losses: Tensor) -> None:
        assert torch.equal(positions.double(), losses[:, 0])
        print("seen", sha256(losses.numpy().tobytes()).hexdigest(), flush=True)


def _watching(folder: Path, accumulation: int = 1) -> None:
    settings = {**QUIET, "batch_size": 9, "accumulation": accumulation}
    made = _made(folder, settings)
    made.task.objective.__class__ = Watching
    list(made.train())


def test_an_objective_sees_every_sample_of_the_batch_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = Group(tmp_path / "g", lambda rank: _watching(tmp_path / "two", 2))
    _watching(tmp_path / "one")
    alone = capsys.readouterr().out.splitlines()
    assert group.end() == [0, 0]
    assert len(alone) == len(set(alone)) == 12
    assert group.lines(0) == group.lines(1) == alone


def test_nothing_is_gathered_for_an_objective_that_does_not_ask(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        def rows(self: Ranks, values: Tensor) -> Tensor:
            raise AssertionError("rows were gathered")

        Ranks.rows = rows  # type: ignore[method-assign]
        list(_made(tmp_path / "two", {**QUIET, "steps": 2}).train())

    assert Group(tmp_path / "g", work).end() == [0, 0]


def test_out_of_memory_in_one_process_names_the_setting_and_leaves_what_was_saved(
    tmp_path: Path,
) -> None:
    def work(rank: int) -> None:
        made = _made(tmp_path / "two", {})

        def each(step: int) -> None:
            if step == 6 and rank == 1:
                _limit_memory(made)

        _print(made, each)

    group = Group(tmp_path / "g", work)
    assert group.end() == [1, 1]
    assert "process 1 of 2: out of memory with 8 samples a step" in group.said(0)
    assert "--train.accumulation" in group.said(0) and "--train.batch-size" in group.said(0)
    assert checkpoint.latest(tmp_path / "two") == checkpoint.steps(tmp_path / "two")[-1]


def _limit_memory(made: Run) -> None:
    """Let this process have 256 MiB more than it has, and its next step want a gibibyte."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 2**28
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    phases = made.task.objective.phases

    def hungry(batch: Any, draws: Draws) -> Any:
        wanted = torch.zeros(2**28)
        del wanted
        return phases(batch, draws)

    made.task.objective.phases = hungry  # type: ignore[method-assign]


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def _flags(folder: Path, **train: int) -> list[str]:
    settings = {"batch_size": 33, "validate_every": 10, "checkpoint_every": 10, **train}
    pairs = [(f"--train.{k.replace('_', '-')}", str(v)) for k, v in settings.items()]
    flags = [word for pair in pairs for word in pair]
    return ["-m", "fromnoise", "train", "points-flow", "--out", str(folder), *flags]


def _command(*words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(words, env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "processes"])
def test_from_the_command_line(tmp_path: Path, launcher: str) -> None:
    flags = _flags(tmp_path / "two", steps=20)
    if launcher == "torchrun":
        two = _command(*TORCHRUN, *flags)
    else:
        two = _command(sys.executable, *flags, "--processes", "2")
    out, _ = two.communicate(timeout=100)
    assert two.returncode == 0
    assert out.splitlines() == [f"trained 20 steps: {tmp_path / 'two'}"]
    one = _command(sys.executable, *_flags(tmp_path / "one", steps=20))
    one.communicate(timeout=100)
    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("two", "one"))
    assert [m["loss"] for m in ours] == pytest.approx([m["loss"] for m in theirs], abs=1e-5)
    assert len(ours) == 20


@pytest.mark.slow
def test_torchrun_passes_a_signal_on_and_all_is_saved(tmp_path: Path) -> None:
    flags = _flags(tmp_path / "two", steps=100_000, validate_every=0, checkpoint_every=0)
    two = _command(*TORCHRUN, *flags)
    metrics = tmp_path / "two" / "metrics.jsonl"
    while len(read_metrics(metrics)) < 5:
        time.sleep(0.05)
    two.terminate()
    _, err = two.communicate(timeout=60)
    (saved,) = checkpoint.steps(tmp_path / "two")
    assert checkpoint.latest(tmp_path / "two") == saved
    assert read_metrics(metrics)[-1]["step"] == int(saved.name[5:])
    assert err.count("fromnoise: error: stopped after step") == 1


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_again_and_again_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    settings = {"steps": 300, "validate_every": 0, "checkpoint_every": 5}
    flags = [*_flags(tmp_path / "whole", **settings), "--processes", "2"]
    _command(sys.executable, *flags).communicate(timeout=300)
    chance = random.Random(0)
    flags = [*_flags(tmp_path / "parts", **settings), "--processes", "2", "--restarts", "2"]
    parts = _command(sys.executable, *flags)
    for _ in range(2):
        _kill_a_member(parts.pid, chance, tmp_path / "parts")
    _, err = parts.communicate(timeout=300)
    assert parts.returncode == 0, err
    assert err.count("was killed by SIGKILL; all were stopped; beginning again") == 2
    assert _final(tmp_path / "parts") == _final(tmp_path / "whole")
    ours, theirs = (read_metrics(tmp_path / n / "metrics.jsonl") for n in ("parts", "whole"))
    assert [m["loss"] for m in ours] == [m["loss"] for m in theirs]
    assert not list((tmp_path / "parts").rglob("*.tmp-*"))


def _kill_a_member(launcher: int, chance: random.Random, folder: Path) -> None:
    """Wait for some steps more, then kill one of a launcher's two processes."""
    metrics = folder / "metrics.jsonl"
    before = _steps(metrics)
    while not before + 15 < _steps(metrics) < before + 100:
        time.sleep(0.005)
    time.sleep(chance.uniform(0, 0.05))
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    os.kill(int(chance.choice(children)), signal.SIGKILL)
    time.sleep(1.0)


def _steps(metrics: Path) -> int:
    return max((line["step"] for line in read_metrics(metrics)), default=0)
