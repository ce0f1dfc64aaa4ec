"""The U-Net of a single file as latent diffusion and Stable Diffusion first wrote it (CompVis).

Such a file says no configuration: it is read off the names and the shapes of the weights. The names
are those of guided-diffusion, under a prefix.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from torch import Tensor

from fromnoise.core.errors import FileError
from fromnoise.interop import guided_diffusion_keys
from fromnoise.interop.diffusers_nets import Config
from fromnoise.interop.unet_condition import joined_widths, one_or_each, slots
from fromnoise.nets.latent_presets import LATENT_PRESETS
from fromnoise.nets.unet import UNet

PREFIX = "model.diffusion_model."
TOLD = ".attn2.to_k.weight"
"""How the names end of what attends to tokens; where there is none, it is told none."""

_AVERAGED = "model_ema."
_WAVES = 256
# What stable unCLIP is told is one vector of one of these widths.
_UNCLIP = (2048, 1536)
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class _Attention:
    """One attention: its blocks (0 without a transformer) and what their first looks at."""

    depth: int
    only_cross: bool


@dataclass(frozen=True)
class _Level:
    """The blocks of one size: how many, how wide, and what follows each."""

    blocks: int
    width: int
    attention: _Attention | None


def unet_weights(tensors: State, where: str, averaged: bool = False) -> dict[str, Tensor]:
    """The weights of the U-Net among those of a file, without their prefix.

    averaged: the running average of training, where the file has both.
    Raises FileError where there are none.
    """
    names = [name for name in tensors if name.startswith(PREFIX)]
    if not names:
        raise FileError(f"{where} holds no U-Net: nothing in it is called {PREFIX}…")
    if not averaged:
        return {name.removeprefix(PREFIX): tensors[name] for name in names}
    flat = {name: _AVERAGED + name.removeprefix("model.").replace(".", "") for name in names}
    # The average's own names have no dots but the first.
    lacking = [name for name in names if flat[name] not in tensors]
    if lacking:
        raise FileError(f"{where} holds no running average of {lacking[0]}")
    return {name.removeprefix(PREFIX): tensors[flat[name]] for name in names}


def has_average(tensors: State) -> bool:
    """Whether a file holds the running average of its U-Net beside it."""
    return any(name.startswith(f"{_AVERAGED}diffusion_model") for name in tensors)


def unet_config(state: State, where: str, heads: Mapping[str, int] | None = None) -> Config:
    """The configuration of our U-Net for the weights `unet_weights` gives.

    heads: how many `heads` attend, or their `head_channels`, where it is known. It is not in the
    shapes: otherwise it is that of the published network of the same widths, else 8 for Stable
    Diffusion 1 and the ×4 upscaler, and as many as are 64 wide for what has linear projections. An
    attention as wide as the tokens is taken to look at the picture.
    Raises FileError for weights that are no such U-Net, or whose heads cannot be told.
    """
    first, last = _tensor(state, "input_blocks.0.0.weight", where), _tensor(state, _LAST, where)
    levels = _levels(state, where)
    channels, widths = first.shape[0], [level.width for level in levels]
    at = [i for i, level in enumerate(levels) if level.attention is not None]
    middle = _attention(state, "middle_block.1", widths[-1])
    told = _tokens(state)
    extra = slots(first.shape[1], last.shape[0])
    vector, joined = _vectors(state)
    config: Config = {
        "kind": "unet",
        "in_channels": first.shape[1] - sum(extra.values()),
        "out_channels": last.shape[0],
        "channels": channels,
        "multipliers": [width / channels for width in widths],
        "blocks": levels[0].blocks,
        "attention": {
            "at": [2**i for i in at],
            "middle": middle is not None,
            "transformer": _transformer(state, levels, middle) if told else None,
        },
        "style": {"scale_shift": _scaled(state), "uneven": True, "joined": joined},
        "time": "adm",
        "accepts": {"tokens": told, "channels": extra, "vector": vector},
    }
    config["attention"] |= heads or _heads(config, where)
    return config


_LAST = "out.2.weight"


def unet_to_ours(state: State, network: UNet) -> dict[str, Tensor]:
    """The weights `unet_weights` gives under our names, for `network.load_state_dict`.

    Raises FileError that names the parameters missing or not placed.
    """
    return guided_diffusion_keys.to_ours(state, network)


def unet_to_compvis(state: State, network: UNet) -> dict[str, Tensor]:
    """Our state dict under the names of a single file, prefix included; bit for bit."""
    theirs = guided_diffusion_keys.to_guided_diffusion(state, network)
    return {PREFIX + name: value for name, value in theirs.items()}


def _levels(state: State, where: str) -> list[_Level]:
    """The levels on the way down, the largest first."""
    if any(name.startswith("output_blocks.") and ".in_layers." in name and ".0.in_" not in name
           for name in state):  # fmt: skip
        raise FileError(
            f"{where}: its residual blocks change the size, so where a level ends is not in the "
            "names; build it by its published name"
        )
    found: list[list[tuple[int, _Attention | None]]] = [[]]
    for number in count(1):
        place = f"input_blocks.{number}"
        if f"{place}.0.op.weight" in state:
            found.append([])
        elif f"{place}.0.in_layers.2.weight" in state:
            width = state[f"{place}.0.in_layers.2.weight"].shape[0]
            found[-1].append((width, _attention(state, f"{place}.1", width)))
        else:
            break
    counts = {len(level) for level in found}
    if len(counts) > 1 or 0 in counts or any(len(set(level)) > 1 for level in found):
        raise FileError(
            f"{where}: the blocks of its U-Net are not alike within each level, or not as many in "
            "each; no published one is like that"
        )
    return [_Level(len(level), *level[0]) for level in found]


def _attention(state: State, place: str, width: int) -> _Attention | None:
    """What stands at a place, if it is an attention, of so many channels."""
    if f"{place}.norm.weight" not in state:
        return None
    inside = f"{place}.transformer_blocks"
    depth = next(i for i in count() if f"{inside}.{i}.norm1.weight" not in state)
    key = state.get(f"{inside}.0.attn1.to_k.weight")
    return _Attention(depth, key is not None and key.shape[1] != width)


def _tokens(state: State) -> int | None:
    """The width of the tokens that are attended to."""
    keys = [value for name, value in state.items() if name.endswith(TOLD)]
    return keys[0].shape[1] if keys else None


def _transformer(state: State, levels: list[_Level], middle: _Attention | None) -> Config:
    found = {2**i: level.attention for i, level in enumerate(levels) if level.attention}
    projections = [value for name, value in state.items() if name.endswith(".proj_in.weight")]
    return {
        "depth": one_or_each([attention.depth for attention in found.values()]),
        "middle": 1 if middle is None else middle.depth,
        "projection": "linear" if projections[0].ndim == 2 else "convolution",
        "only_cross": [factor for factor, attention in found.items() if attention.only_cross],
    }


def _vectors(state: State) -> tuple[dict[str, int], dict[str, int]]:
    """The raw vectors it is told with their widths, and which of them are joined."""
    if "label_emb.weight" in state:
        return {"label": state["label_emb.weight"].shape[0]}, {}
    if "label_emb.0.0.weight" not in state:
        return {}, {}
    width = state["label_emb.0.0.weight"].shape[1]
    widths = joined_widths(width, _WAVES)
    if width in _UNCLIP or widths["pooled"] < 1:
        return {"pooled": width}, {"pooled": 0}
    return widths, {"pooled": 0, "sizes": _WAVES}


def _scaled(state: State) -> bool:
    """Whether time scales and shifts in the blocks, rather than being added."""
    told = state["input_blocks.1.0.emb_layers.1.weight"]
    return told.shape[0] == 2 * state["input_blocks.1.0.out_layers.0.weight"].shape[0]


def _heads(config: Config, where: str) -> Config:
    for make in LATENT_PRESETS.values():
        published = make()
        if _widths(published) == _widths(config):
            return {key: published["attention"][key] for key in ("heads", "head_channels")}
    made = config["attention"]["transformer"]
    if made is None:
        raise FileError(
            f"{where}: how many heads its attention has is not in the file, and no published U-Net "
            f"has {config['channels']} channels and multipliers {config['multipliers']}; a YAML of "
            "the same name beside it may say how wide a head is: model: {params: {unet_config: "
            "{params: {num_head_channels: 32}}}}"
        )
    if made["projection"] == "linear" and "label" not in config["accepts"]["vector"]:
        return {"heads": 1, "head_channels": 64}
    return {"heads": 8, "head_channels": None}


def _widths(config: Config) -> Any:
    accepts, made = config["accepts"], config["attention"]["transformer"]
    projection = None if made is None else made.get("projection", "convolution")
    return config["channels"], list(config["multipliers"]), accepts.get("tokens"), projection


def _tensor(state: State, name: str, where: str) -> Tensor:
    if name not in state:
        raise FileError(f"{where} holds no U-Net of latent diffusion: it lacks {PREFIX}{name}")
    return state[name]
