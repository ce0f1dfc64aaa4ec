"""The command line: a mistake is one line and exit code 2, and leaves no trace."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fromnoise.app.verbs import VERBS
from fromnoise.cli.main import guarded, run

ONE_LINE = re.compile(r"^fromnoise: error: [^\n]+\n$")
HUGE = 2**50
"""Numbers that no address counts, whatever memory there is."""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "digit"], "did you mean digits"),
        (["train"], "name a recipe"),
        (["train", "digits", "--resume", "x"], "not both"),
        (["train", "missing.json"], "no such recipe file"),
        (["train", "digits", "--train.steps", "-5"], "greater than or equal to 1"),
        (["train", "digits", "--train.steps", "many"], "valid integer"),
        (["train", "digits", "--train.stepz", "5"], "--train.steps"),
        (["train", "digits", "--train.optimizer", "adamx", "--out", "o"], "adamw"),
        (["train", "--resume", "nowhere"], "no such run"),
        (["sample"], "name a run or model"),
        (["sample", "nowhere"], "no such file or folder"),
        (["sample", "nowhere", "--steps", "0"], "greater than or equal to 1"),
        (["sample", "nowhere", "--steps", "-3"], "greater than or equal to 1"),
        (["sample", "nowhere", "--seed", "-1"], "greater than or equal to 0"),
        (["sample", "--replay", "nowhere.png"], "no such file"),
        (["evaluate", "nowhere"], "no such run"),
        (["evaluate"], "RUN"),
        (["recipes", "digit"], "did you mean digits"),
        (["runs", "list", "nowhere"], "no such folder"),
        (["runs", "compare", "nowhere"], "nowhere"),
        (["smaple"], "smaple"),
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
    out, err = capfd.readouterr()
    assert ONE_LINE.match(err), err
    assert says in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_pickle_is_never_opened(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import pickle

    path = tmp_path / "model.ckpt"
    path.write_bytes(pickle.dumps({"weights": [1.0]}))
    assert run(["sample", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "pickle" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_field_of_a_request_stands_in_its_help(
    verb: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run([*verb.split(), "--help"]) == 0
    text = " ".join(capfd.readouterr().out.split())
    for name, field in VERBS[verb][0].model_fields.items():
        nested = getattr(field.annotation, "model_fields", None)
        if nested is None:
            flag = name.upper() if "positional" in (field.json_schema_extra or {}) else name
            assert flag.replace("_", "-") in text.replace("_", "-"), name
            assert field.description
            continue
        for inner, leaf in nested.items():
            assert f"--{name}.{inner.replace('_', '-')}" in text
            assert leaf.description


def test_the_module_is_the_program() -> None:
    program = [sys.executable, "-m", "fromnoise", "--help"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert all(verb.split()[0] in done.stdout for verb in VERBS)


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; from fromnoise.cli.main import run\n"
        "try: run(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'matplotlib', 'accelerate'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("heavy: []"), done.stdout[-300:] + done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sample", "nowhere", "--steps", "2.5"], "2.5"),
        (["sample", "nowhere", "-n", "2.7"], "2.7"),
        (["sample", "nowhere", "--guidance", "nan"], "finite"),
        (["sample", "nowhere", "--out", "taken"], "taken is a file"),
        (["sample", "nowhere", "--out", "taken/inside"], "taken is a file"),
        (["sample", "--replay", "x.png", "--seed", "3"], "leave out --seed"),
        (["train", "digits", "--out", "taken"], "taken is a file"),
        (["train", "digits", "--train.learning-rate", "inf"], "finite"),
        (["train", "digits", "--seed", "4", "--train.seed", "3"], "same setting"),
        (["train", "digits", "--train.batch-size", "100000"], "more than the"),
        (["evaluate", "."], "not a run folder"),
        (["runs", "compare", "nowhere", "--out", "taken/x.html"], "taken is a file"),
    ],
)
def test_numbers_and_places_are_checked_before_any_work(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("mine")
    assert run(arguments) == 2
    err = capfd.readouterr().err
    assert ONE_LINE.match(err), err
    assert says in err
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_size_that_does_not_fit_names_the_way_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sides = ["--width", str(2**26), "--height", str(2**24)]
    asked = ["emoji", "-n", "1", "--steps", "1", "--out", str(tmp_path / "out"), *sides]
    assert run(["sample", *asked]) == 1
    out, err = capfd.readouterr()
    assert ONE_LINE.match(err), err
    assert "out of memory" in err
    assert all(flag in err for flag in ("--width", "--height", "--batch-size", "--half"))
    assert out == "" and list(tmp_path.iterdir()) == []


def _on_a_device() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.mark.parametrize(
    "work",
    [
        lambda: torch.zeros(HUGE),
        lambda: torch.zeros(HUGE, HUGE),
        lambda: np.zeros(HUGE),
        lambda: bytearray(HUGE),
        _on_a_device,
    ],
)
def test_memory_that_runs_out_is_one_line(
    work: Callable[[], object], capfd: pytest.CaptureFixture[str]
) -> None:
    assert guarded(work) == 1
    assert ONE_LINE.match(capfd.readouterr().err)


def test_another_fault_of_torch_is_not_taken_for_it() -> None:
    """The control: a bug keeps its traceback."""
    with pytest.raises(RuntimeError, match="must match the size"):
        guarded(lambda: torch.zeros(2) + torch.zeros(3))


def test_a_recipe_that_cannot_work_is_found_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import json

    from fromnoise import recipes

    monkeypatch.chdir(tmp_path)
    good = recipes.get("digits").model_dump(mode="json")
    bad = [
        {**good, "net": {**good["net"], "multipliers": [1, 2, 2, 2, 2, 2]}},
        {**good, "net": {**good["net"], "in_channels": 3}},
        {**good, "encoders": {}},
        {**good, "sampling": {**good["sampling"], "sampler": "dpmp"}},
        {**good, "sampling": {**good["sampling"], "grid": "karas"}},
    ]
    for index, recipe in enumerate(bad):
        path = tmp_path / f"{index}.json"
        path.write_text(json.dumps(recipe))
        assert run(["train", str(path), "--out", f"run{index}"]) == 2
        assert ONE_LINE.match(capfd.readouterr().err)
        assert not (tmp_path / f"run{index}").exists()
