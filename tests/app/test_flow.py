"""From data to a trained model to samples to figures, as a user does it, in little."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fromnoise.cli.main import run
from fromnoise.core.images import read_png_text, write_png
from fromnoise.data import Batch
from fromnoise.evaluate import KEYS
from fromnoise.training import loop

TRAIN = ["--train.steps", "12", "--train.batch-size", "32", "--train.validate-every", "6"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert run(["train", "digits", "--out", str(folder), *TRAIN]) == 0
    return folder


@pytest.fixture(scope="module")
def drawn(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("samples")
    asked = ["-n", "5", "--label", "3,4", "--steps", "4", "--guidance", "2", "--seed", "7"]
    assert run(["sample", str(trained), *asked, "--film", "--out", str(out)]) == 0
    return out


def test_a_run_folder_holds_what_goes_on_and_what_it_was(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"config.json", "environment.json", "metrics.jsonl", "checkpoints"} <= names
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert {row["step"] for row in rows if "validation" in row} == {6, 12}


def test_giving_the_same_command_again_changes_nothing(
    trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "metrics.jsonl").read_bytes()
    assert run(["train", "digits", "--out", str(trained), *TRAIN]) == 0
    assert "trained already" in capfd.readouterr().out
    assert (trained / "metrics.jsonl").read_bytes() == before
    assert run(["train", "--resume", str(trained)]) == 0


def test_every_picture_carries_its_recipe(drawn: Path) -> None:
    pictures = sorted(drawn.glob("0*.png"))
    assert [path.stem for path in pictures] == [f"{7 + i:06d}" for i in range(5)]
    text = read_png_text(pictures[1])
    recipe = json.loads(text["fromnoise"])
    assert recipe["draw"]["seeds"] == [8]
    assert recipe["draw"]["label"] == 4
    assert "Steps: 4, Sampler: DPM++ 2M" in text["parameters"]
    assert "Seed: 8, Size: 8x8" in text["parameters"]
    assert Image.open(drawn / "film.png").width > Image.open(drawn / "film.png").height / 4


def test_a_replay_is_the_same_picture_bit_for_bit(
    drawn: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("000007.png", "000010.png"):
        assert run(["sample", "--replay", str(drawn / name), "--out", str(tmp_path)]) == 0
        assert "bit for bit" in capfd.readouterr().out
        old, new = np.asarray(Image.open(drawn / name)), Image.open(tmp_path / f"replay-{name}")
        assert np.array_equal(old, np.asarray(new))


def test_a_replay_says_what_differs(
    drawn: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = read_png_text(drawn / "000007.png")
    recipe = json.loads(text["fromnoise"])
    recipe["environment"]["packages"]["torch"] = "1.0"
    changed = np.asarray(Image.open(drawn / "000007.png")).copy()
    changed[0, 0] = 255 - changed[0, 0]
    path = tmp_path / "edited.png"
    write_png(path, Image.fromarray(changed), {"fromnoise": json.dumps(recipe)})
    assert run(["sample", "--replay", str(path), "--out", str(tmp_path)]) == 1
    err = capfd.readouterr().err
    assert "differs" in err
    assert "torch: 1.0 then" in err


def test_a_picture_without_a_recipe_is_refused(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "plain.png")
    assert run(["sample", "--replay", str(tmp_path / "plain.png")]) == 2


@pytest.mark.slow
def test_evaluating_writes_every_documented_figure(trained: Path) -> None:
    asked = ["--samples", "60", "--steps", "3", "--likelihood", "4"]
    assert run(["evaluate", str(trained), *asked]) == 0
    found = json.loads((trained / "evaluation.json").read_text())
    assert set(KEYS) <= set(found)
    for key in ("label_accuracy", "frechet_distance", "bits_per_dim"):
        assert found[key]["low"] <= found[key]["value"] <= found[key]["high"]
    page = (trained / "report.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("data:image/png;base64") >= 4


def test_points_are_written_as_a_table_and_a_scatter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "points", tmp_path / "out"
    assert run(["train", "points-flow", "--out", str(folder), "--train.steps", "5"]) == 0
    assert run(["sample", str(folder), "-n", "40", "--steps", "3", "--out", str(out)]) == 0
    assert np.load(out / "samples.npy", allow_pickle=False).shape == (40, 2)
    assert (out / "sheet.png").exists()
    capsys.readouterr()
    assert run(["evaluate", str(folder), "--guidance", "2"]) == 2
    assert "told no label to be guided by; leave out --guidance" in capsys.readouterr().err
    assert not (folder / "evaluation.json").exists()


def test_ctrl_c_saves_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, took = tmp_path / "run", loop._Step.__call__

    def interrupted(step: loop._Step, batch: Batch, index: int, of: int) -> object:
        if index == 3:
            signal.raise_signal(signal.SIGINT)
        return took(step, batch, index, of)

    monkeypatch.setattr(loop._Step, "__call__", interrupted)
    command = ["train", "points-ddpm", "--out", str(folder), "--train.batch-size", "64"]
    command += ["--train.steps", "6", "--train.checkpoint-every", "0"]
    assert run(command) == 130
    said = capfd.readouterr().err
    assert "Traceback" not in said and "give the same command to go on" in said
    assert _steps(folder) == [1, 2, 3]
    monkeypatch.undo()
    assert run(command) == 0
    assert _steps(folder) == [1, 2, 3, 4, 5, 6]


def _steps(folder: Path) -> list[int]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


@pytest.mark.slow
def test_ctrl_c_from_outside_ends_a_process_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "fromnoise", "train", "points-ddpm", "--out", str(folder)]
    command += ["--train.steps", "3000", "--train.batch-size", "64"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ})
    metrics = folder / "metrics.jsonl"
    until = time.monotonic() + 60
    while time.monotonic() < until and not (metrics.exists() and metrics.stat().st_size > 500):
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "Traceback" not in err
    assert "give the same command to go on" in err
    steps = _steps(folder)
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.parametrize("key", ["model", "draw", "environment"])
def test_a_damaged_recipe_is_one_line(
    drawn: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], key: str
) -> None:
    recipe = json.loads(read_png_text(drawn / "000007.png")["fromnoise"])
    del recipe[key]
    path = tmp_path / "damaged.png"
    write_png(path, Image.open(drawn / "000007.png"), {"fromnoise": json.dumps(recipe)})
    assert run(["sample", "--replay", str(path)]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert key in err
