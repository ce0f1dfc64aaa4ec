"""The less usual pipelines of latents, as a person asks about them and draws with them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from interop import latent_pipelines as tiny

import fromnoise as fn
from fromnoise.cli.main import run
from fromnoise.core.errors import ShapeError
from fromnoise.core.images import to_pil
from fromnoise.encoders import LDMBert
from fromnoise.interop.latent_folder import PIPELINES
from fromnoise.interop.shelf import FAMILIES

KINDS = {
    "upscale": ("Stable Diffusion x4 upscaler", {"low_res": (1, 3, 8, 8), "label": (1, 1000)}),
    "variations": ("Stable Diffusion image variations", {"tokens": (1, 1, 16)}),
    "ldm-text": ("latent diffusion, text", {"tokens": (1, 77, 16)}),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("kinds")
    return {kind: tiny.saved(root / kind, kind)[1] for kind in KINDS}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("upscale", marks=pytest.mark.slow),
        pytest.param("variations", marks=pytest.mark.slow),
        "ldm-text",
    ],
)
def test_what_is_said_of_it(
    kind: str, folders: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """Every tensor and size, by commands that draw nothing."""
    family, told = KINDS[kind]
    assert run(["explain", str(folders[kind]), "--shapes"]) == 0
    said = capfd.readouterr().out
    for name, shape in told.items():
        assert any(
            line.strip().startswith("told") and f"{name} " in line and str(shape) in line
            for line in said.splitlines()
        ), (name, said)
    assert run(["models", "info", str(folders[kind]), "--quick", "--json"]) == 0
    about: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert about["family"] == family
    assert fn.load(folders[kind]).card.family == family


def test_a_prompt_is_followed_without_weights(folders: dict[str, Path]) -> None:
    """BERT on the meta device: what it gives has the shape it has in a run, weighted or not."""
    encoder = fn.load(folders["ldm-text"]).conditioning.encoders["prompt"]
    assert isinstance(encoder, LDMBert)
    bare = fn.load(folders["ldm-text"]).conditioning.encoders["prompt"].to("meta")
    bare.vocabulary = encoder.vocabulary
    for prompt in ("a red cat", "a (red:1.3) cat"):
        real, meta = (one.encode("prompt", prompt, 1).tokens for one in (encoder, bare))
        assert real is not None and meta is not None
        assert meta.values.is_meta and meta.values.shape == real.values.shape


def test_every_pipeline_has_a_name_for_people() -> None:
    assert PIPELINES.keys() <= FAMILIES.keys()


def test_what_is_enlarged_keeps_its_shape(folders: dict[str, Path]) -> None:
    """The sample is as many times the picture as the codec is, whatever the model's own size."""
    model = fn.load(folders["upscale"])
    wide = to_pil(torch.rand(3, 6, 12) * 2 - 1)

    def shape(inputs: Any, **asked: Any) -> tuple[int, ...]:
        stream = model.stream(1, prompt="a cat", inputs={"low_res": inputs}, steps=1, **asked)
        return tuple(stream.recipe["shape"])

    assert model.shape == (3, 16, 16)
    assert shape(wide) == shape({"picture": wide, "level": 5}) == (3, 12, 24)
    assert shape(torch.zeros(3, 20, 10)) == (3, 40, 20)
    assert shape([wide]) == (3, 12, 24)
    # A size that is asked for comes before it; so does nothing else.
    assert shape(wide, shape=(3, 16, 16)) == (3, 16, 16)
    with pytest.raises(ShapeError, match="height 15"):
        shape(wide, shape=(3, 15, 16))
    drawn = model.sample(1, prompt="a cat", inputs={"low_res": wide}, steps=1)
    assert drawn.tensor.shape == (1, 3, 12, 24)


def test_what_the_inpainting_pipeline_sets_of_its_scheduler(tmp_path: Path) -> None:
    """As diffusers does it: Runge-Kutta steps are left out there, and in no other pipeline."""
    from diffusers import StableDiffusionInpaintPipeline

    # The pipeline changes the scheduler it is given, so each has its own.
    plans = [tiny.scheduler("pndm", skip_prk_steps=False) for _ in range(2)]
    folder = tiny.saved(tmp_path / "inpaint", "inpaint", plans[0])[1]
    tiny.edit(folder / "scheduler" / "scheduler_config.json", skip_prk_steps=False)
    theirs = StableDiffusionInpaintPipeline.from_pretrained(folder)
    assert theirs.scheduler.config.skip_prk_steps
    assert fn.load(folder).defaults.sampler == "plms"
    plain = tiny.saved(tmp_path / "sd1", "sd1", plans[1])[1]
    assert fn.load(plain).defaults.sampler == "pndm"
