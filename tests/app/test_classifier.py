"""A classifier by the command line: trained, gone on with, measured; it guides, and never draws."""

import json
from pathlib import Path

import pytest
import torch

import fromnoise as fn
from fromnoise.app.sample import weighed
from fromnoise.cli.main import run as command
from fromnoise.core.errors import UsageError
from fromnoise.recipes import RECIPES

FEW = ["--train.batch-size", "8", "--train.sample-every", "0", "--train.validate-every", "0"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the recipe that has hardly begun."""
    run = tmp_path_factory.mktemp("runs") / "judge"
    asked = ["train", "digits-classifier", "--out", str(run), "--train.schedule", "constant"]
    assert command([*asked, "--train.steps", "2", *FEW]) == 0
    return run


def test_the_recipes_say_what_they_are() -> None:
    for name in ("digits-classifier", "digits-classifier-guidance", "digits-mix"):
        made = RECIPES[name]()
        assert type(made).model_validate(json.loads(made.model_dump_json())) == made
    assert RECIPES["digits-classifier"]().objective.kind == "classifier"
    assert not RECIPES["digits-classifier-guidance"]().encoders


def test_it_goes_on_and_is_measured_by_noise(
    classifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["train", "--resume", str(classifier), "--train.steps", "4"]) == 0
    assert command(["evaluate", str(classifier)]) == 0
    found = json.loads((classifier / "evaluation.json").read_text("utf-8"))
    assert [one["t"] for one in found["by_noise"]] == [i / 10 for i in range(11)]
    for one in found["by_noise"]:
        assert one["accuracy"]["low"] <= one["accuracy"]["value"] <= one["accuracy"]["high"]
        assert one["loss"]["value"] > 0
    assert found["counts"]["held_out"] == 359 == found["accuracy"]["count"]
    for name in ("accuracy.png", "loss.png", "report.html"):
        assert (classifier / name).stat().st_size > 1000
    capsys.readouterr()
    assert command(["evaluate", str(classifier), "--samples", "60"]) == 2
    assert "draws no samples; leave out --samples" in capsys.readouterr().err


def test_it_is_not_sampled(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for form in ("onnx", "torch-export"):
        assert command(["convert", str(classifier), str(tmp_path / "made"), "--to", form]) == 2
        assert "draws nothing" in capsys.readouterr().err
    out = tmp_path / "out"
    assert command(["sample", str(classifier), "-n", "2", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "draws nothing" in said and f"--guide classifier:{classifier}" in said
    assert not out.exists()


def test_it_guides_a_model_that_is_told_nothing(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "untold", tmp_path / "out"
    train = ["train", "digits-classifier-guidance", "--out", str(run), "--train.steps", "2", *FEW]
    assert command(train) == 0
    guide = ["--guide", f"classifier:{classifier}:3"]
    asked = ["sample", str(run), "-n", "3", "--steps", "3", "--out", str(out)]
    assert command([*asked, "--label", "3,8", *guide]) == 0
    model, judge = fn.load(run), fn.load(classifier)
    drawn = model.sample(
        3, label=[3, 8, 3], steps=3, guide=fn.guidance.classifier(judge, scale=3.0), batch_size=2
    )
    same = model.sample(3, steps=3, guide=fn.guidance.classifier(judge, [3, 8, 3], 3.0))
    # Each sample goes to its own label, whatever the batch; told to the guide it is the same.
    torch.testing.assert_close(drawn.tensor, same.tensor, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(drawn.tensor, model.sample(3, steps=3).tensor, atol=1e-3)
    replayed = ["sample", "--replay", str(out / "000001.png"), "--out", str(tmp_path / "again")]
    assert command(replayed) == 0
    # Without a label there is nowhere to go, and without the guide nobody hears one.
    capsys.readouterr()
    assert command([*asked, *guide]) == 2
    assert "needs a class to go to" in capsys.readouterr().err
    assert command([*asked, "--label", "3"]) == 2
    assert "label" in capsys.readouterr().err
    assert command([*asked, "--label", "77", *guide]) == 2
    assert "not a class" in capsys.readouterr().err


def test_what_does_not_classify_guides_nothing(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "drawing"
    assert command(["train", "digits", "--out", str(run), "--train.steps", "1", *FEW]) == 0
    with pytest.raises(UsageError, match="draws and does not classify"):
        fn.guidance.named(f"classifier:{run}", fn.load)
    # Nor is either a start for the other.
    capsys.readouterr()
    for recipe, base in (("digits", classifier), ("digits-classifier", run)):
        out = tmp_path / recipe
        assert command(["train", recipe, "--from", str(base), "--out", str(out)]) == 2
        assert "base of its own kind" in capsys.readouterr().err
        assert not out.exists()


@pytest.mark.slow
def test_a_classifier_starts_from_another(classifier: Path, tmp_path: Path) -> None:
    out = tmp_path / "finer"
    asked = ["train", "digits-classifier", "--from", str(classifier), "--out", str(out)]
    assert command([*asked, "--train.steps", "1", *FEW]) == 0
    first, second = (fn.load(run).denoiser.net.state_dict() for run in (classifier, out))
    gaps = [(first[name] - second[name]).abs().max() for name in first]
    assert max(gaps) < 0.01


def test_weights_of_classes_in_words() -> None:
    names = ["cat", "dog", "a:b"]
    assert weighed("cat:0.5+dog:.5", names) == {"cat": 0.5, "dog": 0.5}
    assert weighed("0:1e0 + 1:-0.5", names) == {"cat": 1.0, "dog": -0.5}
    assert weighed("a:b", names) == "a:b"
    assert weighed("a:b:0.25+cat:0.75", names) == {"a:b": 0.25, "cat": 0.75}
    assert weighed("3", names) == 3
    for wrong in ("3:0.5+8", "3:x", ":1", "3:nan", "3:0.5+"):
        with pytest.raises(UsageError, match="is no weight"):
            weighed(wrong, ["0"])


def test_a_mixed_label_is_drawn_and_drawn_again(tmp_path: Path) -> None:
    run, out = tmp_path / "mix", tmp_path / "out"
    assert command(["train", "digits-mix", "--out", str(run), "--train.steps", "1", *FEW]) == 0
    asked = ["sample", str(run), "-n", "2", "--steps", "2", "--out", str(out)]
    assert command([*asked, "--label", "3:0.5+8:0.5"]) == 0
    model = fn.load(run)
    same = model.sample(2, label={3: 0.5, 8: 0.5}, steps=2)
    assert same.recipe["label"] == {"3": 0.5, "8": 0.5}
    assert command(["sample", "--replay", str(out / "000000.png"), "--out", str(out)]) == 0
    assert command([*asked, "--label", "3:0.5+11:0.5"]) == 2
