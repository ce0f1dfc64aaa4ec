"""Fine-tuning from the command line: what is kept, what is new, ancestry, and going on."""

import json
import shutil
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch

from fromnoise import data
from fromnoise.app.finetune import onto
from fromnoise.app.train import build
from fromnoise.cli.main import run as command
from fromnoise.core.errors import UsageError
from fromnoise.core.files import load_tensors, read_json
from fromnoise.interop.loading import load
from fromnoise.recipes import get
from fromnoise.training import checkpoint
from fromnoise.training.runner import read_config

FONTS = [
    str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf")
    for name in ("cmr10", "cmss10", "cmtt10", "cmb10")
]
TABLE = "net.embedding.vector.label.weight"
SMALL = ("--train.steps", "4", "--train.validate-every", "0", "--train.checkpoint-every", "2")


def _recipe(path: Path, characters: str, **changes: Any) -> str:
    """A recipe file: a few letters at 8×8 by a very small network."""
    made = get("font-digits").model_dump(mode="json")
    made |= {
        "name": path.stem,
        "data": {"kind": "glyphs", "size": 8, "characters": characters, "fonts": FONTS},
        "encoders": {"label": {"kind": "label", "classes": len(characters)}},
    }
    made["net"] |= {"channels": 8, "accepts": {"vector": {"label": len(characters)}}}
    made["net"]["style"] = {"groups": 4}
    made["train"] |= {"batch_size": 4, "warmup": 0, "sample_every": 0, "learning_rate": 2e-2}
    path.write_text(json.dumps(made | changes))
    return str(path)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the letters 0, 1, 2, a, b."""
    folder = tmp_path_factory.mktemp("base")
    recipe = _recipe(folder / "letters.json", "012ab")
    assert command(["train", recipe, "--out", str(folder / "run"), *SMALL]) == 0
    return folder / "run"


def _weights(run: Path, file: str = "model/model.safetensors") -> dict[str, torch.Tensor]:
    return load_tensors(checkpoint.steps(run)[-1] / file)[0]


def _tuned(folder: Path, base: Path, *flags: str, characters: str = "2a7") -> Path:
    recipe = _recipe(folder / "other.json", characters)
    out = folder / "tuned"
    assert command(["train", recipe, "--from", str(base), "--out", str(out), *SMALL, *flags]) == 0
    return out


def test_it_starts_from_the_base_and_known_classes_keep_their_rows(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = _tuned(tmp_path, base, "--train.learning-rate", "1e-12")
    told = capsys.readouterr().out
    assert f"starting from {base} (letters, 4 steps)" in " ".join(told.split())
    assert "anew for 1 of 3 classes" in " ".join(told.split())
    before, after = _weights(base), _weights(out)
    table, known = after.pop(TABLE), before.pop(TABLE)
    torch.testing.assert_close(after, before)
    # Of "2a7" the base knew 2 and a, in the places 2 and 3 of "012ab".
    torch.testing.assert_close(table[:, :2], known[:, [2, 3]])
    assert not any(torch.allclose(table[:, 2], row) for row in known.T)


def test_the_rate_is_a_tenth_unless_it_is_given(tmp_path: Path, base: Path) -> None:
    out = _tuned(tmp_path, base)
    assert read_config(out)["train"]["learning_rate"] == pytest.approx(2e-3)
    plain, tuned = _weights(base), _weights(out)
    assert any(not torch.equal(plain[k], v) for k, v in tuned.items() if k != TABLE)


def test_the_network_and_process_are_those_of_the_base(tmp_path: Path, base: Path) -> None:
    recipe = _recipe(
        tmp_path / "other.json",
        "2a7",
        process={"kind": "gaussian", "schedule": {"kind": "flow"}},
        parameterization={"kind": "flow"},
    )
    bigger = json.loads(Path(recipe).read_text())
    bigger["net"]["channels"] = 16
    Path(recipe).write_text(json.dumps(bigger))
    out = tmp_path / "tuned"
    assert command(["train", recipe, "--from", str(base), "--out", str(out), *SMALL]) == 0
    model, first = load(out), load(base)
    assert model.denoiser.process.config == first.denoiser.process.config
    assert model.denoiser.net.config["channels"] == 8
    assert model.denoiser.net.accepts.vector == {"label": 3}
    assert model.card.classes == ["2", "a", "7"]


def test_a_recipe_may_change_the_process_and_must_fit_the_weights(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flow = {"process": {"kind": "gaussian", "schedule": {"kind": "flow"}}}
    recipe = _recipe(tmp_path / "a.json", "2a7", base=str(base), **flow)
    assert command(["train", recipe, "--out", str(tmp_path / "a"), *SMALL]) == 0
    assert load(tmp_path / "a").denoiser.process.config["schedule"]["kind"] == "flow"
    # A recipe made for fine-tuning has the rate for it.
    assert read_config(tmp_path / "a")["train"]["learning_rate"] == 2e-2
    wide = json.loads(Path(recipe).read_text())
    wide["net"]["channels"] = 16
    Path(recipe).write_text(json.dumps(wide))
    assert command(["train", recipe, "--out", str(tmp_path / "b"), *SMALL]) == 2
    assert "does not fit" in capsys.readouterr().err
    assert not (tmp_path / "b" / "config.json").exists()


def test_ancestry_names_parents_and_grandparents(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = _tuned(tmp_path, base)
    again = tmp_path / "again"
    recipe = str(tmp_path / "other.json")
    assert command(["train", recipe, "--from", str(first), "--out", str(again), *SMALL]) == 0
    parent, grandparent = load(again).card.ancestry
    assert (parent["name"], parent["source"], parent["steps"]) == ("other", str(first), 4)
    assert (grandparent["name"], grandparent["source"]) == ("letters", str(base))
    assert grandparent["fingerprint"] == load(base).fingerprint
    assert {parent["data"], grandparent["data"]} == {"glyphs"}
    assert load(base).card.ancestry == []
    assert command(["runs", "list", str(tmp_path)]) == 0
    assert f"from {base}" in capsys.readouterr().out


def test_a_model_folder_will_do_and_knows_no_steps(tmp_path: Path, base: Path) -> None:
    load(base).save(tmp_path / "model")
    out = _tuned(tmp_path, tmp_path / "model")
    assert load(out).card.ancestry[0]["steps"] is None


def test_named_parts_are_trained_and_the_rest_stays(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = _tuned(tmp_path, base, "--train.parts", "up.*,middle.*")
    assert "weights, in" in capsys.readouterr().out
    before, after = _weights(base), _weights(out)
    for name, value in after.items():
        if name != TABLE:
            trained = name.startswith(("net.up.", "net.middle."))
            assert torch.equal(value, before[name]) != trained, name
    held = _weights(out, "optimizer.safetensors")
    assert all(k.startswith(("main/denoiser.net.up", "main/denoiser.net.mi")) for k in held)
    assert _weights(out, "ema.safetensors").keys() <= {f"denoiser.{k}" for k in after}
    code = command(["train", str(tmp_path / "other.json"), "--out", str(tmp_path / "x"),
                    "--train.parts", "upp.*"])  # fmt: skip
    assert code == 2
    assert "enter.*, down.0.*" in capsys.readouterr().err


def test_going_on_never_looks_at_the_base(tmp_path: Path, base: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(base, copied)
    out = _tuned(tmp_path, copied)
    whole = _weights(out)
    shutil.rmtree(copied)
    # As it was after step 2: the last checkpoint is gone, and so is the base.
    asked = ["train", str(tmp_path / "other.json"), "--from", str(copied), "--out", str(out)]
    for again in ([*asked, *SMALL], ["train", "--resume", str(out)]):
        shutil.rmtree(checkpoint.steps(out)[-1])
        assert command(again) == 0
        assert all(torch.equal(value, whole[name]) for name, value in _weights(out).items())


def test_a_missing_or_changed_base_is_a_clear_error(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["train", "digits", "--from", "nowhere/x", "--out", str(tmp_path / "y")]) == 2
    assert "nowhere/x" in capsys.readouterr().err
    assert not (tmp_path / "y").exists()
    copied = tmp_path / "copied"
    shutil.copytree(base, copied)
    out = _tuned(tmp_path, copied)
    # Killed before its first checkpoint, it begins again; the base must be the one it was.
    shutil.rmtree(out / "checkpoints")
    shutil.rmtree(checkpoint.steps(copied)[-1])
    assert command(["train", "--resume", str(out)]) == 2
    assert "has changed since" in capsys.readouterr().err
    shutil.rmtree(copied)
    assert command(["train", "--resume", str(out)]) == 2
    assert "cannot be opened" in capsys.readouterr().err


def test_a_length_is_chosen_after_training(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = _tuned(
        tmp_path, base, "--train.post-hoc", "0.05", "--train.post-hoc", "0.1",
        "--train.snapshot-every", "1",
    )  # fmt: skip
    assert command(["ema", str(out), "--std", "0.1", "--sweep"]) == 0
    found = read_json(out / "ema.json")
    assert set(found["widths"]) >= {"0.05", "0.1", "0.25"}
    assert (out / "ema.png").read_bytes().startswith(b"\x89PNG")
    model = load(out / "averages" / "std-0.1")
    running = _weights(out, "power_ema.safetensors")
    for name, value in model.denoiser.net.named_parameters():
        torch.testing.assert_close(
            value.detach(), running[f"0.1/denoiser.net.{name}"], rtol=1e-4, atol=1e-5
        )
    assert model.card.figures["power_ema"]["std"] == 0.1
    assert len(model.card.ancestry) == 1
    capsys.readouterr()
    assert command(["ema", str(base), "--std", "0.1"]) == 2
    assert "--train.post-hoc" in capsys.readouterr().err
    assert command(["ema", str(out)]) == 2
    assert "--sweep" in capsys.readouterr().err
    out_of = tmp_path / "late"
    assert command(["ema", str(out), "--std", "0.1", "--step", "99", "--out", str(out_of)]) == 2
    assert "after the last snapshot, of step 4; use 4" in capsys.readouterr().err
    assert command(["ema", str(out), "--sweep", "--step", "99"]) == 2
    assert "after the last snapshot" in capsys.readouterr().err
    assert not out_of.exists()


def test_an_average_that_is_none_of_its_width_is_refused(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = _tuned(tmp_path, base, "--train.post-hoc", "0.25", "--train.snapshot-every", "4")
    capsys.readouterr()
    assert command(["ema", str(out), "--std", "0.01"]) == 2
    assert "no average of that width" in capsys.readouterr().err
    assert not (out / "averages").exists()
    assert command(["ema", str(out), "--sweep"]) == 0
    told = capsys.readouterr()
    assert "are left out: 0.01, " in " ".join((told.out + told.err).split())
    assert "0.25" in (widths := read_json(out / "ema.json")["widths"]) and "0.01" not in widths


def test_the_base_a_recipe_lacks_is_made_by_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(["train", "finetune"]) == 2
    assert "`fromnoise train font-digits` makes it" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_generator_is_not_trained_to_take_noise_away() -> None:
    gan = build(get("digits-gan"), data.load("digits"))
    for name in ("digits", "digits-vdm"):
        with pytest.raises(UsageError, match=r"runs/g \(digits-gan\) is a generator"):
            onto(get(name), gan, "runs/g")
    assert onto(get("digits-gan"), gan, "runs/g").net["kind"] == "gan"


def test_a_base_of_other_pictures_says_what_to_do(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "x")]
    assert command(["train", "points-ddpm", "--from", str(base), *out]) == 2
    assert f"is that of {base}: give --data, or another recipe" in capsys.readouterr().err
    assert command(["train", "photos-ddpm", "--from", str(base), *out]) == 2
    assert "give --data, or another recipe" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
