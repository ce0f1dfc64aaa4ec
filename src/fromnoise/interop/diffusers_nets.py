"""The configurations of diffusers' `UNet2DModel` and `DiTTransformer2DModel` as ours, both ways."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from fromnoise.core.config import Settings, validated
from fromnoise.core.errors import FileError, UsageError
from fromnoise.layers.blocks import Style
from fromnoise.nets.base import Accepts
from fromnoise.nets.levels import AttentionStyle

Config = dict[str, Any]
_Count = Annotated[int, Field(ge=1)]
_Down = Literal["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"]
_Up = Literal["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"]

# (flip_sin_to_cos, freq_shift) → our convention of the time features.
WAVES = {(True, 0): "adm", (False, 1): "ddpm", (True, 1): "closed"}


class UNetSettings(Settings):
    """The keys that the config.json of every U-Net of diffusers has, with the values of ours."""

    sample_size: _Count | tuple[_Count, _Count] | None = None
    in_channels: _Count
    out_channels: _Count
    center_input_sample: Literal[False] = False
    time_embedding_type: Literal["positional"] = "positional"
    time_embedding_dim: _Count | None = None
    freq_shift: Literal[0, 1] = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[str, ...]
    up_block_types: tuple[str, ...]
    block_out_channels: tuple[_Count, ...]
    downsample_padding: Literal[0, 1] = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    act_fn: Literal["silu", "swish"] = "silu"
    norm_num_groups: _Count = 32
    norm_eps: Annotated[float, Field(gt=0)] = 1e-5
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    num_class_embeds: _Count | None = None


class UNet2DSettings(UNetSettings):
    """Every key of a `UNet2DModel`'s config.json, with the values that are a network of ours."""

    in_channels: _Count = 3
    out_channels: _Count = 3
    down_block_types: tuple[_Down, ...] = ("DownBlock2D", *("AttnDownBlock2D",) * 3)
    mid_block_type: Literal["UNetMidBlock2D"] = "UNetMidBlock2D"
    up_block_types: tuple[_Up, ...] = (*("AttnUpBlock2D",) * 3, "UpBlock2D")
    block_out_channels: tuple[_Count, ...] = (224, 448, 672, 896)
    layers_per_block: _Count = 2
    mid_block_scale_factor: Annotated[float, Field(ge=1, le=1)] = 1
    downsample_type: Literal["conv", "resnet"] = "conv"
    upsample_type: Literal["conv", "resnet"] = "conv"
    attention_head_dim: _Count | None = 8
    attn_norm_num_groups: _Count | None = None
    add_attention: bool = True
    class_embed_type: None = None
    num_train_timesteps: _Count | None = None


class DiTSettings(Settings):
    """Every key of a `DiTTransformer2DModel`'s config.json, with the values that are a network
    of ours; the older `Transformer2DModel` has more keys, all off."""

    sample_size: _Count = 32
    in_channels: _Count = 4
    out_channels: _Count | None = None
    num_attention_heads: _Count = 16
    attention_head_dim: _Count = 72
    num_layers: _Count = 28
    dropout: Annotated[float, Field(ge=0, le=0)] = 0.0
    norm_num_groups: int | None = 32
    attention_bias: Literal[True] = True
    patch_size: _Count = 2
    activation_fn: Literal["gelu-approximate"] = "gelu-approximate"
    num_embeds_ada_norm: _Count = 1000
    upcast_attention: bool = False
    norm_type: Literal["ada_norm_zero"] = "ada_norm_zero"
    norm_elementwise_affine: Literal[False] = False
    norm_eps: Annotated[float, Field(ge=1e-6, le=1e-5)] = 1e-5


