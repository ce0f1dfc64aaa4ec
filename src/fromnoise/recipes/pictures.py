"""Recipes on small pictures: photographs, letters and emoji, minutes to train on two cores."""

from string import ascii_uppercase
from typing import Any

from fromnoise.recipes.base import Config, Recipe, SamplingSettings, recipe
from fromnoise.training.settings import ObjectiveSettings, TrainSettings

_COSINE: Config = {"kind": "gaussian", "schedule": {"kind": "cosine"}}
_LETTERS = ascii_uppercase
_GLYPHS: Config = {"kind": "glyphs", "size": 16, "characters": _LETTERS, "variants": 20}


def net(channels: int = 64, blocks: int = 2, **changes: Any) -> Config:
    """The U-Net of these recipes: 2×2 pixels folded into channels, 16×16 and 8×8, attention there.

    Folding quarters the work; at 32×32 the finest details are edges, which a fold keeps.
    """
    return {
        "kind": "unet",
        "in_channels": 3,
        "channels": channels,
        "multipliers": [1, 2],
        "blocks": blocks,
        "attention": {"at": [2], "heads": 4},
        "style": {"groups": 8, "patch": 2},
        **changes,
    }


def _train(steps: int, **changes: Any) -> TrainSettings:
    settings = {"batch_size": 64, "learning_rate": 1e-3, **changes}
    return TrainSettings(
        steps=steps, validate_every=200, checkpoint_every=250, sample_every=500, **settings
    )


@recipe
def photos_ddpm() -> Recipe:
    return Recipe(
        name="photos-ddpm",
        summary="Crops of 13 photographs by DDPM: linear schedule, ε-prediction, simple loss.",
        paper="Ho, Jain & Abbeel 2020",
        data={"kind": "photos", "size": 32},
        net=net(),
        process={"kind": "gaussian", "schedule": {"kind": "linear"}},
        parameterization={"kind": "eps"},
        objective=ObjectiveSettings(time_sampling="index"),
        train=_train(1000, precision="bfloat16"),
        # As published, every belief is clipped: else colours run away from what is barely learned.
        sampling=SamplingSettings(sampler="ddpm", grid="trailing", steps=250, clip=1.0),
    )


@recipe
def glyphs_dit() -> Recipe:
    return Recipe(
        name="glyphs-dit",
        summary="Letters in many fonts by a diffusion transformer, asked for by class.",
        paper="Peebles & Xie 2023; Ho & Salimans 2022 (guidance without a classifier)",
        data=_GLYPHS,
        net={
            "kind": "dit",
            "in_channels": 1,
            "size": 16,
            "patch": 2,
            "width": 128,
            "depth": 4,
            "heads": 4,
            "accepts": {"vector": {"label": len(_LETTERS)}},
        },
        process=_COSINE,
        parameterization={"kind": "v"},
        encoders={"label": {"kind": "label", "classes": len(_LETTERS)}},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling="low_discrepancy"),
        train=_train(2000),
        sampling=SamplingSettings(grid="uniform", steps=25),
    )


def _iddpm(name: str, schedule: Config, summary: str) -> Recipe:
    return Recipe(
        name=name,
        summary=summary,
        paper="Nichol & Dhariwal 2021",
        data=_GLYPHS,
        net=net(32, 1, in_channels=1, out_channels=2, style={"groups": 8}, time="adm"),
        process={"kind": "gaussian", "schedule": schedule},
        parameterization={"kind": "eps", "clock_scale": 4000.0},
        learned_variance=True,
        objective=ObjectiveSettings(time_sampling="index"),
        train=_train(1200, learning_rate=2e-3),
        sampling=SamplingSettings(sampler="ddpm", grid="trailing", steps=100, clip=1.0),
    )


@recipe
def glyphs_iddpm() -> Recipe:
    return _iddpm(
        "glyphs-iddpm",
        {"kind": "cosine", "steps": 4000},
        "Letters by improved DDPM: cosine schedule of 4,000 steps, learned variance, hybrid loss.",
    )


@recipe
def glyphs_iddpm_linear() -> Recipe:
    return _iddpm(
        "glyphs-iddpm-linear",
        {"kind": "linear", "steps": 4000, "beta_start": 2.5e-5, "beta_end": 5e-3},
        "The same on the linear schedule, to compare likelihood and samples with the cosine one.",
    )


@recipe
def emoji() -> Recipe:
    return Recipe(
        name="emoji",
        summary="Colour emoji from an installed font, told nothing: v-prediction, cosine schedule.",
        paper="Nichol & Dhariwal 2021 (cosine schedule); Salimans & Ho 2022 (v-prediction)",
        data={"kind": "emoji", "size": 32},
        held_out=0.1,
        net=net(48, 1),
        process=_COSINE,
        parameterization={"kind": "v"},
        objective=ObjectiveSettings(time_sampling="low_discrepancy"),
        train=_train(1500, precision="bfloat16"),
        sampling=SamplingSettings(grid="uniform", steps=25),
    )
