"""Clip skip, rescaled guidance, the null of XL, and PNDM: as in diffusers, and where it differs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from interop import latent_pipelines as tiny
from interop.test_latent_folder import GUIDANCE, STEPS, asked, check, drawn
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

import fromnoise as fn

slow = pytest.mark.slow
TOLD = {"prompt": "a cat", "negative_prompt": "a dog"}


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same networks in every run."""
    torch.manual_seed(0)


def deep(root: Path, family: str) -> tuple[Any, Path]:
    """A pipeline whose towers have four layers, and its folder."""
    pipeline = tiny.MADE[family](root)
    pipeline.set_progress_bar_config(disable=True)
    made = {"num_hidden_layers": 4}
    activation = {"hidden_act": "gelu"} if family == "sd2" else {}
    pipeline.register_modules(text_encoder=tiny.text(CLIPTextModel, **made, **activation))
    if family == "sdxl":
        second = tiny.text(CLIPTextModelWithProjection, 1, hidden_act="gelu", **made)
        pipeline.register_modules(text_encoder_2=second)
    pipeline.save_pretrained(root / "model")
    # diffusers 0.42 looks for its last norm where transformers 5 no longer has it.
    pipeline.text_encoder.__dict__["text_model"] = pipeline.text_encoder
    return pipeline, root / "model"


def skipped(pipeline: Any, family: str, skip: int) -> dict[str, Tensor]:
    """A negative prompt read as many layers before the last as the prompt is."""
    read = pipeline.encode_prompt(
        TOLD["negative_prompt"],
        device="cpu",
        num_images_per_prompt=1,
        do_classifier_free_guidance=False,
        clip_skip=skip,
    )
    if family != "sdxl":
        return {"negative_prompt_embeds": read[0]}
    return {"negative_prompt_embeds": read[0], "negative_pooled_prompt_embeds": read[2]}


@pytest.mark.parametrize(
    ("family", "skip"),
    [
        ("sd1", 1),
        ("sdxl", 2),
        *(
            pytest.param(*one, marks=slow)
            for one in (("sd1", 2), ("sd2", 1), ("sd2", 2), ("sdxl", 1))
        ),
    ],
)
def test_clip_skip(family: str, skip: int, tmp_path: Path) -> None:
    """Ours counts layers from the last, which is 1; diffusers counts those left out beyond what its
    family leaves out: one of XL, and none of a folder of 2, which lacks the last layer. It leaves
    them out of the prompt alone, and we leave them out of the negative prompt as well."""
    pipeline, folder = deep(tmp_path, family)
    model, x = fn.load(folder), tiny.noise()
    layer = skip + (2 if family == "sdxl" else 1)
    start = tiny.started(pipeline.scheduler, x)
    told = asked(latents=x, height=16, width=16, clip_skip=skip)

    def ours(layer: int, **more: Any) -> Any:
        return tiny.ours(model, prompt="a cat", steps=STEPS, start=start, clip_skip=layer, **more)

    wanted = pipeline("a cat", **told | {"guidance_scale": 1.0}).images
    alone = {"guidance": 1.0}
    check(pipeline, ours(layer, **alone), wanted, ours(layer - 1, **alone)[0])
    guided = {"negative": "a dog", "guidance": GUIDANCE}
    both = pipeline("a cat", **skipped(pipeline, family, skip), **told).images
    prompt_alone = pipeline(**TOLD, **told).images
    check(pipeline, ours(layer, **guided), both, prompt_alone)


@pytest.mark.parametrize(
    ("predicts", "same"),
    [("sample", True), pytest.param("epsilon", False, marks=slow)],
)
def test_guidance_rescaled(predicts: str, same: bool, tmp_path: Path) -> None:
    """Ours keeps the spread of the belief about the picture, diffusers' that of what the network
    gives: one thing where it gives the picture, and another where it gives the noise."""
    plan = tiny.scheduler("ddim", prediction_type=predicts)
    pipeline, folder = tiny.saved(tmp_path, "sd1", plan)
    # A belief that is the network's own answer keeps its rounding: float32 has 1e-5 of it at 2.
    model, x = fn.load(folder), tiny.noise()
    wanted = pipeline(latents=x, guidance_rescale=0.7, **TOLD, **asked(guidance_scale=2.0)).images

    def ours(share: float) -> Any:
        told = {"prompt": "a cat", "negative": "a dog", "guidance": 2.0, "steps": STEPS}
        return tiny.ours(model, start=x, rescale=share, **told)

    found, other = ours(0.7), ours(0.3)[0]
    if same:
        check(pipeline, found, wanted, other)
    else:
        assert (found[0] - wanted).abs().max() > 1e-2


