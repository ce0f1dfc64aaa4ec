"""Opening a whole Stable Diffusion in one file, as CompVis and Stability laid it out.

Such a file says no configuration: what it is follows from its names and shapes. What a network
predicts does not; see `single_said`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fromnoise.codecs import CODECS
from fromnoise.core.errors import FileError
from fromnoise.core.files import read_header, refuse_pickle
from fromnoise.encoders import CLIPText, Encoder, JoinedCLIP
from fromnoise.interop import clip_single, compvis_autoencoder, compvis_unet, single_said
from fromnoise.interop.clip_single import Place
from fromnoise.interop.diffusers_folder import built, file_tensors
from fromnoise.interop.diffusers_nets import Config
from fromnoise.interop.latent_model import Parts, assembled
from fromnoise.model import Model
from fromnoise.model.files import fill
from fromnoise.nets import UNet
from fromnoise.nets.base import Accepts
from fromnoise.schedules import scaled_linear

SKIPPED = "fromnoise_text_layers"
"""In the metadata of files written here: "used" where the text encoder has no unused last layer."""

_OLD: Config = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "steps_offset": 1,
}
_PNDM = _OLD | {
    "_class_name": "PNDMScheduler",
    "skip_prk_steps": True,
    "set_alpha_to_one": False,
}
_DDIM = _OLD | {
    "_class_name": "DDIMScheduler",
    "clip_sample": False,
    "set_alpha_to_one": False,
}
_EULER = _OLD | {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
_V = "v_prediction"
_UPSCALER = {"beta_start": 0.0001, "beta_end": 0.02}
_LOW_RES_MOST = 350


@dataclass(frozen=True)
class Family:
    """What is the same in all files of a family, and not in them. size: of latents."""

    name: str
    texts: tuple[Place, ...]
    scheduler: Config
    size: int = 64
    scaling: float = 0.18215
    guidance: float = 7.5
    zeros: bool = True


@dataclass(frozen=True)
class Found:
    """A file that holds a whole model: its family, and the shapes of its weights on meta.

    scheduler: that of its family, changed by what the file itself says.
    """

    path: Path
    family: Family
    shapes: Mapping[str, Tensor]
    net: Config
    scheduler: Config
    metadata: Mapping[str, str] = field(default_factory=dict)


def is_single(names: Mapping[str, Any]) -> bool:
    """Whether names of tensors are those of a U-Net in a single file."""
    return any(name.startswith(compvis_unet.PREFIX) for name in names)


def open_single(path: Path) -> Model:
    """The model of one file: Stable Diffusion 1, 2, inpainting, depth, ×4, XL or its refiner.

    A YAML of the same name beside it is read for what the network predicts, the betas and the scale
    of latents, else what the file says of that (`single_said.marked`). Without either, a plain
    Stable Diffusion 2 is taken to predict v, as its 768 does.
    Raises FileError for a file that holds a part only, is damaged, cut short, a pickle, or of
    another kind, and where there is no vocabulary for its prompts.
    """
    refuse_pickle(path)
    found = recognised(path)
    where, family = str(path), found.family
    said = single_said.beside(path)
    codec_shapes = compvis_autoencoder.autoencoder_weights(found.shapes, where)
    scaling = family.scaling if said.scale_factor is None else said.scale_factor
    codec_config = compvis_autoencoder.autoencoder_config(codec_shapes, where, scaling)
    net: UNet = built(found.net, where)
    codec = built(codec_config, where, CODECS)
    whole = found.metadata.get(SKIPPED) != "used"
    texts = [
        clip_single.text_encoder(found.shapes, place, where, whole and _whole(found, place))
        for place in family.texts
    ]
    words = [clip_single.vocabulary(path, place) for place in family.texts]
    tensors = file_tensors(path, wanted(family))
    _fill_net(net, tensors, path)
    state = compvis_autoencoder.autoencoder_weights(tensors, where)
    fill(codec, compvis_autoencoder.autoencoder_to_ours(state, codec), path, assign=True)
    for encoder, place, vocabulary in zip(texts, family.texts, words, strict=True):
        clip_single.fill_text(encoder, tensors, place)
        encoder.set_vocabulary(vocabulary)
    del tensors, state
    scheduler = found.scheduler | single_said.scheduled(said)
    # Of the published, those of v are the larger ones.
    wide = family.texts == (clip_single.SD2,) and family.size == 64
    size = 96 if wide and scheduler.get("prediction_type") == _V else family.size
    low_res = scaled_linear(1000, **_UPSCALER), _LOW_RES_MOST
    parts = Parts(
        net, (size, size), codec, _reads(texts, family), scheduler, family.guidance, low_res
    )
    return assembled(parts, family.name, path)


def recognised(path: Path) -> Found:
    """What a file holds. Raises FileError for a part of a model, or something else."""
    header = read_header(path)
    shapes = {name: torch.empty(s, device="meta") for name, s in header.shapes.items()}
    if not is_single(shapes):
        raise FileError(f"{path} {_part(shapes)}")
    where = str(path)
    for prefix, what in (
        (compvis_autoencoder.PREFIX, "autoencoder"),
        (("cond_stage_model.", "conditioner."), "text encoder"),
    ):
        if not any(name.startswith(prefix) for name in shapes):
            raise FileError(
                f"{path} holds a U-Net and no {what}: nothing in it is called "
                f"{prefix if isinstance(prefix, str) else prefix[0]}…; give the whole model's file"
            )
    net = compvis_unet.unet_config(compvis_unet.unet_weights(shapes, where), where)
    family = _family(shapes, Accepts.model_validate(net["accepts"]), path)
    scheduler = family.scheduler | single_said.marked(shapes, header.metadata, where)
    return Found(path, family, shapes, net, scheduler, header.metadata)


def _family(shapes: Mapping[str, Tensor], accepts: Accepts, path: Path) -> Family:
    def there(*places: Place) -> bool:
        return all(any(name.startswith(place.prefix) for name in shapes) for place in places)

    kind = {"mask": " inpainting", "depth": " depth", "picture": " editing"}
    suffix = next((text for name, text in kind.items() if name in accepts.channels), "")
    if "sizes" in accepts.vector and there(*clip_single.XL):
        return _xl(f"Stable Diffusion XL{suffix}", clip_single.XL)
    if "sizes" in accepts.vector and there(clip_single.REFINER):
        return _xl("Stable Diffusion XL refiner", (clip_single.REFINER,), zeros=False)
    if "low_res" in accepts.channels and there(clip_single.SD2):
        scheduler = _DDIM | _UPSCALER | {"prediction_type": _V}
        name = "Stable Diffusion x4 upscaler"
        return Family(name, (clip_single.SD2,), scheduler, 128, 0.08333, 9.0)
    if there(clip_single.SD2):
        # v of the plain one cannot be told from shapes; diffusers takes it for granted, too.
        plain = _DDIM | {"prediction_type": _V} if not suffix else _PNDM
        return Family(f"Stable Diffusion 2{suffix}", (clip_single.SD2,), plain)
    if there(clip_single.SD1):
        return Family(f"Stable Diffusion 1{suffix}", (clip_single.SD1,), _PNDM)
    raise FileError(
        f"{path} holds a U-Net told {accepts} and no text encoder that is known; these are: "
        "Stable Diffusion 1, 2, their inpainting and depth, x4 upscaler, XL and its refiner"
    )


def _xl(name: str, texts: tuple[Place, ...], zeros: bool = True) -> Family:
    return Family(name, texts, _EULER, 128, 0.13025, 5.0, zeros)


_PARTS = (
    ("first_stage_model.", "holds an autoencoder alone; give it to a model with --vae"),
    ("encoder.conv_in.", "holds an autoencoder alone; give it to a model with --vae"),
    ("encoder.down_blocks.", "holds an autoencoder alone; give it to a model with --vae"),
    ("input_blocks.", "holds a U-Net alone, without autoencoder and text encoder"),
    ("down_blocks.", "holds a U-Net of diffusers alone; give the folder of its pipeline"),
    ("control_model.", "holds a ControlNet, which is no model by itself"),
    ("lora_", "holds a LoRA, which is no model by itself"),
    ("cond_stage_model.", "holds a text encoder alone"),
    ("text_model.", "holds a text encoder alone"),
    ("net.", "holds the weights of a model of fromnoise; give the folder that holds it"),
)


def _part(names: Mapping[str, Any]) -> str:
    """What a file holds that is no whole model."""
    for start, said in _PARTS:
        if any(name.startswith(start) for name in names):
            return said
    return (
        "is no whole model: nothing in it is called model.diffusion_model.…; if it is a part of "
        "one, give the folder that holds it, or convert it: `fromnoise convert FILE OUT`"
    )


def _whole(found: Found, place: Place) -> bool:
    """Whether the last layer, which is not used, is there: some programs write 23 of 24."""
    if place is not clip_single.SD2:
        return True
    last = f"{place.prefix}transformer.resblocks."
    return f"{last}22.ln_1.weight" not in found.shapes or f"{last}23.ln_1.weight" in found.shapes


def wanted(family: Family) -> Callable[[str], bool]:
    """Which names of a file are weights of its model."""
    texts = (place.prefix for place in family.texts)
    starts = (compvis_unet.PREFIX, compvis_autoencoder.PREFIX, *texts)
    return lambda name: name.startswith(starts)


def _fill_net(net: UNet, tensors: Mapping[str, Tensor], path: Path) -> None:
    state = compvis_unet.unet_weights(tensors, str(path))
    fill(net, compvis_unet.unet_to_ours(state, net), path, assign=True)


def _reads(texts: Sequence[CLIPText], family: Family) -> dict[str, Encoder]:
    if texts[-1].pooled:
        second = texts[1] if len(texts) > 1 else None
        return {"prompt": JoinedCLIP(texts[0], second, zeros=family.zeros)}
    return {"prompt": texts[0]}
