"""Image-text models of drawn scenes, and diffusion over the vectors they make of pictures."""

from typing import Any

from fromnoise.recipes.base import Config, Recipe, SamplingSettings, recipe
from fromnoise.recipes.text import PLACED
from fromnoise.training.settings import ContrastiveSettings, ObjectiveSettings, TrainSettings

WIDTH = 64
"""Numbers of a direction, which a picture and a text have in common."""

VECTORS = "runs/shapes-clip/embeddings.safetensors"
"""What `fromnoise data embed runs/shapes-clip` writes."""

_WORDS = 96
_COSINE: Config = {"kind": "gaussian", "schedule": {"kind": "cosine"}}


def tower(size: int) -> Config:
    """The network of the pictures: 4×4 pixels folded, two levels, a pool by attention."""
    return {
        "kind": "classifier",
        "in_channels": 3,
        "classes": WIDTH,
        "size": size,
        "channels": 48,
        "multipliers": [1, 2],
        "blocks": 1,
        "attention": {"at": [2], "heads": 4},
        "style": {"groups": 8, "patch": 4, "scale_shift": True},
    }


def _text(width: int) -> Config:
    return {
        "kind": "text",
        "vocabulary": 400,
        "length": 24,
        "width": width,
        "depth": 2,
        "heads": 4,
        "pooled": True,
    }


def _on_shapes(name: str, summary: str, paper: str, noisy: bool, **train: Any) -> Recipe:
    settings: Config = {
        "batch_size": 128,
        "learning_rate": 1e-3,
        "weight_decay": 0.05,
        "precision": "bfloat16",
        "validate_every": 250,
        "validation_samples": 512,
        "checkpoint_every": 250,
        **train,
    }
    return Recipe(
        name=name,
        summary=summary,
        paper=paper,
        data={"kind": "shapes", "size": 32, "count": 50_000},
        held_out=0.02,
        net={"kind": "image_text", "tower": tower(32), "words": _WORDS, "noisy": noisy},
        process=_COSINE,
        parameterization={"kind": "eps"},
        encoders={"prompt": _text(_WORDS)},
        objective=ContrastiveSettings(),
        train=TrainSettings(**settings),
    )


@recipe
def shapes_clip() -> Recipe:
    return _on_shapes(
        "shapes-clip",
        "Drawn scenes and captions as directions of one space: it compares and draws nothing.",
        "Radford et al. 2021 (CLIP)",
        noisy=False,
        steps=1000,
    )


@recipe
def shapes_clip_noisy() -> Recipe:
    return _on_shapes(
        "shapes-clip-noisy",
        "The same of noisy scenes, told how noisy: it guides other models to a text.",
        "Radford et al. 2021 (CLIP); Nichol et al. 2021 (GLIDE, section 2.4)",
        noisy=True,
        steps=900,
        optimizer="muon",
        learning_rate=2e-3,
    )


@recipe
def shapes_prior() -> Recipe:
    return Recipe(
        name="shapes-prior",
        summary="Text to the direction of a picture: diffusion over what shapes-clip makes of it.",
        paper="Ramesh et al. 2022 (unCLIP, section 2.2)",
        data={"kind": "embedded", "path": VECTORS},
        held_out=0.02,
        net={
            "kind": "vector_transformer",
            "in_channels": WIDTH,
            "width": 128,
            "depth": 3,
            "heads": 4,
            "accepts": {"tokens": 128, "vector": {"prompt": 128}},
        },
        process=_COSINE,
        # As published: the clean vector is what the network finds.
        parameterization={"kind": "x0"},
        encoders={"prompt": _text(128)},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling="low_discrepancy"),
        train=TrainSettings(
            steps=1500,
            batch_size=128,
            learning_rate=1e-3,
            precision="bfloat16",
            validate_every=250,
            checkpoint_every=250,
        ),
        sampling=SamplingSettings(grid="uniform", steps=25, guidance=1.0),
    )


@recipe
def shapes_decoder() -> Recipe:
    return Recipe(
        name="shapes-decoder",
        summary="Drawn scenes from the directions that shapes-clip or shapes-prior give them.",
        paper="Ramesh et al. 2022 (unCLIP, section 2.1); Salimans & Ho 2022 (v-prediction)",
        data={"kind": "embedded", "path": VECTORS, "part": "pictures"},
        held_out=0.02,
        net={
            "kind": "unet",
            "in_channels": 3,
            "channels": 64,
            "multipliers": [1, 1.5, 2],
            "blocks": 1,
            "attention": {"at": [4], "heads": 4},
            "style": PLACED,
            "accepts": {"vector": {"embedding": WIDTH}},
        },
        process=_COSINE,
        parameterization={"kind": "v"},
        encoders={"embedding": {"kind": "vector", "width": WIDTH}},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling="low_discrepancy"),
        train=TrainSettings(
            steps=1200,
            batch_size=64,
            optimizer="muon",
            learning_rate=2e-3,
            warmup=200,
            precision="bfloat16",
            validate_every=250,
            checkpoint_every=250,
        ),
        sampling=SamplingSettings(grid="uniform", steps=25, guidance=2.0),
    )
