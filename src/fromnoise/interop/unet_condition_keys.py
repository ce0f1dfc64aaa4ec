"""The weights of diffusers' `UNet2DConditionModel` as our `UNet`, both ways: only names change."""

from collections.abc import Mapping

from torch import Tensor

from fromnoise.interop import transformer_keys
from fromnoise.interop.layout import TURNED, Entry, checked, layers, read, write
from fromnoise.interop.unet2d_keys import BLOCK
from fromnoise.layers.spatial_transformer import SpatialTransformer
from fromnoise.nets.levels import Level, levels
from fromnoise.nets.unet import UNet

_ENDS = (
    ("enter", "conv_in"),
    ("norm", "conv_norm_out"),
    ("leave", "conv_out"),
    ("embedding.time.first", "time_embedding.linear_1"),
    ("embedding.time.second", "time_embedding.linear_2"),
)


def table(network: UNet) -> list[Entry]:
    """The names of a network's parameters here and in diffusers.

    Raises FileError for a parameter they have no name for.
    """
    known = list(network.state_dict())
    pairs = list(_ENDS)
    joined = network.embedding.joined
    if joined is not None:
        # One vector alone is their class; SDXL's two are added to the time.
        theirs = "class_embedding" if len(joined.waves) == 1 else "add_embedding"
        pairs += [("embedding.joined.first", f"{theirs}.linear_1")]
        pairs += [("embedding.joined.second", f"{theirs}.linear_2")]
    for i, level in enumerate(levels(network.down)):
        pairs += _level(level, f"down.{i}", f"down_blocks.{i}", "downsamplers")
    pairs += _level(network.middle, "middle", "mid_block", "")
    for i, level in enumerate(levels(network.up)):
        pairs += _level(level, f"up.{i}", f"up_blocks.{i}", "upsamplers")
    entries = layers(pairs, known)
    if "embedding.vector.label.weight" in known:
        label = Entry(("embedding.vector.label.weight",), ("class_embedding.weight",), TURNED)
        entries.append(label)
    return checked(entries, known, "UNet2DConditionModel")


def to_ours(state: Mapping[str, Tensor], network: UNet) -> dict[str, Tensor]:
    """A `UNet2DConditionModel` state dict under our names, for `network.load_state_dict`.

    network: of the right configuration; the meta device will do.
    Raises FileError that names the parameters missing or not placed.
    """
    return read(table(network), state)


def to_diffusers(state: Mapping[str, Tensor], network: UNet) -> dict[str, Tensor]:
    """Our state dict under the names of diffusers: the inverse of `to_ours`, bit for bit."""
    return write(table(network), state)


def _level(level: Level, ours: str, theirs: str, resample: str) -> list[tuple[str, str]]:
    pairs = [(f"{ours}.resample.conv", f"{theirs}.{resample}.0.conv")]
    for i in range(len(level)):
        here, there = f"{ours}.blocks.{i}", f"{theirs}.resnets.{i}"
        pairs += [(f"{here}.{a}", f"{there}.{b}") for a, b in BLOCK]
    for i, layer in enumerate(level.attentions):
        if isinstance(layer, SpatialTransformer):
            here, there = f"{ours}.attentions.{i}", f"{theirs}.attentions.{i}"
            pairs += transformer_keys.parts(layer, here, there)
    return pairs
