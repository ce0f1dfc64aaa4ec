"""Recipes on the 1,797 scanned digits inside scikit-learn, 8×8 pixels, 10 classes."""

from typing import Any

from fromnoise.recipes.base import Config, Recipe, SamplingSettings, recipe
from fromnoise.training.settings import ObjectiveSettings, TrainSettings

_LABELS: Config = {"label": {"kind": "label", "classes": 10}}


def net(**changes: Any) -> Config:
    """The 0.7 M-parameter U-Net all digit recipes share: 8×8 and 4×4, attention at 4×4."""
    return {
        "kind": "unet",
        "in_channels": 1,
        "channels": 32,
        "multipliers": [1, 2],
        "blocks": 1,
        "attention": {"at": [2], "heads": 4},
        "style": {"groups": 8},
        "accepts": {"vector": {"label": 10}},
        **changes,
    }


def on_digits(name: str, summary: str, paper: str, **choices: Any) -> Recipe:
    """A recipe on the digits: what they share, changed by what is chosen."""
    settings: Config = {
        "data": {"kind": "digits"},
        "net": net(),
        "encoders": _LABELS,
        "objective": ObjectiveSettings(condition_dropout=0.1),
        "train": TrainSettings(steps=1000, batch_size=128, learning_rate=2e-3, sample_every=250),
        **choices,
    }
    return Recipe(name=name, summary=summary, paper=paper, **settings)


def _gaussian(schedule: Config) -> Config:
    return {"kind": "gaussian", "schedule": schedule}


@recipe
def digits() -> Recipe:
    return on_digits(
        "digits",
        "Class-conditional digits: v-prediction on a cosine schedule, the demo.",
        "Nichol & Dhariwal 2021 (cosine schedule); Salimans & Ho 2022 (v-prediction); "
        "Ho & Salimans 2022 (guidance without a classifier)",
        process=_gaussian({"kind": "cosine"}),
        parameterization={"kind": "v"},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling="low_discrepancy"),
        sampling=SamplingSettings(grid="uniform"),
    )


@recipe
def digits_ddpm500() -> Recipe:
    return on_digits(
        "digits-ddpm500",
        "DDPM as courses teach it: 500 steps, β from 1e-4 to 0.02, ε-prediction, simple loss.",
        "Ho, Jain & Abbeel 2020",
        process=_gaussian({"kind": "linear", "steps": 500}),
        parameterization={"kind": "eps", "clock_scale": 500.0},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling="index"),
        sampling=SamplingSettings(sampler="ddpm", grid="trailing", steps=500),
    )


@recipe
def digits_score_ve() -> Recipe:
    return on_digits(
        "digits-score-ve",
        "Score matching on the variance-exploding SDE.",
        "Song et al. 2021",
        process=_gaussian({"kind": "ve", "sigma_min": 0.01, "sigma_max": 50.0}),
        parameterization={"kind": "score"},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling="low_discrepancy"),
        sampling=SamplingSettings(sampler="pc", grid="log_snr", steps=100),
    )


@recipe
def digits_score_vp() -> Recipe:
    return on_digits(
        "digits-score-vp",
        "Score matching on the variance-preserving SDE.",
        "Song et al. 2021",
        process=_gaussian({"kind": "vp"}),
        parameterization={"kind": "score", "clock": "time", "clock_scale": 999.0},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling="low_discrepancy"),
        sampling=SamplingSettings(sampler="euler_maruyama", grid="uniform", steps=200),
    )


@recipe
def digits_edm() -> Recipe:
    return on_digits(
        "digits-edm",
        "EDM: preconditioned network, log-normal noise levels, Heun on Karras steps.",
        "Karras et al. 2022",
        process=_gaussian({"kind": "edm"}),
        parameterization={"kind": "edm", "sigma_data": 0.75},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling="log_normal"),
        sampling=SamplingSettings(sampler="heun", grid="karras", steps=18),
    )


@recipe
def digits_edm_augment() -> Recipe:
    # No flips, which EDM also draws: a mirrored digit is none. Nor large turns: 6 becomes 9.
    change: Config = {"kind": "geometric", "probability": 0.12, "turn": 0.1}
    told = 7  # numbers that this change tells
    return on_digits(
        "digits-edm-augment",
        "EDM told how each picture was scaled, turned, stretched or moved: it does not leak.",
        "Karras et al. 2022 (appendix F.2)",
        augment=[change],
        net=net(accepts={"vector": {"label": 10, "augment": told}}),
        encoders={**_LABELS, "augment": {"kind": "augment", "width": told}},
        process=_gaussian({"kind": "edm"}),
        parameterization={"kind": "edm", "sigma_data": 0.75},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling="log_normal"),
        sampling=SamplingSettings(sampler="heun", grid="karras", steps=18),
    )


@recipe
def digits_flow() -> Recipe:
    return on_digits(
        "digits-flow",
        "Rectified flow: straight lines between noise and data, logit-normal times.",
        "Liu et al. 2023; Esser et al. 2024 (logit-normal times)",
        process=_gaussian({"kind": "flow"}),
        parameterization={"kind": "flow"},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling="logit_normal"),
        sampling=SamplingSettings(sampler="heun", grid="uniform", steps=20),
    )


@recipe
def digits_cold_blur() -> Recipe:
    return on_digits(
        "digits-cold-blur",
        "Cold diffusion: no noise at all, the network undoes a growing blur.",
        "Bansal et al. 2022",
        process={"kind": "cold", "family": {"kind": "blur", "steps": 40}},
        parameterization={"kind": "x0", "clock": "time", "clock_scale": 1000.0},
        sampling=SamplingSettings(sampler="cold2", grid="uniform", steps=40),
    )


@recipe
def digits_blur_noise() -> Recipe:
    return on_digits(
        "digits-blur-noise",
        "Blur and noise together: every frequency has its own signal and noise.",
        "Hoogeboom & Salimans 2023",
        process={
            "kind": "spectral",
            "schedule": {"kind": "cosine"},
            "height": 8,
            "width": 8,
            "blur": 2.0,
        },
        parameterization={"kind": "v"},
        objective=ObjectiveSettings(condition_dropout=0.1, time_sampling="low_discrepancy"),
        sampling=SamplingSettings(sampler="ddpm", grid="uniform", steps=100),
    )
