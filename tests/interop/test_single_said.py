"""What a single file says besides its weights, and what it is taken for otherwise."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from interop import latent_pipelines as tiny
from interop.test_single_file import converted
from safetensors.torch import load_file, save_file

import fromnoise as fn
from fromnoise.cli.main import run
from fromnoise.core.errors import FileError
from fromnoise.core.files import check_own_file, sha256
from fromnoise.interop.single_said import PREDICTS, marked

V = "v_prediction"


def predicted(model: fn.Model) -> str:
    kind: str = model.denoiser.parameterization.config["kind"]  # type: ignore[attr-defined]
    return kind


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain Stable Diffusion 2 that predicts ε, as one file, its vocabulary beside it."""
    root = tmp_path_factory.mktemp("base")
    _, folder = tiny.saved(root, "sd2", tiny.scheduler("ddim"), wide=True)
    path = root / "one" / "model.safetensors"
    report = converted(folder, path, "single-file")
    assert len(report.notes) == 1 and "vocabulary" in report.notes[0]
    shutil.copytree(folder / "tokenizer", path.parent / "tokenizer")
    return path


def test_what_a_network_predicts_travels_with_the_file(base: Path, tmp_path: Path) -> None:
    """Without its metadata the same file is taken for the 768 of v: the way it used to be."""
    model = fn.load(base)
    assert predicted(model) == "eps" and model.shape == (3, 128, 128)
    shutil.copytree(base.parent / "tokenizer", tmp_path / "tokenizer")
    save_file(load_file(base), tmp_path / "bare.safetensors")
    assert predicted(fn.load(tmp_path / "bare.safetensors")) == "v"


@pytest.mark.parametrize(
    ("names", "metadata", "told"),
    [
        ((), {}, {}),
        ((), {PREDICTS: "v"}, {"prediction_type": V}),
        ((), {PREDICTS: "epsilon"}, {"prediction_type": "epsilon"}),
        ((), {PREDICTS: "flow"}, {}),
        # The mark is put in on purpose; metadata may be those of what was begun from.
        (("v_pred",), {PREDICTS: "epsilon"}, {"prediction_type": V}),
        (
            ("v_pred", "ztsnr"),
            {},
            {
                "prediction_type": V,
                "rescale_betas_zero_snr": True,
                "timestep_spacing": "trailing",
            },
        ),
    ],
)
def test_marks_and_metadata(
    names: tuple[str, ...], metadata: dict[str, str], told: dict[str, object]
) -> None:
    assert marked(names, metadata, "x.safetensors") == told


def test_an_edm_is_refused() -> None:
    with pytest.raises(FileError, match="x.safetensors says by its edm_mean that it is an EDM"):
        marked(("edm_mean", "edm_std"), {}, "x.safetensors")


@pytest.mark.parametrize(
    "said",
    ["scale_factor: abc", "scale_factor: 0", "timesteps: many", "parameterization: [1]"],
)
def test_a_yaml_with_a_fault_is_named(said: str, base: Path) -> None:
    place = base.with_suffix(".yaml")
    place.write_text(f"model: {{params: {{{said}}}}}")
    try:
        with pytest.raises(FileError, match=rf"model.yaml: {said.partition(':')[0]}") as caught:
            fn.load(base)
    finally:
        place.unlink()
    assert "\n" not in str(caught.value)


def test_what_such_a_file_does_not_say_is_noted(tmp_path: Path) -> None:
    plan = tiny.scheduler("ddim", beta_end=0.02, prediction_type="sample")
    _, folder = tiny.saved(tmp_path, "sd1", plan, wide=True)
    notes = converted(folder, tmp_path / "x.safetensors", "single-file").notes
    assert any("its schedule is not the published one" in note for note in notes)
    assert any("what the network predicts is x0" in note for note in notes)


def test_a_file_of_another_program_is_not_written_over(base: Path) -> None:
    """One that was written here is."""
    assert check_own_file(base) == base
    theirs = base.parent / "theirs.safetensors"
    save_file({name: value for name, value in load_file(base).items() if "norm" in name}, theirs)
    before = theirs.read_bytes()
    with pytest.raises(FileError, match="exists and was not written by fromnoise"):
        converted(base, theirs, "single-file")
    assert theirs.read_bytes() == before


def test_a_file_is_described_as_a_model(
    base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", "info", str(base), "--quick", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    (row,) = told["files"]
    assert told["where"] == "file" and told["family"] == fn.load(base).card.family
    assert told["bytes"] == row["bytes"] == base.stat().st_size
    assert row["name"] == base.name and row["sha256"] == sha256(base)
    assert row["parameters"] == sum(value.numel() for value in load_file(base).values())
    assert run(["models", "info", str(base), "--quick"]) == 0
    assert f"file: {base}" in capfd.readouterr().out
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    (tmp_path / "x.pt").write_bytes(b"\x80\x02.")
    for name, says in (
        (str(tmp_path / "other.safetensors"), "other.safetensors is no whole model"),
        (str(tmp_path / "x.pt"), "--from-pickle"),
        ("nowhere/none.safetensors", "none.safetensors: no such file"),
    ):
        assert run(["models", "info", name]) == 2
        err = capfd.readouterr().err
        assert says in err and "pull" not in err
    # The control: what is no file's name may be a model of the hub.
    assert run(["models", "info", "nowhere/none"]) == 2
    assert "`fromnoise models pull nowhere/none` fetches it" in capfd.readouterr().err
