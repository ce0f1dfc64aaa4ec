"""Fine-tuning: digits from fonts first, then a short while on a few scanned ones."""

from typing import Any

from fromnoise.recipes.base import Config, Recipe, SamplingSettings, recipe
from fromnoise.recipes.digits import on_digits
from fromnoise.training.settings import ObjectiveSettings, TrainSettings

BASE = "font-digits"
"""The recipe whose run the fine-tuning starts from."""


def _small(name: str, summary: str, paper: str, **choices: Any) -> Recipe:
    settings: Config = {
        "process": {"kind": "gaussian", "schedule": {"kind": "cosine"}},
        "parameterization": {"kind": "v"},
        "objective": ObjectiveSettings(condition_dropout=0.1, time_sampling="low_discrepancy"),
        "sampling": SamplingSettings(grid="uniform"),
        **choices,
    }
    return on_digits(name, summary, paper, **settings)


@recipe
def font_digits() -> Recipe:
    return _small(
        BASE,
        "Digits drawn from fonts at 8×8, to fine-tune from: the data cost nothing.",
        "Nichol & Dhariwal 2021 (cosine schedule); Salimans & Ho 2022 (v-prediction)",
        data={
            "kind": "glyphs",
            "size": 8,
            "characters": "0123456789",
            "variants": 20,
            "ink": "white",
        },
        train=TrainSettings(steps=1000, batch_size=128, learning_rate=2e-3, sample_every=250),
    )


@recipe
def finetune() -> Recipe:
    return _small(
        "finetune",
        "From digits in fonts to 180 scanned ones in 200 steps; its base is runs/font-digits.",
        "The base: Nichol & Dhariwal 2021; Salimans & Ho 2022",
        base=f"runs/{BASE}",
        data={"kind": "digits"},
        held_out=0.9,
        train=TrainSettings(
            steps=200, batch_size=128, learning_rate=5e-4, warmup=20, ema=0.99, sample_every=100
        ),
    )
