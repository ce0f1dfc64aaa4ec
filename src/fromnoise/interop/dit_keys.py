"""The weights of the published DiT, and of diffusers' `DiTTransformer2DModel`, as ours, both ways.

diffusers writes the embeddings of time and label once for every block, all alike, and does not
write the positions. Its time features differ, too: a network for its weights has time="closed"
to answer as it does, and time="adm" to answer as the published one.
"""

from collections.abc import Collection, Mapping
from functools import partial

import torch
from torch import Tensor

from fromnoise.interop.layout import (
    BATCHED,
    SAME,
    TURNED,
    Absent,
    Entry,
    Fused,
    Repeated,
    checked,
    layers,
    read,
    write,
)
from fromnoise.layers.embeddings import positions
from fromnoise.nets.dit import DiT

_LABEL = "embedding.vector.label.weight"


def table(network: DiT) -> list[Entry]:
    """The names of a network's parameters here and in the published code.

    Raises FileError for a parameter they have no name for.
    """
    known = list(network.state_dict())
    entries = layers(
        [
            ("enter", "x_embedder.proj"),
            ("embedding.time.first", "t_embedder.mlp.0"),
            ("embedding.time.second", "t_embedder.mlp.2"),
            ("modulation", "final_layer.adaLN_modulation.1"),
            ("leave", "final_layer.linear"),
        ],
        known,
    )
    entries += [Entry(("position",), ("pos_embed",), BATCHED)]
    if _LABEL in known:
        entries += [Entry((_LABEL,), ("y_embedder.embedding_table.weight",), TURNED)]
    for i in range(len(network.blocks)):
        entries += _block(f"blocks.{i}", known)
    return checked(entries, known, "DiT")


def diffusers_table(network: DiT) -> list[Entry]:
    """The names of a network's parameters here and in diffusers. Raises as `table` does."""
    known = list(network.state_dict())
    depth = len(network.blocks)
    entries = layers(
        [("enter", "pos_embed.proj"), ("modulation", "proj_out_1"), ("leave", "proj_out_2")], known
    )
    entries += [Entry(("position",), (), Absent(partial(_positions, network)))]
    emb = [f"transformer_blocks.{i}.norm1.emb" for i in range(depth)]
    for ours, theirs in (("first", "linear_1"), ("second", "linear_2")):
        for kind in ("weight", "bias"):
            names = tuple(f"{prefix}.timestep_embedder.{theirs}.{kind}" for prefix in emb)
            entries += [Entry((f"embedding.time.{ours}.{kind}",), names, Repeated(depth, SAME))]
    if _LABEL in known:
        names = tuple(f"{prefix}.class_embedder.embedding_table.weight" for prefix in emb)
        entries += [Entry((_LABEL,), names, Repeated(depth, TURNED))]
    for i in range(depth):
        entries += layers(_diffusers_block(f"blocks.{i}", f"transformer_blocks.{i}"), known)
    return checked(entries, known, "diffusers")


def to_ours(state: Mapping[str, Tensor], network: DiT) -> dict[str, Tensor]:
    """A published state dict under our names.

    network: of the right configuration; the meta device will do.
    Raises FileError that names the parameters missing or not placed.
    """
    return read(table(network), state)


def to_dit(state: Mapping[str, Tensor], network: DiT) -> dict[str, Tensor]:
    """Our state dict under the published names: the inverse of `to_ours`, bit for bit."""
    return write(table(network), state)


def from_diffusers(state: Mapping[str, Tensor], network: DiT) -> dict[str, Tensor]:
    """A `DiTTransformer2DModel` state dict under our names.

    Raises FileError as `to_ours` does, and where the blocks' embeddings differ.
    """
    return read(diffusers_table(network), state)


def to_diffusers(state: Mapping[str, Tensor], network: DiT) -> dict[str, Tensor]:
    """Our state dict under the names of diffusers: the inverse of `from_diffusers`."""
    return write(diffusers_table(network), state)


def _block(place: str, known: Collection[str]) -> list[Entry]:
    entries = layers(
        [
            (f"{place}.attention.out", f"{place}.attn.proj"),
            (f"{place}.first", f"{place}.mlp.fc1"),
            (f"{place}.second", f"{place}.mlp.fc2"),
            (f"{place}.modulation", f"{place}.adaLN_modulation.1"),
        ],
        known,
    )
    for kind in ("weight", "bias"):
        ours = tuple(f"{place}.attention.{part}.{kind}" for part in ("query", "key", "value"))
        entries += [Entry(ours, (f"{place}.attn.qkv.{kind}",), Fused(1, "new"))]
    return entries


def _diffusers_block(ours: str, theirs: str) -> list[tuple[str, str]]:
    return [
        (f"{ours}.modulation", f"{theirs}.norm1.linear"),
        (f"{ours}.attention.query", f"{theirs}.attn1.to_q"),
        (f"{ours}.attention.key", f"{theirs}.attn1.to_k"),
        (f"{ours}.attention.value", f"{theirs}.attn1.to_v"),
        (f"{ours}.attention.out", f"{theirs}.attn1.to_out.0"),
        (f"{ours}.first", f"{theirs}.ff.net.0.proj"),
        (f"{ours}.second", f"{theirs}.ff.net.2"),
    ]


def _positions(network: DiT) -> Tensor:
    rows, columns = (side // network.patch for side in network.size)
    return positions(rows, columns, network.position.shape[1]).to(torch.float32)
