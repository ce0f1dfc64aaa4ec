"""A model without its weights: what it is made of and every shape in it, whatever its size."""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from fromnoise.codecs import CODECS
from fromnoise.core.config import validated
from fromnoise.core.files import read_header, read_json
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.interop import builtin
from fromnoise.interop.diffusers_folder import shapes_only
from fromnoise.interop.loading import load
from fromnoise.model import Card, Defaults, Model
from fromnoise.model.files import ModelConfig
from fromnoise.nets import NETS
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.processes import PROCESSES
from fromnoise.training.checkpoint import latest_model

_NAME = "model.json"


def skeleton(source: str | Path) -> Model:
    """What `load` opens, its weights on the meta device; only vocabularies are read.

    Raises as `load` does, but does not notice weights that are damaged.
    """
    folder = _own(source)
    if folder is None:
        with shapes_only():
            return load(source)
    config = validated(ModelConfig, read_json(folder / _NAME), str(folder / _NAME))
    with torch.device("meta"):
        net, codec = NETS.build(config.net), CODECS.build(config.codec)
        conditioning = Conditioning.build(config.encoders)
    _vocabularies(conditioning, "encoders.", folder / "model.safetensors")
    model = Model(
        NetworkDenoiser(
            net,
            PROCESSES.build(config.process),
            PARAMETERIZATIONS.build(config.parameterization),
            config.learned_variance,
        ),
        config.shape,
        codec,
        conditioning,
        Defaults(**config.defaults),
        Card(**config.card),
    )
    model.source = str(source)
    return model


def _own(source: str | Path) -> Path | None:
    """The folder of a model that fromnoise wrote; None for others."""
    path = Path(source)
    if not path.exists() and isinstance(source, str) and builtin.is_builtin(source):
        return builtin.folder() / source
    if (path / _NAME).is_file():
        return path
    return latest_model(path) if (path / "checkpoints").is_dir() else None


def _vocabularies(module: nn.Module, prefix: str, path: Path) -> None:
    """Read the buffers that hold bytes: without them no prompt can be."""
    kept = [name for name, value in module.named_buffers() if value.dtype == torch.uint8]
    there = read_header(path).shapes
    with safe_open(path, "pt") as file:
        for name in kept:
            if prefix + name in there:
                owner, _, last = name.rpartition(".")
                setattr(module.get_submodule(owner), last, file.get_tensor(prefix + name))
