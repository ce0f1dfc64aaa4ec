"""The weights of diffusers' `AutoencoderKL` as our codec, both ways: only names change."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from fromnoise.codecs.base import MEASURED
from fromnoise.codecs.kl import KL
from fromnoise.codecs.vq import VQ
from fromnoise.core.config import Settings
from fromnoise.core.errors import FileError, UsageError
from fromnoise.interop.diffusers_nets import Config, checked
from fromnoise.interop.layout import Entry, layers, read, write
from fromnoise.interop.layout import checked as whole
from fromnoise.interop.unet2d_keys import ATTENTION, BLOCK, modern

_Count = Annotated[int, Field(ge=1)]
# Its blocks are not told a time.
_BLOCK = tuple(pair for pair in BLOCK if pair[0] != "time")
_DownKind = Literal["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]
_UpKind = Literal["UpDecoderBlock2D", "AttnUpDecoderBlock2D"]
_DOWN, _UP = "DownEncoderBlock2D", "UpDecoderBlock2D"


class Sides(Settings):
    """What the config.json of an `AutoencoderKL` and of a `VQModel` say of encoder and decoder."""

    in_channels: _Count = 3
    out_channels: _Count = 3
    down_block_types: tuple[_DownKind, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[_UpKind, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[_Count, ...] = (64,)
    layers_per_block: _Count = 1
    act_fn: Literal["silu", "swish"] = "silu"
    norm_num_groups: _Count = 32
    sample_size: Any = 32
    force_upcast: bool = True
    mid_block_add_attention: bool = True

    def ours(self, where: str) -> Config:
        """The arguments of a codec of ours. FileError where its two sides do not attend alike."""
        attends = [2**i for i, kind in enumerate(self.down_block_types) if kind != _DOWN]
        up = [2**i for i, kind in enumerate(reversed(self.up_block_types)) if kind != _UP]
        if attends != up or self.in_channels != self.out_channels:
            raise FileError(f"{where}: encoder and decoder do not mirror each other, as they must")
        return {
            "channels": self.in_channels,
            "widths": list(self.block_out_channels),
            "blocks": self.layers_per_block,
            "groups": self.norm_num_groups,
            "attend": self.mid_block_add_attention,
            "attention": attends,
        }


class KLSettings(Sides):
    """Every key of an `AutoencoderKL`'s config.json, with the values that are a codec of ours."""

    latent_channels: _Count = 4
    scaling_factor: Annotated[float, Field(gt=0)] = 0.18215
    shift_factor: float | None = None
    latents_mean: None = None
    latents_std: None = None
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True


def config(raw: Mapping[str, Any], where: str) -> Config:
    """The configuration of our codec. FileError for an option that ours does not have."""
    them: KLSettings = checked(KLSettings, raw, where)
    if them.use_quant_conv != them.use_post_quant_conv:
        raise FileError(f"{where}: quant_conv is on one side of the latents only, not on both")
    return {
        "kind": "kl",
        **them.ours(where),
        "latent": them.latent_channels,
        "scaling": them.scaling_factor,
        "quantized": them.use_quant_conv,
        "shift": them.shift_factor or 0.0,
    }


def settings(config: Mapping[str, Any]) -> Config:
    """The config.json of an `AutoencoderKL` that is our codec. UsageError for a measured scale."""
    return {
        "_class_name": "AutoencoderKL",
        **sides(config),
        "latent_channels": config["latent"],
        "scaling_factor": scaling(config),
        "shift_factor": config["shift"] or None,
        "use_quant_conv": config["quantized"],
        "use_post_quant_conv": config["quantized"],
    }


def sides(config: Mapping[str, Any]) -> Config:
    """What a config.json says of the encoder and decoder of a codec of ours."""
    attends = [2**i in config["attention"] for i in range(len(config["widths"]))]
    return {
        "in_channels": config["channels"],
        "out_channels": config["channels"],
        "down_block_types": [f"Attn{_DOWN}" if there else _DOWN for there in attends],
        "up_block_types": [f"Attn{_UP}" if there else _UP for there in reversed(attends)],
        "block_out_channels": list(config["widths"]),
        "layers_per_block": config["blocks"],
        "act_fn": "silu",
        "norm_num_groups": config["groups"],
        "mid_block_add_attention": config["attend"],
    }


def scaling(config: Mapping[str, Any]) -> float:
    """The scaling of a codec's latents. UsageError for one that was measured channel by channel."""
    if config["scaling"] == MEASURED:
        raise UsageError(
            "the latents of this autoencoder have a scale measured for each channel, and other "
            "programs have one number for all; a codec with a number for its `scaling` can be "
            "written"
        )
    return float(config["scaling"])


def table(codec: KL) -> list[Entry]:
    """The names of a codec's parameters here and in diffusers."""
    known = list(codec.state_dict())
    return whole(layers(names(codec), known), known, "AutoencoderKL")


def names(codec: KL | VQ) -> list[tuple[str, str]]:
    """The names of the layers of a codec's encoder and decoder here and in diffusers."""
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
                attends = f"attentions.{j}"
                pairs += _parts(f"{ours}.{attends}", f"{there}.{attends}", ATTENTION)
        for j in range(2):
            middle = f"{side}.mid_block.resnets.{j}"
            pairs += _parts(f"{side}.middle.blocks.{j}", middle, _BLOCK)
        attention = f"{side}.mid_block.attentions.0"
        pairs += _parts(f"{side}.middle.attentions.0", attention, ATTENTION)
    return pairs


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