def checked(model: type[Settings], raw: Mapping[str, Any], where: str) -> Any:
    """The settings of a configuration file of diffusers.

    Keys with an underscore in front are its own notes. A key that is not known may be there as long
    as it is off (null or false): other versions of diffusers write others.
    Raises FileError that names the file, the key and the value.
    """
    known = model.model_fields
    given = {
        key: value
        for key, value in raw.items()
        if not key.startswith("_") and not (key not in known and value in (None, False))
    }
    try:
        return validated(model, given, where)
    except UsageError as error:
        raise FileError(str(error)) from None


def unet(raw: Mapping[str, Any], where: str) -> tuple[Config, tuple[int, int] | None]:
    """The configuration of our U-Net, and the size of its pictures if it is written.

    raw: the content of config.json. Raises FileError for an option that ours does not have.
    """
    them: UNet2DSettings = checked(UNet2DSettings, raw, where)
    attends = attending(them, where)
    waves = time(them, where)
    channels = them.block_out_channels[0]
    _middle(them, where)
    style = Style(
        groups=them.norm_num_groups,
        eps=them.norm_eps,
        scale_shift=them.resnet_time_scale_shift == "scale_shift",
        dropout=them.dropout,
        down="strided" if them.downsample_padding else "asymmetric",
        resample=_resample(them, where),
    )
    attention = AttentionStyle(
        at=tuple(2**i for i, attending in enumerate(attends) if attending),
        middle=them.add_attention,
        head_channels=them.attention_head_dim,
    )
    config = {
        "kind": "unet",
        "in_channels": them.in_channels,
        "out_channels": them.out_channels,
        "channels": channels,
        "multipliers": [width / channels for width in them.block_out_channels],
        "blocks": them.layers_per_block,
        "attention": attention.model_dump(mode="json"),
        "style": style.model_dump(mode="json"),
        "time": waves,
        "accepts": {"vector": {"label": them.num_class_embeds} if them.num_class_embeds else {}},
    }
    size = them.sample_size
    return config, (size, size) if isinstance(size, int) else size


def dit(raw: Mapping[str, Any], where: str) -> tuple[Config, tuple[int, int]]:
    """The configuration of our transformer, and the size of what it takes. Raises as `unet`."""
    them: DiTSettings = checked(DiTSettings, raw, where)
    size = (them.sample_size, them.sample_size)
    config = {
        "kind": "dit",
        "in_channels": them.in_channels,
        "out_channels": them.out_channels or them.in_channels,
        "size": list(size),
        "patch": them.patch_size,
        "width": them.num_attention_heads * them.attention_head_dim,
        "depth": them.num_layers,
        "heads": them.num_attention_heads,
        "time": "closed",
        "accepts": {"vector": {"label": them.num_embeds_ada_norm}},
    }
    return config, size


def attending(them: UNetSettings, where: str) -> list[bool]:
    """Whether each level attends, the largest first. FileError unless both ways agree."""
    count = len(them.block_out_channels)
    if not len(them.down_block_types) == len(them.up_block_types) == count:
        raise FileError(
            f"{where}: {len(them.down_block_types)} down blocks, {len(them.up_block_types)} up "
            f"blocks and {count} widths; there must be as many of each"
        )
    down = ["Attn" in kind for kind in them.down_block_types]
    up = ["Attn" in kind for kind in reversed(them.up_block_types)]
    if down != up:
        raise FileError(
            f"{where}: down_block_types {list(them.down_block_types)} and up_block_types "
            f"{list(them.up_block_types)} attend at different levels, which is not supported"
        )
    return down


def time(them: UNetSettings, where: str) -> str:
    """Our convention of the time features. FileError for one that is not ours."""
    waves = WAVES.get((them.flip_sin_to_cos, them.freq_shift))
    channels = them.block_out_channels[0]
    if waves is None:
        raise FileError(f"{where}: freq_shift 0 with flip_sin_to_cos false is not supported")
    if them.time_embedding_dim not in (None, 4 * channels):
        raise FileError(
            f"{where}: time_embedding_dim {them.time_embedding_dim} is not supported; "
            f"it must be 4 · {channels}"
        )
    return waves


