"""A run that was killed and goes on does, bit for bit, what it would have done."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from training import toy

from fromnoise.core.errors import FileError, TrainingError, UsageError
from fromnoise.core.files import lock, read_json, save_tensors
from fromnoise.training import Stopped, checkpoint
from fromnoise.training.metrics import read_metrics
from fromnoise.training.optimizers import Optimization

CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("backward", 6, {}),
    ("optimizer", 7, {"precision": "bfloat16"}),
    ("after", 5, {"accumulation": 3}),
    ("save", 8, {}),
    ("rename", 8, {}),
    ("after", 8, {"precision": "bfloat16"}),
    ("backward", 2, {}),
]


@pytest.fixture(scope="module", autouse=True)
def _imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What training imports is imported once, before the forks below."""
    list(toy.run(tmp_path_factory.mktemp("warm") / "run", {"steps": 1}).train())


def _begin(work: Callable[[], None]) -> int:
    """Run in a child, which shares what is imported already; return its number."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            work()
            code = 0
        except Stopped as stopped:
            code = stopped.exit_code
        finally:
            os._exit(code)
    return child


def _ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _print_to(
    out: Path, folder: Path, settings: dict[str, Any], step: int = 0, phase: str = ""
) -> None:
    with out.open("a") as file:
        os.dup2(file.fileno(), 1)
        sys.stdout = os.fdopen(1, "w")
        toy.main(str(folder), json.dumps(settings), str(step), phase)
        sys.stdout.flush()


def _train(
    folder: Path, settings: dict[str, Any], out: Path, step: int = 0, phase: str = ""
) -> int:
    return _ended(_begin(lambda: _print_to(out, folder, settings, step, phase)))


def _final(folder: Path) -> dict[str, Any]:
    """All that the last checkpoint holds: weights, average, optimizer and state, as bytes."""
    path = checkpoint.steps(folder)[-1]
    held: dict[str, Any] = {"state": read_json(path / "state.json")}
    for name in ("objective", "ema", "optimizer"):
        tensors = checkpoint.load_tensors(path / f"{name}.safetensors")[0]
        held |= {f"{name} {k}": v.numpy().tobytes() for k, v in tensors.items()}
    return held


@pytest.mark.parametrize(("phase", "step", "settings"), CASES)
def test_killed_and_resumed_equals_uninterrupted(
    tmp_path: Path, phase: str, step: int, settings: dict[str, Any]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert _train(whole, settings, tmp_path / "a") == 0
    assert _train(parts, settings, tmp_path / "b", step, phase) == -signal.SIGKILL
    killed = (tmp_path / "b").read_text().splitlines()
    assert len(killed) in (step - 1, step)
    assert _train(parts, settings, tmp_path / "b") == 0
    expected = (tmp_path / "a").read_text().splitlines()
    assert len(expected) == toy.SMALL["steps"]
    lines = (tmp_path / "b").read_text().splitlines()
    assert set(lines) == set(expected)
    assert lines[-1] == expected[-1]
    assert _final(parts) == _final(whole)
    assert not list(parts.rglob("*.tmp-*"))
    measured = [(m["step"], m["loss"]) for m in read_metrics(parts / "metrics.jsonl")]
    assert measured == [(m["step"], m["loss"]) for m in read_metrics(whole / "metrics.jsonl")]


def test_a_program_that_is_killed_goes_on(tmp_path: Path) -> None:
    program = [sys.executable, str(Path(toy.__file__)), str(tmp_path / "run"), "{}"]
    first = subprocess.run([*program, "6", "after"], capture_output=True, text=True, check=False)
    assert first.returncode == -signal.SIGKILL
    assert len(first.stdout.splitlines()) == 6
    assert _train(tmp_path / "run", {}, tmp_path / "out") == 0
    assert (tmp_path / "out").read_text().splitlines()[:2] == first.stdout.splitlines()[4:]


def test_killed_before_its_first_file_is_whole_it_begins_again(tmp_path: Path) -> None:
    def killed(number: int) -> None:
        """Die where file `number` of the run would be put in its place."""
        replace, left = os.replace, iter(range(number))

        def put(*names: Any) -> None:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(*names)

        os.replace = put
        list(toy.run(tmp_path / "run", {}).train())

    for number in (0, 1, 1, 1):
        assert _ended(_begin(partial(killed, number))) == -signal.SIGKILL
    assert len(list(toy.run(tmp_path / "run", {}).train())) == 12
    assert (tmp_path / "run" / "environment.json").exists()
    assert not list((tmp_path / "run").rglob("*.tmp-*"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_again_and_again(tmp_path: Path, seed: int) -> None:
    settings = {"steps": 300, "checkpoint_every": 3, "precision": ["float32", "bfloat16"][seed % 2]}
    assert _train(tmp_path / "whole", settings, tmp_path / "a") == 0
    chance = random.Random(seed)
    kills = 0
    while True:
        out = tmp_path / f"b{kills}"
        child = _begin(partial(_print_to, out, tmp_path / "parts", settings))
        time.sleep(chance.uniform(0.02, 0.6))
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            assert status == 0
            break
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
    expected = (tmp_path / "a").read_text().splitlines()
    assert kills >= 3
    for number in range(kills + 1):
        told = (tmp_path / f"b{number}").read_text() if (tmp_path / f"b{number}").exists() else ""
        # What follows the last line end was cut off by the kill.
        assert set(told.split("\n")[:-1]) <= set(expected)
    assert _final(tmp_path / "parts") == _final(tmp_path / "whole")
    assert not list((tmp_path / "parts").rglob("*.tmp-*"))


def _forget_objective(folder: Path) -> None:
    file = folder / "objective.safetensors"
    tensors = checkpoint.load_tensors(file)[0]
    tensors["taken"] = torch.zeros(())
    save_tensors(file, tensors)


def _forget_weights(folder: Path) -> None:
    save_tensors(folder / "objective.safetensors", toy.counting().state_dict())


def _forget_average(folder: Path) -> None:
    weights = checkpoint.load_tensors(folder / "objective.safetensors")[0]
    average = checkpoint.load_tensors(folder / "ema.safetensors")[0]
    save_tensors(folder / "ema.safetensors", {k: weights[k] for k in average})


def _forget(quantity: str) -> Callable[[Path], None]:
    def forget(folder: Path) -> None:
        file = folder / "optimizer.safetensors"
        tensors = checkpoint.load_tensors(file)[0]
        kept = {k: torch.zeros_like(v) if k.endswith(quantity) else v for k, v in tensors.items()}
        save_tensors(file, kept)

    return forget


def _forget_step(folder: Path) -> None:
    state = read_json(folder / "state.json")
    (folder / "state.json").write_text(json.dumps({**state, "step": state["step"] - 1}))


@pytest.mark.parametrize(
    "forget",
    [
        _forget_objective,
        _forget_weights,
        _forget_average,
        _forget("/exp_avg"),
        _forget("/exp_avg_sq"),
        _forget("/step"),
        _forget_step,
    ],
)
def test_the_comparison_sees_any_state_that_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: Callable[[Path], None]
) -> None:
    whole, parts = toy.run(tmp_path / "whole", {}), tmp_path / "parts"
    list(whole.train())
    loop = toy.run(parts, {}).train()
    for _ in range(9):
        next(loop)
    loop.close()
    forget(checkpoint.steps(parts)[-1])
    monkeypatch.setattr(checkpoint, "verify_folder", lambda path: {})
    list(toy.run(parts, {}).train())
    assert _final(parts) != _final(tmp_path / "whole")


def test_a_damaged_checkpoint_is_passed_over_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    list(toy.run(folder, {}).train())
    expected = _final(folder)
    damaged = checkpoint.steps(folder)[-1] / "ema.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-3] ^= 1
    damaged.write_bytes(data)
    told: list[str] = []
    found = checkpoint.latest(folder, told.append)
    assert found is not None
    assert found.name == "step-00000008"
    assert "step-00000012" in told[0] and "ema.safetensors" in told[0]
    with pytest.warns(UserWarning, match=r"ema\.safetensors"):
        list(toy.run(folder, {}).train())
    assert _final(folder) == expected


@pytest.mark.parametrize("fault", ["cut", "gone", "swapped", "manifest"])
def test_every_kind_of_damage_is_seen(tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "run"
    list(toy.run(folder, {}).train())
    older, newer = checkpoint.steps(folder)
    file = newer / "optimizer.safetensors"
    if fault == "cut":
        file.write_bytes(file.read_bytes()[:-10])
    elif fault == "gone":
        file.unlink()
    elif fault == "swapped":
        shutil.copy(older / file.name, file)
    else:
        (newer / "MANIFEST.json").unlink()
    told: list[str] = []
    assert checkpoint.latest(folder, told.append) == older
    assert len(told) == 1
    with pytest.warns(UserWarning, match="passed over"):
        assert len(list(toy.run(folder, {}).train())) == 4


def test_no_valid_checkpoint_left_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    list(toy.run(folder, {}).train())
    for path in checkpoint.steps(folder):
        (path / "state.json").unlink()
    with (
        pytest.warns(UserWarning, match="passed over"),
        pytest.raises(TrainingError, match="none of its 2 checkpoints"),
    ):
        next(toy.run(folder, {}).train())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_step_saves_and_leaves(
    tmp_path: Path, number: int, code: int
) -> None:
    made = toy.run(tmp_path / "run", {})
    before = signal.getsignal(number)
    seen = []
    with pytest.raises(Stopped, match="stopped after step 6 of 12") as stopped:
        for event in made.train():
            seen.append(toy.trace(event, made))
            if event.step == 6:
                os.kill(os.getpid(), number)
    assert stopped.value.exit_code == code
    assert signal.getsignal(number) == before
    assert checkpoint.steps(tmp_path / "run")[-1].name == "step-00000006"
    again = toy.run(tmp_path / "run", {})
    seen += [toy.trace(event, again) for event in again.train()]
    whole = toy.run(tmp_path / "whole", {})
    assert seen == [toy.trace(event, whole) for event in whole.train()]
    assert _final(tmp_path / "run") == _final(tmp_path / "whole")


def test_sigterm_ends_a_program_with_143(tmp_path: Path) -> None:
    settings = {"steps": 100_000, "validate_every": 0, "checkpoint_every": 0}
    out = tmp_path / "out"

    child = _begin(lambda: _print_to(out, tmp_path / "run", settings))
    while not out.exists() or len(out.read_text().splitlines()) < 3:
        time.sleep(0.01)
    os.kill(child, signal.SIGTERM)
    assert _ended(child) == 143
    (saved,) = checkpoint.steps(tmp_path / "run")
    assert int(saved.name[5:]) >= 3


def test_a_second_trainer_in_one_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = toy.run(folder, {}).train()
    next(first)
    config = (folder / "config.json").read_bytes()
    with pytest.raises(FileError, match="is in use by process"):
        next(toy.run(folder, {"seed": 1}).train())
    assert (folder / "config.json").read_bytes() == config
    first.close()
    with lock(folder):
        pass


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"batch_size": 4}, "train.batch_size"),
        ({"seed": 1}, "train.seed"),
        ({"precision": "bfloat16"}, "train.precision"),
        ({"learning_rate": 0.1}, "train.learning_rate"),
        ({"steps": 24}, "train.steps"),
        ({"accumulation": 2}, "train.accumulation"),
        ({"ema": 0.5}, "train.ema"),
    ],
)
def test_another_configuration_is_refused(
    tmp_path: Path, changes: dict[str, Any], key: str
) -> None:
    loop = toy.run(tmp_path, {}).train()
    next(loop)
    loop.close()
    with pytest.raises(UsageError, match=f"another configuration: {key} was"):
        next(toy.run(tmp_path, changes).train())
    with pytest.raises(UsageError, match="code was None, now 'other'"):
        next(toy.run(tmp_path, {}, code="other").train())


def test_what_the_weights_do_not_see_may_change(tmp_path: Path) -> None:
    whole = toy.run(tmp_path / "whole", {})
    list(whole.train())
    loop = toy.run(tmp_path / "run", {}).train()
    for _ in range(5):
        next(loop)
    loop.close()
    free = {"checkpoint_every": 3, "validate_every": 0, "keep": 3, "log_every": 2}
    list(toy.run(tmp_path / "run", free).train())
    ours = checkpoint.load_tensors(checkpoint.steps(tmp_path / "run")[-1] / "ema.safetensors")[0]
    theirs = checkpoint.load_tensors(checkpoint.steps(tmp_path / "whole")[-1] / "ema.safetensors")
    assert all(torch.equal(v, theirs[0][k]) for k, v in ours.items())
    assert len(checkpoint.steps(tmp_path / "run")) == 3


def test_a_run_at_a_constant_rate_may_be_made_longer(tmp_path: Path) -> None:
    constant = {"schedule": "constant"}
    list(toy.run(tmp_path / "longer", {**constant, "steps": 5}).train())
    list(toy.run(tmp_path / "longer", {**constant, "steps": 12}).train())
    list(toy.run(tmp_path / "whole", {**constant, "steps": 12}).train())
    ours, theirs = _final(tmp_path / "longer"), _final(tmp_path / "whole")
    for held in (ours, theirs):
        del held["state"]["config"]
    assert ours == theirs


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    list(toy.run(tmp_path, {}).train())
    before = _final(tmp_path)
    assert list(toy.run(tmp_path, {}).train()) == []
    assert _final(tmp_path) == before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileError, match="holds no run"):
        next(toy.run(tmp_path, {}).train())
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != ".lock") == ["thesis.txt"]


def test_optimizer_state_of_another_network_is_refused() -> None:
    made = toy.run(Path("unused"), {})
    optimization = Optimization(made.task.objective.groups(), made.settings)
    with pytest.raises(FileError, match="belongs to no parameter"):
        optimization.load({"main/elsewhere/exp_avg": torch.zeros(1)})
