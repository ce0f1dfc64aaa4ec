"""`fromnoise convert` from end to end: weights of other programs, both ways; what is refused."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model.tiny import tiny
from nets.filling import filled
from safetensors.torch import save_file

import fromnoise as fn
from fromnoise.cli.main import run
from fromnoise.core.files import load_tensors, save_tensors, sha256
from fromnoise.core.tensors import fingerprint
from fromnoise.interop import published as table
from fromnoise.interop.foreign import to_foreign
from fromnoise.interop.networks import load_network
from fromnoise.interop.published import Diffusion, Published, from_command_line, published

FLAGS = (
    "--image_size 8 --num_channels 32 --channel_mult 1,1 --num_res_blocks 1 --num_heads 2 "
    "--attention_resolutions 4 --learn_sigma True --diffusion_steps 100 --noise_schedule cosine"
)
NEW = f"{FLAGS} --use_new_attention_order True --class_cond True --resblock_updown True"
SCORE = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": {"at": [2], "up": "last"}}
DIT = {"kind": "dit", "in_channels": 3, "out_channels": 6, "size": 8, "patch": 2, "width": 16}


def _small_ncsnpp() -> Published:
    big = published("ncsn++")
    net = big.net | SCORE | {"style": big.net["style"] | {"groups": 4}}
    return Published("small-ncsn++", net, "score-sde", "legacy", big.diffusion, 8)


def _small_dit() -> Published:
    net = DIT | {"depth": 1, "heads": 2, "accepts": {"vector": {"label": 4}}}
    steps: Diffusion = table.steps(1000, "linear", True)
    return Published("small-dit", net, "dit", "legacy", steps, 8)


def _small_classifier() -> Published:
    net = fn.nets.CLASSIFIERS["adm-classifier-64"].config() | {
        "size": 8, "channels": 64, "multipliers": [1, 1], "blocks": 1, "classes": 5,
        "attention": {"at": [2], "head_channels": 32},
    }  # fmt: skip
    return Published("small-classifier", net, "guided-diffusion", "legacy", None, 8, "it judges")


CASES: dict[str, tuple[Callable[[], Published], list[str]]] = {
    "legacy": (lambda: from_command_line(FLAGS), [f"--flags={FLAGS}"]),
    "new": (lambda: from_command_line(NEW), [f"--flags={NEW}"]),
    "ncsn++": (_small_ncsnpp, ["--preset", "small-ncsn++"]),
    "dit": (_small_dit, ["--preset", "small-dit"]),
}


@pytest.fixture(autouse=True)
def _small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    for make in (_small_ncsnpp, _small_dit, _small_classifier):
        monkeypatch.setitem(table.MODELS, make().name, make)


@pytest.mark.parametrize("case", CASES)
def test_there_and_back_is_the_identity_bit_for_bit(tmp_path: Path, case: str) -> None:
    made, options = CASES[case][0](), CASES[case][1]
    net = filled(made.net)
    theirs = to_foreign(net, made.program, made.order)
    torch.save({f"module.{k}": v for k, v in theirs.items()}, tmp_path / "x.pt")
    model, back, again = tmp_path / "model", tmp_path / "back.safetensors", tmp_path / "again"
    command = ["convert", "--from-pickle", str(tmp_path / "x.pt"), str(model), *options]
    assert run(command) == 0
    loaded = fn.load(model)
    assert fingerprint(loaded.denoiser.net.state_dict()) == fingerprint(net.state_dict())
    (ancestor,) = loaded.card.ancestry
    assert ancestor["source"] == "x.pt" and ancestor["sha256"] == sha256(tmp_path / "x.pt")
    assert loaded.denoiser.learned_variance == made.diffusion.learned_variance
    assert loaded.sample(1, steps=2).tensor.shape == (1, 3, 8, 8)
    assert run(["convert", str(model), str(back), "--to", made.program]) == 0
    if case == "legacy":
        assert fingerprint(load_tensors(back)[0]) == fingerprint(theirs)
    assert run(["convert", str(back), str(again), *options]) == 0
    reloaded = fn.load(again)
    assert reloaded.fingerprint == loaded.fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "again",
        "back.safetensors",
        "model",
        "x.pt",
    ]


def test_what_has_no_place_is_all_named_and_nothing_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = from_command_line(FLAGS)
    theirs = to_foreign(filled(made.net), made.program, made.order)
    del theirs["out.2.bias"]
    theirs |= {f"extra.{i}": torch.ones(1) for i in range(12)}
    theirs["out.0.bias"] = torch.ones(3)
    torch.save(theirs, tmp_path / "x.pt")
    report = tmp_path / "report.json"
    command = ["convert", "--from-pickle", str(tmp_path / "x.pt"), str(tmp_path / "out")]
    assert run([*command, f"--flags={FLAGS}", "--report", str(report)]) == 2
    err = capfd.readouterr().err
    said = json.loads(report.read_text())
    assert said["missing"] == ["out.2.bias"] and list(said["misshapen"]) == ["out.0.bias"]
    assert said["unplaced"] == [f"extra.{i}" for i in range(12)] and said["written"] is False
    assert all(f"extra.{i}\n" in err for i in range(12)) and "Traceback" not in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.json", "x.pt"]


def test_weights_alone_come_out_with_their_names(tmp_path: Path) -> None:
    value = {"model": {"a": torch.ones(2)}, "ema": {"a": torch.zeros(2)}}
    torch.save(value, tmp_path / "x.ckpt")
    out, report = tmp_path / "OUT.safetensors", tmp_path / "r.json"
    command = ["convert", "--from-pickle", str(tmp_path / "x.ckpt"), str(out)]
    assert run([*command, "--report", str(report)]) == 0
    assert torch.equal(load_tensors(out)[0]["a"], torch.zeros(2))
    said = json.loads(report.read_text())
    assert (said["wrapper"], said["weights"], said["written"]) == ("plain", "ema", True)
    assert said["sha256"] == sha256(tmp_path / "x.ckpt")
    assert run([*command, "--weights", "model"]) == 0
    assert torch.equal(load_tensors(out)[0]["a"], torch.ones(2))


def test_weights_are_not_written_over_a_file_of_another_program(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One that came out of a pickle here is."""
    theirs, ours = tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors"
    save_file({"mine": torch.ones(1)}, theirs)
    before = theirs.read_bytes()
    command = ["convert", "--from-pickle", str(_pickle(tmp_path))]
    assert run([*command, str(theirs)]) == 2
    assert "was not written by fromnoise; choose another name" in capfd.readouterr().err
    assert theirs.read_bytes() == before
    assert run([*command, str(ours)]) == run([*command, str(ours)]) == 0
    assert list(load_tensors(ours)[0]) == ["a"]