def _resample(them: UNet2DSettings, where: str) -> Literal["layer", "block"]:
    """What changes the size between levels: one kind everywhere, or FileError."""
    kinds = {
        *_changes(them.down_block_types[:-1], "ResnetDownsampleBlock2D", them.downsample_type),
        *_changes(them.up_block_types[:-1], "ResnetUpsampleBlock2D", them.upsample_type),
    }
    if len(kinds) > 1:
        raise FileError(
            f"{where}: some levels are resized by a convolution and others by a residual block "
            f"(downsample_type {them.downsample_type!r}, upsample_type {them.upsample_type!r}, "
            f"{list(them.down_block_types)}), which is not supported"
        )
    return "block" if "resnet" in kinds else "layer"


def _changes(kinds: Sequence[str], block: str, attending: str) -> Iterable[str]:
    # Only the blocks that attend heed downsample_type; the others have one kind each.
    for kind in kinds:
        yield attending if kind.startswith("Attn") else "resnet" if kind == block else "conv"


def _middle(them: UNet2DSettings, where: str) -> None:
    """FileError unless the attention in the middle is normed as everywhere."""
    scaled = them.resnet_time_scale_shift == "scale_shift"
    groups = them.attn_norm_num_groups or (None if scaled else them.norm_num_groups)
    if them.add_attention and groups != them.norm_num_groups:
        raise FileError(
            f"{where}: attn_norm_num_groups {them.attn_norm_num_groups} is not supported with "
            f"norm_num_groups {them.norm_num_groups}; the two must be the same"
        )


def unet_settings(config: Mapping[str, Any], size: tuple[int, int]) -> Config:
    """The config.json of a `UNet2DModel` that is our U-Net.

    config: of our network, as built; size: of its pictures. Raises UsageError that says what
    diffusers has no option for, and what would do.
    """
    attention = AttentionStyle.model_validate(config["attention"])
    style = Style.model_validate(config["style"])
    multipliers = config["multipliers"]
    widths = [int(config["channels"] * multiplier) for multiplier in multipliers]
    expressible("UNet2DModel", config)
    attends = [2**i in attention.at for i in range(len(widths))]
    block = style.resample == "block"
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if block else _PLAIN
    way = "resnet" if block else "conv"
    flip, shift = next(waves for waves, name in WAVES.items() if name == config["time"])
    return {
        "_class_name": "UNet2DModel",
        "sample_size": size[0] if size[0] == size[1] else list(size),
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"] or config["in_channels"],
        "center_input_sample": False,
        "time_embedding_type": "positional",
        "freq_shift": shift,
        "flip_sin_to_cos": flip,
        "down_block_types": ["AttnDownBlock2D" if at else plain[0] for at in attends],
        "mid_block_type": "UNetMidBlock2D",
        "up_block_types": ["AttnUpBlock2D" if at else plain[1] for at in reversed(attends)],
        "block_out_channels": widths,
        "layers_per_block": config["blocks"],
        "mid_block_scale_factor": 1,
        "downsample_padding": 1 if style.down == "strided" else 0,
        "downsample_type": way,
        "upsample_type": way,
        "dropout": style.dropout,
        "act_fn": "silu",
        "attention_head_dim": _head(attention, widths),
        "norm_num_groups": style.groups,
        "attn_norm_num_groups": style.groups,
        "norm_eps": style.eps,
        "resnet_time_scale_shift": "scale_shift" if style.scale_shift else "default",
        "add_attention": attention.middle,
        "class_embed_type": None,
        "num_class_embeds": _vectors(config).get("label"),
    }


