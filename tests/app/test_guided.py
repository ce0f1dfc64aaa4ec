"""Prompts, negatives and guides on the command line: drawn, replayed, refused in one line."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from model.tiny import tiny, tiny_text
from PIL import Image

import fromnoise.app.dataset as app_dataset
import fromnoise.app.grid as app_grid
import fromnoise.app.sample as app_sample
from fromnoise.cli.main import run
from fromnoise.core.images import read_png_text
from fromnoise.interop.loading import load
from fromnoise.model import Model

ONE_LINE = re.compile(r"^fromnoise: error: [^\n]+\n$")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_text().save(folder / "text")
    tiny_text(seed=1).save(folder / "worse")
    tiny().save(folder / "labels")
    red = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    Image.fromarray(red).save(folder / "red.png")
    return folder


def mean(path: Path) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(Image.open(path)).reshape(-1, 3).mean(0)


def test_all_of_it_is_drawn_recorded_and_drawn_again_bit_for_bit(
    models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = [
        "[red:blue:0.4] circle", "-n", "2", "--guidance", "3", "--negative", "an old one",
        "--interval", "0.1,0.9", "--rescale", "0.5", "--threshold", "0.99",
        "--guide", f"auto:{models / 'worse'}:1.5", "--guide", "color:blue",
        "--guide", "symmetry:left-right:3", "--guide", f"similar:{models / 'red.png'}:0.1",
    ]  # fmt: skip
    out = tmp_path / "drawn"
    assert run(["sample", str(models / "text"), *asked, "--out", str(out)]) == 0
    text = read_png_text(out / "000001.png")
    draw = json.loads(text["fromnoise"])["draw"]
    assert draw["prompt"] == "[red:blue:0.4] circle"
    assert draw["negative"] == "an old one"
    assert draw["interval"] == [0.1, 0.9]
    assert draw["guide"][1:3] == ["color:blue", "symmetry:left-right:3"]
    lines = text["parameters"].splitlines()
    assert lines[:2] == ["[red:blue:0.4] circle", "Negative prompt: an old one"]
    assert "CFG scale: 3" in lines[2]
    assert run(["sample", "--replay", str(out / "000001.png"), "--out", str(tmp_path)]) == 0
    assert "bit for bit" in capfd.readouterr().out


@pytest.mark.parametrize(("name", "guide"), [("red.png", "similar:{}:3"), ("worse", "auto:{}:3")])
def test_a_replay_says_what_is_not_the_same_any_more(
    models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, guide: str
) -> None:
    shutil.copytree(models, tmp_path / "models")
    source = tmp_path / "models" / name
    asked = [str(models / "text"), "a", "-n", "1", "--guide", guide.format(source)]
    assert run(["sample", *asked, "--out", str(tmp_path)]) == 0
    replay = ["sample", "--replay", str(tmp_path / "000000.png"), "--out", str(tmp_path)]
    assert run(replay) == 0
    if name == "red.png":
        Image.fromarray(np.full((8, 8, 3), (0, 0, 255), np.uint8)).save(source)
    else:
        shutil.rmtree(source)
        tiny_text(seed=2).save(source)
    capfd.readouterr()
    assert run(replay) == 1
    said = capfd.readouterr().err
    assert f"{source} is not the one it was drawn with" in said
    assert "nothing recorded differs" not in said and "model's weights" not in said


def test_a_guide_is_loaded_once_for_all_cells_and_batches(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []

    def counted(source: str) -> Model:
        loads.append(Path(source).name)
        return load(source)

    for room in (app_grid, app_dataset, app_sample):
        monkeypatch.setattr(room, "load", counted)
    guide = ["--guide", f"auto:{models / 'worse'}:1.5", "-n", "2"]
    out = str(tmp_path / "sheet.png")
    sheet = ["grid", str(models / "text"), "a", *guide, "--across", "guidance=1,2,3", "--out", out]
    assert run(sheet) == 0
    assert loads.count("worse") == 1
    loads.clear()
    folder = ["--as-dataset", str(tmp_path / "set"), "--batch-size", "1"]
    tiny(seed=1).save(tmp_path / "worse-labels")
    guide = ["--guide", f"auto:{tmp_path / 'worse-labels'}:1.5", "-n", "3"]
    assert run(["sample", str(models / "labels"), *guide, *folder]) == 0
    assert loads.count("worse-labels") == 1


def test_a_colour_asked_for_is_seen(models: Path, tmp_path: Path) -> None:
    for name, guide in (("plain", []), ("blue", ["--guide", "color:blue"])):
        asked = [str(models / "text"), "circle", "-n", "1", "--out", str(tmp_path / name), *guide]
        assert run(["sample", *asked]) == 0
    plain, blue = (mean(tmp_path / name / "000000.png") for name in ("plain", "blue"))
    wanted = np.array([0, 0, 255])
    assert np.abs(blue - wanted).sum() < 0.7 * np.abs(plain - wanted).sum()


def test_a_class_can_be_the_negative(models: Path, tmp_path: Path) -> None:
    asked = ["-n", "1", "--label", "1", "--negative", "2", "--guidance", "3"]
    assert run(["sample", str(models / "labels"), *asked, "--out", str(tmp_path)]) == 0
    draw = json.loads(read_png_text(tmp_path / "000000.png")["fromnoise"])["draw"]
    assert (draw["label"], draw["negative"]) == (1, 2)


@pytest.mark.parametrize(
    ("model", "arguments", "says"),
    [
        ("labels", ["a cat"], "not told a prompt; it takes label"),
        ("labels", ["--label", "3"], "label 3"),
        ("labels", ["--label", "1", "--guidance", "2", "--negative", "9"], "label 9"),
        ("labels", ["--guidance", "3"], "told nothing"),
        ("text", [""], "prompt is empty"),
        ("text", ["x " * 20_000], "use at most"),
        ("text", ["(a:nan)"], "not a finite number"),
        ("text", ["a", "--negative", "b"], "give guidance"),
        ("text", ["a", "--guidance", "3", "--negative", " "], "negative prompt is empty"),
        ("text", ["a", "--guidance", "3", "--interval", "0.2"], "two times"),
        ("text", ["a", "--guidance", "3", "--interval", "0.8,0.2"], "lower first"),
        ("text", ["a", "--rescale", "2"], "less than or equal to 1"),
        ("text", ["a", "--threshold", "0"], "greater than 0"),
        ("text", ["a", "--guide", "colr:blue"], "did you mean color"),
        ("text", ["a", "--guide", "color:bleu"], "bleu"),
        ("text", ["a", "--guide", "similar:nowhere.png"], "does not exist"),
        ("text", ["a", "--guide", "auto:nowhere"], "no such file"),
        ("labels", ["--label", "1", "--guide", "color:blue"], "3 channels"),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_leaves_nothing(
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    model: str,
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["sample", str(models / model), *arguments, "-n", "2", "--out", "out"]) == 2
    error = capfd.readouterr().err.splitlines(keepends=True)[-1]
    assert ONE_LINE.match(error), error
    assert says in error
    assert list(tmp_path.iterdir()) == []


def test_a_guide_made_by_hand_is_not_repeatable_and_says_so(
    models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import fromnoise as fn
    from fromnoise.app.sample import write

    model = fn.load(models / "text")
    guide = fn.guidance.loss(lambda x0: x0.square().mean(), 2.0)
    write(model.sample(1, prompt="a", guide=guide, steps=2), model, tmp_path)
    assert run(["sample", "--replay", str(tmp_path / "000000.png")]) == 2
    assert "a guide made by hand" in capfd.readouterr().err