def test_a_classifier_becomes_a_network_and_no_model(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = _small_classifier()
    net = filled(made.net)
    theirs = to_foreign(net, made.program, made.order)
    save_tensors(tmp_path / "c.safetensors", theirs)
    command = ["convert", str(tmp_path / "c.safetensors"), str(tmp_path / "net.safetensors")]
    command += ["--preset", made.name]
    assert run([*command, "--to", "network"]) == 0
    again = load_network(tmp_path / "net.safetensors")
    assert fingerprint(again.state_dict()) == fingerprint(net.state_dict())
    assert again.config == net.config
    assert run([*command, "--to", "fromnoise"]) == 2
    assert "it judges; use --to network" in capfd.readouterr().err
    back = ["convert", str(tmp_path / "net.safetensors"), str(tmp_path / "back.safetensors")]
    assert run([*back, "--to", "guided-diffusion"]) == 0
    assert fingerprint(load_tensors(tmp_path / "back.safetensors")[0]) == fingerprint(theirs)
    assert run([*back, "--to", "dit"]) == 2
    assert "dit has no names for a Classifier" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("to", "place"),
    [
        ("diffusers", "diffusers_export.export_diffusers"),
        ("onnx", "onnx_export.export_onnx"),
        ("torch-export", "torch_export.export_program"),
    ],
)
def test_exports_are_asked_for_and_their_notes_shown(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    to: str,
    place: str,
) -> None:
    tiny().save(tmp_path / "model")
    asked = []

    def export(model: fn.Model, folder: Path) -> list[str]:
        asked.append((model.card.name, folder))
        return ["mind this"]

    monkeypatch.setattr(f"fromnoise.interop.{place}", export)
    assert run(["convert", str(tmp_path / "model"), str(tmp_path / "out"), "--to", to]) == 0
    assert asked == [("tiny", tmp_path / "out")]
    assert "mind this" in capfd.readouterr().out


def _pickle(folder: Path) -> Path:
    torch.save({"a": torch.ones(1)}, folder / "x.pt")
    return folder / "x.pt"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.pt", "out"], "is a pickle.*--from-pickle"),
        (["--from-pickle", "x.pt", "out"], "of no published model; give --flags"),
        (["--from-pickle", "x.pt", "out", "--preset", "adm-65"], "did you mean adm-64"),
        (["--from-pickle", "x.pt", "out", "--preset", "adm-64", f"--flags={FLAGS}"], "not both"),
        (["--from-pickle", "x.pt", "out", "--weights", "ema"], "without ema weights"),
        (["--from-pickle", "none.pt", "out"], "does not exist"),
        (["--from-pickle", "model", "out"], "is a folder"),
        (["x.safetensors", "y.safetensors"], "give --from-pickle"),
        (["model", "out", "--preset", "adm-64"], "leave them out"),
        (["model", "out", "--to", "tensorflow"], "tensorflow"),
        (["model", "full"], "choose another name"),
        (["model", "out", "--to", "dit"], "no names for a UNet"),
        (["none", "out"], "none"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    _pickle(tmp_path)
    save_tensors(tmp_path / "x.safetensors", {"a": torch.ones(1)})
    tiny().save(tmp_path / "model")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    before = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*"))
    assert run(["convert", *arguments]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1, err
    assert re.search(message, err), err
    assert sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*")) == before
