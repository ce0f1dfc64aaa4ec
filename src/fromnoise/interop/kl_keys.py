"""The weights of diffusers' `AutoencoderKL` as our codec, both ways: only names change."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from fromnoise.codecs.kl import KL
from fromnoise.core.config import Settings
from fromnoise.interop.diffusers_nets import Config, checked
from fromnoise.interop.layout import Entry, layers, read, write
from fromnoise.interop.layout import checked as whole
from fromnoise.interop.unet2d_keys import ATTENTION, BLOCK, modern

_Count = Annotated[int, Field(ge=1)]
# Its blocks are not told a time.
_BLOCK = tuple(pair for pair in BLOCK if pair[0] != "time")


class KLSettings(Settings):
    """Every key of an `AutoencoderKL`'s config.json, with the values that are a codec of ours."""

    in_channels: _Count = 3
    out_channels: _Count = 3
    down_block_types: tuple[Literal["DownEncoderBlock2D"], ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[Literal["UpDecoderBlock2D"], ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[_Count, ...] = (64,)
    layers_per_block: _Count = 1
    act_fn: Literal["silu", "swish"] = "silu"
    latent_channels: _Count = 4
    norm_num_groups: _Count = 32
    sample_size: Any = 32
    scaling_factor: Annotated[float, Field(gt=0)] = 0.18215
    shift_factor: None = None
    latents_mean: None = None
    latents_std: None = None
    force_upcast: bool = True
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True


def config(raw: Mapping[str, Any], where: str) -> Config:
    """The configuration of our codec. FileError for an option that ours does not have."""
    them: KLSettings = checked(KLSettings, raw, where)
    return {
        "kind": "kl",
        "channels": them.in_channels,
        "latent": them.latent_channels,
        "widths": list(them.block_out_channels),
        "blocks": them.layers_per_block,
        "groups": them.norm_num_groups,
        "scaling": them.scaling_factor,
        "attend": them.mid_block_add_attention,
        "quantized": them.use_quant_conv,
    }


def settings(config: Mapping[str, Any]) -> Config:
    """The config.json of an `AutoencoderKL` that is our codec."""
    levels = len(config["widths"])
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": config["channels"],
        "out_channels": config["channels"],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": list(config["widths"]),
        "layers_per_block": config["blocks"],
        "act_fn": "silu",
        "latent_channels": config["latent"],
        "norm_num_groups": config["groups"],
        "scaling_factor": config["scaling"],
        "use_quant_conv": config["quantized"],
        "use_post_quant_conv": config["quantized"],
        "mid_block_add_attention": config["attend"],
    }


def table(codec: KL) -> list[Entry]:
    """The names of a codec's parameters here and in diffusers."""
    known = list(codec.state_dict())
    pairs = [("before", "quant_conv"), ("after", "post_quant_conv")]
    for side, theirs, resample in (
        ("encoder", "down_blocks", "downsamplers"),
        ("decoder", "up_blocks", "upsamplers"),
    ):
        pairs += [(f"{side}.enter", f"{side}.conv_in"), (f"{side}.leave", f"{side}.conv_out")]
        pairs += [(f"{side}.norm", f"{side}.conv_norm_out")]
        stages = codec.encoder.stages if side == "encoder" else codec.decoder.stages
        for i in range(len(stages)):
            ours, there = f"{side}.stages.{i}", f"{side}.{theirs}.{i}"
            pairs += [(f"{ours}.resample.conv", f"{there}.{resample}.0.conv")]
            for j in range(codec.depth):
                pairs += _parts(f"{ours}.blocks.{j}", f"{there}.resnets.{j}", _BLOCK)
        for j in range(2):
            middle = f"{side}.mid_block.resnets.{j}"
            pairs += _parts(f"{side}.middle.blocks.{j}", middle, _BLOCK)
        attention = f"{side}.mid_block.attentions.0"
        pairs += _parts(f"{side}.middle.attentions.0", attention, ATTENTION)
    return whole(layers(pairs, known), known, "AutoencoderKL")


def to_ours(state: Mapping[str, Tensor], codec: KL) -> dict[str, Tensor]:
    """An `AutoencoderKL` state dict under our names.

    Raises FileError that names the parameters missing or not placed.
    """
    return read(table(codec), {modern(name): value for name, value in state.items()})


def to_diffusers(state: Mapping[str, Tensor], codec: KL) -> dict[str, Tensor]:
    """Our state dict under the names of diffusers: the inverse of `to_ours`, bit for bit."""
    return write(table(codec), state)


def _parts(ours: str, theirs: str, names: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    return [(f"{ours}.{a}", f"{theirs}.{b}") for a, b in names]
