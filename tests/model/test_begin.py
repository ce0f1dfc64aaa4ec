"""Image to image is what diffusers does on the same noise; a picture is brought to what fits."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from model.tiny import tiny
from model.tiny_latent import tiny_latent
from PIL import Image
from torch import Tensor

from fromnoise import processes
from fromnoise.core.errors import FileError, ShapeError, UsageError
from fromnoise.core.randomness import Noise
from fromnoise.interop.diffusers_schedulers import read
from fromnoise.model import Model
from fromnoise.model.begin import shortened
from fromnoise.samplers import last

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return tiny_latent(tmp_path_factory.mktemp("latent"))


@pytest.fixture(scope="module")
def picture() -> Tensor:
    x = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(4)) * 2 - 1
    return torch.nn.functional.avg_pool2d(x, 5, 1, 2)


def theirs(
    model: Model, scheduler: Any, latents: Tensor, noise: Tensor, steps: int, strength: float
) -> Tensor:
    """diffusers' own image to image over our network: its times, its noise, its steps."""
    scheduler.set_timesteps(steps)
    pipeline = SimpleNamespace(scheduler=scheduler)
    timesteps, _ = StableDiffusionImg2ImgPipeline.get_timesteps(pipeline, steps, strength, "cpu")
    x = scheduler.add_noise(latents, noise, timesteps[:1].repeat(len(latents)))
    told = model.condition(len(latents), prompt="a cat")
    assert told is not None
    for k in timesteps:
        inside = scheduler.scale_model_input(x, k)
        with torch.no_grad():
            eps = model.denoiser.net(inside, torch.full((len(x),), float(k)), told)
        x = scheduler.step(eps, k, x).prev_sample
    return x


def ours(model: Model, scheduler: Any, picture: Tensor, steps: int, strength: float) -> Tensor:
    reading = read(json.loads(scheduler.to_json_string()), "here")
    opened = Model(
        model.denoiser, model.shape, model.codec, model.conditioning, reading.defaults, model.card
    )
    opened.denoiser.process = processes.PROCESSES.build(reading.process)
    stream = opened.stream(
        2,
        image=picture,
        strength=strength,
        steps=steps,
        prompt="a cat",
        guidance=1.0,
        dtype="float32",
        seed=5,
    )
    assert stream.count == int(steps * strength)
    return last(stream)


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
        ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}),
        ("DPMSolverMultistepScheduler", {"timestep_spacing": "leading", "steps_offset": 1}),
        ("DPMSolverMultistepScheduler", {}),
        ("UniPCMultistepScheduler", {}),
        ("HeunDiscreteScheduler", {}),
    ],
)
def test_the_latents_are_those_of_diffusers(
    kind: str, options: dict[str, Any], strength: float, model: Model, picture: Tensor
) -> None:
    scheduler = getattr(diffusers, kind)(**BETAS, **options)
    steps = 10
    if scheduler.order == 2 or kind == "HeunDiscreteScheduler":
        # Between indices σ is linear there and log-linear here: whole indices only.
        scheduler = getattr(diffusers, kind)(**BETAS, timestep_spacing="trailing")
    with torch.no_grad():
        latents = model.codec.encode(picture[None]).expand(2, -1, -1, -1)
    noise = Noise([5, 6]).normal(latents)
    expected = theirs(model, scheduler, latents, noise, steps, strength)
    found = ours(model, scheduler, picture, steps, strength)
    assert torch.allclose(found, expected, atol=2e-5, rtol=1e-5)
    # The strength does something, or all of this would hold for any.
    if strength < 1:
        other = ours(model, scheduler, picture, steps, strength - 0.1)
        assert (other - expected).abs().max() > 1e-3


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_pndm_warms_up_where_it_begins(strength: float, model: Model, picture: Tensor) -> None:
    """diffusers repeats the second time of the whole grid, and so goes astray on a part of it."""
    with torch.no_grad():
        latents = model.codec.encode(picture[None]).expand(2, -1, -1, -1)
    noise = Noise([5, 6]).normal(latents)
    told = model.condition(2, prompt="a cat")
    options = {**BETAS, "skip_prk_steps": True, "steps_offset": 1}

    def walked(timesteps: Tensor) -> Tensor:
        scheduler = diffusers.PNDMScheduler(**options)
        scheduler.set_timesteps(10)
        x = scheduler.add_noise(latents, noise, timesteps[:1].repeat(2))
        for k in timesteps:
            with torch.no_grad():
                eps = model.denoiser.net(x, torch.full((2,), float(k)), told)
            x = scheduler.step(eps, k, x).prev_sample
        return x

    scheduler = diffusers.PNDMScheduler(**options)
    found = ours(model, scheduler, picture, 10, strength)
    scheduler.set_timesteps(10)
    part = scheduler.timesteps.unique().flip(0)[10 - int(10 * strength) :]
    warmed = torch.cat([part[:1], part[1:2], part[1:]])
    assert torch.allclose(found, walked(warmed), atol=3e-5, rtol=1e-5)
    sliced = theirs(model, scheduler, latents, noise, 10, strength)
    assert torch.equal(sliced, walked(warmed)) == (strength == 1.0)


