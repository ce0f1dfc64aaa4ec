"""An autoencoder from the command line: trained, opened, measured, worked behind, encoded once."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import fromnoise as fn
from fromnoise.app import evaluate_autoencoder
from fromnoise.app.asked import recipe_of
from fromnoise.app.reporting import Silent
from fromnoise.app.requests import (
    DataEncodeRequest,
    EvaluateRequest,
    SampleRequest,
    TrainRequest,
)
from fromnoise.app.train import prepare, split
from fromnoise.app.verbs import carry_out
from fromnoise.codecs import KL
from fromnoise.core.errors import FromNoiseError, UsageError
from fromnoise.core.images import png_bytes
from fromnoise.core.tensors import fingerprint
from fromnoise.data.encoded import write_encoded
from fromnoise.evaluate import PixelFeatures
from fromnoise.model import Samples
from fromnoise.training.metrics import read_metrics

TRAIN = {
    "batch_size": 8, "validate_every": 3, "checkpoint_every": 3, "sample_every": 3, "warmup": 0,
    "precision": "float32",
}  # fmt: skip
DATA = {"kind": "photos", "size": 16, "count": 120}
COMMON: dict[str, Any] = {
    "summary": "s", "paper": "p", "data": DATA, "held_out": 0.2,
    "process": {"kind": "gaussian", "schedule": {"kind": "cosine"}},
    "parameterization": {"kind": "v"},
}  # fmt: skip
CODEC = {
    "kind": "kl", "latent": 2, "widths": [4, 8], "groups": 4, "blocks": 1, "scaling": "measured",
    "attend": False,
}  # fmt: skip
NET = {
    "kind": "unet", "in_channels": 3, "channels": 8, "multipliers": [1, 1], "blocks": 1,
    "style": {"groups": 4},
}  # fmt: skip


class Coarse(PixelFeatures):
    """Means of a quarter of the side: few features, so that few pictures have a distance."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return super().__call__(torch.nn.functional.avg_pool2d(x, x.shape[-1] // 2))


