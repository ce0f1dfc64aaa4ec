"""Masked tokens from the command line: trained behind a codebook, sampled, repeated, measured."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import fromnoise as fn
from fromnoise.app.behind import opened
from fromnoise.app.reporting import Silent
from fromnoise.app.requests import DataEncodeRequest, EvaluateRequest, SampleRequest, TrainRequest
from fromnoise.app.verbs import carry_out
from fromnoise.codecs import VQ, Tokens
from fromnoise.core.errors import FileError, UsageError
from fromnoise.training.metrics import read_metrics

TRAIN = {
    "batch_size": 8, "validate_every": 0, "checkpoint_every": 0, "sample_every": 0, "warmup": 0,
    "precision": "float32",
}  # fmt: skip
COMMON: dict[str, Any] = {
    "summary": "s", "paper": "p", "data": {"kind": "photos", "size": 16, "count": 60},
    "held_out": 0.2,
}  # fmt: skip
OWN = {
    "net": {"kind": "nothing"}, "process": {"kind": "gaussian", "schedule": {"kind": "linear"}},
    "parameterization": {"kind": "eps"},
    "codec": {
        "kind": "vq", "codebook": {"kind": "ema", "size": 16, "width": 4}, "widths": [4, 8],
        "groups": 4, "blocks": 1, "attend": False,
    },
    "objective": {"kind": "autoencoder", "perceptual": "none", "latent_weight": 1.0},
}  # fmt: skip
BEHIND = {
    "net": {
        "kind": "token_transformer", "in_channels": 16, "size": 8, "width": 16, "depth": 1,
        "heads": 2, "accepts": {"vector": {"label": 13}},
    },
    "process": {"kind": "absorbing", "mask": "cosine"}, "parameterization": {"kind": "tokens"},
    "encoders": {"label": {"kind": "label", "classes": 13}},
    "objective": {"kind": "masked", "condition_dropout": 0.2},
    "sampling": {"sampler": "maskgit", "grid": "uniform", "steps": 4, "guidance": 2.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run `vq`, and behind it `tokens` and `encoded`."""
    folder = tmp_path_factory.mktemp("masked")
    codec = str(folder / "vq")
    recipes = {"vq": OWN, "tokens": {**BEHIND, "codec_from": codec}}
    for name, own in recipes.items():
        config = {"name": f"tiny-{name}", **COMMON, **own, "train": {**TRAIN, "steps": 4}}
        (folder / f"{name}.json").write_text(json.dumps(config))
    carry_out("train", TrainRequest(recipe=str(folder / "vq.json"), out=codec), Silent())
    carry_out("data encode", DataEncodeRequest(run=codec), Silent())
    for name, data in (("tokens", None), ("encoded", f"{codec}/latents.safetensors")):
        request = TrainRequest(
            recipe=str(folder / "tokens.json"), data=data, out=str(folder / name)
        )
        carry_out("train", request, Silent())
    return folder


def test_latents_computed_once_are_the_same_tokens(made: Path) -> None:
    first, second = (read_metrics(made / name / "metrics.jsonl") for name in ("tokens", "encoded"))
    assert [a["loss"] for a in first] == pytest.approx([b["loss"] for b in second], rel=1e-4)
    assert len({a["loss"] for a in first}) == 4


def test_the_model_stands_alone_and_draws_tokens(made: Path) -> None:
    model = fn.load(made / "tokens")
    assert isinstance(model.codec, Tokens)
    steps = list(model.stream(3, label=2, seed=5))
    assert [int((s.x == 0).all(1).sum()) for s in steps][-1] == 0
    assert bool((steps[-1].x.sum(1) == 1).all())
    drawn = model.sample(3, label=2, seed=5).tensor
    assert torch.equal(drawn, model.decode(steps[-1].x)) and drawn.shape == (3, 3, 16, 16)
    other = model.sample(3, label=2, seed=5, sampler="unmask").tensor
    assert not torch.equal(other, drawn)


def test_its_autoencoder_serves_other_models_and_encodes(made: Path, tmp_path: Path) -> None:
    alone = fn.load(made / "vq").codec
    assert isinstance(alone, VQ)
    assert torch.equal(opened(str(made / "tokens")).last, alone.last)
    out = tmp_path / "latents.safetensors"
    request = DataEncodeRequest(run=str(made / "tokens"), out=str(out))
    assert carry_out("data encode", request, Silent()) == 0
    found, own = fn.data.load({"kind": "encoded", "path": str(out)}), made / "vq"
    known = fn.data.load({"kind": "encoded", "path": str(own / "latents.safetensors")})
    assert torch.equal(found.batch(range(60)).x, known.batch(range(60)).x)
    # The control: codes are not what is encoded.
    assert found.shape == (4, 8, 8) != fn.load(made / "tokens").codec.latent_shape((3, 16, 16))
    assert isinstance(alone, VQ)


def test_guidance_acts_on_logits(made: Path) -> None:
    model = fn.load(made / "tokens")
    torch.manual_seed(0)
    torch.nn.init.normal_(model.denoiser.net.leave.weight, std=0.3)  # type: ignore[arg-type, union-attr]
    x = torch.zeros(2, 16, 8, 8)
    t = torch.ones(2, dtype=torch.float64)
    told = model.condition(2, label=3)
    assert told is not None and told.null is not None
    with torch.no_grad():
        guided = fn.guidance.ClassifierFree(model.denoiser, 3.0)(x, t, told).x0
        given, null = (model.denoiser.output(x, t, c) for c in (told, told.null))
    wanted = (null + 3 * (given - null)).softmax(1)
    assert (guided.softmax(1) - wanted).abs().max() < 1e-5
    assert (wanted - given.softmax(1)).abs().max() > 1e-3


def test_a_picture_is_drawn_again(made: Path, tmp_path: Path) -> None:
    request = SampleRequest(model=str(made / "tokens"), count=2, label="1", out=str(tmp_path))
    assert carry_out("sample", request, Silent()) == 0
    again = SampleRequest(replay=str(tmp_path / "000001.png"), out=str(tmp_path / "again"))
    assert carry_out("sample", again, Silent()) == 0


def test_what_does_not_fit_is_said_before_anything_is_drawn(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "none"
    request = SampleRequest(model=str(made / "tokens"), sampler="dpm++2m", out=str(out))
    with pytest.raises(UsageError, match="maskgit"):
        carry_out("sample", request, Silent())
    request = SampleRequest(model=str(made / "tokens"), threshold=0.9, out=str(out))
    with pytest.raises(UsageError, match="draws tokens"):
        carry_out("sample", request, Silent())
    lost = json.loads((made / "tokens.json").read_text()) | {"codec_from": "runs/nowhere"}
    (tmp_path / "lost.json").write_text(json.dumps(lost))
    with pytest.raises(FileError, match="autoencoder"):
        carry_out("train", TrainRequest(recipe=str(tmp_path / "lost.json"), out=str(out)), Silent())
    assert not out.exists()


@pytest.mark.slow
def test_it_is_measured_by_pictures_and_by_the_bound_on_its_codes(made: Path) -> None:
    request = EvaluateRequest(run=str(made / "tokens"), samples=50, steps=2)
    carry_out("evaluate", request, Silent())
    found = json.loads((made / "tokens" / "evaluation.json").read_text())
    assert 0 < found["nats_per_token"]["value"] < 1.2 * math.log(16)
    assert found["nats_per_token"]["codes"] == 16 and "bits_per_dim" not in found
