"""Autoencoders of small pictures, for models that are diffused behind them."""

from typing import Any

from fromnoise.recipes.base import Config, Recipe, recipe
from fromnoise.training.settings import AutoencoderSettings, TrainSettings


def autoencoder(name: str, summary: str, paper: str, channels: int = 3, **choices: Any) -> Recipe:
    """A recipe that trains its codec: it has no network, and no process of its own matters."""
    return Recipe(
        name=name,
        summary=summary,
        paper=paper,
        net={"kind": "nothing", "in_channels": channels},
        process={"kind": "gaussian", "schedule": {"kind": "linear"}},
        parameterization={"kind": "eps"},
        **choices,
    )


def _train(steps: int, **changes: Any) -> TrainSettings:
    settings: Config = {
        "batch_size": 8,
        "learning_rate": 1e-3,
        "precision": "bfloat16",
        "optimizer": {"kind": "adamw", "beta1": 0.5, "beta2": 0.9},
        "validate_every": 250,
        "validation_samples": 64,
        "checkpoint_every": 250,
        "sample_every": 250,
        **changes,
    }
    return TrainSettings(steps=steps, **settings)


def _against(weight: float, start: int, latent: float = 1e-3) -> AutoencoderSettings:
    """The terms of a small autoencoder: a patch GAN of this weight from step `start` on."""
    return AutoencoderSettings(
        latent_weight=latent,
        perceptual_weight=0.05,
        perceptual_start=300,
        discriminator={"kind": "patch_discriminator", "channels": 32, "layers": 2},
        adversarial_weight=weight,
        adversarial_start=start,
    )


_SMALL_KL: Config = {
    "kind": "kl",
    "latent": 4,
    "widths": [32, 32, 96],
    "blocks": 1,
    "groups": 8,
    "scaling": "measured",
    "attend": False,
}


@recipe
def photos_kl() -> Recipe:
    return autoencoder(
        "photos-kl",
        "Crops of 13 photographs, 64×64, to latents of 16×16 with 4 channels and back.",
        "Rombach et al. 2022 (appendix G)",
        data={"kind": "photos", "size": 64},
        held_out=0.1,
        codec=_SMALL_KL,
        objective=_against(0.3, 1600),
        train=_train(2300),
    )


@recipe
def shapes_kl() -> Recipe:
    return autoencoder(
        "shapes-kl",
        "Drawn scenes, 32×32, to latents of 8×8 with 4 channels and back.",
        "Rombach et al. 2022 (appendix G)",
        data={"kind": "shapes", "size": 32, "count": 20_000},
        held_out=0.05,
        codec=_SMALL_KL,
        objective=_against(0.1, 2000),
        train=_train(2500, batch_size=16),
    )


@recipe
def shapes_vq() -> Recipe:
    return autoencoder(
        "shapes-vq",
        "Drawn scenes, 32×32, as 64 codes of 256 and back.",
        "van den Oord et al. 2017 (VQ-VAE); Esser, Rombach & Ommer 2021 (VQGAN)",
        data={"kind": "shapes", "size": 32, "count": 20_000},
        held_out=0.05,
        codec={
            "kind": "vq",
            "codebook": {"kind": "ema", "size": 256, "width": 16},
            "widths": [32, 32, 96],
            "blocks": 1,
            "groups": 8,
            "scaling": "measured",
            "attend": False,
        },
        objective=_against(0.1, 2000, latent=1.0),
        train=_train(2500, batch_size=16),
    )