@pytest.mark.parametrize("negative", [None, pytest.param("a dog", marks=slow)])
def test_xl_whose_null_is_the_empty_prompt(negative: str | None, tmp_path: Path) -> None:
    """Without `force_zeros_for_empty_prompt` the empty prompt is read, not all zeros."""
    pipeline, folder = tiny.saved(tmp_path, "sdxl")
    pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    pipeline.save_pretrained(folder)
    x = tiny.noise()
    told = asked(latents=x, height=16, width=16, negative_prompt=negative)
    wanted = pipeline("a cat", **told).images
    start = tiny.started(pipeline.scheduler, x)

    def ours(negative: str | None) -> Any:
        given = {"prompt": "a cat", "negative": negative, "guidance": GUIDANCE, "steps": STEPS}
        return tiny.ours(fn.load(folder), start=start, **given)

    found = ours(negative)
    # The same weights with zeros for a null.
    tiny.edit(folder / "model_index.json", force_zeros_for_empty_prompt=True)
    other = ours(None)[0]
    check(pipeline, found, wanted, other)


@slow
def test_pndm_of_v_differs_by_what_is_added_up(tmp_path: Path) -> None:
    """diffusers adds up past v; given the noise that each v stands for, it draws what we do."""
    plan = tiny.scheduler("pndm", **tiny.V)
    pipeline, folder = tiny.saved(tmp_path, "sd2", plan)
    x = tiny.noise()
    given = {"prompt": "a cat", "negative": "a dog", "guidance": GUIDANCE, "steps": STEPS}
    found = tiny.ours(fn.load(folder), start=x, **given)
    other = pipeline(latents=x, **TOLD, **asked()).images
    step, scheduler = pipeline.scheduler.step, pipeline.scheduler

    def of_noise(v: Tensor, t: Tensor, sample: Tensor, **more: Any) -> Any:
        kept = scheduler.alphas_cumprod[t]
        return step(kept.sqrt() * v + (1 - kept).sqrt() * sample, t, sample, **more)

    scheduler.register_to_config(prediction_type="epsilon")
    scheduler.step = of_noise
    check(pipeline, found, pipeline(latents=x, **TOLD, **asked()).images, other)


@slow
def test_pndm_from_a_picture_differs_by_where_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """diffusers' list has its second time twice, and it begins so many places from its start: one
    time too early, without the repetition its first steps count on."""
    from diffusers import StableDiffusionImg2ImgPipeline

    text, folder = tiny.saved(tmp_path, "sd1", tiny.scheduler("pndm"))
    pipeline = StableDiffusionImg2ImgPipeline(**text.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    image, scheduler = tiny.picture(), pipeline.scheduler
    scheduler.set_timesteps(STEPS)
    assert scheduler.timesteps.tolist() == [801, 601, 601, 401, 201, 1]
    assert pipeline.get_timesteps(STEPS, 0.6, "cpu")[0].tolist() == [601, 401, 201, 1]
    with drawn(monkeypatch, pipeline, tiny.noise(seed=5)):
        told = asked(image=(image + 1) / 2, strength=0.6)
        other = pipeline("a cat", **told).images
        # The list of the last three of five steps, made as the whole list is.
        times = torch.tensor([401, 201, 201, 1])
        monkeypatch.setattr(pipeline, "get_timesteps", lambda *given: (times, 3))
        wanted = pipeline("a cat", **told).images
        given = {"prompt": "a cat", "image": image[0], "steps": STEPS, "guidance": GUIDANCE}
        found = tiny.ours(fn.load(folder), strength=0.6, **given)
    check(pipeline, found, wanted, other)
