"""The curves of guidance, and mixed labels, of runs that have hardly been trained."""

import json
from pathlib import Path

import pytest

from benchmarks import guidance, mixing
from benchmarks.steps import MEASURES
from fromnoise.cli.main import run as command


def trained(folder: Path, recipe: str) -> Path:
    few = ["--train.steps", "2", "--train.sample-every", "0", "--train.validate-every", "0"]
    assert command(["train", recipe, "--out", str(folder / recipe), *few]) == 0
    return folder / recipe


@pytest.mark.slow
def test_every_way_is_measured_at_every_scale(tmp_path: Path) -> None:
    asked = ["--samples", "40", "--steps", "2", "--scales", "0", "1", "3"]
    for name, recipe in guidance.RUNS.items():
        asked += [f"--{name}", str(trained(tmp_path, recipe))]
    guidance.main([*asked, "--results", str(tmp_path), "--pictures", str(tmp_path)])
    found = json.loads((tmp_path / "guidance.json").read_text("utf-8"))
    assert (tmp_path / "guidance-curve.png").stat().st_size > 10_000
    scales = {way: list(rows) for way, rows in found["ways"].items()}
    assert scales == {
        "classifier, model told nothing": ["0", "1", "3"],
        "classifier, model told the class": ["1", "3"],
        "without a classifier": ["0", "1", "3"],
    }
    for rows in found["ways"].values():
        for figures in rows.values():
            assert set(figures) == {*MEASURES, "label_accuracy"}
            for one in figures.values():
                assert one["low"] <= one["value"] <= one["high"]


@pytest.mark.slow
def test_mixed_labels_are_read_at_every_weight(tmp_path: Path) -> None:
    asked = ["--samples", "20", "--steps", "2", "--pair", "1", "7"]
    for recipe in mixing.RUNS:
        asked += [f"--{recipe}", str(trained(tmp_path, recipe))]
    mixing.main([*asked, "--results", str(tmp_path), "--pictures", str(tmp_path)])
    found = json.loads((tmp_path / "mixing.json").read_text("utf-8"))
    assert found["pair"] == [1, 7] and set(found["models"]) == set(mixing.RUNS)
    for rows in found["models"].values():
        assert len(rows) == len(mixing.WEIGHTS)
        for one in rows.values():
            total = sum(one[key]["value"] for key in ("first", "second", "neither"))
            assert total == pytest.approx(1.0)
    assert (tmp_path / "digits-mix.png").stat().st_size > 10_000
