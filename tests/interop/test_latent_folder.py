"""Pipelines of latents that diffusers writes: the same latents and pictures on the same noise."""

import importlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from interop import latent_pipelines as tiny
from torch import Tensor

import fromnoise as fn
from fromnoise.core import tensorread
from fromnoise.core.errors import FileError, FromNoiseError, ShapeError, UsageError
from fromnoise.core.images import to_pil, to_tensor
from fromnoise.core.randomness import Noise

STEPS, GUIDANCE = 5, 5.0
LATENTS, PICTURES = 2e-5, 1e-4
"""Largest differences allowed: of latents in units of their spread, where that is above 1."""

slow = pytest.mark.slow


def check(pipeline: Any, found: tuple[Tensor, Tensor], wanted: Tensor, other: Tensor) -> None:
    """Latents and pictures agree; told something else, they would not."""
    latents, pictures = found
    spread = max(1.0, float(wanted.std()))
    assert wanted.std() > 0.3
    assert (latents - wanted).abs().max() < LATENTS * spread
    assert (pictures - tiny.decoded(pipeline, wanted)).abs().max() < PICTURES
    assert (other - wanted).abs().max() > 1e-2


@contextmanager
def drawn(monkeypatch: pytest.MonkeyPatch, pipeline: Any, eps: Tensor) -> Iterator[None]:
    """Within it, what the pipeline draws and what we draw is this noise."""
    with monkeypatch.context() as patch:
        module = importlib.import_module(type(pipeline).__module__)
        patch.setattr(module, "randn_tensor", lambda *a, **k: eps)
        patch.setattr(Noise, "normal", lambda self, like: eps.to(like))
        yield


def asked(**more: Any) -> dict[str, Any]:
    return {
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "output_type": "latent",
    } | more


@pytest.mark.parametrize(
    ("family", "plan", "options"),
    [
        ("sd1", "ddim", {}),
        ("sd1", "dpm++2m", {}),
        ("sd2", "euler", tiny.V),
        pytest.param("sd1", "euler", {}, marks=slow),
        pytest.param("sd1", "pndm", {}, marks=slow),
        pytest.param("sd1", "unipc", {}, marks=slow),
        pytest.param("sd1", "euler", {"timestep_spacing": "linspace"}, marks=slow),
        pytest.param("sd1", "ddim", {"steps_offset": 0, "clip_sample": True}, marks=slow),
        pytest.param("sd2", "ddim", tiny.V, marks=slow),
        pytest.param("sd2", "dpm++2m", tiny.V, marks=slow),
        pytest.param("sd2", "unipc", tiny.V, marks=slow),
        pytest.param("sd2", "ddim", {}, marks=slow),
        # With v diffusers adds up past v, here past ε: see docs/models.md.
        pytest.param("sd2", "pndm", {}, marks=slow),
    ],
    ids=lambda value: str(value)[:30],
)
def test_text_to_picture(family: str, plan: str, options: dict[str, Any], tmp_path: Path) -> None:
    pipeline, folder = tiny.saved(tmp_path, family, tiny.scheduler(plan, **options))
    x = tiny.noise()
    told = {"prompt": "a cat", "negative_prompt": "a dog"}
    wanted = pipeline(latents=x, **told, **asked()).images
    model = fn.load(folder)
    ours: dict[str, Any] = {
        "negative": "a dog",
        "guidance": GUIDANCE,
        "steps": STEPS,
        "start": tiny.started(pipeline.scheduler, x),
    }
    check(
        pipeline,
        tiny.ours(model, prompt="a cat", **ours),
        wanted,
        tiny.ours(model, prompt="a hat", **ours)[0],
    )


