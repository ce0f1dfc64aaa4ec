"""The families of whole models in one file, told apart by names and shapes; what is no model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fromnoise.core.errors import FileError
from fromnoise.interop import bert_single, clip_single, compvis_autoencoder
from fromnoise.interop.clip_single import Place
from fromnoise.interop.diffusers_nets import Config
from fromnoise.interop.shelf import FAMILIES
from fromnoise.nets.base import Accepts

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
V = "v_prediction"
UPSCALER = {"beta_start": 0.0001, "beta_end": 0.02}
# The betas of what was trained behind a codebook, in the configurations of the published ones.
_CODEBOOK = _DDIM | {"beta_start": 0.0015, "beta_end": 0.0195}


@dataclass(frozen=True)
class Family:
    """What is the same in all files of a family, and not in them.

    texts: CLIP's towers; bert: whether it is BERT that reads prompts. size: of latents.
    """

    name: str
    texts: tuple[Place, ...]
    scheduler: Config
    size: int = 64
    scaling: float = 0.18215
    guidance: float = 7.5
    zeros: bool = True
    bert: bool = False


def family(shapes: Mapping[str, Tensor], accepts: Accepts, path: Path) -> Family:
    """The family of a file with these weights. FileError that names those there are.

    accepts: what its U-Net is told.
    """
    found = _latent_diffusion(shapes, accepts) or _stable_diffusion(shapes, accepts)
    if found is None:
        raise FileError(
            f"{path} holds a U-Net told {_told(accepts)} and no text encoder that is known; these "
            "are: Stable Diffusion 1, 2, their inpainting and depth, x4 upscaler, XL and its "
            "refiner, latent diffusion told a text or nothing"
        )
    return found


def _told(accepts: Accepts) -> str:
    """What a U-Net is told, in a few words."""
    tokens = [] if accepts.tokens is None else [f"tokens of width {accepts.tokens}"]
    return ", ".join([*tokens, *accepts.channels, *accepts.vector]) or "nothing"


def _latent_diffusion(shapes: Mapping[str, Tensor], accepts: Accepts) -> Family | None:
    """Latent diffusion told a text, or nothing at all, behind a codebook or KL's latents."""
    bert = bert_single.is_there(shapes)
    if accepts.channels or accepts.vector or bert != (accepts.tokens is not None):
        return None
    name = FAMILIES["LDMTextToImagePipeline" if bert else "LDMPipeline"]
    if compvis_autoencoder.has_codebook(shapes):
        return Family(name, (), _CODEBOOK, 64, 1.0, 1.0, bert=bert)
    return Family(name, (), _DDIM, 32, guidance=1.0, bert=bert)


def _stable_diffusion(shapes: Mapping[str, Tensor], accepts: Accepts) -> Family | None:
    def there(*places: Place) -> bool:
        return all(any(name.startswith(place.prefix) for name in shapes) for place in places)

    kind = {"mask": " inpainting", "depth": " depth", "picture": " editing"}
    suffix = next((text for name, text in kind.items() if name in accepts.channels), "")
    if "sizes" in accepts.vector and there(*clip_single.XL):
        return _xl(f"Stable Diffusion XL{suffix}", clip_single.XL)
    if "sizes" in accepts.vector and there(clip_single.REFINER):
        return _xl("Stable Diffusion XL refiner", (clip_single.REFINER,), zeros=False)
    if "low_res" in accepts.channels and there(clip_single.SD2):
        scheduler = _DDIM | UPSCALER | {"prediction_type": V}
        name = "Stable Diffusion x4 upscaler"
        return Family(name, (clip_single.SD2,), scheduler, 128, 0.08333, 9.0)
    if there(clip_single.SD2):
        # v of the plain one cannot be told from shapes; diffusers takes it for granted, too.
        plain = _DDIM | {"prediction_type": V} if not suffix else _PNDM
        return Family(f"Stable Diffusion 2{suffix}", (clip_single.SD2,), plain)
    if there(clip_single.SD1) and not bert_single.is_there(shapes):
        return Family(f"Stable Diffusion 1{suffix}", (clip_single.SD1,), _PNDM)
    return None


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


def part(names: Mapping[str, Any]) -> str:
    """What a file holds that is no whole model."""
    for start, said in _PARTS:
        if any(name.startswith(start) for name in names):
            return said
    return (
        "is no whole model: nothing in it is called model.diffusion_model.…; if it is a part of "
        "one, give the folder that holds it, or convert it: `fromnoise convert FILE OUT`"
    )