def recipe(folder: Path, name: str, **choices: Any) -> str:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"name": name, **COMMON, **choices}))
    return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run `ae` of an autoencoder, `behind` and `encoded` behind it."""
    folder = tmp_path_factory.mktemp("autoencoder")
    objective = {
        "kind": "autoencoder", "perceptual": {"kind": "small", "width": 4}, "perceptual_start": 2,
        "discriminator": {"kind": "patch_discriminator", "channels": 4, "layers": 1},
        "adversarial_start": 4,
    }  # fmt: skip
    own = recipe(
        folder, "tiny-kl", net={"kind": "nothing"}, codec=CODEC, objective=objective,
        train={**TRAIN, "steps": 6, "learning_rate": 1e-3},
    )  # fmt: skip
    out = str(folder / "ae")
    carry_out("train", TrainRequest(recipe=own, out=out), Silent())
    carry_out("data encode", DataEncodeRequest(run=out), Silent())
    latent = recipe(folder, "tiny", net=NET, train={**TRAIN, "steps": 6, "sample_every": 0})
    for name, data in (("behind", None), ("encoded", f"{out}/latents.safetensors")):
        request = TrainRequest(recipe=latent, codec=out, data=data, out=str(folder / name))
        carry_out("train", request, Silent())
    return folder


def test_the_run_opens_as_a_model_that_reconstructs_and_draws_nothing(made: Path) -> None:
    model = fn.load(made / "ae")
    assert isinstance(model.codec, KL)
    x = fn.data.load(DATA).batch(range(64)).x
    assert model.reconstruct(x).shape == x.shape
    variance, mean = torch.var_mean(model.codec.encode(x).double(), dim=(0, 2, 3))
    # Measured on other pictures of the same data.
    assert mean.abs().max() < 0.5 and (variance - 1).abs().max() < 0.6
    with pytest.raises(UsageError, match="train a model behind it"):
        model.sample(1)
    assert sorted(p.name for p in (made / "ae" / "samples").iterdir())[-1] == "step-00000006.png"


def test_it_is_measured_by_what_comes_back(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What trains a reader has tests of its own; here the distance is that of small pixels.
    monkeypatch.setattr(evaluate_autoencoder, "reader_of", lambda *_: Coarse())
    carry_out("evaluate", EvaluateRequest(run=str(made / "ae")), Silent())
    found = json.loads((made / "ae" / "evaluation.json").read_text())
    for key in ("psnr", "ssim", "rfid", "latent_std"):
        assert found[key]["value"] == found[key]["value"]
    assert found["counts"]["held_out"] == 24 and len(found["latent_std"]["by_channel"]) == 2
    assert (made / "ae" / "reconstructions.png").stat().st_size > 500
    with pytest.raises(UsageError, match="what comes back"):
        carry_out("evaluate", EvaluateRequest(run=str(made / "ae"), steps=3), Silent())


def test_pictures_of_many_sizes_are_learned_and_measured(tmp_path: Path) -> None:
    """Measured latents and sheets are of one size: a first checkpoint must not fail."""
    pixels = torch.randint(0, 256, (24, 20, 20, 3), dtype=torch.uint8).numpy()
    (tmp_path / "mine").mkdir()
    for i, picture in enumerate(pixels):
        size = [(20, 20), (28, 14), (14, 28)][i % 3]
        Image.fromarray(picture).resize(size).save(tmp_path / "mine" / f"{i}.png")
    sizes = {"kind": "buckets", "side": 16, "divisor": 4}
    data = {"kind": "folder", "path": str(tmp_path / "mine"), "size": sizes}
    own = recipe(
        tmp_path, "many", net={"kind": "nothing"}, codec=CODEC, data=data,
        objective={"kind": "autoencoder", "perceptual": "none"},
        train={**TRAIN, "steps": 2, "batch_size": 4},
    )  # fmt: skip
    out = tmp_path / "run"
    assert carry_out("train", TrainRequest(recipe=own, out=str(out)), Silent()) == 0
    model, whole = fn.load(out), fn.data.load(data)
    assert isinstance(model.codec, KL) and isinstance(model.codec.scale, torch.Tensor)
    assert not torch.equal(model.codec.scale, torch.ones(1, 2, 1, 1))
    assert (out / "samples" / "step-00000002.png").exists()
    request = DataEncodeRequest(run=str(out))
    with pytest.raises(UsageError, match="many sizes.*--data"):
        carry_out("data encode", request, Silent())
    named = DataEncodeRequest(run=str(out), data=str(tmp_path / "mine"))
    assert carry_out("data encode", named, Silent()) == 0
    # The control: pictures of several sizes share no batch.
    with pytest.raises(UsageError, match="different sizes"):
        whole.batch(range(3))


def test_figures_are_of_pictures_where_training_read_latents(made: Path) -> None:
    read, behind = (split(recipe_of(made / name)) for name in ("encoded", "behind"))
    for latents, pictures in zip(read, behind, strict=True):
        assert torch.equal(latents.batch(range(8)).x, pictures.batch(range(8)).x)
    # The control: what is trained on are the latents.
    config = recipe_of(made / "encoded")
    assert split(config, fn.data.load(config.data))[0].shape == (2, 8, 8)


def test_a_sheet_drawn_in_training_warns_of_no_long_run(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fromnoise.model.estimate.LONG", 1e-9)
    monkeypatch.setattr("fromnoise.app.train._PREVIEWS", 2)
    run, model = prepare(recipe_of(made / "encoded"), made / "encoded", Silent())
    assert run.task.preview is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = run.task.preview()
    # The control: asked for by hand, it does.
    with pytest.warns(UserWarning, match="take about"):
        drawn = model.sample(2, dtype="float32").tensor
    assert shown == png_bytes(Samples(drawn, {}).sheet(10))


def test_a_model_behind_it_stands_alone(made: Path) -> None:
    model, alone = fn.load(made / "behind"), fn.load(made / "ae")
    assert model.denoiser.net.in_channels == 2 and model.shape == (3, 16, 16)
    assert fingerprint(model.codec.state_dict()) == fingerprint(alone.codec.state_dict())
    drawn = model.sample(2, steps=2)
    assert drawn.tensor.shape == (2, 3, 16, 16) and drawn.tensor.abs().max() <= 1
    config = json.loads((made / "behind" / "config.json").read_text())["config"]
    assert config["codec"] == alone.codec.config and config["codec_from"] == str(made / "ae")


def test_latents_computed_once_give_the_losses_of_latents_computed_on_the_way(made: Path) -> None:
    first, second = (read_metrics(made / name / "metrics.jsonl") for name in ("behind", "encoded"))
    for a, b in zip(first, second, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=2e-4)
        assert ("validation" in a) == ("validation" in b)
        assert a.get("validation", 0) == pytest.approx(b.get("validation", 0), rel=2e-4)
    # The control: pixels have other losses.
    assert len({row["loss"] for row in first}) == len(first)
    drawn = fn.load(made / "encoded").sample(1, steps=2).tensor
    assert torch.allclose(drawn, fn.load(made / "behind").sample(1, steps=2).tensor, atol=2e-2)


def test_a_run_goes_on_without_the_autoencoder(made: Path, tmp_path: Path) -> None:
    moved = made / "ae"
    away = made / "away"
    moved.rename(away)
    try:
        request = TrainRequest(
            resume=str(made / "behind"),
            train={**TRAIN, "steps": 6, "sample_every": 0},  # type: ignore[arg-type]
        )
        assert carry_out("train", request, Silent()) == 0
        longer = TrainRequest(
            recipe=str(made / "tiny.json"), codec=str(moved), out=str(made / "behind")
        )
        assert carry_out("train", longer, Silent()) == 0
    finally:
        away.rename(moved)


@pytest.mark.slow
def test_a_latent_model_is_measured_on_pictures(made: Path) -> None:
    request = EvaluateRequest(run=str(made / "encoded"), samples=50, steps=1)
    with pytest.raises(UsageError, match="draws latents.*leave out --likelihood"):
        carry_out("evaluate", request.model_copy(update={"likelihood": 8}), Silent())
    carry_out("evaluate", request, Silent())
    found = json.loads((made / "encoded" / "evaluation.json").read_text())
    assert "frechet_distance" in found and "bits_per_dim" not in found
    out = str(made / "drawn")
    carry_out(
        "sample", SampleRequest(model=str(made / "encoded"), count=1, steps=1, out=out), Silent()
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"codec": "nowhere"}, "autoencoder cannot be opened"),
        ({"codec": "BEHIND", "recipe": "AE"}, "trains an autoencoder itself"),
        ({"data": "LATENTS"}, "--codec"),
        ({"data": "LATENTS", "codec": "AE", "augment": "flip"}, "cannot be changed as pictures"),
        ({"resume": "BEHIND", "recipe": None, "codec": "AE"}, "leave out --codec"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    made: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    names = {
        "BEHIND": str(made / "behind"), "LATENTS": str(made / "ae" / "latents.safetensors"),
        "AE": str(made / "tiny-kl.json") if changes.get("recipe") else
        str(made / "ae"),
    }  # fmt: skip
    given = {key: names.get(str(value), value) for key, value in changes.items()}
    request = {"recipe": str(made / "tiny.json"), "out": str(tmp_path / "run"), **given}
    if given.get("resume"):
        request = given
    with pytest.raises(FromNoiseError, match=told) as caught:
        carry_out("train", TrainRequest(**request), Silent())
    assert "\n" not in str(caught.value) and not (tmp_path / "run" / "checkpoints").exists()


def test_latents_of_another_autoencoder_are_refused(made: Path, tmp_path: Path) -> None:
    other = fn.load(made / "ae")
    with torch.no_grad():
        next(other.codec.parameters()).add_(0.1)
    other.save(tmp_path / "other")
    request = TrainRequest(
        recipe=str(made / "tiny.json"), codec=str(tmp_path / "other"), out=str(tmp_path / "run"),
        data=str(made / "ae" / "latents.safetensors"),
    )  # fmt: skip
    with pytest.raises(UsageError, match="made by another autoencoder"):
        carry_out("train", request, Silent())
    # Nor are they taken where the file was made anew by it, after a run has begun.
    latents = made / "ae" / "latents.safetensors"
    whole = latents.read_bytes()
    going_on = TrainRequest(resume=str(made / "encoded"))
    assert carry_out("train", going_on, Silent()) == 0
    try:
        x = fn.data.load(DATA)
        by = fingerprint(other.codec.state_dict())
        write_encoded(latents, torch.zeros(len(x), 2, 8, 8), x, "other", by)
        with pytest.raises(UsageError, match="made by another autoencoder"):
            carry_out("train", going_on, Silent())
    finally:
        latents.write_bytes(whole)
    with pytest.raises(UsageError, match="makes no latents"):
        carry_out("data encode", DataEncodeRequest(run=fn_builtin()), Silent())


def fn_builtin() -> str:
    """A model of pixels that is always there."""
    return "emoji"
