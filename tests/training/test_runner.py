"""The run folder: what is written, when, and by which weights."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from training import toy

from fromnoise.codecs import Identity
from fromnoise.core.environment import environment
from fromnoise.core.errors import DiskError, FileError
from fromnoise.core.files import read_json, verify_folder
from fromnoise.data.augment import Augment, Changed
from fromnoise.model import Model, load_model
from fromnoise.model.files import write_model
from fromnoise.training import Run, checkpoint, latest_model
from fromnoise.training.draws import derive
from fromnoise.training.loop import held_out_loss
from fromnoise.training.runner import _PREPARE, _VALIDATE, differences, read_config


def _with(made: Run, **changes: Any) -> Run:
    made.task = replace(made.task, **changes)
    return made


def test_a_folder_holds_all_that_is_needed(tmp_path: Path) -> None:
    made = toy.run(tmp_path / "run", {"sample_every": 6})
    events = list(made.train())
    folder = tmp_path / "run"
    assert sorted(p.name for p in folder.iterdir() if p.name != ".lock") == [
        "checkpoints", "config.json", "environment.json", "metrics.jsonl", "samples",
    ]  # fmt: skip
    assert read_config(folder) == made.config
    told = read_json(folder / "environment.json")
    assert told["packages"]["torch"] == torch.__version__.split("+")[0] or "+" in torch.__version__
    assert told["threads"] == torch.get_num_threads()
    assert told == {"format": 1, **environment()}
    path = checkpoint.steps(folder)[-1]
    assert set(verify_folder(path)["files"]) == {
        "objective.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json",
    }  # fmt: skip
    state = read_json(path / "state.json")
    assert (state["step"], state["samples"], state["seed"]) == (12, 96, 0)
    assert state["config"] == checkpoint.fingerprint(made.config)
    assert [e.step for e in events if e.checkpoint] == [4, 8, 12]
    assert [e.step for e in events if e.picture] == [6, 12]
    assert [e.step for e in events if e.validation is not None] == [4, 8, 12]
    assert not [p for p in folder.rglob("*") if p.suffix in (".pt", ".pkl", ".bin", ".ckpt")]


def test_the_held_out_loss_is_that_of_the_averaged_weights(tmp_path: Path) -> None:
    made = toy.run(tmp_path / "run", {})
    events = list(made.train())
    path = checkpoint.steps(tmp_path / "run")[-1]
    again = toy.counting()
    again.load_state_dict(checkpoint.load_tensors(path / "objective.safetensors")[0])
    data = made.task.held_out
    assert data is not None
    seed = derive(0, _VALIDATE)
    plain = held_out_loss(again, data.batches(8), seed)
    average = checkpoint.load_tensors(path / "ema.safetensors")[0]
    again.load_state_dict(average, strict=False)
    assert events[-1].validation == held_out_loss(again, data.batches(8), seed)
    assert events[-1].validation != plain


def test_the_model_that_is_written_has_the_averaged_weights(tmp_path: Path) -> None:
    made = toy.run(tmp_path / "run", {})
    objective: Any = made.task.objective
    model = Model(objective.denoiser, (2,), Identity(), objective.conditioning)
    _with(made, write_model=lambda folder: write_model(model, folder))
    with pytest.raises(FileError, match="no trained model yet"):
        latest_model(tmp_path / "run")
    list(made.train())
    loaded = load_model(latest_model(tmp_path / "run"))
    path = checkpoint.steps(tmp_path / "run")[-1]
    average = checkpoint.load_tensors(path / "ema.safetensors")[0]
    for name, value in loaded.denoiser.net.state_dict().items():
        assert torch.equal(value, average[f"denoiser.net.{name}"])
    trained = objective.denoiser.net.state_dict()
    assert any(not torch.equal(v, average[f"denoiser.net.{k}"]) for k, v in trained.items())


def test_previews_are_drawn_by_the_averaged_weights_without_dropout(tmp_path: Path) -> None:
    made = toy.run(tmp_path / "run", {"sample_every": 12})
    seen: list[tuple[bool, str]] = []

    def preview() -> bytes:
        seen.append((made.task.objective.training, toy.digest(made.task.objective)))
        buffer = io.BytesIO()
        Image.new("L", (2, 2)).save(buffer, "PNG")
        return buffer.getvalue()

    _with(made, preview=preview)
    list(made.train())
    assert made.task.objective.training
    ((training, digest),) = seen
    assert not training
    assert digest != toy.digest(made.task.objective)
    with Image.open(tmp_path / "run" / "samples" / "step-00000012.png") as picture:
        assert picture.size == (2, 2)


def test_preparing_sees_the_training_data_once(tmp_path: Path) -> None:
    made = toy.run(tmp_path / "run", {})
    calls: list[tuple[int, int]] = []
    made.task.objective.prepare = (  # type: ignore[method-assign]
        lambda x, seed: calls.append((len(x), seed))
    )
    loop = made.train()
    for _ in range(5):
        next(loop)
    loop.close()
    list(made.train())
    assert calls == [(40, derive(0, _PREPARE))]


class Turned(Augment):
    """Points on the other side of zero."""

    width = 1

    def __call__(self, x: torch.Tensor, random: Any) -> Changed:
        return Changed(-x, torch.ones(1))


def test_augmentation_reaches_the_data(tmp_path: Path) -> None:
    losses = []
    for place, augment in enumerate((None, Turned())):
        made = _with(toy.run(tmp_path / str(place), {}), augment=augment)
        losses.append([event.loss for event in made.train()])
    assert losses[0] != losses[1]


def test_a_save_that_fails_leaves_the_last_checkpoint_and_no_rest(tmp_path: Path) -> None:
    calls = []

    def full(folder: Path) -> None:
        calls.append(folder)
        (folder / "part").write_text("half")
        if len(calls) > 1:
            raise OSError(28, "No space left on device")

    made = _with(toy.run(tmp_path / "run", {}), write_model=full)
    with pytest.raises(DiskError, match="No space left"):
        list(made.train())
    (kept,) = checkpoint.steps(tmp_path / "run")
    assert kept.name == "step-00000004"
    verify_folder(kept)
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == [kept.name]


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    made = toy.run(tmp_path / "run", {"checkpoint_every": 3})
    loop = made.train()
    next(loop)
    next(loop)
    with torch.no_grad():
        made.task.objective.get_buffer("taken").fill_(float("nan"))
    from fromnoise.core.errors import TrainingError

    with pytest.raises(TrainingError):
        next(loop)
    assert checkpoint.steps(tmp_path / "run") == []


def test_a_folder_that_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="a part of the path is a file"):
        next(toy.run(tmp_path / "file" / "run", {}).train())


def test_differences_are_found_at_any_depth() -> None:
    before = {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": [1, 2]}
    after = {"a": 1, "b": {"c": 5, "d": {"e": 4, "g": 0}}, "f": [1, 3]}
    assert differences(before, after) == {
        "b.c": (2, 5), "b.d.e": (3, 4), "b.d.g": (None, 0), "f": ([1, 2], [1, 3]),
    }  # fmt: skip
    assert differences(before, before) == {}