def dit_settings(config: Mapping[str, Any]) -> Config:
    """The config.json of a `DiTTransformer2DModel` that is our transformer. Raises as above."""
    size = config["size"] if isinstance(config["size"], int) else tuple(config["size"])
    rows, columns = (size, size) if isinstance(size, int) else size
    vectors = _vectors(config)
    for wrong, reason in (
        (rows != columns, f"its pictures are {rows} by {columns}, not square"),
        (config["hidden"] != 4, f"its MLP is {config['hidden']} times as wide; use hidden=4"),
        (config["time"] != "closed", f"its time is {config['time']!r}; use time='closed'"),
        ("label" not in vectors, "it is told no label"),
    ):
        if wrong:
            raise inexpressible("DiTTransformer2DModel", reason)
    return {
        "_class_name": "DiTTransformer2DModel",
        "sample_size": rows,
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"] or config["in_channels"],
        "num_attention_heads": config["heads"],
        "attention_head_dim": config["width"] // config["heads"],
        "num_layers": config["depth"],
        "dropout": 0.0,
        "norm_num_groups": 32,
        "attention_bias": True,
        "patch_size": config["patch"],
        "activation_fn": "gelu-approximate",
        "num_embeds_ada_norm": vectors["label"],
        "upcast_attention": False,
        "norm_type": "ada_norm_zero",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
    }


_PLAIN = ("DownBlock2D", "UpBlock2D")


def expressible(what: str, config: Mapping[str, Any]) -> None:
    """UsageError for the first thing that no U-Net of diffusers has an option for."""
    attention = AttentionStyle.model_validate(config["attention"])
    style = Style.model_validate(config["style"])
    block = style.resample == "block"
    conditional = what == "UNet2DConditionModel"
    for wrong, reason in (
        (config["spatial_dims"] != 2, f"it has {config['spatial_dims']} spatial dimensions"),
        (config["time"] not in WAVES.values(), f"its time is {config['time']!r}; use 'ddpm'"),
        (
            bool(attention.at) and attention.up != "every",
            "it attends once in a level on the way up; use attention.up='every'",
        ),
        (style.up != "nearest", f"style.up is {style.up!r}; use 'nearest'"),
        (block and conditional, "style.resample is 'block'; use 'layer'"),
        (block and style.filter != "box", f"style.filter is {style.filter!r}; use 'box'"),
        (block and style.shortcut != "identity", "style.shortcut is not 'identity'"),
        (style.residual_scale != 1, f"style.residual_scale is {style.residual_scale}; use 1"),
        (style.pyramid != "none", f"style.pyramid is {style.pyramid!r}; use 'none'"),
        (style.patch != 1, f"style.patch is {style.patch}; use 1"),
        (style.coordinates, "style.coordinates is set"),
        (bool(style.joined) and not conditional, "it has style.joined"),
        (
            (attention.transformer is None) == conditional,
            f"attention.transformer is {'missing' if conditional else 'given'}",
        ),
    ):
        if wrong:
            raise inexpressible(what, reason)


def _head(attention: AttentionStyle, widths: Sequence[int]) -> int | None:
    """The width of a head, which diffusers has in place of their number; None for one head."""
    if attention.head_channels is not None:
        return attention.head_channels
    if attention.heads == 1:
        return None
    where = {width for i, width in enumerate(widths) if 2**i in attention.at}
    where |= {widths[-1]} if attention.middle else set()
    if len(where) > 1:
        raise inexpressible(
            "UNet2DModel",
            f"it attends with {attention.heads} heads over {sorted(where)} channels, and there a "
            "head has one width; use attention.head_channels",
        )
    return next(iter(where)) // attention.heads if where else None


def _vectors(config: Mapping[str, Any]) -> dict[str, int]:
    """The raw vectors a network is told: a label, or none. UsageError for anything else."""
    accepts = Accepts.model_validate(config["accepts"])
    extra = [name for name in accepts.vector if name != "label"] + list(accepts.channels)
    extra += [] if accepts.tokens is None else ["tokens"]
    if extra:
        raise inexpressible("a network of diffusers", f"it is also told {', '.join(extra)}")
    return dict(accepts.vector)


def inexpressible(what: str, reason: str) -> UsageError:
    """The error that says why a network cannot be written."""
    return UsageError(f"this network cannot be written as {what}: {reason}")
