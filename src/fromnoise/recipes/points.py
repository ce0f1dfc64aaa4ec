"""Recipes on points in the plane: seconds to train, and the whole distribution can be seen."""

from typing import Any

from fromnoise.recipes.base import Config, Recipe, SamplingSettings, recipe
from fromnoise.training.settings import ObjectiveSettings, TrainSettings


def _points(name: str, shape: str, summary: str, paper: str, **choices: Any) -> Recipe:
    settings: Config = {
        "data": {"kind": "points", "shape": shape, "count": 20_000},
        "net": {"kind": "mlp", "in_channels": 2, "width": 128, "depth": 3},
        "objective": ObjectiveSettings(time_sampling="low_discrepancy"),
        "train": TrainSettings(steps=3000, batch_size=512, learning_rate=2e-3),
        **choices,
    }
    return Recipe(name=name, summary=summary, paper=paper, **settings)


@recipe
def points_ddpm() -> Recipe:
    return _points(
        "points-ddpm",
        "moons",
        "Two moons by DDPM: ε-prediction, linear schedule.",
        "Ho, Jain & Abbeel 2020",
        process={"kind": "gaussian", "schedule": {"kind": "linear"}},
        parameterization={"kind": "eps"},
        sampling=SamplingSettings(sampler="ddpm", grid="trailing", steps=200),
    )


@recipe
def points_flow() -> Recipe:
    return _points(
        "points-flow",
        "checkerboard",
        "A checkerboard by rectified flow.",
        "Liu et al. 2023",
        process={"kind": "gaussian", "schedule": {"kind": "flow"}},
        parameterization={"kind": "flow"},
        sampling=SamplingSettings(sampler="heun", grid="uniform", steps=40),
    )


@recipe
def points_edm() -> Recipe:
    return _points(
        "points-edm",
        "spiral",
        "A spiral by EDM.",
        "Karras et al. 2022",
        process={"kind": "gaussian", "schedule": {"kind": "edm"}},
        parameterization={"kind": "edm", "sigma_data": 0.5},
        objective=ObjectiveSettings(time_sampling="log_normal"),
        sampling=SamplingSettings(sampler="heun", grid="karras", steps=18),
    )
