"""The neighbours by the command line: trained, drawn in one step, evaluated, drawn again."""

import json
from pathlib import Path

import pytest
import torch

import fromnoise as fn
from fromnoise.cli.main import run as command
from fromnoise.core.errors import UsageError
from fromnoise.recipes import RECIPES

AT_ONCE = ("digits-hvae", "digits-gan")


@pytest.mark.parametrize("name", ["digits-vae", *AT_ONCE, "digits-vdm"])
def test_a_recipe_builds_and_names_its_objective(name: str) -> None:
    made = RECIPES[name]()
    assert made.objective.kind == {"digits-hvae": "vae"}.get(name, name.split("-")[1])
    again = type(made).model_validate(json.loads(made.model_dump_json()))
    assert again == made


@pytest.mark.parametrize("name", AT_ONCE)
def test_it_is_trained_sampled_and_replayed_like_any_other(tmp_path: Path, name: str) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    few = ["--train.steps", "2", "--train.batch-size", "8", "--train.sample-every", "0"]
    assert command(["train", name, "--out", str(run), *few]) == 0
    assert command(["sample", str(run), "-n", "2", "--label", "3", "--out", str(out)]) == 0
    picture = next(iter(sorted(out.glob("*.png"))))
    again = tmp_path / "again"
    assert command(["sample", "--replay", str(picture), "--out", str(again)]) == 0
    model = fn.load(run)
    drawn = model.sample(2, label=3, seed=0)
    assert torch.equal(drawn.tensor, model.sample(2, label=3, seed=0).tensor)
    assert drawn.recipe["steps"] == 1
    with pytest.raises(UsageError, match="steps=1"):
        model.sample(1, label=3, steps=2)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bounded"), [("digits-vae", True), ("digits-gan", False)])
def test_it_is_evaluated_and_has_bits_where_they_are_defined(
    tmp_path: Path, name: str, bounded: bool
) -> None:
    run = tmp_path / "run"
    assert command(["train", name, "--out", str(run), "--train.steps", "5"]) == 0
    assert command(["evaluate", str(run), "--samples", "60", "--likelihood", "20"]) == 0
    found = json.loads((run / "evaluation.json").read_text("utf-8"))
    assert ("bits_per_dim" in found) is bounded
    assert found["sampling"]["steps"] == 1
