"""A sheet over two settings: every cell is the sample its recipe draws; mistakes are one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from model.tiny import tiny
from PIL import Image

from fromnoise.app.grid import AXES, axis
from fromnoise.app.provenance import PictureRecipe
from fromnoise.app.requests import GridRequest, SampleRequest
from fromnoise.cli.main import run
from fromnoise.core.errors import UsageError
from fromnoise.core.images import to_uint8
from fromnoise.core.sheets import labelled_sheet
from fromnoise.interop.loading import load


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny().save(folder)
    return folder


def test_every_cell_is_what_its_recipe_draws(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "sheet.png"
    asked = ["--across", "guidance=1,2,4", "--down", "steps=2,3", "--label", "1", "--seed", "5"]
    assert run(["grid", str(model), *asked, "--out", str(out)]) == 0
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["across"] == {"name": "guidance", "values": ["1", "2", "4"]}
    assert told["down"] == {"name": "steps", "values": ["2", "3"]}
    assert [(c["row"], c["column"]) for c in told["cells"]] == [
        (r, c) for r in range(2) for c in range(3)
    ]
    sheet = np.asarray(Image.open(out).convert("RGB"))
    opened = load(str(model))
    for cell in told["cells"]:
        (one,) = cell["samples"]
        draw = PictureRecipe.model_validate(one).draw
        assert (draw.guidance, draw.steps) == ([1, 2, 4][cell["column"]], [2, 3][cell["row"]])
        assert draw.label == 1 and draw.seeds == [5]
        assert one["model"]["fingerprint"] == opened.fingerprint
        arguments = draw.model_dump(exclude={"seeds", "start", "guide", "used"})
        again = opened.sample(1, seed=draw.seeds, **arguments)
        pixels = to_uint8(again.tensor)[0].repeat(8, 0).repeat(8, 1).repeat(3, 2)
        assert _found(sheet, pixels), cell
        assert not _found(sheet, 255 - pixels), cell


def _found(sheet: np.ndarray, part: np.ndarray) -> bool:
    """Whether a picture stands somewhere on a sheet, pixel for pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(sheet, part.shape)
    rows, columns = np.nonzero((windows[:, :, 0, 0, 0] == part[0, 0]).all(-1))
    return any(np.array_equal(windows[r, c, 0], part) for r, c in zip(rows, columns, strict=True))


