"""What samples are worth is measured and written where the guide says; other figures stay."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fromnoise import data
from fromnoise.app import evaluate_maps as maps_figures
from fromnoise.app import usefulness as app
from fromnoise.app.evaluate import evaluate
from fromnoise.app.reporting import Silent
from fromnoise.app.requests import EvaluateRequest
from fromnoise.app.train import build
from fromnoise.core.errors import UsageError
from fromnoise.core.files import write_json
from fromnoise.model import Model
from fromnoise.model.files import load_model
from fromnoise.recipes import Recipe, get

Runs = Callable[[Recipe], Path]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Makes a run folder of a recipe whose model was never trained."""

    def made(recipe: Recipe) -> Path:
        folder = tmp_path / recipe.name
        torch.manual_seed(0)
        build(recipe, data.load(recipe.data)).save(folder / "model")
        write_json(folder / "config.json", {"format": 1, "config": recipe.model_dump(mode="json")})
        return folder

    def loaded(source: Any) -> Model:
        return load_model(Path(source) / "model")

    for module in (app, maps_figures):
        monkeypatch.setattr(module, "load", loaded)
    how = {"accuracy": (20, 32, 1), "miou": (2, 4, 2), "ap50": (2, 4, 2)}
    monkeypatch.setattr(app, "_HOW", how)
    monkeypatch.setattr(app, "_HELD_OUT", 60)
    return made


def small(**changes: Any) -> Recipe:
    recipe = get("maps-to-pictures")
    net = {**recipe.net, "channels": 8, "style": {"groups": 4, "patch": 2}}
    return recipe.model_copy(update={"net": net, "data": {**recipe.data, "count": 300}, **changes})


def ask(folder: Path, **more: Any) -> dict[str, Any]:
    told = {"samples": 60, "steps": 1, **more}
    if more.get("usefulness"):
        told = {"scales": "1,3", "few": 20, **told}
    watcher = Silent()
    assert evaluate(EvaluateRequest(run=str(folder), **told), watcher) == 0
    found: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    found["said"] = watcher.lines
    return found


def test_classes_are_learned_from_real_drawn_and_both(run: Runs) -> None:
    folder = run(get("digits"))
    write_json(folder / "evaluation.json", {"format": 1, "frechet_distance": {"value": 3.0}})
    found = ask(folder, usefulness=True)
    assert found["frechet_distance"] == {"value": 3.0}
    told = found["usefulness"]["accuracy"]
    assert told["all"]["real_count"] == 60 and told["few"]["real_count"] == 20
    for regime in ("all", "few"):
        assert [one["guidance"] for one in told[regime]["by_guidance"]] == [1.0, 3.0]
        for one in (told[regime]["best_synthetic"], told[regime]["best_both"]):
            assert one["guidance"] in (1.0, 3.0)
            assert one["low"] <= one["value"] <= one["high"]
            assert one["gain"]["low"] <= one["gain"]["value"] <= one["gain"]["high"]
    # A model that was never trained draws noise, and noise teaches nothing.
    assert told["all"]["best_synthetic"]["value"] < told["all"]["real"]["value"]
    assert (folder / "usefulness.png").read_bytes().startswith(b"\x89PNG")
    assert any("gain" in line for line in found["said"])


@pytest.mark.slow
def test_maps_are_learned_as_pixels_and_as_boxes(run: Runs) -> None:
    found = ask(run(small()), usefulness=True, samples=50)
    assert set(found["usefulness"]) == {"miou", "ap50"}


def test_maps_are_read_back_from_pictures_and_usefulness_stays(run: Runs) -> None:
    folder = run(small())
    write_json(folder / "evaluation.json", {"format": 1, "usefulness": {"miou": {"steps": 2}}})
    found = ask(folder, samples=50)
    assert found["usefulness"] == {"miou": {"steps": 2}}
    # Real pictures show their maps, and noise does not.
    assert found["map_kinds"]["real"]["value"] > 0.9 > found["map_kinds"]["value"]
    assert found["map_miou"]["real"]["value"] > 0.8 > found["map_miou"]["value"]
    assert found["map_miou"]["guidance"] == 2.0 and found["counts"]["samples"] == 50
    assert (folder / "maps.png").is_file()


@pytest.mark.parametrize(
    ("name", "more", "says"),
    [
        ("digits", {"scales": "1,b"}, "not numbers with commas"),
        ("photos-ddpm", {}, "without classes or label maps"),
    ],
)
def test_what_cannot_be_measured_says_so(
    run: Runs, name: str, more: dict[str, Any], says: str
) -> None:
    folder = run(get(name))
    with pytest.raises(UsageError, match=says):
        ask(folder, usefulness=True, **more)
    assert not (folder / "evaluation.json").exists()
