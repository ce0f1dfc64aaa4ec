"""The weights of guided-diffusion, improved-diffusion and latent diffusion as ours, both ways.

Their blocks are numbered through: every block that leaves a skip connection is one of
`input_blocks`, every block that takes one is one of `output_blocks`. Latent diffusion and Stable
Diffusion as first published are the same code with transformers in it.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import cast

from torch import Tensor

from fromnoise.interop import transformer_keys
from fromnoise.interop.layout import (
    POINTWISE,
    TURNED,
    Entry,
    Fused,
    Order,
    checked,
    layers,
    read,
    write,
)
from fromnoise.layers.blocks import AttentionBlock
from fromnoise.layers.spatial_transformer import SpatialTransformer
from fromnoise.nets.classifier import Classifier
from fromnoise.nets.levels import Descending, Level, levels
from fromnoise.nets.unet import UNet

_BLOCK = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("shortcut", "skip_connection"),
)


def table(network: UNet | Classifier, order: Order = "legacy") -> list[Entry]:
    """The names of a network's parameters here and there.

    order: how its file holds query, key and value of each head: "new" if it was made with
        use_new_attention_order. `nets.FLAGS[name].order` tells that of a published model.
    Raises FileError for a parameter they have no name for.
    """
    known = list(network.state_dict())
    entries = layers(
        [
            ("embedding.time.first", "time_embed.0"),
            ("embedding.time.second", "time_embed.2"),
            ("embedding.joined.first", "label_emb.0.0"),
            ("embedding.joined.second", "label_emb.0.2"),
            ("enter", "input_blocks.0.0"),
            ("norm", "out.0"),
        ],
        known,
    )
    if "label" in network.accepts.vector:
        entries += [Entry(("embedding.vector.label.weight",), ("label_emb.weight",), TURNED)]
    entries += _way_down(network, known, order)
    entries += _middle(network.middle, known, order)
    entries += _after(network, known, order)
    return checked(entries, known, "guided-diffusion")


def to_ours(
    state: Mapping[str, Tensor], network: UNet | Classifier, order: Order = "legacy"
) -> dict[str, Tensor]:
    """A published state dict under our names, for `network.load_state_dict`.

    network: of the right configuration; the meta device will do. order: see `table`.
    Raises FileError that names the parameters missing or not placed.
    """
    return read(table(network, order), state)


def to_guided_diffusion(
    state: Mapping[str, Tensor], network: UNet | Classifier, order: Order = "legacy"
) -> dict[str, Tensor]:
    """Our state dict under their names: the inverse of `to_ours`, bit for bit."""
    return write(table(network, order), state)


def _after(network: Descending, known: list[str], order: Order) -> list[Entry]:
    """What follows the middle: the way up, or the classifier's pool."""
    match network:
        case UNet():
            return _way_up(network, known, order) + layers([("leave", "out.2")], known)
        case Classifier():
            return _pool(network, known)
    return []


def _way_down(network: Descending, known: list[str], order: Order) -> list[Entry]:
    entries: list[Entry] = []
    number = 1
    for i, level in enumerate(levels(network.down)):
        for block in _blocks(level, f"down.{i}", known, order, "input_blocks", number):
            entries += block
            number += 1
        if level.resample is not None:
            ours, theirs = f"down.{i}.resample", f"input_blocks.{number}.0"
            entries += _resample(level, ours, theirs, f"{theirs}.op", known)
            number += 1
    return entries


def _way_up(network: UNet, known: list[str], order: Order) -> list[Entry]:
    entries: list[Entry] = []
    number = 0
    for i, level in enumerate(levels(network.up)):
        for block in _blocks(level, f"up.{i}", known, order, "output_blocks", number):
            entries += block
            number += 1
        if level.resample is not None:
            inside = 2 if len(level) - 1 in level.after else 1
            theirs = f"output_blocks.{number - 1}.{inside}"
            entries += _resample(level, f"up.{i}.resample", theirs, f"{theirs}.conv", known)
    return entries


def _blocks(
    level: Level, place: str, known: list[str], order: Order, theirs: str, number: int
) -> Iterator[list[Entry]]:
    """The entries of each block of a level, from their `number` on."""
    for index in range(len(level)):
        outer = f"{theirs}.{number + index}"
        entries = _residual(f"{place}.blocks.{index}", f"{outer}.0", known)
        if index in level.after:
            which = level.after.index(index)
            entries += _attention(level, place, which, f"{outer}.1", known, order)
        yield entries


def _middle(level: Level, known: list[str], order: Order) -> list[Entry]:
    entries = _residual("middle.blocks.0", "middle_block.0", known)
    entries += _residual("middle.blocks.1", f"middle_block.{1 + len(level.after)}", known)
    for which in range(len(level.after)):
        entries += _attention(level, "middle", which, "middle_block.1", known, order)
    return entries


def _residual(ours: str, theirs: str, known: Collection[str]) -> list[Entry]:
    return layers([(f"{ours}.{a}", f"{theirs}.{b}") for a, b in _BLOCK], known)


def _resample(
    level: Level, ours: str, block: str, layer: str, known: Collection[str]
) -> list[Entry]:
    if level.by_block:
        return _residual(ours, block, known)
    return layers([(f"{ours}.conv", layer)], known)


def _attention(
    level: Level, place: str, which: int, theirs: str, known: Collection[str], order: Order
) -> list[Entry]:
    layer = level.attentions[which]
    if isinstance(layer, SpatialTransformer):
        return layers(transformer_keys.parts(layer, f"{place}.attentions.{which}", theirs), known)
    ours = f"{place}.attentions.{which}.own"
    heads = cast(AttentionBlock, layer).own.heads
    entries = layers([(f"{ours}.norm", f"{theirs}.norm")], known)
    entries += _fused(ours, f"{theirs}.qkv", heads, order)
    return entries + layers([(f"{ours}.out", f"{theirs}.proj_out")], known, POINTWISE)


def _fused(ours: str, theirs: str, heads: int, order: Order) -> list[Entry]:
    return [
        Entry(
            tuple(f"{ours}.{part}.{kind}" for part in ("query", "key", "value")),
            (f"{theirs}.{kind}",),
            Fused(heads, order, pointwise=kind == "weight"),
        )
        for kind in ("weight", "bias")
    ]


def _pool(network: Classifier, known: Collection[str]) -> list[Entry]:
    """The pool always holds all queries, all keys, all values, whatever the order elsewhere."""
    ours = "pool.attention"
    entries = [Entry(("pool.position",), ("out.2.positional_embedding",), TURNED)]
    entries += _fused(ours, "out.2.qkv_proj", network.pool.attention.heads, "new")
    return entries + layers([(f"{ours}.out", "out.2.c_proj")], known, POINTWISE)
