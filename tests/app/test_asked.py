"""What a request may ask for: of a run that goes on, only what it does not hold itself."""

from pathlib import Path

import pytest

from fromnoise.app.asked import asked
from fromnoise.app.reporting import Silent
from fromnoise.app.requests import TrainRequest
from fromnoise.cli.main import run as command
from fromnoise.core.errors import UsageError
from fromnoise.core.files import write_json
from fromnoise.recipes import get
from fromnoise.training.settings import TrainSettings


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run's folder, as far as its configuration."""
    config = get("digits").model_dump(mode="json")
    write_json(tmp_path / "run" / "config.json", {"format": 1, "config": config})
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("field", "value", "flag"),
    [
        ("recipe", "digits", "not both"),
        ("data", "digits", "leave out --data"),
        ("max_bad", 0.01, "leave out --max-bad"),
        ("base", "runs/x", "leave out --from"),
        ("codec", "runs/x", "leave out --codec"),
        ("augment", "flip", "leave out --augment"),
        ("seed", 0, "leave out --seed"),
        ("out", "runs/y", "leave out --out"),
    ],
)
def test_what_a_run_holds_cannot_be_asked_of_it(
    field: str, value: object, flag: str, begun: Path
) -> None:
    request = TrainRequest.model_validate({"resume": str(begun), field: value})
    with pytest.raises(UsageError, match=flag):
        asked(request, Silent())


def test_every_other_field_may_be(begun: Path) -> None:
    more = {"train": TrainSettings(steps=7), "processes": 2, "restarts": 1, "out": None}
    request = TrainRequest.model_validate({"resume": str(begun), **more})
    found = asked(request, Silent())
    assert (found.folder, found.recipe.train.steps) == (begun, 7)
    tried = {"recipe", "data", "max_bad", "base", "codec", "augment", "seed", "out"}
    assert set(TrainRequest.model_fields) == {"resume", *tried, *more}


def test_bad_pictures_are_allowed_only_where_there_are_some() -> None:
    with pytest.raises(UsageError, match="give --data, or leave it out"):
        asked(TrainRequest(recipe="digits", max_bad=0.2), Silent())
    assert asked(TrainRequest(recipe="digits"), Silent()).recipe.name == "digits"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--train.post-hoc", "0.05", "0.1"], "0.1; a flag takes one value"),
        (["--train.post-hoc", "0.5"], "error: post_hoc: a width is above 0"),
    ],
)
def test_widths_are_given_one_by_one(
    flags: list[str], says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command(["train", "digits", *flags, "--out", str(tmp_path / "run")]) == 2
    assert says in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
