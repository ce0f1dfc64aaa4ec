"""Diffusion over what a classifier makes of pictures, and pictures from that: on the digits."""

from fromnoise.recipes.base import Recipe, SamplingSettings, recipe
from fromnoise.recipes.digits import net, on_digits
from fromnoise.training.settings import ObjectiveSettings, TrainSettings

VECTORS = "runs/digits-classifier/embeddings.safetensors"
"""What `fromnoise data embed runs/digits-classifier` writes."""

_CLASSES = 10


@recipe
def digits_features() -> Recipe:
    return on_digits(
        "digits-features",
        "Class to the log-odds of a digit: diffusion over what digits-classifier makes of it.",
        "Ramesh et al. 2022 (unCLIP, section 2.2), with a classifier in place of CLIP",
        data={"kind": "embedded", "path": VECTORS},
        net={
            "kind": "vector_transformer",
            "in_channels": _CLASSES,
            "width": 64,
            "depth": 3,
            "heads": 4,
            "accepts": {"vector": {"label": _CLASSES}},
        },
        process={"kind": "gaussian", "schedule": {"kind": "cosine"}},
        parameterization={"kind": "x0"},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling="low_discrepancy"),
        train=TrainSettings(steps=1500, batch_size=128, learning_rate=1e-3),
        sampling=SamplingSettings(grid="uniform", steps=25, guidance=1.0),
    )


@recipe
def digits_from_features() -> Recipe:
    return on_digits(
        "digits-from-features",
        "Digits from the log-odds that digits-classifier or digits-features give them.",
        "Ramesh et al. 2022 (unCLIP, section 2.1); Salimans & Ho 2022 (v-prediction)",
        data={"kind": "embedded", "path": VECTORS, "part": "pictures"},
        net=net(accepts={"vector": {"embedding": _CLASSES}}),
        process={"kind": "gaussian", "schedule": {"kind": "cosine"}},
        parameterization={"kind": "v"},
        encoders={"embedding": {"kind": "vector", "width": _CLASSES}},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling="low_discrepancy"),
        sampling=SamplingSettings(grid="uniform", steps=25, guidance=1.0),
    )
