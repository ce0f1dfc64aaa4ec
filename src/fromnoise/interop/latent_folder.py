"""Opening the pipelines of Stable Diffusion and of latent diffusion that diffusers writes.

A pipeline's index names its parts; which of them are needed, and what they make together, follows
from what the network takes. A safety checker is passed over: none is ever needed here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fromnoise.codecs import CODECS, VQ, Codec
from fromnoise.core.errors import FileError
from fromnoise.encoders import Encoder, JoinedCLIP
from fromnoise.interop import (
    diffusers_folder,
    diffusers_schedulers,
    unet2d_keys,
    unet_condition,
    unet_condition_keys,
    vq_keys,
)
from fromnoise.interop.clip_folder import open_image, open_text
from fromnoise.interop.diffusers_folder import AUTOENCODER, CONFIG, INDEX, SCHEDULER, built, weights
from fromnoise.interop.diffusers_nets import Config, unet
from fromnoise.interop.latent_model import Parts, assembled
from fromnoise.interop.ldm_bert_keys import open_bert
from fromnoise.interop.shelf import FAMILIES
from fromnoise.model import Model
from fromnoise.model.files import fill
from fromnoise.nets import Network, UNet
from fromnoise.schedules import SCHEDULES, DiscreteSchedule

_VQ = "VQModel"
_MOST_NOISE = 350
# Files older than this said 32 for latents of 64.
_FIRST_RIGHT = (0, 9)


@dataclass(frozen=True)
class Pipeline:
    """One class of pipelines.

    guidance: its default. corrected: what it sets of its scheduler, whatever the file says. codec:
    its autoencoder's name. needed: its other parts.
    """

    guidance: float = 7.5
    corrected: Config = field(default_factory=dict)
    codec: str = "vae"
    needed: tuple[str, ...] = ("text_encoder", "tokenizer")


_PLAIN = "Stable Diffusion"
_XL = ("text_encoder_2", "tokenizer_2")
# What a pipeline's own code sets, whatever the scheduler's file says.
_SET: Config = {"steps_offset": 1, "clip_sample": False}
PIPELINES = {
    "StableDiffusionPipeline": Pipeline(corrected=_SET),
    "StableDiffusionImg2ImgPipeline": Pipeline(corrected=_SET),
    "StableDiffusionInpaintPipeline": Pipeline(corrected={**_SET, "skip_prk_steps": True}),
    "StableDiffusionDepth2ImgPipeline": Pipeline(),
    "StableDiffusionUpscalePipeline": Pipeline(
        9.0, needed=("text_encoder", "tokenizer", "low_res_scheduler")
    ),
    "StableDiffusionImageVariationPipeline": Pipeline(needed=("image_encoder",)),
    "StableDiffusionXLPipeline": Pipeline(5.0, needed=_XL),
    "StableDiffusionXLImg2ImgPipeline": Pipeline(5.0, needed=_XL),
    "StableDiffusionXLInpaintPipeline": Pipeline(needed=_XL),
    "LDMTextToImagePipeline": Pipeline(1.0, codec="vqvae", needed=("bert", "tokenizer")),
    "LDMPipeline": Pipeline(1.0, codec="vqvae", needed=()),
}
"""The classes that are read, by name."""


def open_latent(folder: Path) -> Model:
    """The model of a pipeline folder whose class is among `PIPELINES`.

    Raises FileError naming the file and what is wrong with it: a part that is missing, a class or
    an option that is not read, weights that are missing, damaged, pickled or of another network.
    """
    index = diffusers_folder.json_object(folder / INDEX)
    name = str(index.get("_class_name"))
    pipeline = PIPELINES[name]
    for part in ("unet", pipeline.codec, "scheduler", *pipeline.needed):
        if not present(index, part):
            raise FileError(
                f"{folder / INDEX}: this {name} has no {part}, which it cannot do without"
            )
    for part in _folders(index):
        if part not in _PASSED_OVER and not (folder / part).is_dir():
            raise FileError(f"{folder} lacks the folder {part}, which its {INDEX} names")
    scheduler = _scheduler(folder, pipeline)
    # What is small is read first, so that a fault in it is told at once.
    diffusers_schedulers.read(scheduler, str(folder / "scheduler" / SCHEDULER))
    low_res = _low_res(folder, index) if present(index, "low_res_scheduler") else None
    net, size = open_unet(folder / "unet")
    depths = folder / "depth_estimator"
    parts = Parts(
        net,
        size,
        open_codec(folder / pipeline.codec),
        _reads(folder, index),
        scheduler,
        pipeline.guidance,
        low_res,
        str(depths) if present(index, "depth_estimator") else None,
    )
    return assembled(parts, _family(FAMILIES[name], parts), folder)


_PASSED_OVER = ("safety_checker", "feature_extractor", "watermark", "watermarker")


def present(index: Mapping[str, Any], part: str) -> bool:
    """Whether an index names a part, and not as left out."""
    return isinstance(index.get(part), list) and index[part] != [None, None]


def _folders(index: Mapping[str, Any]) -> list[str]:
    return [part for part in index if present(index, part)]


def open_unet(folder: Path) -> tuple[Network, tuple[int, int]]:
    """The network in a folder, and the size of its latents. Raises as `open_latent`."""
    path = folder / CONFIG
    raw = diffusers_folder.json_object(path)
    name, where = raw.get("_class_name"), str(path)
    if name not in (unet_condition.NAME, "UNet2DModel"):
        raise FileError(
            f"{where}: the network {name} is not read; {unet_condition.NAME} and UNet2DModel are"
        )
    read = unet_condition.config if name == unet_condition.NAME else unet
    config, size = read(raw, where)
    if size is None:
        raise FileError(f"{where}: sample_size is missing, so the size of a picture is not known")
    net = built(config, where)
    if name == unet_condition.NAME and isinstance(net, UNet):
        state = unet_condition_keys.to_ours(weights(folder), net)
        size = _grown(raw, size)
    else:
        state = unet2d_keys.to_ours(weights(folder))
    fill(net, state, folder, assign=True)
    return net, size


def _grown(raw: Mapping[str, Any], size: tuple[int, int]) -> tuple[int, int]:
    """The size of latents, which the first files said wrong."""
    version = str(raw.get("_diffusers_version", "0.0")).split(".")
    numbers = tuple(int(part) for part in version[:2] if part.isdecimal())
    wrong = numbers < _FIRST_RIGHT and isinstance(raw.get("sample_size"), int) and size[0] < 64
    return (64, 64) if wrong else size


def open_codec(folder: Path) -> Codec:
    """The autoencoder in a folder, with its normal latents or its codebook."""
    raw = diffusers_folder.json_object(folder / CONFIG)
    if raw.get("_class_name") != _VQ:
        if raw.get("_class_name") == AUTOENCODER:
            return diffusers_folder.open_autoencoder(folder)
        raise FileError(
            f"{folder / CONFIG}: the autoencoder {raw.get('_class_name')} is not read; "
            f"{AUTOENCODER} and {_VQ} are"
        )
    codec: VQ = built(vq_keys.config(raw, str(folder / CONFIG)), str(folder / CONFIG), CODECS)
    state = vq_keys.to_ours(weights(folder), codec)
    fill(codec, state, folder, assign=True)
    return codec


def _reads(folder: Path, index: Mapping[str, Any]) -> dict[str, Encoder]:
    """The encoders of what becomes tokens, by input name."""
    if present(index, "text_encoder_2"):
        first = None
        if present(index, "text_encoder"):
            first = open_text(folder / "text_encoder", folder / "tokenizer", skip=1, normed=False)
        second = open_text(
            folder / "text_encoder_2", folder / "tokenizer_2", skip=1, normed=False, pooled=True
        )
        zeros = bool(index.get("force_zeros_for_empty_prompt", True))
        made = JoinedCLIP(first, second, zeros) if first else JoinedCLIP(second, zeros=zeros)
        return {"prompt": made}
    if present(index, "bert"):
        return {"prompt": open_bert(folder / "bert", folder / "tokenizer")}
    if present(index, "text_encoder"):
        return {"prompt": open_text(folder / "text_encoder", folder / "tokenizer")}
    if present(index, "image_encoder"):
        return {"picture": open_image(folder / "image_encoder", gives="token")}
    return {}


def _scheduler(folder: Path, pipeline: Pipeline) -> Config:
    raw = diffusers_folder.json_object(folder / "scheduler" / SCHEDULER)
    return {**raw, **pipeline.corrected}


def _low_res(folder: Path, index: Mapping[str, Any]) -> tuple[DiscreteSchedule, int]:
    path = folder / "low_res_scheduler" / SCHEDULER
    read = diffusers_schedulers.read(diffusers_folder.json_object(path), str(path))
    most = index.get("max_noise_level", _MOST_NOISE)
    if not isinstance(most, int) or most < 0:
        raise FileError(f"{folder / INDEX}: max_noise_level {most!r} is no whole number from 0")
    schedule: DiscreteSchedule = SCHEDULES.build(read.process["schedule"])
    return schedule, most


def _family(name: str, parts: Parts) -> str:
    """What people call it, the generation told by the width of its tokens."""
    if parts.net.accepts.vector.get("sizes") == 5:
        return f"{name} refiner"
    if " XL" in name or " x4" in name:
        return name
    generation = {768: " 1", 1024: " 2"}.get(parts.net.accepts.tokens or 0, "")
    return name.replace(_PLAIN, _PLAIN + generation, 1)
