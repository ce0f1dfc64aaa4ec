"""All that a sampler outside fromnoise needs to know of a model, as one JSON value."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fromnoise import grids
from fromnoise.core.errors import UsageError
from fromnoise.core.files import write_text
from fromnoise.encoders import Label
from fromnoise.model import Model
from fromnoise.nets.base import SELF

FORMAT = 1
STEPS = (5, 10, 15, 20, 25, 30, 40, 50, 100, 250)
"""Numbers of steps for which every grid is written out, besides the model's own."""

COLUMNS = ("t", "alpha", "sigma", "told", "inside", "skip", "out")
"""x_t = alpha·x0 + sigma·ε, and the network is read as x0 = skip·x + out·F(inside·x, told)."""

Row = list[float | None]


def sampling_table(model: Model, steps: Sequence[int] = STEPS) -> dict[str, Any]:
    """What `schedule.json` holds: the model's inputs, labels, defaults, noise levels and grids.

    `table` holds a row at each knot of a discrete schedule, at 1000 even times of a continuous
    one; `grids[name][steps]` the rows of a grid, the last one being its end, where no network is
    asked. All numbers are those that `model.sample` computes with, in float64.
    Raises UsageError for a model that draws nothing, a process without noise, one with a noise
    level for each frequency, and inputs other than labels.
    """
    model.check_draws()
    denoiser, shape = model.denoiser, list(model.shape)
    _check(model)
    counts = sorted({*steps, model.defaults.steps})
    return {
        "format": FORMAT,
        "name": model.card.name,
        "shape": shape,
        "latent_shape": list(model.codec.latent_shape(model.shape)),
        "levels": model.card.levels,
        "classes": model.card.classes,
        "labels": _labels(model),
        "self_conditioning": SELF in denoiser.net.accepts.channels,
        "learned_variance": denoiser.learned_variance,
        "defaults": asdict(model.defaults),
        "process": getattr(denoiser.process, "config", None),
        "parameterization": getattr(denoiser.parameterization, "config", None),
        "columns": list(COLUMNS),
        "table": rows(model, _dense(model)),
        "grids": _grids(model, counts),
    }


def write_schedule(path: Path, table: dict[str, Any]) -> None:
    """Write what `sampling_table` gives as JSON, without a line for each of its many numbers."""
    write_text(path, json.dumps(table, ensure_ascii=False, allow_nan=False))


def rows(model: Model, times: Tensor) -> list[Row]:
    """The columns at times (N,); None where a coefficient is not finite."""
    denoiser = model.denoiser
    with torch.no_grad():
        scales = denoiser.process.reference(times)
        coefficients = denoiser.parameterization.coefficients(scales)
        told = denoiser.parameterization.time(times, scales)
        skip, out, inside = coefficients
        stacked = torch.stack([times, *scales, told, inside, skip, out], dim=1)
    return [[v if abs(v) < float("inf") else None for v in row] for row in stacked.tolist()]


def _check(model: Model) -> None:
    process = model.denoiser.process
    if not process.noisy:
        raise UsageError(
            "cold diffusion has no noise, so there is no schedule to export and no sampler for it "
            "outside fromnoise; export a model with Gaussian noise"
        )
    if not isinstance(process.levels(0.5)[0], float):
        raise UsageError(
            "this process has a noise level for each frequency, and an exported schedule one for "
            "each time; export a model with Gaussian noise"
        )
    for name, encoder in model.conditioning.encoders.items():
        if not isinstance(encoder, Label):
            raise UsageError(
                f"the model is told a {name} by a {type(encoder).__name__}; only labels are "
                "exported"
            )


def _labels(model: Model) -> dict[str, Any]:
    """Of each label its class names and what the network is told of none."""
    null = model.conditioning.null(1).vector if model.conditioning.names else {}
    return {
        name: {"names": list(encoder.names), "null": null[name][0].tolist()}
        for name, encoder in model.conditioning.encoders.items()
        if isinstance(encoder, Label)
    }


def _dense(model: Model) -> Tensor:
    count = model.denoiser.process.schedule.steps or 1000
    return torch.arange(1, count + 1, dtype=torch.float64) / count


def _grids(model: Model, counts: Sequence[int]) -> dict[str, dict[str, list[Row]]]:
    """Every grid at every number of steps that this model can be asked at all along."""
    clock = model.denoiser.process.clock
    made: dict[str, dict[str, list[Row]]] = {}
    for name, grid in grids.GRIDS.items():
        for count in counts:
            found = rows(model, grid(clock, count))
            if all(None not in row for row in found[:-1]):
                made.setdefault(name, {})[str(count)] = found
    return made
