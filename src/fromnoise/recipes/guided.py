"""Recipes for guidance on the digits: a classifier of noisy digits, and what it guides."""

from fromnoise.recipes.base import Config, Recipe, SamplingSettings, recipe
from fromnoise.recipes.digits import net, on_digits
from fromnoise.training.settings import ClassifierSettings, ObjectiveSettings, TrainSettings

_COSINE: Config = {"kind": "gaussian", "schedule": {"kind": "cosine"}}


@recipe
def digits_classifier() -> Recipe:
    return on_digits(
        "digits-classifier",
        "A classifier of noisy digits, told how noisy: it guides other models and draws nothing.",
        "Dhariwal & Nichol 2021 (section 4)",
        # Moved and stretched a little: 1,437 scans are few, and a digit stays what it is.
        augment=[{"kind": "geometric", "probability": 0.3, "turn": 0.1}],
        net={
            "kind": "classifier",
            "in_channels": 1,
            "classes": 10,
            "size": 8,
            "channels": 32,
            "multipliers": [1, 2],
            "blocks": 1,
            "attention": {"at": [2], "heads": 4},
            "style": {"groups": 8, "scale_shift": True, "dropout": 0.1},
        },
        encoders={},
        process=_COSINE,
        parameterization={"kind": "eps"},
        objective=ClassifierSettings(),
        train=TrainSettings(
            steps=1500, batch_size=128, learning_rate=1e-3, weight_decay=0.05, validate_every=100
        ),
    )


@recipe
def digits_classifier_guidance() -> Recipe:
    return on_digits(
        "digits-classifier-guidance",
        "Digits told nothing; a classifier (recipe digits-classifier) steers them to a class.",
        "Dhariwal & Nichol 2021 (section 4, algorithm 2)",
        net=net(accepts={}),
        encoders={},
        process=_COSINE,
        parameterization={"kind": "v"},
        objective=ObjectiveSettings(time_sampling="low_discrepancy"),
        sampling=SamplingSettings(grid="uniform"),
    )


@recipe
def digits_mix() -> Recipe:
    return on_digits(
        "digits-mix",
        "Digits told weights of two classes as chances: half 3, half 8 is rather one of them.",
        "Ho & Salimans 2022 (guidance without a classifier); labels as chances: here",
        data={"kind": "mixed_labels", "whole": {"kind": "digits"}, "share": 0.5},
        process=_COSINE,
        parameterization={"kind": "v"},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling="low_discrepancy"),
        sampling=SamplingSettings(grid="uniform"),
    )
