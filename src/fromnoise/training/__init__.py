"""Training: one loop, objectives, weightings, checkpoints and run folders.

Names are found when they are first used: settings and run folders can be read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fromnoise.training.checkpoint import latest, latest_model
    from fromnoise.training.comparison import compare, read_runs
    from fromnoise.training.denoising import Denoising
    from fromnoise.training.draws import Draws
    from fromnoise.training.ema import EMA
    from fromnoise.training.loop import Event, train
    from fromnoise.training.objective import Objective, Phase
    from fromnoise.training.optimizers import OPTIMIZERS, Optimization
    from fromnoise.training.runner import Run, Stopped, Task
    from fromnoise.training.settings import ObjectiveSettings, TrainSettings
    from fromnoise.training.time_sampling import TIME_SAMPLINGS, TimeSampling
    from fromnoise.training.weightings import WEIGHTINGS, Level, Weighting

_HOME = {
    "EMA": "ema",
    "OPTIMIZERS": "optimizers",
    "TIME_SAMPLINGS": "time_sampling",
    "WEIGHTINGS": "weightings",
    "Denoising": "denoising",
    "Draws": "draws",
    "Event": "loop",
    "Level": "weightings",
    "Objective": "objective",
    "ObjectiveSettings": "settings",
    "Optimization": "optimizers",
    "Phase": "objective",
    "Run": "runner",
    "Stopped": "runner",
    "Task": "runner",
    "TimeSampling": "time_sampling",
    "TrainSettings": "settings",
    "Weighting": "weightings",
    "compare": "comparison",
    "latest": "checkpoint",
    "latest_model": "checkpoint",
    "read_runs": "comparison",
    "train": "loop",
}

__all__ = [
    "EMA",
    "OPTIMIZERS",
    "TIME_SAMPLINGS",
    "WEIGHTINGS",
    "Denoising",
    "Draws",
    "Event",
    "Level",
    "Objective",
    "ObjectiveSettings",
    "Optimization",
    "Phase",
    "Run",
    "Stopped",
    "Task",
    "TimeSampling",
    "TrainSettings",
    "Weighting",
    "compare",
    "latest",
    "latest_model",
    "read_runs",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"fromnoise.training.{_HOME[name]}"), name)
    raise AttributeError(f"module 'fromnoise.training' has no attribute {name!r}")
