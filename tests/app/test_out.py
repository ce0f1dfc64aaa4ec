"""Where pictures are to go is tried before any is drawn, and the trial leaves nothing behind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from model.tiny import tiny

from fromnoise.cli.main import run
from fromnoise.model import hires

LONG = "x" * 300
"""A name that no file system takes."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny().save(folder)
    return folder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples each walk was asked for."""
    counts: list[int] = []
    walk = hires.walk

    def counted(model: Any, draw: Any) -> Iterator[Any]:
        counts.append(len(draw.seeds))
        return walk(model, draw)

    monkeypatch.setattr(hires, "walk", counted)
    return counts


ASKED = [
    ["sample", "-n", "1", "--out", "{}"],
    ["sample", "-n", "1", "--as-dataset", "{}"],
    ["grid", "--across", "steps=1,2", "--out", "{}/sheet.png"],
]


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("place", [LONG, f"new/deep/{LONG}"])
def test_a_place_that_cannot_be_is_found_before_drawing(
    asked: list[str],
    place: str,
    model: Path,
    tmp_path: Path,
    drawn: list[int],
    capfd: pytest.CaptureFixture[str],
) -> None:
    told = [part.format(tmp_path / place) for part in asked[1:]]
    assert run([asked[0], str(model), *told]) == 1
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "choose a shorter name" in err
    assert drawn == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("asked", ASKED)
def test_a_folder_that_takes_no_files_is_found_before_drawing(
    asked: list[str], model: Path, drawn: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    """A folder of /proc: not even the superuser makes anything there."""
    assert run([asked[0], str(model), *(part.format("/proc/self/new") for part in asked[1:])]) == 1
    assert "cannot write /proc/self/new" in capfd.readouterr().err
    assert drawn == []


@pytest.mark.parametrize("asked", ASKED)
def test_a_place_that_can_be_is_drawn_into(
    asked: list[str], model: Path, tmp_path: Path, drawn: list[int]
) -> None:
    """The control: the same requests draw."""
    assert run([asked[0], str(model), *(part.format(tmp_path / "new") for part in asked[1:])]) == 0
    assert drawn and list((tmp_path / "new").rglob("*.png"))
    assert not list(tmp_path.rglob("*.tmp-*"))
