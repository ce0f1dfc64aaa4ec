"""Ask for models: converted, listed, described, fetched, removed."""

from typing import Literal

from pydantic import Field

from fromnoise.app.requests.fields import argument, json_value
from fromnoise.core.config import Settings

Format = Literal[
    "fromnoise", "network", "diffusers", "single-file", "onnx", "torch-export",
    "guided-diffusion", "score-sde", "dit", "safetensors",
]  # fmt: skip


class ConvertRequest(Settings):
    """Turn a model, or weights of another program, into another format.

    Nothing is written when a name has no place, and each such name is shown. A pickle (.pt, .pth,
    .ckpt, .bin) is only ever read with --from-pickle, in a process of its own.
    """

    source: str = argument(
        ..., "A run, a model or diffusers folder, a file of weights, or a hub name."
    )
    out: str = argument(..., "File or folder to write.")
    to: Format | None = Field(
        None,
        description="Format to write; by default safetensors for OUT.safetensors, else fromnoise.",
    )
    half: bool = Field(
        False, description="Round the weights of a model folder to bfloat16: half the size."
    )
    from_pickle: bool = Field(
        False, description="SOURCE is a PyTorch pickle; read it as data, nothing in it is run."
    )
    weights: Literal["auto", "ema", "model"] = Field(
        "auto", description="Which weights of a checkpoint: averaged where it has them, or a kind."
    )
    preset: str | None = Field(
        None, description="Published model the weights are of, e.g. adm-64; else by their shapes."
    )
    flags: str | None = Field(
        None, description="Command line a model of guided-diffusion was trained with: --flags='…'."
    )
    report: str | None = Field(None, description="Also write what was found to this JSON file.")


class ModelsListRequest(Settings):
    """List the models at hand: those that come with the package, the runs, the hub's cache."""

    as_json: bool = json_value("Say it as JSON.")


class ModelsInfoRequest(Settings):
    """Say what a model at hand is: files, hashes, licence, and what a run of it will need."""

    model: str = argument(..., "A model at hand: by its name, or its folder.")
    width: int | None = Field(None, ge=1, description="Width of the pictures of that run.")
    height: int | None = Field(None, ge=1, description="Height of the pictures of that run.")
    batch_size: int = Field(1, ge=1, le=1024, description="Batch of that run.")
    exact: bool = Field(False, description="That run is in float32 throughout.")
    quick: bool = Field(
        False, description="Do not take a step of the network, which says how long a run takes."
    )
    as_json: bool = json_value("Say it as JSON.")


class ModelsPullRequest(Settings):
    """Fetch a model of the hub into the cache, whole, at one commit; only safetensors and texts.

    A pull that was cut short goes on. A branch that has moved since stays where it was pulled.
    """

    model: str = argument(..., "owner/name, or owner/name@revision.")
    variant: str | None = Field(None, description="Kind of weights in place of the plain, as fp16.")
    file: list[str] = Field([], description="Fetch this file only; once for each.")
    update: bool = Field(False, description="Take the commit that the branch has moved to.")


class ModelsRemoveRequest(Settings):
    """Remove a whole model from the hub's cache, with all of its revisions."""

    model: str = argument(..., "owner/name, as `fromnoise models list` shows it.")
