"""Opening a whole model of latents in one file, as CompVis and Stability laid it out.

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
from fromnoise.interop import (
    bert_single,
    clip_single,
    compvis_autoencoder,
    compvis_unet,
    single_families,
    single_said,
)
from fromnoise.interop.clip_single import Place
from fromnoise.interop.diffusers_folder import built, file_tensors
from fromnoise.interop.diffusers_nets import Config
from fromnoise.interop.latent_model import Parts, assembled
from fromnoise.interop.single_families import UPSCALER, Family, V
from fromnoise.model import Model
from fromnoise.model.files import fill
from fromnoise.nets import UNet
from fromnoise.nets.base import Accepts
from fromnoise.schedules import scaled_linear

SKIPPED = "fromnoise_text_layers"
"""In the metadata of files written here: "used" where the text encoder has no unused last layer."""

_LOW_RES_MOST = 350


@dataclass(frozen=True)
class Found:
    """A file that holds a whole model: its family, and the shapes of its weights on meta.

    net, codec: configurations. scheduler: that of its family, changed by what the file itself says
    and a YAML beside it.
    """

    path: Path
    family: Family
    shapes: Mapping[str, Tensor]
    net: Config
    codec: Config
    scheduler: Config
    metadata: Mapping[str, str] = field(default_factory=dict)


def is_single(names: Mapping[str, Any]) -> bool:
    """Whether names of tensors are those of a U-Net in a single file."""
    return any(name.startswith(compvis_unet.PREFIX) for name in names)


def open_single(path: Path) -> Model:
    """The model of one file: Stable Diffusion 1, 2, inpainting, depth, ×4, XL or its refiner, or
    latent diffusion told a text or nothing.

    A YAML of the same name beside it is read for what the network predicts, its heads, the betas
    and the scale of latents, else what the file says of that (`single_said`). Without either, a
    plain Stable Diffusion 2 is taken to predict v, as its 768 does.
    Raises FileError for a file that holds a part only, is damaged, cut short, a pickle, or of
    another kind, and where there is no vocabulary for its prompts.
    """
    refuse_pickle(path)
    found = recognised(path)
    where, family = str(path), found.family
    net: UNet = built(found.net, where)
    codec = built(found.codec, where, CODECS)
    # What is small is read first, so that a fault in it is told at once.
    texts = _texts(found)
    bert = bert_single.text_encoder(found.shapes, path) if family.bert else None
    tensors = file_tensors(path, wanted(family), _laid_out_anew)
    _fill_net(net, tensors, path)
    state = compvis_autoencoder.autoencoder_weights(tensors, where)
    fill(codec, compvis_autoencoder.autoencoder_to_ours(state, codec), path, assign=True)
    for encoder, place in zip(texts, family.texts, strict=True):
        clip_single.fill_text(encoder, tensors, place)
    if bert is not None:
        bert_single.fill_text(bert, tensors)
    del tensors, state
    # Of the published, those of v are the larger ones.
    wide = family.texts == (clip_single.SD2,) and family.size == 64
    size = 96 if wide and found.scheduler.get("prediction_type") == V else family.size
    low_res = scaled_linear(1000, **UPSCALER), _LOW_RES_MOST
    reads = {"prompt": bert} if bert is not None else _reads(texts, family)
    parts = Parts(net, (size, size), codec, reads, found.scheduler, family.guidance, low_res)
    return assembled(parts, family.name, path)


def recognised(path: Path) -> Found:
    """What a file holds. Raises FileError for a part of a model, or something else."""
    header = read_header(path)
    shapes = {name: torch.empty(s, device="meta") for name, s in header.shapes.items()}
    if not is_single(shapes):
        raise FileError(f"{path} {single_families.part(shapes)}")
    where = str(path)
    told = any(name.endswith(compvis_unet.TOLD) for name in shapes)
    _check_there(shapes, compvis_autoencoder.PREFIX, "autoencoder", path)
    if told:
        _check_there(shapes, ("cond_stage_model.", "conditioner."), "text encoder", path)
    said = single_said.beside(path)
    heads = single_said.attention(said, header.metadata, where)
    net = compvis_unet.unet_config(compvis_unet.unet_weights(shapes, where), where, heads)
    family = single_families.family(shapes, Accepts.model_validate(net["accepts"]), path)
    codec_shapes = compvis_autoencoder.autoencoder_weights(shapes, where)
    scaling = family.scaling if said.scale_factor is None else said.scale_factor
    codec = compvis_autoencoder.autoencoder_config(codec_shapes, where, scaling)
    marked = single_said.marked(shapes, header.metadata, where)
    scheduler = family.scheduler | marked | single_said.scheduled(said)
    return Found(path, family, shapes, net, codec, scheduler, header.metadata)


def _laid_out_anew(name: str) -> bool:
    """Whether a tensor is of the network or the autoencoder, which may be mapped."""
    return name.startswith((compvis_unet.PREFIX, compvis_autoencoder.PREFIX))


def _check_there(
    shapes: Mapping[str, Tensor], prefix: str | tuple[str, ...], what: str, path: Path
) -> None:
    if not any(name.startswith(prefix) for name in shapes):
        raise FileError(
            f"{path} holds a U-Net and no {what}: nothing in it is called "
            f"{prefix if isinstance(prefix, str) else prefix[0]}…; give the whole model's file"
        )


def _texts(found: Found) -> list[CLIPText]:
    """CLIP's towers in a file, on the meta device, and their vocabularies."""
    path, used = found.path, found.metadata.get(SKIPPED) == "used"
    texts = [
        clip_single.text_encoder(found.shapes, place, str(path), not used and _whole(found, place))
        for place in found.family.texts
    ]
    for text, place in zip(texts, found.family.texts, strict=True):
        text.set_vocabulary(clip_single.vocabulary(path, place))
    return texts


def _whole(found: Found, place: Place) -> bool:
    """Whether the last layer, which is not used, is there: some programs write 23 of 24."""
    if place is not clip_single.SD2:
        return True
    last = f"{place.prefix}transformer.resblocks."
    return f"{last}22.ln_1.weight" not in found.shapes or f"{last}23.ln_1.weight" in found.shapes


def wanted(family: Family) -> Callable[[str], bool]:
    """Which names of a file are weights of its model."""
    texts = tuple(place.prefix for place in family.texts)
    starts = (compvis_unet.PREFIX, compvis_autoencoder.PREFIX, *texts)
    return lambda name: name.startswith(starts) or (family.bert and bert_single.wanted(name))


def _fill_net(net: UNet, tensors: Mapping[str, Tensor], path: Path) -> None:
    state = compvis_unet.unet_weights(tensors, str(path))
    fill(net, compvis_unet.unet_to_ours(state, net), path, assign=True)


def _reads(texts: Sequence[CLIPText], family: Family) -> dict[str, Encoder]:
    if not texts:
        return {}
    if texts[-1].pooled:
        second = texts[1] if len(texts) > 1 else None
        return {"prompt": JoinedCLIP(texts[0], second, zeros=family.zeros)}
    return {"prompt": texts[0]}
