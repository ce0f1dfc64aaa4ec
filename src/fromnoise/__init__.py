"""fromnoise: the whole life of a diffusion model on your own machine.

`fn.load` opens a model, `model.sample` draws from it; below that every piece can be used by
itself: `fn.schedules`, `fn.grids`, `fn.samplers`, `fn.denoisers`, `fn.nets`, `fn.guidance`, …
Rooms are imported when they are first used, so that importing fromnoise costs nothing.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fromnoise import (
        codecs,
        data,
        denoisers,
        encoders,
        evaluate,
        explain,
        grids,
        guidance,
        interop,
        nets,
        operators,
        parameterizations,
        processes,
        recipes,
        samplers,
        schedules,
        training,
    )
    from fromnoise.core.errors import FromNoiseError
    from fromnoise.interop.loading import load
    from fromnoise.layers.condition import Condition
    from fromnoise.model import Hires, Model
    from fromnoise.samplers import Step, sample

__version__ = "0.1.0"

# huggingface_hub reads it when it is first imported; nobody is told what is done here.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

_NAMES = {
    "Condition": "fromnoise.layers.condition",
    "FromNoiseError": "fromnoise.core.errors",
    "Hires": "fromnoise.model",
    "Model": "fromnoise.model",
    "Step": "fromnoise.samplers",
    "load": "fromnoise.interop.loading",
    "sample": "fromnoise.samplers",
}

__all__ = [
    "Condition",
    "FromNoiseError",
    "Hires",
    "Model",
    "Step",
    "codecs",
    "data",
    "denoisers",
    "encoders",
    "evaluate",
    "explain",
    "grids",
    "guidance",
    "interop",
    "load",
    "nets",
    "operators",
    "parameterizations",
    "processes",
    "recipes",
    "sample",
    "samplers",
    "schedules",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    if name in __all__:
        return import_module(f"fromnoise.{name}")
    raise AttributeError(f"module 'fromnoise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