def test_a_sample_does_not_depend_on_its_neighbours(model: Model, picture: Tensor) -> None:
    pictures = torch.stack([picture, picture.flip(-1), -picture])
    options = {"prompt": "a", "steps": 4, "strength": 0.5, "batch_size": 2, "seed": 7}
    together = model.sample(3, image=pictures, **options)
    alone = [
        model.sample(1, image=one, **{**options, "seed": 7 + i}) for i, one in enumerate(pictures)
    ]
    for i, one in enumerate(alone):
        assert torch.equal(together.tensor[i], one.tensor[0])
    swapped = model.sample(1, image=pictures[1], **options)
    assert not torch.equal(swapped.tensor[0], together.tensor[0])


def test_little_strength_keeps_the_picture_and_much_forgets_it() -> None:
    """Pixels: the mean change grows with the strength, and at the first steps it is small."""
    model = tiny()
    picture = torch.linspace(-1, 1, 64).reshape(1, 8, 8)
    changes = [
        (model.sample(8, image=picture, strength=s, steps=20, label=1).tensor - picture)
        .abs()
        .mean()
        for s in (0.05, 0.2, 0.5, 1.0)
    ]
    assert changes == sorted(changes) and changes[0] < 0.1 * changes[-1]


def test_pictures_are_covered_and_cut_at_their_middle(model: Model, tmp_path: Path) -> None:
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 30:90] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    options = {"prompt": "a", "steps": 10, "strength": 0.1}
    for given in (tmp_path / "wide.png", str(tmp_path / "wide.png"), Image.fromarray(wide), wide):
        kept = model.stream(1, image=given, **options)
        # The area of 32×32 at the aspect 3:1, in steps of 8.
        assert kept.recipe["shape"] == [3, 16, 56]
        named = isinstance(given, str | Path)
        assert kept.recipe["image"] == (str(given) if named else "given")
        assert (str(given) in kept.recipe["used"]) == named
    square = model.sample(1, image=wide, shape=(3, 32, 32), **options)
    middle = model.sample(1, image=torch.ones(3, 32, 32), **options)
    # Nothing but the white middle is left.
    assert torch.equal(square.tensor, middle.tensor)


def test_the_last_steps_are_kept_as_diffusers_counts_them() -> None:
    grid = torch.linspace(1, 0, 51, dtype=torch.float64)
    for strength, kept in ((1.0, 50), (0.58, 28), (0.6, 30), (0.02, 1)):
        assert torch.equal(shortened(grid, strength), grid[50 - kept :])
    with pytest.raises(UsageError, match="use 0.334 or more"):
        shortened(grid[:4], 0.3)
    assert len(shortened(grid[:4], 0.334)) == 2


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"strength": 0.5}, UsageError, "give an image"),
        ({"image": "no-such.png"}, FileError, "no-such.png"),
        ({"image": 3}, UsageError, "not 3"),
        ({"image": torch.zeros(3, 30, 32)}, ShapeError, "height 30 is not a multiple of 8"),
        ({"image": torch.zeros(1, 32, 32)}, ShapeError, "draws samples of shape"),
        ({"image": torch.full((3, 32, 32), torch.nan)}, UsageError, "NaN"),
        ({"image": torch.zeros(3, 3, 32, 32)}, ShapeError, "3 images given for 2"),
        ({"image": torch.zeros(3, 32, 32), "strength": 0.0}, UsageError, "strength 0"),
        ({"image": torch.zeros(3, 32, 32), "strength": True}, UsageError, "no number"),
        ({"image": torch.zeros(3, 32, 32), "shape": (3, 40, 32)}, ShapeError, "where samples"),
        (
            {"image": torch.zeros(3, 32, 32), "start": torch.zeros(2, 4, 8, 8)},
            UsageError,
            "not both",
        ),
        ({"shape": (3, 32, 20)}, ShapeError, "width 20 .* nearest are 16 and 24"),
        ({"shape": (3, 4, 32)}, ShapeError, "height 4 .* nearest is 8"),
    ],
)
def test_a_mistake_says_what_would_do(
    asked: dict[str, Any], error: type[Exception], message: str, model: Model
) -> None:
    with pytest.raises(error, match=message):
        model.stream(2, prompt="a", **asked)
