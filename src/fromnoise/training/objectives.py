"""Which objective each kind of settings makes: the one table."""

from collections.abc import Callable, Mapping
from typing import Any

from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.training.classifier import classifier
from fromnoise.training.contrastive import contrastive
from fromnoise.training.gan import gan
from fromnoise.training.objective import Objective, denoising
from fromnoise.training.settings import AnyObjective
from fromnoise.training.vae import vae
from fromnoise.training.vdm import vdm

Maker = Callable[[NetworkDenoiser, Conditioning, Any, int | None], Objective]
"""What makes an objective of a denoiser, what it is told, its settings and the data's levels."""


OBJECTIVES: Mapping[str, Maker] = {
    "denoising": denoising,
    "vdm": vdm,
    "vae": vae,
    "gan": gan,
    "classifier": classifier,
    "contrastive": contrastive,
}
"""The `kind` of objective settings → what makes the objective."""


def objective_of(
    settings: AnyObjective,
    denoiser: NetworkDenoiser,
    conditioning: Conditioning,
    levels: int | None = None,
) -> Objective:
    """The objective that settings describe, for data of so many levels (None: real numbers).

    Raises UsageError where the denoiser is none that can be trained so.
    """
    return OBJECTIVES[settings.kind](denoiser, conditioning, settings, levels)
