"""The recipe a written picture carries: enough to draw it again, and to say what differs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from fromnoise import __version__
from fromnoise.core.config import Settings, validated
from fromnoise.core.environment import environment
from fromnoise.core.errors import FileError
from fromnoise.core.images import read_png_text
from fromnoise.model import Hires
from fromnoise.model.samples import one_of
from fromnoise.model.steering import GIVEN

FORMAT = 1
KEY = "fromnoise"

_LABELS = {
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "dpm2": "DPM2",
    "dpm2_a": "DPM2 a",
    "dpm++2m": "DPM++ 2M",
    "dpm++2m_sde": "DPM++ 2M SDE",
    "dpm++2s_a": "DPM++ 2S a",
    "dpm++3m_sde": "DPM++ 3M SDE",
    "lms": "LMS",
    "plms": "PLMS",
    "unipc": "UniPC",
}
"""Samplers as AUTOMATIC1111's web UI spells them, for the `parameters` text."""

_GRIDS = {"karras": "Karras", "log_snr": "Exponential", "uniform": "Uniform"}
"""Grids as it spells them; the others keep our names."""


_UPSCALERS = {"bicubic": "Bicubic", "latent": "Latent (bicubic)"}


class Origin(Settings):
    """The model a picture was drawn with; vae: the autoencoder in place of its own.

    compiled: whether it was run by `torch.compile`.
    """

    source: str | None
    fingerprint: str | None
    name: str
    vae: str | None = None
    vae_fingerprint: str | None = None
    compiled: bool = False


class Drawn(Settings):
    """How a picture was drawn: the arguments of `Model.sample`, for one sample.

    used: the fingerprints of the models and files that guides and inputs name, by those names.
    tile: what was done, so that it is done again; pictures that do not say were never cut.
    """

    sampler: str
    steps: int
    grid: str
    guidance: float
    eta: float | None
    label: Any
    prompt: str | None
    inputs: dict[str, Any] = Field(default_factory=dict)
    negative: Any = None
    interval: tuple[float, float] | None = None
    rescale: float = 0.0
    guide: list[str] = Field(default_factory=list)
    used: dict[str, str] = Field(default_factory=dict)
    threshold: float | None = None
    image: str | None = None
    strength: float | None = None
    hires: Hires | None = None
    clip_skip: int | None = None
    seeds: list[int] = Field(min_length=1, max_length=1)
    batch_size: int
    dtype: str
    shape: list[int]
    start: str
    tile: int = Field(0, ge=0)


class PictureRecipe(Settings):
    """What a written picture carries under the key "fromnoise"."""

    format: int
    model: Origin
    draw: Drawn
    environment: dict[str, Any]


def texts(recipe: Mapping[str, Any], index: int, model: Mapping[str, Any]) -> dict[str, str]:
    """The PNG texts of sample `index` of a call: ours as JSON, and A1111's `parameters`."""
    one = one_of(recipe, index)
    ours = {"format": FORMAT, "model": dict(model), "draw": one, "environment": environment()}
    return {KEY: json.dumps(ours), "parameters": parameters(one, model)}


def parameters(draw: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """The recipe in the text form of AUTOMATIC1111's web UI."""
    size = f"{draw['shape'][-1]}x{draw['shape'][-2]}" if len(draw["shape"]) == 3 else ""
    pairs = {
        "Steps": draw["steps"],
        "Sampler": _LABELS.get(draw["sampler"], draw["sampler"]),
        "Schedule type": _GRIDS.get(draw["grid"], draw["grid"]),
        "CFG scale": draw["guidance"],
        "Seed": draw["seeds"][0],
        "Size": size,
        "Model hash": (model.get("fingerprint") or "")[:10],
        "Model": model.get("name", ""),
        "VAE hash": (model.get("vae_fingerprint") or "")[:10],
        "VAE": Path(model.get("vae") or "").name,
        **_more(draw),
        "Class": draw["label"],
        "RNG": "CPU",
        "Version": f"fromnoise {__version__}",
    }
    lines = [draw["prompt"] or ""]
    if isinstance(draw["negative"], str):
        lines.append(f"Negative prompt: {draw['negative']}")
    return (
        "\n".join(lines)
        + "\n"
        + ", ".join(f"{k}: {_quoted(v)}" for k, v in pairs.items() if v not in ("", None))
    )


def _quoted(value: Any) -> str:
    """A value as that form has it: within quotes where it would end too early."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if set(text) & set(",:\n") else text


def _more(draw: Mapping[str, Any]) -> dict[str, Any]:
    """What that web UI says of a picture that was begun from, a second pass and clip skip."""
    hires = draw.get("hires") or {}
    strength = hires.get("strength", draw.get("strength"))
    skip = draw.get("clip_skip") or 1
    return {
        "Denoising strength": None if strength is None else f"{strength:g}",
        "Clip skip": None if skip == 1 else skip,
        "Hires upscale": f"{hires['scale']:g}" if hires else None,
        "Hires steps": hires.get("steps"),
        "Hires upscaler": _UPSCALERS[hires["upscaler"]] if hires else None,
    }


def read(path: Path) -> PictureRecipe:
    """The recipe in a written picture. FileError when it carries none of ours."""
    text = read_png_text(path).get(KEY)
    if text is None:
        raise FileError(
            f"{path} carries no fromnoise recipe; only pictures we wrote can be replayed"
        )
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: its recipe cannot be read: {error}") from None
    if not isinstance(recipe, dict) or recipe.get("format") != FORMAT:
        raise FileError(f"{path}: its recipe is of another version; this one reads {FORMAT}")
    return validated(PictureRecipe, recipe, f"{path}: its recipe is damaged")


def unrepeatable(draw: Drawn) -> str | None:
    """What of a recipe cannot be had again, in words; None where all of it can."""
    given = {
        "outside noise": draw.start != "noise",
        "a grid of its own": draw.grid == "explicit",
        "a guide made by hand": GIVEN in draw.guide,
        "a picture or tensor as an input": GIVEN in draw.inputs.values(),
        "an image that is no file": draw.image == GIVEN,
        "a negative that is no text or label": draw.negative == GIVEN,
    }
    return next((name for name, found in given.items() if found), None)


def differences(
    recipe: PictureRecipe, model: Mapping[str, Any], used: Mapping[str, str]
) -> list[str]:
    """What differs between then and now, one line each. model: as `texts` takes it."""
    now, then = _bits(environment()), _bits(recipe.environment)
    lines = [f"{key}: {then[key]} then, {now[key]} now" for key in now if then[key] != now[key]]
    then_used = recipe.draw.used
    changed = sorted(name for name in then_used.keys() & used if used[name] != then_used[name])
    lines = [f"{name} is not the one it was drawn with" for name in changed] + lines
    if recipe.model.vae_fingerprint != model.get("vae_fingerprint"):
        lines.insert(0, "the autoencoder's weights are not the ones it was drawn with")
    if recipe.model.fingerprint != model["fingerprint"]:
        lines.insert(0, "the model's weights are not the ones it was drawn with")
    return lines


def _bits(found: Mapping[str, Any]) -> dict[str, Any]:
    """What of an environment a picture's bits may depend on."""
    listed = found.get("packages")
    packages = listed if isinstance(listed, dict) else {}
    return {
        "fromnoise": packages.get("fromnoise"),
        "torch": packages.get("torch"),
        "processor": found.get("processor"),
        "threads": found.get("threads"),
        "accelerator": found.get("accelerator"),
    }
