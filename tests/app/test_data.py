"""Checking and previewing data from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fromnoise.cli.main import run

PIXELS = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (24, 20, 3), dtype=np.uint8)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    folder = tmp_path / "pets"
    folder.mkdir()
    for i in range(19):
        Image.fromarray(np.roll(PIXELS, i, 0)).save(folder / f"{i:02d}.png")
    (folder / "broken.png").write_bytes(b"")
    return folder


def test_the_exit_code_says_whether_too_many_are_bad(
    pets: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "check", str(pets)]) == 1
    told = capfd.readouterr()
    assert "20 pictures, 19 good, 1 bad (5.00%)" in told.out
    assert "broken.png: no bytes at all" in told.out
    assert "5.00% of the pictures are bad, more than 1.00%" in told.err
    assert run(["data", "check", str(pets), "--max-bad", "0.05"]) == 0
    assert "more than" not in capfd.readouterr().err
    (pets / "broken.png").unlink()
    assert run(["data", "check", str(pets), "--max-bad", "0"]) == 0


def test_everything_goes_into_the_json(pets: Path, tmp_path: Path) -> None:
    out = tmp_path / "told.json"
    assert run(["data", "check", str(pets), "--out", str(out), "--max-bad", "1"]) == 0
    told = json.loads(out.read_text())
    assert told["pictures"] == 20 and told["bad"] == {"empty": {"broken.png": "no bytes at all"}}
    assert told["sizes"] == {"20x24": 19}


def test_no_more_names_than_asked_are_listed(pets: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for i in range(8):
        (pets / f"bad{i}.png").write_bytes(b"")
    run(["data", "check", str(pets), "--show", "2"])
    out = capfd.readouterr().out
    assert out.count("no bytes at all") == 3
    assert "and 7 more" in out


@pytest.mark.parametrize(
    ("source", "size"), [("digits", None), ("shapes", 64), ("points", None), ("glyphs", 16)]
)
def test_a_preview_of_every_sort(
    source: str, size: int | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheet.png"
    asked = ["--size", str(size)] if size else []
    assert run(["data", "preview", source, "--out", str(out), "-n", "20", *asked]) == 0
    with Image.open(out) as sheet:
        shades = len(np.unique(np.asarray(sheet.convert("L"))))
        assert shades > 4 and min(sheet.size) > 60
    assert "samples of shape" in capfd.readouterr().out


def test_a_preview_of_files(pets: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    np.savez(tmp_path / "x.npz", images=np.stack([PIXELS] * 3))
    (tmp_path / "x.json").write_text('{"kind": "shapes", "size": 32}')
    for source in (pets, tmp_path / "x.npz", tmp_path / "x.json"):
        out.unlink(missing_ok=True)
        assert run(["data", "preview", str(source), "--out", str(out), "--size", "32"]) == 0
        assert out.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["data", "check", "nowhere"], "does not exist"),
        (["data", "check", ".", "--max-bad", "2"], "less than or equal to 1"),
        (["data", "check", "."], "holds no pictures"),
        (["data", "preview", "nowhere"], "no data set by name; known: digits"),
        (["data", "preview", "digits", "-n", "0"], "greater than or equal to 1"),
        (["data", "preview", "arrays"], "arrays is no file or folder"),
        (["data", "preview", "shapes", "--size", "16"], "size is 16"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_trace(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    err = capfd.readouterr().err
    assert says in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
