"""The configuration of diffusers' `UNet2DConditionModel` as ours, both ways."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from fromnoise.core.errors import FileError
from fromnoise.interop.diffusers_nets import (
    WAVES,
    Config,
    UNetSettings,
    attending,
    checked,
    expressible,
    inexpressible,
    time,
)
from fromnoise.layers.blocks import Style
from fromnoise.layers.spatial_transformer import TransformerStyle
from fromnoise.nets.base import Accepts
from fromnoise.nets.levels import AttentionStyle

NAME = "UNet2DConditionModel"
_Count = Annotated[int, Field(ge=1)]
_One = Annotated[float, Field(ge=1, le=1)]
_Three = Annotated[int, Field(ge=3, le=3)]
_CROSS_DOWN, _PLAIN_DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
_CROSS_UP, _PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"
_Down = Literal["CrossAttnDownBlock2D", "DownBlock2D"]
_Up = Literal["CrossAttnUpBlock2D", "UpBlock2D"]

# (channels out, channels in besides them) → what the published networks are told there, in order.
_SLOTS: dict[tuple[int, int], dict[str, int]] = {
    (4, 1): {"depth": 1},
    (4, 3): {"low_res": 3},
    (4, 4): {"picture": 4},
    (4, 5): {"mask": 1, "masked": 4},
    (3, 3): {"low_res": 3},
    (3, 4): {"masked": 3, "mask": 1},
}
# SDXL's pooled text, and with how many numbers it and its refiner go through two layers.
_POOLED, _SIZES, _REFINER_SIZES = 1280, 6, 5


class UNetConditionSettings(UNetSettings):
    """Every key of a `UNet2DConditionModel`'s config.json, with the values that are ours.

    `attention_head_dim` is the number of heads, whatever its name says.
    """

    in_channels: _Count = 4
    out_channels: _Count = 4
    down_block_types: tuple[_Down, ...] = (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D")
    mid_block_type: Literal["UNetMidBlock2DCrossAttn"] = "UNetMidBlock2DCrossAttn"
    up_block_types: tuple[_Up, ...] = ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3)
    only_cross_attention: bool | tuple[bool, ...] = False
    block_out_channels: tuple[_Count, ...] = (320, 640, 1280, 1280)
    layers_per_block: _Count | tuple[_Count, ...] = 2
    mid_block_scale_factor: _One = 1
    cross_attention_dim: _Count | tuple[_Count, ...] = 1280
    transformer_layers_per_block: _Count | tuple[_Count, ...] = 1
    reverse_transformer_layers_per_block: None = None
    attention_head_dim: _Count | tuple[_Count, ...] = 8
    num_attention_heads: None = None
    dual_cross_attention: Literal[False] = False
    use_linear_projection: bool = False
    class_embed_type: Literal["projection"] | None = None
    addition_embed_type: Literal["text_time"] | None = None
    addition_time_embed_dim: _Count | None = None
    upcast_attention: bool | None = False
    resnet_skip_time_act: Literal[False] = False
    resnet_out_scale_factor: _One = 1.0
    conv_in_kernel: _Three = 3
    conv_out_kernel: _Three = 3
    projection_class_embeddings_input_dim: _Count | None = None
    attention_type: Literal["default"] = "default"
    class_embeddings_concat: Literal[False] = False
    mid_block_only_cross_attention: bool | None = None
    addition_embed_type_num_heads: int = 64


def config(
    raw: Mapping[str, Any], where: str, channels: Mapping[str, int] | None = None
) -> tuple[Config, tuple[int, int] | None]:
    """The configuration of our U-Net, and the size of its latents if it is written.

    raw: the content of config.json. channels: what the input channels after those of x are, by
    name and in order; by default as the published networks of so many have them.
    Raises FileError, naming the file and the key, for an option that ours does not have.
    """
    them: UNetConditionSettings = checked(UNetConditionSettings, raw, where)
    attends = attending(them, where)
    width = them.block_out_channels[0]
    extra = slots(them.in_channels, them.out_channels) if channels is None else dict(channels)
    vector, joined = _vectors(them, where)
    style = Style(
        groups=them.norm_num_groups,
        eps=them.norm_eps,
        scale_shift=them.resnet_time_scale_shift == "scale_shift",
        dropout=them.dropout,
        down="strided" if them.downsample_padding else "asymmetric",
        uneven=True,
        joined=joined,
    )
    made = {
        "kind": "unet",
        "in_channels": them.in_channels - sum(extra.values()),
        "out_channels": them.out_channels,
        "channels": width,
        "multipliers": [each / width for each in them.block_out_channels],
        "blocks": _same(them, "layers_per_block", where),
        "attention": _attention(them, attends, where).model_dump(mode="json"),
        "style": style.model_dump(mode="json"),
        "time": time(them, where),
        "accepts": {
            "tokens": _same(them, "cross_attention_dim", where),
            "channels": extra,
            "vector": vector,
        },
    }
    size = them.sample_size
    return made, (size, size) if isinstance(size, int) else size


def slots(ins: int, outs: int) -> dict[str, int]:
    """The input channels besides those of x by name, as the published networks have them."""
    extra = ins - outs
    return dict(_SLOTS.get((outs, extra), {"extra": extra})) if extra > 0 else {}


def one_or_each(depths: Sequence[int]) -> tuple[int, ...]:
    """The depths of the levels that attend as `TransformerStyle` has them, one where all agree."""
    return tuple(depths if len(set(depths)) > 1 else [*depths[:1]] or [1])


def joined_widths(width: int, waves: int) -> dict[str, int]:
    """The raw vectors SDXL and its refiner join, from the width of what goes through two layers."""
    sizes = _REFINER_SIZES if width == _POOLED + _REFINER_SIZES * waves else _SIZES
    return {"pooled": width - sizes * waves, "sizes": sizes}


def _vectors(them: UNetConditionSettings, where: str) -> tuple[dict[str, int], dict[str, int]]:
    """The raw vectors a network is told with their widths, and which of them are joined."""
    width, waves = them.projection_class_embeddings_input_dim, them.addition_time_embed_dim
    label = {} if them.num_class_embeds is None else {"label": them.num_class_embeds}
    projected = them.class_embed_type == "projection"
    added = them.addition_embed_type == "text_time"
    if not projected and not added:
        return label, {}
    if width is None or (added and (waves is None or projected)):
        raise FileError(
            f"{where}: class_embed_type {them.class_embed_type!r} and addition_embed_type "
            f"{them.addition_embed_type!r} need projection_class_embeddings_input_dim, the second "
            "addition_time_embed_dim, and not both are supported"
        )
    if projected:
        return {"pooled": width}, {"pooled": 0}
    widths = joined_widths(width, waves or 0)
    if widths["pooled"] < 1:
        raise FileError(
            f"{where}: projection_class_embeddings_input_dim {width} leaves no room for the text "
            f"beside {widths['sizes']} numbers of addition_time_embed_dim {waves}"
        )
    return label | widths, {"pooled": 0, "sizes": waves or 0}


def _attention(them: UNetConditionSettings, attends: Sequence[bool], where: str) -> AttentionStyle:
    at = [i for i, attending in enumerate(attends) if attending]
    depths = _each(them, "transformer_layers_per_block", where)
    only = _each(them, "only_cross_attention", where)
    heads = _each(them, "attention_head_dim", where)
    widths = them.block_out_channels
    # The last level's are the middle's, too.
    used = {*at, len(widths) - 1}
    counts = {heads[i] for i in used}
    head_widths = {widths[i] / heads[i] for i in used}
    if len(counts) > 1 and (len(head_widths) > 1 or min(head_widths) % 1):
        raise FileError(
            f"{where}: attention_head_dim {list(heads)} over block_out_channels {list(widths)} is "
            "neither one number of heads nor one width, which is not supported"
        )
    return AttentionStyle(
        at=tuple(2**i for i in at),
        heads=counts.pop() if len(counts) == 1 else 1,
        head_channels=None if not counts else int(head_widths.pop()),
        transformer=TransformerStyle(
            depth=one_or_each([depths[i] for i in at]),
            middle=depths[-1],
            projection="linear" if them.use_linear_projection else "convolution",
            only_cross=tuple(2**i for i in at if only[i]),
        ),
    )


def _each(them: UNetConditionSettings, key: str, where: str) -> tuple[Any, ...]:
    """A setting of every level; one value stands for all."""
    value, count = getattr(them, key), len(them.block_out_channels)
    values = value if isinstance(value, tuple) else (value,) * count
    if len(values) != count:
        raise FileError(f"{where}: {key} has {len(values)} values for {count} levels")
    return values


def _same(them: UNetConditionSettings, key: str, where: str) -> int:
    """A setting that is the same at every level."""
    values = _each(them, key, where)
    if len(set(values)) > 1:
        raise FileError(f"{where}: {key} {list(values)} differs between levels; not supported")
    return int(values[0])


def settings(config: Mapping[str, Any], size: tuple[int, int]) -> Config:
    """The config.json of a `UNet2DConditionModel` that is our U-Net.

    config: of our network, as built; size: of its latents. Raises UsageError that says what
    diffusers has no option for, and what would do.
    """
    expressible(NAME, config)
    attention = AttentionStyle.model_validate(config["attention"])
    style = Style.model_validate(config["style"])
    accepts = Accepts.model_validate(config["accepts"])
    made = attention.transformer or TransformerStyle()
    widths = [int(config["channels"] * multiplier) for multiplier in config["multipliers"]]
    factors = [2**i for i in range(len(widths))]
    attends = [factor in attention.at for factor in factors]
    flip, shift = next(waves for waves, name in WAVES.items() if name == config["time"])
    depths = [attention.depth(factor) if factor in attention.at else 1 for factor in factors]
    if not attention.middle or (attends[-1] and depths[-1] != made.middle):
        raise inexpressible(
            NAME,
            "its middle must attend, as deep as the last level; use attention.middle=True and "
            f"attention.transformer.middle={depths[-1]}",
        )
    depths[-1] = made.middle
    return {
        "_class_name": NAME,
        "sample_size": size[0] if size[0] == size[1] else list(size),
        "in_channels": config["in_channels"] + sum(accepts.channels.values()),
        "out_channels": config["out_channels"] or config["in_channels"],
        "center_input_sample": False,
        "flip_sin_to_cos": flip,
        "freq_shift": shift,
        "down_block_types": [_CROSS_DOWN if at else _PLAIN_DOWN for at in attends],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": [_CROSS_UP if at else _PLAIN_UP for at in reversed(attends)],
        "only_cross_attention": _short([factor in made.only_cross for factor in factors]),
        "block_out_channels": widths,
        "layers_per_block": config["blocks"],
        "downsample_padding": 1 if style.down == "strided" else 0,
        "mid_block_scale_factor": 1,
        "dropout": style.dropout,
        "act_fn": "silu",
        "norm_num_groups": style.groups,
        "norm_eps": style.eps,
        "cross_attention_dim": accepts.tokens,
        "transformer_layers_per_block": _short(depths),
        "attention_head_dim": _short(_heads(attention, widths)),
        "use_linear_projection": made.projection == "linear",
        "resnet_time_scale_shift": "scale_shift" if style.scale_shift else "default",
        **_told(accepts, style),
    }


def _heads(attention: AttentionStyle, widths: Sequence[int]) -> list[int]:
    """The number of heads at every level; where none attend, what is nearest."""
    if attention.head_channels is None:
        return [attention.heads] * len(widths)
    return [max(1, width // attention.head_channels) for width in widths]


def _told(accepts: Accepts, style: Style) -> Config:
    """What their network is told besides tokens and channels."""
    joined = [(name, accepts.vector[name], waves) for name, waves in style.joined.items()]
    others = [name for name in accepts.vector if name not in style.joined]
    told: Config = {"class_embed_type": None, "num_class_embeds": accepts.vector.get("label")}
    match joined:
        case []:
            known = others in ([], ["label"])
        case [(_, width, 0)]:
            known = not others
            told |= {
                "class_embed_type": "projection",
                "projection_class_embeddings_input_dim": width,
            }
        case [(_, width, 0), (_, count, waves)] if waves:
            known = others in ([], ["label"])
            told |= {
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": waves,
                "projection_class_embeddings_input_dim": width + count * waves,
            }
        case _:
            known = False
    if not known:
        raise inexpressible(
            NAME, f"it is told {list(accepts.vector)} with style.joined {style.joined}"
        )
    return told


def _short(values: list[Any]) -> Any:
    """One value where all are the same."""
    return values[0] if len(set(values)) == 1 else values
