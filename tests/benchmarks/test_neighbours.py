"""The table of the neighbours is what their evaluations say."""

import json
from pathlib import Path

import pytest

from benchmarks import neighbours
from fromnoise.cli.main import run as command
from fromnoise.core.errors import FileError
from fromnoise.interop.loading import load


def _trained(folder: Path) -> None:
    few = ["--train.steps", "2", "--train.batch-size", "8", "--train.sample-every", "0"]
    assert command(["train", "digits-gan", "--out", str(folder), *few]) == 0


def _figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value, "high": value}


def test_a_row_is_read_from_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "digits-gan"
    _trained(run)
    with pytest.raises(FileError, match="was not evaluated"):
        neighbours.row(run, load(run))
    found = {
        "frechet_distance": _figure(1.5), "precision": _figure(0.9), "recall": _figure(0.8),
        "label_accuracy": {"value": 1.0, "unguided": 0.95},
        "sampling": {"sampler": "ddim", "steps": 1},
    }  # fmt: skip
    (run / "evaluation.json").write_text(json.dumps(found))
    made = neighbours.row(run, load(run))
    assert (made.bits, made.frechet, made.labels, made.evaluations) == (None, 1.5, 0.95, 1)
    asked = ["--runs", str(tmp_path), "--names", "digits-gan"]
    neighbours.main([*asked, "--results", str(tmp_path), "--pictures", str(tmp_path)])
    assert "| `digits-gan` | not defined | 1.50 | 0.90 | 0.80 |" in capsys.readouterr().out
    assert (tmp_path / "neighbours.png").stat().st_size > 1000
