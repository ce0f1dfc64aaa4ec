"""The weights of diffusers' `VQModel` as our codec, both ways: only names change."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from fromnoise.codecs.vq import VQ
from fromnoise.core.errors import UsageError
from fromnoise.interop.diffusers_nets import Config, checked
from fromnoise.interop.kl_keys import Sides, names, scaling, sides
from fromnoise.interop.layout import Absent, Entry, layers, read, write
from fromnoise.interop.layout import checked as whole
from fromnoise.interop.unet2d_keys import modern

_Count = Annotated[int, Field(ge=1)]


class VQSettings(Sides):
    """Every key of a `VQModel`'s config.json, with the values that are a codec of ours."""

    latent_channels: _Count = 3
    num_vq_embeddings: Annotated[int, Field(ge=2)] = 256
    vq_embed_dim: _Count | None = None
    scaling_factor: Annotated[float, Field(gt=0)] = 0.18215
    norm_type: Literal["group"] = "group"
    lookup_from_codebook: Literal[False] = False


def config(raw: Mapping[str, Any], where: str) -> Config:
    """The configuration of our codec. FileError for an option that ours does not have."""
    them: VQSettings = checked(VQSettings, raw, where)
    width = them.vq_embed_dim or them.latent_channels
    return {
        "kind": "vq",
        "codebook": {"kind": "gradient", "size": them.num_vq_embeddings, "width": width},
        **them.ours(where),
        "scaling": them.scaling_factor,
        "in_between": None if them.latent_channels == width else them.latent_channels,
    }


def settings(config: Mapping[str, Any]) -> Config:
    """The config.json of a `VQModel` that is our codec.

    Raises UsageError for a scale or shift it does not have. How a codebook learnt is not written.
    """
    if config["shift"]:
        raise UsageError(
            f"a VQModel of diffusers has no shift, and this codec's is {config['shift']}"
        )
    codebook = config["codebook"]
    return {
        "_class_name": "VQModel",
        **sides(config),
        "latent_channels": config["in_between"] or codebook["width"],
        "num_vq_embeddings": codebook["size"],
        "vq_embed_dim": codebook["width"],
        "scaling_factor": scaling(config),
        "norm_type": "group",
    }


def table(codec: VQ) -> list[Entry]:
    """The names of a codec's parameters here and in diffusers.

    What only training needs of a codebook has no name there: read, it is as at the start.
    """
    known = list(codec.state_dict())
    entries = layers(names(codec), known)
    entries.append(Entry(("codebook.vectors",), ("quantize.embedding.weight",)))
    size, width = codec.codebook.size, codec.codebook.width
    entries.append(Entry(("codebook.met",), (), Absent(lambda: torch.ones(size))))
    if "codebook.sums" in known:
        sums = Absent(lambda: torch.zeros(size, width))
        entries.append(Entry(("codebook.sums",), (), sums))
    return whole(entries, known, "VQModel")


def to_ours(state: Mapping[str, Tensor], codec: VQ) -> dict[str, Tensor]:
    """A `VQModel` state dict under our names.

    Raises FileError that names the parameters missing or not placed.
    """
    return read(table(codec), {modern(name): value for name, value in state.items()})


def to_diffusers(state: Mapping[str, Tensor], codec: VQ) -> dict[str, Tensor]:
    """Our state dict under the names of diffusers: the inverse of `to_ours`, bit for bit."""
    return write(table(codec), state)
