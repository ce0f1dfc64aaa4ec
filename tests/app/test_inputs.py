"""Inputs besides label and prompt, from the command line to the picture and back by its recipe."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fromnoise import codecs, encoders, nets, parameterizations, processes, schedules
from fromnoise.app.sample import negative, number_of, told_inputs, weighed
from fromnoise.cli.main import run
from fromnoise.core.errors import UsageError
from fromnoise.core.images import read_png_text
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.model import Defaults, Model


def made() -> Model:
    told = encoders.Conditioning(
        {
            "low": encoders.LowResolution(4, channels=1, level=0.2),
            "map": encoders.LabelMap(2),
            "size": encoders.Attributes({"height": (0.0, 2.0)}),
        }
    )
    null = told.null(1)
    torch.manual_seed(0)
    net = nets.build(
        {
            "kind": "unet", "in_channels": 1, "channels": 8, "multipliers": [1, 2], "blocks": 1,
            "style": {"groups": 4},
            "accepts": {
                "channels": {name: value.shape[1] for name, value in null.channels.items()},
                "vector": {name: value.shape[1] for name, value in null.vector.items()},
            },
        }
    )  # fmt: skip
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    denoiser = NetworkDenoiser(net, processes.Gaussian(schedules.cosine()), parameterizations.V())
    return Model(denoiser, (1, 8, 8), codecs.Identity(), told, Defaults(steps=3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made().save(tmp_path / "model")
    ids = np.zeros((8, 8), np.uint8)
    ids[:, 4:] = 1
    Image.fromarray(ids).save(tmp_path / "map.png")
    Image.fromarray(ids * 200).save(tmp_path / "small.png")
    return tmp_path


def test_inputs_are_opened_told_recorded_and_replayed(folder: Path) -> None:
    asked = ["--input", f"map={folder / 'map.png'}", "--input", f"low={folder / 'small.png'}"]
    asked += ["--input", 'size={"height": 0.5}', "-n", "2", "--seed", "3"]
    assert run(["sample", str(folder / "model"), *asked, "--out", str(folder / "out")]) == 0
    first = folder / "out" / "000003.png"
    told = json.loads(read_png_text(first)["fromnoise"])["draw"]["inputs"]
    assert told == {
        "map": str(folder / "map.png"),
        "low": str(folder / "small.png"),
        "size": {"height": 0.5},
    }
    replay = ["sample", "--replay", str(folder / "out" / "000004.png"), "--out", str(folder)]
    assert run(replay) == 0
    model = made()
    with Image.open(folder / "small.png") as picture, Image.open(folder / "map.png") as classes:
        inputs = {"map": classes, "low": picture, "size": {"height": 0.5}}
        drawn = model.sample(2, inputs=inputs, seed=3)
        other = model.sample(2, inputs={**inputs, "size": {"height": 2.0}}, seed=3)
        flipped = torch.from_numpy(np.array(classes)).flip(1).long()
        mirrored = model.sample(2, inputs={**inputs, "map": flipped}, seed=3)
    with Image.open(first) as written:
        assert np.array_equal(np.asarray(written), np.asarray(drawn[0]))
    assert not torch.equal(drawn.tensor, other.tensor)
    assert not torch.equal(drawn.tensor, mirrored.tensor)


def test_a_replay_says_that_a_file_is_another_one(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = ["--input", f"map={folder / 'map.png'}", "-n", "1", "--out", str(folder)]
    assert run(["sample", str(folder / "model"), *asked]) == 0
    Image.fromarray(np.ones((8, 8), np.uint8)).save(folder / "map.png")
    assert run(["sample", "--replay", str(folder / "000000.png"), "--out", str(folder)]) == 1
    assert f"{folder / 'map.png'} is not the one it was drawn with" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("map", "input 'map' is not NAME=VALUE"),
        ("map=", "input 'map=' is not NAME=VALUE"),
        ("map=no-such.png", "no-such.png"),
        ("depth=map.png", "not told a depth; it takes low, map, size"),
        ('size={"height": 3}', "attribute 'height' is 3; this model knows 0 to 2"),
        ("size={height: 1}", "begins as JSON and is none"),
        ("map=" + "[" * 3000, "nested deeper than 64 levels"),
        ("map=[[1e999]]", "is not finite"),
        ("map=[[" + "9" * 5000 + "]]", "begins as JSON and is none"),
        ("size=tall", "attributes are numbers by name"),
        ("low=5", "the low holds whole numbers"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    asked: str,
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    assert run(["sample", "model", "--input", asked, "--out", "drawn"]) == 2
    said = capfd.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (folder / "drawn").exists()


def test_texts_are_values_by_name() -> None:
    assert told_inputs(["map=a=b.png", "size={}", "n=3", "v=[1, 2]", "w=3d.png"]) == {
        "map": "a=b.png",
        "size": {},
        "n": 3,
        "v": [1, 2],
        "w": "3d.png",
    }
    with pytest.raises(UsageError, match="'map' is given twice"):
        told_inputs(["map=a.png", "map=b.png"])


@pytest.mark.parametrize("text", ["²", "٣", "1²", "⑦", "", "-1", "1" * 5000])
def test_only_plain_digits_are_a_number(text: str) -> None:
    assert number_of(text) is None
    assert weighed(text, ("a", "b")) == text and negative(text) == text
    if text:
        assert weighed(f"{text}:0.5+1:0.5", ("a", "b")) == {text: 0.5, "b": 0.5}
    assert number_of("07") == 7 == weighed("7", ()) == negative(" 7 ")
