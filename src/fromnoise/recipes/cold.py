"""Recipes of cold diffusion on digits besides blur: a growing mask, and a blur that is learned."""

from fromnoise.recipes.base import Config, Recipe, SamplingSettings, recipe
from fromnoise.recipes.digits import on_digits

_READING: Config = {"kind": "x0", "clock": "time", "clock_scale": 1000.0}


@recipe
def digits_cold_mask() -> Recipe:
    return on_digits(
        "digits-cold-mask",
        "Cold diffusion: a hole grows from a place of its own in each picture.",
        "Bansal et al. 2022",
        process={
            "kind": "cold",
            "family": {"kind": "mask", "steps": 40, "last": 1.0, "spread": 1.0},
        },
        parameterization=_READING,
        sampling=SamplingSettings(sampler="cold2", grid="uniform", steps=40),
    )


@recipe
def digits_cold_learned() -> Recipe:
    return on_digits(
        "digits-cold-learned",
        "Cold diffusion by a blur that learns to leave every step as much to restore.",
        "Bansal et al. 2022; Dieleman et al. 2022 (times on which the error rises evenly)",
        process={
            "kind": "cold",
            "family": {"kind": "learnable_blur", "steps": 40, "end": "held"},
        },
        parameterization=_READING,
        sampling=SamplingSettings(sampler="cold2", grid="uniform", steps=40),
    )
