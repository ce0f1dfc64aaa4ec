"""A model on disk: model.json says what it is, model.safetensors holds its weights."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.codecs import CODECS
from fromnoise.core.config import Settings, validated
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import (
    atomic_folder,
    load_tensors,
    read_json,
    save_tensors,
    verify_folder,
    write_json,
)
from fromnoise.core.tensors import fingerprint
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.model.model import Card, Defaults, Model
from fromnoise.nets import NETS
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.processes import PROCESSES

FORMAT = 1


class ModelConfig(Settings):
    """What model.json holds: every part by kind and plain arguments."""

    format: int
    net: dict[str, Any]
    process: dict[str, Any]
    parameterization: dict[str, Any]
    learned_variance: bool = False
    codec: dict[str, Any]
    encoders: dict[str, dict[str, Any]]
    shape: list[int]
    defaults: dict[str, Any]
    card: dict[str, Any]


def describe(model: Model) -> ModelConfig:
    """The configuration of a model. UsageError for a part that no table made."""
    denoiser = model.denoiser
    for part in (denoiser.net, denoiser.process, denoiser.parameterization, model.codec):
        if not isinstance(getattr(part, "config", None), dict):
            raise UsageError(
                f"a {type(part).__name__} made by hand cannot be saved; register it in its table"
            )
    return ModelConfig(
        format=FORMAT,
        net=denoiser.net.config,
        process=denoiser.process.config,
        parameterization=denoiser.parameterization.config,  # type: ignore[attr-defined]
        learned_variance=denoiser.learned_variance,
        codec=model.codec.config,
        encoders=model.conditioning.config,
        shape=list(model.shape),
        defaults=asdict(model.defaults),
        card=asdict(model.card),
    )


def modules(model: Model) -> nn.ModuleDict:
    """Everything with weights, by the prefix it has in model.safetensors."""
    return nn.ModuleDict(
        {
            "net": model.denoiser.net,
            "process": model.denoiser.process,
            "codec": model.codec,
            "encoders": model.conditioning,
        }
    )


def build(config: ModelConfig) -> Model:
    """The model a configuration describes, its weights as freshly initialised."""
    denoiser = NetworkDenoiser(
        NETS.build(config.net),
        PROCESSES.build(config.process),
        PARAMETERIZATIONS.build(config.parameterization),
        config.learned_variance,
    )
    return Model(
        denoiser,
        config.shape,
        CODECS.build(config.codec),
        Conditioning.build(config.encoders),
        Defaults(**config.defaults),
        Card(**config.card),
    )


def save_model(model: Model, path: Path, dtype: torch.dtype | None = None) -> None:
    """Write a model folder atomically, a manifest of hashes with it; `dtype` as `write_model`."""
    with atomic_folder(path) as folder:
        write_model(model, folder, dtype)


def write_model(model: Model, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write model.json and model.safetensors into a folder that is there already.

    dtype: what float32 weights are rounded to, bfloat16 for half the size; read back they are
    float32 again. The process keeps its own: schedules are exact.
    """
    weights = dict(modules(model).state_dict())
    if dtype is not None:
        weights = {name: _rounded(name, value, dtype) for name, value in weights.items()}
    write_json(folder / "model.json", describe(model).model_dump())
    save_tensors(folder / "model.safetensors", weights, {})


def _rounded(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    exact = value.dtype != torch.float32 or name.startswith("process.")
    return value if exact else value.to(dtype)


def load_model(path: Path) -> Model:
    """Read a model folder. FileError for anything missing, corrupt, or of another format."""
    if (path / "MANIFEST.json").exists():
        verify_folder(path)
    raw = read_json(path / "model.json")
    version = raw.get("format")
    if version != FORMAT:
        raise FileError(
            f"{path / 'model.json'} has format {version!r}; this version reads {FORMAT}"
        )
    model = build(validated(ModelConfig, raw, str(path / "model.json")))
    weights = path / "model.safetensors"
    tensors, _ = load_tensors(weights)
    fill(modules(model), tensors, weights)
    model.source = str(path)
    model.fingerprint = fingerprint(tensors)
    model.denoiser.net.eval()
    return model


def fill(parts: nn.Module, tensors: dict[str, Tensor], path: Path, assign: bool = False) -> None:
    """Copy tensors into modules. FileError names the first that is missing, extra or misshapen.

    assign: take the tensors themselves, as modules on the meta device must.
    """
    wanted = parts.state_dict()
    for name in (*wanted, *tensors):
        if name not in tensors or name not in wanted:
            state = "missing" if name not in tensors else "not part of this model"
            raise FileError(f"{path}: tensor {name!r} is {state}")
    for name, value in tensors.items():
        target = wanted[name]
        # A prior that was fitted has a size that a fresh process does not know yet.
        if target.shape != value.shape and target.numel():
            raise FileError(
                f"{path}: {name!r} has shape {tuple(value.shape)}, expected {tuple(target.shape)}"
            )
    parts.load_state_dict(tensors, assign=assign)
