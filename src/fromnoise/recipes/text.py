"""Text to pictures at 32×32, hours on two cores at most: drawn scenes, and colour emoji."""

from typing import Any

from fromnoise.recipes.base import Config, Recipe, SamplingSettings, recipe
from fromnoise.training.settings import ObjectiveSettings, TrainSettings

_COSINE: Config = {"kind": "gaussian", "schedule": {"kind": "cosine"}}
_WIDTH = 128

UNSEEN = ("red star", "green circle", "blue triangle", "purple square")
"""Pairs of colour and kind that `shapes-text` is never shown."""


PLACED: Config = {"groups": 8, "patch": 2, "scale_shift": True, "coordinates": True}
"""A style in which what is told scales and shifts, and every pixel knows its place."""


def net(multipliers: list[float], style: Config) -> Config:
    """The U-Net of these recipes: 2×2 pixels folded, 16×16 to 4×4, words attended to below 16×16.

    It is told the mean of the words as well, with the time.
    """
    return {
        "kind": "unet",
        "in_channels": 3,
        "channels": 64,
        "multipliers": multipliers,
        "blocks": 1,
        "attention": {"at": [2, 4], "heads": 4},
        "style": style,
        "accepts": {"tokens": _WIDTH, "vector": {"prompt": _WIDTH}},
    }


def _text(vocabulary: int, length: int, depth: int) -> Config:
    return {
        "kind": "text",
        "vocabulary": vocabulary,
        "length": length,
        "width": _WIDTH,
        "depth": depth,
        "heads": 4,
        "pooled": True,
    }


def _train(steps: int, rate: float, optimizer: str = "adamw") -> TrainSettings:
    return TrainSettings(
        steps=steps,
        optimizer=optimizer,
        batch_size=64,
        learning_rate=rate,
        warmup=200,
        precision="bfloat16",
        validate_every=250,
        checkpoint_every=250,
        sample_every=500,
    )


@recipe
def emoji_text() -> Recipe:
    return Recipe(
        name="emoji-text",
        summary="Emoji from their names, and in colours they do not have; words cross-attended.",
        paper="Ramesh et al. 2021 (text to pictures); Rombach et al. 2022 (cross-attention); "
        "Ho & Salimans 2022 (guidance without a classifier); Salimans & Ho 2022 (v-prediction)",
        data={"kind": "emoji", "size": 32, "dyed": True},
        # Of a dyed sign what is held out is a pair of words that training never shows.
        held_out=0.05,
        net=net([1, 1.5, 2.25], {"groups": 8, "patch": 2}),
        process=_COSINE,
        parameterization={"kind": "v"},
        encoders={"prompt": _text(1500, 20, 2)},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling="low_discrepancy"),
        train=_train(7000, 1e-3),
        sampling=SamplingSettings(grid="uniform", steps=25, guidance=2.5),
    )


def _scenes(name: str, summary: str, time_sampling: Config | str, **choices: Any) -> Recipe:
    return Recipe(
        name=name,
        summary=summary,
        data={"kind": "shapes", "size": 32, "count": 50_000, "without": list(UNSEEN)},
        held_out=0.02,
        net=net([1, 1.5, 2], PLACED),
        process=_COSINE,
        parameterization={"kind": "v"},
        encoders={"prompt": _text(400, 24, 3)},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling=time_sampling),
        sampling=SamplingSettings(grid="uniform", steps=25, guidance=2.0),
        **choices,
    )


@recipe
def shapes_text() -> Recipe:
    return _scenes(
        "shapes-text",
        "Drawn scenes from captions: kinds, colours, sizes and counts.",
        "low_discrepancy",
        paper="Ramesh et al. 2021 (text to pictures); Rombach et al. 2022 (cross-attention); "
        "Ho & Salimans 2022 (guidance without a classifier); Salimans & Ho 2022 (v-prediction); "
        "Liu et al. 2018 (coordinates)",
        train=_train(3250, 2e-3, "muon"),
    )


@recipe
def shapes_text_places() -> Recipe:
    # Where things are is settled while nearly all is noise, and there even times seldom look.
    return _scenes(
        "shapes-text-places",
        "Goes on from shapes-text at high noise, where places and counts are settled.",
        {"kind": "logit_normal", "mean": 1.5, "std": 1.3},
        paper="Esser et al. 2024, section 3.1 (where training looks)",
        base="runs/shapes-text",
        train=_train(3000, 1.5e-3, "muon"),
    )
