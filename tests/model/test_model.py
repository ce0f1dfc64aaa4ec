"""A model samples, streams, saves and loads; what it cannot do it says in a line."""

import json
from pathlib import Path

import pytest
import torch
from model.tiny import tiny

import fromnoise as fn
from fromnoise.core.errors import FileError, ShapeError, UsageError
from fromnoise.model import Model, load_model


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny()


def test_the_stream_ends_in_the_samples(model: Model) -> None:
    steps = list(model.stream(3, label=1, seed=4))
    samples = model.sample(3, label=1, seed=4)
    assert [step.index for step in steps] == [0, 1, 2, 3]
    assert all(step.x0.shape == (3, 1, 8, 8) for step in steps)
    assert torch.equal(model.decode(steps[-1].x), samples.tensor)
    assert steps[-1].t == 0.0


def test_a_picture_shows_itself(model: Model) -> None:
    samples = model.sample(4, label=0)
    assert len(samples) == 4
    assert samples[0].size == (8, 8)
    assert samples._repr_png_().startswith(b"\x89PNG")
    assert len(samples[1:3]) == 2
    assert samples[1:3].recipe["seeds"] == [1, 2]


def test_what_is_saved_loads_and_draws_the_same_bits(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "saved")
    loaded = fn.load(tmp_path / "saved")
    before = model.sample(2, label=2, guidance=2.0).tensor
    assert torch.equal(loaded.sample(2, label=2, guidance=2.0).tensor, before)
    assert loaded.card.classes == ["0", "1", "2"]
    other = tiny(seed=1).sample(2, label=2, guidance=2.0).tensor
    assert not torch.equal(other, before)


def test_outside_noise_takes_the_place_of_a_seed(model: Model) -> None:
    start = torch.randn(2, 1, 8, 8)
    a = model.sample(2, label=0, start=start, seed=0).tensor
    b = model.sample(2, label=0, start=start, seed=9).tensor
    assert torch.equal(a, b)
    with pytest.raises(ShapeError, match="start"):
        model.sample(3, label=0, start=start)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"count": 0}, "count 0"),
        ({"sampler": "dmp"}, "did you mean"),
        ({"grid": "karas"}, "karras"),
        ({"steps": 0}, "steps 0"),
        ({"label": 3}, "label 3"),
        ({"label": "cat"}, "cat"),
        ({"prompt": "a cat"}, "prompt"),
        ({"dtype": "float16"}, "float16"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed -1"),
        ({"guidance": 2.0, "label": [0, 1], "count": 3}, "2 labels"),
        ({"shape": (1, 9, 9)}, "multiple of 2"),
        ({"guidance": 3.0}, "told nothing"),
        ({"guidance": float("nan"), "label": 1}, "not finite"),
        ({"seed": "a"}, "neither"),
        ({"grid": [1.0, 0.0]}, "a grid is a name"),
        ({"sampler": "heun", "eta": 0.5}, "eta"),
    ],
)
def test_a_mistake_says_what_and_how(model: Model, arguments: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        model.sample(**arguments)  # type: ignore[arg-type]


def _damage_cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _damage_flip(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(bytes(data))


def _damage_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _damage_key(folder: Path) -> None:
    path = folder / "model.json"
    config = json.loads(path.read_text())
    (folder / "MANIFEST.json").unlink()
    path.write_text(json.dumps({**config, "extra": 1}))


def _damage_kind(folder: Path) -> None:
    path = folder / "model.json"
    config = json.loads(path.read_text())
    config["net"]["kind"] = "os.system"
    (folder / "MANIFEST.json").unlink()
    path.write_text(json.dumps(config))


def _damage_format(folder: Path) -> None:
    path = folder / "model.json"
    config = json.loads(path.read_text())
    (folder / "MANIFEST.json").unlink()
    path.write_text(json.dumps({**config, "format": 99}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_damage_cut, "model.safetensors"),
        (_damage_flip, "model.safetensors"),
        (_damage_missing, "model.safetensors"),
        (_damage_key, "unknown key 'extra'"),
        (_damage_kind, "os.system"),
        (_damage_format, "99"),
    ],
)
def test_a_damaged_folder_is_refused(model: Model, tmp_path: Path, damage, says: str) -> None:  # type: ignore[no-untyped-def]
    model.save(tmp_path / "saved")
    load_model(tmp_path / "saved")
    damage(tmp_path / "saved")
    with pytest.raises((FileError, UsageError), match=says):
        load_model(tmp_path / "saved")


def test_what_is_not_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        fn.load(tmp_path / "nothing")
    with pytest.raises(FileError, match="neither"):
        fn.load(tmp_path)


def test_interrupting_leaves_the_model_usable(model: Model) -> None:
    stream = model.stream(2, label=1)
    next(stream)
    del stream
    before = model.sample(2, label=1).tensor
    assert torch.equal(model.sample(2, label=1).tensor, before)


def test_part_of_the_samples_carries_part_of_the_recipe(model: Model) -> None:
    samples = model.sample(4, label=[0, 1, 2, 0], guidance=torch.tensor([1.0, 2.0, 3.0, 4.0]))
    part = samples[2:]
    assert part.recipe["label"] == [2, 0]
    assert part.recipe["seeds"] == [2, 3]
    assert part.recipe["guidance"] == [3.0, 4.0]


def test_labels_may_be_arrays(model: Model) -> None:
    listed = model.sample(3, label=[0, 1, 2]).tensor
    assert torch.equal(model.sample(3, label=torch.tensor([0, 1, 2])).tensor, listed)


def test_a_grid_in_the_samplers_name_is_understood(model: Model) -> None:
    apart = model.sample(1, label=0, sampler="dpm++2m", grid="karras").tensor
    assert torch.equal(model.sample(1, label=0, sampler="DPM++ 2M Karras").tensor, apart)
