"""Recipes behind an autoencoder: photographs and drawn scenes as latents, and scenes as codes."""

from typing import Any

from fromnoise.recipes.autoencoders import photos_kl, shapes_kl, shapes_vq
from fromnoise.recipes.base import Config, Recipe, SamplingSettings, recipe
from fromnoise.recipes.pictures import net as unet
from fromnoise.recipes.text import UNSEEN
from fromnoise.training.settings import MaskedSettings, ObjectiveSettings, TrainSettings

_COSINE: Config = {"kind": "gaussian", "schedule": {"kind": "cosine"}}
_WIDTH = 128
_TOLD: Config = {"tokens": _WIDTH, "vector": {"prompt": _WIDTH}}
_PROMPT: Config = {
    "kind": "text",
    "vocabulary": 400,
    "length": 24,
    "width": _WIDTH,
    "depth": 3,
    "heads": 4,
    "pooled": True,
}
_SCENES: Config = {"kind": "shapes", "size": 32, "count": 50_000, "without": list(UNSEEN)}

DIT: Config = {
    "kind": "dit",
    "in_channels": 4,
    "size": 8,
    "patch": 1,
    "width": 128,
    "depth": 4,
    "heads": 4,
    "accepts": _TOLD,
}
UNET: Config = {
    "kind": "unet",
    "in_channels": 4,
    "channels": 48,
    "multipliers": [1, 2],
    "blocks": 2,
    "attention": {"at": [1, 2], "heads": 4},
    "style": {"groups": 8, "scale_shift": True},
    "accepts": _TOLD,
}
"""The two networks of 4×8×8 latents that are compared: as many operations in each step, in 5 %."""


def _train(steps: int, rate: float = 1e-3, optimizer: str = "adamw") -> TrainSettings:
    return TrainSettings(
        steps=steps,
        optimizer=optimizer,
        batch_size=64,
        learning_rate=rate,
        precision="bfloat16",
        validate_every=250,
        checkpoint_every=250,
        sample_every=500,
    )


def _photos(name: str, summary: str, net: Config, steps: int, **behind: Any) -> Recipe:
    return Recipe(
        name=name,
        summary=summary,
        paper="Rombach et al. 2022; Salimans & Ho 2022 (v-prediction)",
        data={"kind": "photos", "size": 64},
        held_out=0.1,
        net=net,
        process=_COSINE,
        parameterization={"kind": "v"},
        objective=ObjectiveSettings(time_sampling="low_discrepancy"),
        train=_train(steps),
        sampling=SamplingSettings(grid="uniform", steps=25),
        **behind,
    )


@recipe
def photos_ldm() -> Recipe:
    return _photos(
        "photos-ldm",
        "Photographs of 64×64 behind photos-kl: a U-Net on latents of 16×16.",
        unet(in_channels=4, style={"groups": 8}),
        2000,
        codec={**photos_kl().codec, "channels": 3},
        codec_from="runs/photos-kl",
    )


@recipe
def photos_pixels() -> Recipe:
    return _photos(
        "photos-pixels",
        "The same photographs without an autoencoder, pixels folded 2×2, to compare.",
        unet(),
        1000,
    )


def _scenes(name: str, summary: str, paper: str, net: Config) -> Recipe:
    return Recipe(
        name=name,
        summary=summary,
        paper=paper,
        data=_SCENES,
        held_out=0.02,
        codec={**shapes_kl().codec, "channels": 3},
        codec_from="runs/shapes-kl",
        net=net,
        process=_COSINE,
        parameterization={"kind": "v"},
        encoders={"prompt": _PROMPT},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling="low_discrepancy"),
        train=_train(3000, 2e-3, "muon"),
        sampling=SamplingSettings(grid="uniform", steps=25, guidance=3.0),
    )


@recipe
def shapes_latent_dit() -> Recipe:
    return _scenes(
        "shapes-latent-dit",
        "Drawn scenes from captions behind shapes-kl: a transformer on latents of 8×8.",
        "Peebles & Xie 2023; Chen et al. 2023, PixArt-α (cross-attention in it)",
        DIT,
    )


@recipe
def shapes_latent_unet() -> Recipe:
    return _scenes(
        "shapes-latent-unet",
        "The same with a U-Net of as many operations in each step, to compare.",
        "Rombach et al. 2022",
        UNET,
    )


@recipe
def shapes_vq_masked() -> Recipe:
    return Recipe(
        name="shapes-vq-masked",
        summary="Drawn scenes from captions as the 64 codes of shapes-vq, unmasked step by step.",
        paper="Chang et al. 2022 (MaskGIT); Austin et al. 2021 (D3PM); Sahoo et al. 2024 (MDLM)",
        data=_SCENES,
        held_out=0.02,
        codec={"kind": "tokens", "codec": {**shapes_vq().codec, "channels": 3}},
        codec_from="runs/shapes-vq",
        net={
            "kind": "token_transformer",
            "in_channels": 256,
            "size": 8,
            "width": 128,
            "depth": 4,
            "heads": 4,
            "accepts": _TOLD,
        },
        process={"kind": "absorbing", "mask": "cosine"},
        parameterization={"kind": "tokens"},
        encoders={"prompt": _PROMPT},
        objective=MaskedSettings(condition_dropout=0.1),
        train=_train(3000, 2e-3, "muon"),
        sampling=SamplingSettings(sampler="maskgit", grid="uniform", steps=12, guidance=3.0),
    )
