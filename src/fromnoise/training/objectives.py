"""Which objective each kind of settings makes: the one table."""

from collections.abc import Callable, Mapping
from typing import Any

from fromnoise.codecs import Codec, Identity
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.training.autoencoder import autoencoder
from fromnoise.training.classifier import classifier
from fromnoise.training.contrastive import contrastive
from fromnoise.training.denoising import denoising
from fromnoise.training.gan import gan
from fromnoise.training.masked import masked
from fromnoise.training.objective import Objective
from fromnoise.training.settings import AnyObjective, AutoencoderSettings
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
    "masked": masked,
}
"""The `kind` of objective settings → what makes the objective."""


def objective_of(
    settings: AnyObjective,
    denoiser: NetworkDenoiser,
    conditioning: Conditioning,
    levels: int | None = None,
    codec: Codec | None = None,
    encoded: bool = False,
) -> Objective:
    """The objective that settings describe, for data of so many levels (None: real numbers).

    codec: what an autoencoder trains, and behind which all others learn; None for pixels.
    encoded: whether the data are its latents already.
    Raises UsageError where the denoiser, or the codec, is none that can be trained so.
    """
    if isinstance(settings, AutoencoderSettings):
        return autoencoder(codec or Identity(), settings)
    if codec is None or isinstance(codec, Identity):
        return OBJECTIVES[settings.kind](denoiser, conditioning, settings, levels)
    # Latents have no levels, whatever the pictures have.
    made = OBJECTIVES[settings.kind](denoiser, conditioning, settings, None)
    made.behind(codec, encoded)
    return made