@slow
@pytest.mark.parametrize("plan", ["ddim", "euler", "dpm++2m", "unipc"])
def test_picture_to_picture(plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PNDM is left out: diffusers starts its multistep a time too early there and then lags."""
    from diffusers import StableDiffusionImg2ImgPipeline

    text, folder = tiny.saved(tmp_path, "sd1", tiny.scheduler(plan))
    pipeline = StableDiffusionImg2ImgPipeline(**text.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    image, model = tiny.picture(), fn.load(folder)
    with drawn(monkeypatch, pipeline, tiny.noise(seed=5)):
        told = asked(image=(image + 1) / 2, strength=0.6)
        wanted = pipeline("a cat", **told).images
        ours = {"prompt": "a cat", "image": image[0], "steps": STEPS, "guidance": GUIDANCE}
        check(
            pipeline,
            tiny.ours(model, strength=0.6, **ours),
            wanted,
            tiny.ours(model, strength=0.8, **ours)[0],
        )


def _inpaint(pipeline: Any, model: fn.Model) -> tuple[Any, ...]:
    x, image = tiny.noise(), tiny.picture()
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 3:9] = 1
    wanted = pipeline(
        "a cat", image=(image + 1) / 2, mask_image=mask, strength=1.0, latents=x, height=16,
        width=16, **asked(),
    ).images  # fmt: skip

    def ours(mask: Tensor) -> Any:
        inputs = {"inpaint": {"picture": image[0], "mask": mask}}
        return tiny.ours(
            model, prompt="a cat", inputs=inputs, steps=STEPS, guidance=GUIDANCE, start=x
        )

    return ours(mask[0]), wanted, ours(1 - mask[0, 0])[0]


def _upscale(pipeline: Any, model: fn.Model) -> tuple[Any, ...]:
    x, low, eps = tiny.noise(), tiny.picture(8), tiny.noise(channels=3, seed=7)
    module = importlib.import_module(type(pipeline).__module__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "randn_tensor", lambda *a, **k: eps)
        told = asked(image=(low + 1) / 2, noise_level=50, latents=x)
        wanted = pipeline("a cat", **told).images

    def ours(level: int) -> Any:
        inputs = {"low_res": {"picture": low[0], "level": level, "noise": eps[0]}}
        return tiny.ours(
            model, prompt="a cat", inputs=inputs, steps=STEPS, guidance=GUIDANCE, start=x
        )

    return ours(50), wanted, ours(20)[0]


def _variations(pipeline: Any, model: fn.Model) -> tuple[Any, ...]:
    x, image = tiny.noise(), to_pil(tiny.picture(40)[0])
    wanted = pipeline(image, latents=x, height=16, width=16, **asked()).images

    def ours(picture: Any) -> Any:
        return tiny.ours(
            model, inputs={"picture": picture}, steps=STEPS, guidance=GUIDANCE, start=x
        )

    return ours(image), wanted, ours(to_pil(-tiny.picture(40)[0]))[0]


def _sdxl(pipeline: Any, model: fn.Model, negative: str | None = None) -> tuple[Any, ...]:
    x = tiny.noise()
    told = asked(latents=x, height=16, width=16, negative_prompt=negative)
    wanted = pipeline("a cat", **told).images
    start = tiny.started(pipeline.scheduler, x)

    def ours(**more: Any) -> Any:
        return tiny.ours(
            model, prompt="a cat", negative=negative, steps=STEPS, guidance=GUIDANCE, start=start,
            **more,
        )  # fmt: skip

    return ours(), wanted, ours(inputs={"sizes": {"crop": [4, 4]}})[0]


def _text_before(pipeline: Any, model: fn.Model) -> tuple[Any, ...]:
    x, seen = tiny.noise(), []
    decode = pipeline.vqvae.decode
    pipeline.vqvae.decode = lambda z, *a, **k: (seen.append(z), decode(z, *a, **k))[1]
    pipeline(["a red cat"], latents=x, **asked(output_type="np"))
    pipeline.vqvae.decode = decode
    wanted = seen[0] * pipeline.vqvae.config.scaling_factor

    def ours(prompt: str) -> Any:
        return tiny.ours(model, prompt=prompt, steps=STEPS, guidance=GUIDANCE, start=x)

    return ours("a red cat"), wanted, ours("a dog")[0]


def _nothing_told(pipeline: Any, model: fn.Model) -> tuple[Any, ...]:
    x, seen = tiny.noise(channels=3), []
    decode = pipeline.vqvae.decode
    pipeline.vqvae.decode = lambda z, *a, **k: (seen.append(z), decode(z, *a, **k))[1]
    module = importlib.import_module(type(pipeline).__module__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "randn_tensor", lambda *a, **k: x)
        pipeline(num_inference_steps=STEPS, output_type="np")
    pipeline.vqvae.decode = decode
    wanted = seen[0] * pipeline.vqvae.config.scaling_factor
    return (
        tiny.ours(model, steps=STEPS, start=x),
        wanted,
        tiny.ours(model, steps=STEPS, start=x.flip(0, 3))[0],
    )


FAMILIES: dict[str, Callable[..., tuple[Any, ...]]] = {
    "inpaint": _inpaint,
    "upscale": _upscale,
    "sdxl": _sdxl,
    "variations": _variations,
    "ldm-text": _text_before,
    "ldm": _nothing_told,
}
_FAST = ("inpaint", "sdxl")


@pytest.mark.parametrize(
    "family", [name if name in _FAST else pytest.param(name, marks=slow) for name in FAMILIES]
)
def test_a_family(family: str, tmp_path: Path) -> None:
    pipeline, folder = tiny.saved(tmp_path, family)
    model = fn.load(folder)
    check(pipeline, *FAMILIES[family](pipeline, model))


@slow
@pytest.mark.parametrize("plan", [*tiny.SCHEDULERS])
@pytest.mark.parametrize("negative", [None, "a dog"])
def test_xl_with_every_sampler(plan: str, negative: str | None, tmp_path: Path) -> None:
    """Without a negative prompt its null is all zeros; with one it is read."""
    pipeline, folder = tiny.saved(tmp_path, "sdxl", tiny.scheduler(plan))
    check(pipeline, *_sdxl(pipeline, fn.load(folder), negative))


@slow
@pytest.mark.parametrize("negative", [None, "a dog"])
def test_the_refiner(negative: str | None, tmp_path: Path, monkeypatch: Any) -> None:
    """What guidance moves away from is told the lower score, with a negative prompt or without."""
    pipeline, folder = tiny.saved(tmp_path, "refiner")
    image, model = tiny.picture(), fn.load(folder)
    assert model.card.family == "Stable Diffusion XL refiner"
    with drawn(monkeypatch, pipeline, tiny.noise(seed=5)):
        told = asked(image=(image + 1) / 2, strength=0.5, num_inference_steps=6)
        wanted = pipeline("a cat", negative_prompt=negative, **told).images
        ours: dict[str, Any] = {
            "prompt": "a cat",
            "negative": negative,
            "image": image[0],
            "strength": 0.5,
            "steps": 6,
            "guidance": GUIDANCE,
        }
        other = tiny.ours(model, inputs={"sizes": {"score": 4.0}}, **ours)[0]
        check(pipeline, tiny.ours(model, **ours), wanted, other)


@slow
def test_depth_given_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A depth map of another size, and the depth that a tiny DPT finds in the picture."""
    pipeline, folder = tiny.saved(tmp_path, "depth")
    picture, model = to_pil(tiny.picture()[0]), fn.load(folder)
    image = to_tensor(picture)[None]
    given = 9 * torch.rand(1, 24, 20, generator=torch.Generator().manual_seed(3))
    ours: dict[str, Any] = {
        "prompt": "a cat",
        "image": image[0],
        "strength": 0.8,
        "steps": STEPS,
        "guidance": GUIDANCE,
    }
    with drawn(monkeypatch, pipeline, tiny.noise(seed=5)):
        other = tiny.ours(model, inputs={"depth": given[0].flip(0)}, **ours)[0]
        for theirs, depth in ((given, given[0]), (None, {"picture": picture})):
            shown = picture if theirs is None else (image + 1) / 2
            told = asked(image=shown, depth_map=theirs, strength=0.8)
            wanted = pipeline("a cat", **told).images
            check(pipeline, tiny.ours(model, inputs={"depth": depth}, **ours), wanted, other)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(tmp_path_factory.mktemp("sd1"), "sd1")[1]


@pytest.fixture
def spoilt(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "spoilt")


def test_weights_left_in_the_file_draw_the_same_bits(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = fn.load(folder).sample(1, prompt="a cat", steps=3, dtype="float32").tensor
    monkeypatch.setattr(tensorread, "_LARGE", 0)
    model = fn.load(folder)
    apart = [p for p in model.denoiser.net.parameters() if p.data_ptr() % 64]
    assert apart, "no weight is where a map would leave it"
    assert torch.equal(model.sample(1, prompt="a cat", steps=3, dtype="float32").tensor, read)


def test_it_is_an_ordinary_model(folder: Path, tmp_path: Path) -> None:
    model = fn.load(folder)
    assert model.shape == (3, 16, 16) and model.conditioning.names == ("prompt",)
    assert (model.defaults.sampler, model.defaults.guidance) == ("ddim", 7.5)
    assert model.defaults.grid_options == {"end": 1 / 1000, "offset": 1}
    model.save(tmp_path / "own")
    again = fn.load(tmp_path / "own")
    asked = {"prompt": "a (red:1.2) cat", "steps": 2, "shape": (3, 16, 24)}
    drawn = [one.sample(1, **asked).tensor for one in (model, again)]
    assert torch.equal(*drawn) and drawn[0].shape == (1, 3, 16, 24)
    assert model.fingerprint == again.fingerprint


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "scheduler"])
def test_a_part_points_to_its_pipeline(part: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        fn.load(folder / part)
    assert f"is a part of the pipeline in {folder}: give that folder" in str(caught.value)
    # The control: alone, there is none to point to.
    shutil.copytree(folder / part, tmp_path / part)
    with pytest.raises(FileError) as caught:
        fn.load(tmp_path / part)
    assert "pipeline" not in str(caught.value)


def test_what_is_asked_of_another_family(folder: Path) -> None:
    model = fn.load(folder)
    with pytest.raises(UsageError, match="is not told an inpaint; it takes prompt"):
        model.sample(1, prompt="a cat", inputs={"inpaint": {"picture": "a.png", "mask": "b.png"}})
    with pytest.raises(ShapeError, match="height 17 is not a multiple of 2"):
        model.sample(1, prompt="a cat", shape=(3, 17, 16))


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / name)


