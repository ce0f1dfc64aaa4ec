"""Models of the package: opened by name, with weights of half the size, and damage is seen."""

from pathlib import Path

import pytest
import torch

import fromnoise as fn
from fromnoise import data, recipes
from fromnoise.app.train import build
from fromnoise.core.errors import FileError
from fromnoise.core.files import read_header
from fromnoise.interop import builtin
from fromnoise.model import Model


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    made = build(recipes.get("points-ddpm"), data.load({"kind": "points", "count": 10}))
    for parameter in made.denoiser.net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made


def test_half_size_weights_are_rounded_once_and_the_schedule_is_not(
    model: Model, tmp_path: Path
) -> None:
    model.save(tmp_path / "whole")
    model.save(tmp_path / "half", half=True)
    whole, half = (tmp_path / name / "model.safetensors" for name in ("whole", "half"))
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    assert {t for n, t in read_header(half).dtypes.items() if n.startswith("net.")} == {"BF16"}
    opened = fn.load(tmp_path / "half")
    for name, value in model.denoiser.net.state_dict().items():
        rounded = value.bfloat16().float()
        assert torch.equal(opened.denoiser.net.state_dict()[name], rounded)
    again = tmp_path / "again"
    opened.save(again, half=True)
    assert (again / "model.safetensors").read_bytes() == half.read_bytes()


def test_a_model_of_the_package_opens_by_its_name(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builtin, "folder", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    assert builtin.names() == []
    with pytest.raises(FileError, match="there is none"):
        builtin.load_builtin("emoji")
    model.save(tmp_path / "little", half=True)
    monkeypatch.chdir("/")
    opened = fn.load("little")
    assert opened.source == "little" and builtin.names() == ["little"]
    weights = tmp_path / "little" / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(bytes(damaged))
    with pytest.raises(FileError):
        fn.load("little")


def test_a_folder_that_is_there_comes_before_the_package(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builtin, "folder", lambda: tmp_path / "package")
    model.save(tmp_path / "package" / "little")
    model.card.name = "mine"
    model.save(tmp_path / "little")
    monkeypatch.chdir(tmp_path)
    assert fn.load("little").card.name == "mine"
    assert fn.load("little").card.name != fn.load(tmp_path / "package" / "little").card.name
