"""What stands beside diffusion, on the digits: a learned schedule, autoencoders, a GAN."""

from typing import Any

from fromnoise.recipes.base import Config, Recipe, SamplingSettings, recipe
from fromnoise.recipes.digits import net, on_digits
from fromnoise.training.settings import GanSettings, TrainSettings, VaeSettings, VdmSettings

_ACCEPTS: Config = {"vector": {"label": 10}}
_SHAPE = [1, 8, 8]


def _at_once(name: str, summary: str, paper: str, **choices: Any) -> Recipe:
    """A network asked once, at t = 1, where rectified flow's x is noise and nothing else."""
    return on_digits(
        name,
        summary,
        paper,
        process={"kind": "gaussian", "schedule": {"kind": "flow"}},
        parameterization={"kind": "x0", "clock": "time", "clock_scale": 1.0},
        sampling=SamplingSettings(sampler="ddim", grid="uniform", steps=1),
        **choices,
    )


@recipe
def digits_vdm() -> Recipe:
    return on_digits(
        "digits-vdm",
        "Variational diffusion: the bound itself, and a noise schedule that learns.",
        "Kingma, Salimans, Poole & Ho 2021",
        net=net(),
        process={
            "kind": "gaussian",
            "schedule": {
                "kind": "learned",
                "gamma_min": -8.0,
                "gamma_max": 5.0,
                "learn_ends": True,
            },
        },
        parameterization={"kind": "eps", "clock": "log_ratio", "clock_scale": 100.0},
        objective=VdmSettings(condition_dropout=0.1),
        train=TrainSettings(steps=1000, batch_size=128, learning_rate=2e-3, sample_every=250),
        sampling=SamplingSettings(sampler="ddpm", grid="uniform", steps=100),
    )


@recipe
def digits_vae() -> Recipe:
    return _at_once(
        "digits-vae",
        "A variational autoencoder: one step from noise, and a bound on the likelihood.",
        "Kingma & Welling 2014",
        net={"kind": "vae", "shape": _SHAPE, "dropout": 0.1, "accepts": _ACCEPTS},
        objective=VaeSettings(condition_dropout=0.1),
        train=TrainSettings(steps=1500, batch_size=128, learning_rate=2e-3, sample_every=500),
    )


@recipe
def digits_hvae() -> Recipe:
    return _at_once(
        "digits-hvae",
        "A hierarchical autoencoder: 16 numbers decide, 48 fill in by a prior learned of them.",
        "Sønderby et al. 2016; Vahdat & Kautz 2020 (the posterior told relative to the prior)",
        net={"kind": "hvae", "shape": _SHAPE, "dropout": 0.2, "accepts": _ACCEPTS},
        objective=VaeSettings(condition_dropout=0.1, warmup=200, free_nats=3.0),
        train=TrainSettings(steps=800, batch_size=128, learning_rate=1e-3, sample_every=200),
    )


@recipe
def digits_gan() -> Recipe:
    return _at_once(
        "digits-gan",
        "A generator against a discriminator: one step from noise, and no likelihood.",
        "Goodfellow et al. 2014; Mescheder, Geiger & Nowozin 2018 (the penalty)",
        net={"kind": "gan", "shape": _SHAPE, "accepts": _ACCEPTS},
        objective=GanSettings(
            discriminator={"kind": "discriminator", "shape": _SHAPE, "accepts": _ACCEPTS},
            condition_dropout=0.1,
            penalty=1.0,
        ),
        train=TrainSettings(
            steps=4000,
            batch_size=64,
            optimizer={"kind": "adamw", "beta1": 0.0, "beta2": 0.99},
            learning_rate=1e-3,
            clip=0.0,
            sample_every=500,
        ),
    )