def _index(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: tiny.edit(folder / "model_index.json", **changes)


def _config(part: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: tiny.edit(folder / part / "config.json", **changes)


def _cut(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_index(_class_name="FluxPipeline"), "model_index.json: FluxPipeline is not read; these"),
        (_index(vae=[None, None]), "this StableDiffusionPipeline has no vae, which it cannot do"),
        (_without("vae"), "lacks the folder vae, which its model_index.json names"),
        (_without("tokenizer"), "lacks the folder tokenizer"),
        (_config("unet", _class_name="UNet3D"), "config.json: the network UNet3D is not read"),
        (_config("vae", _class_name="TAESD"), "config.json: the autoencoder TAESD is not read"),
        (_config("text_encoder", model_type="t5"), "model_type 't5' is no CLIP"),
        (_config("unet", in_channels=6), "unet: .enter.weight. has shape"),
        (_config("unet", cross_attention_dim=24), "'down.|has shape"),
        (_config("unet", mid_block_type=None), "mid_block_type"),
        (_cut, "diffusion_pytorch_model.safetensors is cut short"),
        (
            lambda f: tiny.edit(
                f / "scheduler" / "scheduler_config.json", _class_name="KDPM2DiscreteScheduler"
            ),
            "KDPM2DiscreteScheduler is not read",
        ),
    ],
)
def test_what_cannot_be_opened_says_so_in_one_line(
    spoil: Callable[[Path], None], message: str, spoilt: Path
) -> None:
    spoil(spoilt)
    with pytest.raises(FileError, match=message) as caught:
        fn.load(spoilt)
    assert "\n" not in str(caught.value)


def test_a_safety_checker_is_passed_over(spoilt: Path) -> None:
    """Named or not, there or not."""
    tiny.edit(
        spoilt / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
    )
    assert fn.load(spoilt).conditioning.names == ("prompt",)


@slow
def test_inputs_that_must_be_there(tmp_path: Path) -> None:
    for family, message in (
        ("depth", "give it as the input depth"),
        ("upscale", "--input low_res=small.png"),
    ):
        model = fn.load(tiny.saved(tmp_path / family, family)[1])
        with pytest.raises(FromNoiseError, match=message):
            model.sample(1, prompt="a cat")
    model = fn.load(tiny.saved(tmp_path / "inpaint", "inpaint")[1])
    assert torch.isfinite(model.sample(1, prompt="a cat", steps=2).tensor).all()
    with pytest.raises(UsageError, match="given as 'picture' and 'mask'"):
        model.sample(1, prompt="a cat", inputs={"inpaint": {"picture": torch.zeros(3, 16, 16)}})
