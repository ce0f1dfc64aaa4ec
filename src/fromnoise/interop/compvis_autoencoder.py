"""The autoencoder of a single file as latent diffusion and Stable Diffusion first wrote it.

Its names are those of taming-transformers (Esser et al. 2021), under a prefix where there is more
in the file. The table is that of diffusers, with other names; its linear maps are convolutions.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Any

from torch import Tensor

from fromnoise.codecs.kl import KL
from fromnoise.codecs.vq import VQ
from fromnoise.core.errors import FileError
from fromnoise.interop import kl_keys, vq_keys
from fromnoise.interop.diffusers_nets import Config
from fromnoise.interop.layout import PIXELWISE, Entry, read, write

PREFIX = "first_stage_model."
_FIRST = "encoder.conv_in.weight"
# What only their training needs, and a file of an autoencoder alone may hold.
_BESIDE = ("loss.", "model_ema.")
# Their names here → there, inside an attention and outside.
_INSIDE = (
    (r"\.group_norm\.", ".norm."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
)
_NAMES = (
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.down_blocks\.(\d+)\.", r".down.\1."),
    (r"\.resnets\.(\d+)\.", r".block.\1."),
    (r"\.attentions\.(\d+)\.", r".attn.\1."),
    (r"\.(down|up)samplers\.0\.", r".\1sample."),
)
State = Mapping[str, Tensor]


def autoencoder_weights(tensors: State, where: str) -> dict[str, Tensor]:
    """The weights of the autoencoder among those of a file, without their prefix.

    Raises FileError where there are none.
    """
    prefix = "" if _FIRST in tensors else PREFIX
    if prefix + _FIRST not in tensors:
        raise FileError(f"{where} holds no autoencoder: nothing in it is called {PREFIX}{_FIRST}")
    found = {name[len(prefix) :]: tensors[name] for name in tensors if name.startswith(prefix)}
    return {name: value for name, value in found.items() if not name.startswith(_BESIDE)}


def has_codebook(tensors: Mapping[str, Any]) -> bool:
    """Whether the autoencoder of a whole model is one of a codebook, by the names in its file."""
    return PREFIX + _CODEBOOK in tensors


def autoencoder_config(state: State, where: str, scaling: float) -> Config:
    """The configuration of our codec for the weights `autoencoder_weights` gives.

    scaling: of the latents, which is not in the file: 0.18215 of Stable Diffusion 1 and 2, 0.08333
    of the ×4 upscaler, 0.13025 of SDXL, 1 of the codebooks.
    Raises FileError for weights that are no such autoencoder.
    """
    levels = [_level(state, i, where) for i in range(_count(state, "encoder.down.{}.block.0"))]
    lacking = [name for name in (_FIRST, _LATENT) if name not in state]
    if not levels or lacking:
        raise FileError(f"{where} holds no autoencoder: it lacks {(lacking or ['its levels'])[0]}")
    latent, quantized = state[_LATENT].shape[1], "quant_conv.weight" in state
    config: Config = {
        "channels": state[_FIRST].shape[1],
        "widths": levels,
        "blocks": _count(state, "encoder.down.0.block.{}"),
        "scaling": scaling,
        "attend": "encoder.mid.attn_1.norm.weight" in state,
        "attention": [
            2**i for i in range(len(levels)) if f"encoder.down.{i}.attn.0.norm.weight" in state
        ],
    }
    if _CODEBOOK not in state:
        return config | {"kind": "kl", "latent": latent, "quantized": quantized}
    size, width = state[_CODEBOOK].shape
    return config | {
        "kind": "vq",
        "codebook": {"kind": "gradient", "size": size, "width": width},
        "in_between": None if latent == width else latent,
    }


_LATENT = "decoder.conv_in.weight"
_CODEBOOK = "quantize.embedding.weight"


def autoencoder_to_ours(state: State, codec: KL | VQ) -> dict[str, Tensor]:
    """The weights `autoencoder_weights` gives under our names, for `codec.load_state_dict`.

    Raises FileError that names the parameters missing or not placed.
    """
    return read(table(codec), state)


def autoencoder_to_compvis(state: State, codec: KL | VQ) -> dict[str, Tensor]:
    """Our state dict under the names of a single file, prefix included; bit for bit."""
    return {PREFIX + name: value for name, value in write(table(codec), state).items()}


def table(codec: KL | VQ) -> list[Entry]:
    """The names of a codec's parameters here and there."""
    entries = vq_keys.table(codec) if isinstance(codec, VQ) else kl_keys.table(codec)
    last = len(codec.decoder.stages) - 1
    return [_entry(entry, last) for entry in entries]


def _entry(entry: Entry, last: int) -> Entry:
    """The entry of diffusers as theirs. last: the number of their smallest level."""
    theirs = tuple(_name(name, last) for name in entry.theirs)
    linear = any(".attentions." in name and ".to_" in name for name in entry.theirs)
    pointwise = linear and entry.theirs[0].endswith(".weight")
    return replace(entry, theirs=theirs, form=PIXELWISE if pointwise else entry.form)


def _name(name: str, last: int) -> str:
    for pattern, there in (*(_INSIDE if ".attentions." in name else ()), *_NAMES):
        name = re.sub(pattern, there, name)
    # They number the levels of the decoder by size, not in the order they are passed.
    return re.sub(r"\.up_blocks\.(\d+)\.", lambda found: f".up.{last - int(found[1])}.", name)


def _count(state: State, place: str) -> int:
    """How many blocks there are at a numbered place."""
    return next(i for i in count() if f"{place.format(i)}.conv1.weight" not in state)


def _level(state: State, i: int, where: str) -> int:
    """The channels of a level of the encoder. FileError unless its blocks are as many as usual."""
    blocks = _count(state, f"encoder.down.{i}.block.{{}}")
    if blocks != _count(state, "encoder.down.0.block.{}"):
        raise FileError(f"{where}: the levels of its autoencoder have different numbers of blocks")
    return state[f"encoder.down.{i}.block.0.conv2.weight"].shape[0]