def test_one_row_several_samples_and_settings_of_text(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheet.png"
    asked = ["--across", "interval=0.1,0.5|0.2,0.9", "-n", "2", "--guidance", "3", "--label", "0,2"]
    assert run(["grid", str(model), *asked, "--steps", "2", "--out", str(out)]) == 0
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["down"] is None and len(told["cells"]) == 2
    draws = [[one["draw"] for one in cell["samples"]] for cell in told["cells"]]
    assert [[d["interval"] for d in one] for one in draws] == [[[0.1, 0.5]] * 2, [[0.2, 0.9]] * 2]
    assert [[d["label"] for d in one] for one in draws] == [[0, 2]] * 2
    assert [[d["seeds"] for d in one] for one in draws] == [[[0], [1]]] * 2
    said = capfd.readouterr()
    assert "2 cells in" in said.out


@pytest.mark.parametrize("name", AXES)
def test_every_axis_is_a_setting_of_samples_and_of_the_grid(name: str) -> None:
    assert name in SampleRequest.model_fields and name in GridRequest.model_fields
    assert axis(f"{name}=1, 2", "across").values == ("1", "2")
    assert name in axis(f"{name}=1", "across").labels()[0] or name in ("prompt", "sampler")


MISTAKES = [
    (
        ["--across", "guidence=1,2"],
        "unknown setting for --across 'guidence'; did you mean guidance",
    ),
    (["--across", "guidance"], "--across 'guidance' is not NAME=VALUE,VALUE"),
    (["--across", "guidance=1,,2"], "is not NAME=VALUE,VALUE"),
    (["--across", "guidance=1,much"], "grid: guidance: input should be a valid number"),
    (["--across", "steps=2.5"], "grid: steps: "),
    (["--across", "steps=0,1"], "grid: steps: input should be greater than or equal to 1"),
    (["--across", "steps=2", "--down", "steps=3"], "steps goes across and down"),
    (["--across", "steps=2", "--steps", "3"], "steps is given, and goes through values too"),
    (["--across", "sampler=ddim,dmp"], "unknown sampler 'dmp'"),
    (["--across", "label=1,9"], "label 9 is not a class"),
    (["--across", "guidance=1,3"], "told nothing"),
    (["--across", "seed=" + ",".join(map(str, range(2000)))], "2000 cells are too many"),
    (["--across", "out=a,b"], "unknown setting for --across 'out'"),
    (["--across", "steps=2", "--out", "sheet.jpg"], "sheet.jpg is no PNG"),
]


@pytest.mark.parametrize(("asked", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(
    asked: list[str],
    message: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["grid", str(model), *asked]) == 2
    said = capfd.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and said.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ['{"format": 1, "config": {}}', "[1]", "not JSON", ""])
def test_a_file_beside_the_sheet_is_not_lost(
    text: str, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, mine = tmp_path / "config.png", tmp_path / "config.json"
    mine.write_text(text)
    asked = ["grid", str(model), "--across", "steps=1,2", "--out", str(out)]
    assert run(asked) == 2
    said = capfd.readouterr().err
    assert f"{mine} is there and not of a sheet" in said and said.count("\n") == 1
    assert mine.read_text() == text and not out.exists()
    mine.unlink()
    assert run(asked) == 0
    first = mine.read_bytes()
    # That of an earlier sheet makes room for this one's.
    assert run([*asked, "--seed", "3"]) == 0 and mine.read_bytes() != first


def test_sizes_go_across(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    sizes = ["--across", "width=8,16", "--down", "height=8,16"]
    assert run(["grid", str(model), *sizes, "--steps", "1", "--out", str(out)]) == 0
    cells = json.loads(out.with_suffix(".json").read_text())["cells"]
    shapes = [cell["samples"][0]["draw"]["shape"] for cell in cells]
    assert shapes == [[1, 8, 8], [1, 8, 16], [1, 16, 8], [1, 16, 16]]


def test_a_model_is_needed(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["grid", "--across", "steps=1,2"]) == 2
    assert "name a run or model" in capfd.readouterr().err


def test_a_labelled_sheet_has_its_pictures_in_place_and_long_names_in_lines() -> None:
    red, blue = (Image.new("RGB", (40, 20), color) for color in ("red", "blue"))
    across = ["a", "a very long name " * 20]
    sheet = np.asarray(labelled_sheet([[red, blue], [blue, red]], across, ["x", "y"]))
    flat = sheet.reshape(-1, 3)
    for color, count in (((255, 0, 0), 2 * 800), ((0, 0, 255), 2 * 800)):
        assert (flat == color).all(1).sum() == count
    rows, columns = np.nonzero((sheet == (255, 0, 0)).all(2))
    half = sheet.shape[1] / 2
    assert (columns[rows < rows.mean()] < half).all() and (columns[rows > rows.mean()] > half).all()
    assert sheet[: rows.min()].min() < 128 and sheet.shape[1] < 500
    with pytest.raises(UsageError, match="full rows of 2"):
        labelled_sheet([[red]], ["a", "b"], ["x"])
    with pytest.raises(UsageError, match="1 names given for 2 rows"):
        labelled_sheet([[red], [red]], ["a"], ["x"])


def test_points_are_drawn_as_scatters(tmp_path: Path) -> None:
    from fromnoise import codecs, encoders, nets, parameterizations, processes, schedules
    from fromnoise.denoisers import NetworkDenoiser
    from fromnoise.model import Model

    torch.manual_seed(0)
    net = nets.build({"kind": "mlp", "in_channels": 2, "width": 8})
    process = processes.Gaussian(schedules.cosine())
    denoiser = NetworkDenoiser(net, process, parameterizations.V())
    made = Model(denoiser, (2,), codecs.Identity(), encoders.Conditioning({}))
    made.save(tmp_path / "points")
    out = tmp_path / "sheet.png"
    asked = ["--across", "steps=1,2", "-n", "20", "--out", str(out)]
    assert run(["grid", str(tmp_path / "points"), *asked]) == 0
    assert Image.open(out).width > 640
