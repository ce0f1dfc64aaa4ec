"""One trainer in a folder, one configuration in a run, and a folder that can be written into."""

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from faults import child
from training import toy

from fromnoise.core import atomic, files
from fromnoise.core.errors import DiskError, FileError, UsageError
from fromnoise.core.files import lock, read_json, write_json
from fromnoise.training import checkpoint, runner
from fromnoise.training.metrics import read_metrics


def test_a_second_trainer_in_one_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = toy.run(folder, {}).train()
    next(first)
    config = (folder / "config.json").read_bytes()
    told = tmp_path / "told"
    for settings in ({}, {"seed": 1}):
        assert child.trained(folder, settings, tmp_path / "out") == 2
    assert child.outcome(lambda: next(toy.run(folder, {}).train()), told) == 2
    assert f"is in use by process {os.getpid()}" in told.read_text()
    assert (folder / "config.json").read_bytes() == config
    first.close()
    with lock(folder):
        pass


def test_without_the_lock_both_would_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    import fcntl

    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    first = toy.run(tmp_path / "run", {}).train()
    next(first)
    assert child.trained(tmp_path / "run", {}, tmp_path / "out") == 0
    first.close()


def test_a_folder_that_cannot_be_written_fails_before_any_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = toy.run(tmp_path / "file" / "run", {})
    began = time.monotonic()
    with pytest.raises(DiskError, match="a part of the path is a file"):
        next(made.train())
    assert time.monotonic() - began < 5
    assert made.task.objective.get_buffer("taken") == 0


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 4}, "batch_size"),
    ({"seed": 1}, "seed"),
    ({"precision": "bfloat16"}, "precision"),
    ({"learning_rate": 0.1}, "learning_rate"),
    ({"steps": 24}, "steps"),
    ({"accumulation": 2}, "accumulation"),
    ({"ema": 0.5}, "ema"),
    ({"warmup": 3}, "warmup"),
    ({"clip": 0.5}, "clip"),
    ({"weight_decay": 0.1}, "weight_decay"),
    ({"schedule": "constant"}, "schedule"),
    ({"optimizer": {"kind": "adamw", "beta1": 0.8}}, "optimizer"),
    ({"steps": None, "epochs": 3.0}, "epochs"),
]


@pytest.mark.parametrize(("changes", "key"), CHANGES, ids=[key for _, key in CHANGES])
def test_another_configuration_is_refused(
    tmp_path: Path, changes: dict[str, Any], key: str
) -> None:
    loop = toy.run(tmp_path, {}).train()
    next(loop)
    loop.close()
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UsageError, match=rf"another configuration: .*train\.{key} was"):
        next(toy.run(tmp_path, changes).train())
    assert (tmp_path / "config.json").read_bytes() == before


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    loop = toy.run(tmp_path, {}).train()
    next(loop)
    loop.close()
    with pytest.raises(UsageError, match="code was None, now 'other'"):
        next(toy.run(tmp_path, {}, code="other").train())


def _of_an_earlier_version(folder: Path, *keys: str) -> None:
    """Take settings out of a run's configuration, as if they had not been thought of then."""
    raw = read_json(folder / "config.json")
    for key in keys:
        del raw["config"]["train"][key]
    write_json(folder / "config.json", raw)


def test_a_setting_that_is_new_since_is_no_change_at_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(toy.run(tmp_path / "whole", {}).train())
    loop = toy.run(tmp_path / "run", {}).train()
    for _ in range(5):
        next(loop)
    loop.close()
    _of_an_earlier_version(tmp_path / "run", "weight_decay", "clip", "optimizer")
    # At another value than the default it is a change.
    with pytest.raises(UsageError, match=r"train\.clip was 1\.0, now 0\.5"):
        next(toy.run(tmp_path / "run", {"clip": 0.5}).train())
    list(toy.run(tmp_path / "run", {}).train())
    assert child.final(tmp_path / "run") == child.final(tmp_path / "whole")
    # The control: without the defaults filled in, the run would be refused.
    _of_an_earlier_version(tmp_path / "run", "clip")
    monkeypatch.setattr(runner, "_with_settings", dict)
    with pytest.raises(UsageError, match=r"train\.clip was None, now 1\.0"):
        next(toy.run(tmp_path / "run", {}).train())


def test_metrics_with_a_torn_last_line_are_repaired(tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    list(toy.run(whole, {}).train())
    loop = toy.run(run, {}).train()
    for _ in range(6):
        next(loop)
    loop.close()
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 7, "loss": 0.1, "grad_n')
    # The control: as it is, what is appended would be lost on the torn line.
    with pytest.raises(json.JSONDecodeError):
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    list(toy.run(run, {}).train())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    expected = read_metrics(whole / "metrics.jsonl")
    assert [line["loss"] for line in lines] == [line["loss"] for line in expected]


def test_everything_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut needs: each file flushed, then the manifest, then the name, its folder."""
    seen: list[tuple[str, str]] = []
    flush, rename = files.flush, os.rename

    def flushed(path: Path) -> None:
        seen.append(("flush", path.name.split(".tmp-")[0]))
        flush(path)

    def renamed(old: Path, new: Path) -> None:
        seen.append(("rename", Path(new).name))
        rename(old, new)

    for module in (files, atomic):
        monkeypatch.setattr(module, "flush", flushed)
    monkeypatch.setattr(os, "rename", renamed)
    with files.atomic_folder(tmp_path / "deep" / "step") as folder:
        files.write_text(folder / "a", "x")
        (folder / "b").write_bytes(b"y")
    order = [
        what for what in seen if what[0] == "rename" or what[1] in ("a", "b", ".MANIFEST.json")
    ]
    assert order[-1] == ("rename", "step")
    assert {("flush", "a"), ("flush", "b")} <= set(order[:-2])
    assert order[-2] == ("flush", ".MANIFEST.json")
    assert seen[-1] == ("flush", "deep") and ("flush", tmp_path.name) in seen


def test_a_lock_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(DiskError) as caught, lock(tmp_path / "run"):
        pass
    cause = caught.value.__cause__
    assert isinstance(cause, OSError) and cause.errno in (errno.EEXIST, errno.ENOTDIR)


def test_the_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileError, match="holds no run"):
        next(toy.run(tmp_path, {}).train())
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != ".lock") == ["thesis.txt"]
    assert checkpoint.steps(tmp_path) == []
