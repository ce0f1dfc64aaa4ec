"""Networks: functions of x, time and a condition. They know no diffusion."""

from collections.abc import Mapping
from typing import Any

import torch

from fromnoise.core.config import Kinds
from fromnoise.core.meta import without_memory
from fromnoise.layers.blocks import Style
from fromnoise.nets.base import SELF, Accepts, Network
from fromnoise.nets.classifier import Classifier
from fromnoise.nets.dit import DiT
from fromnoise.nets.gan import GAN, Discriminator
from fromnoise.nets.guided_diffusion import CLASSIFIERS, FLAGS, ClassifierFlags, Flags
from fromnoise.nets.hvae import HVAE
from fromnoise.nets.image_text import ImageText
from fromnoise.nets.latent_presets import LATENT_PRESETS
from fromnoise.nets.levels import AttentionStyle
from fromnoise.nets.mlp import MLP
from fromnoise.nets.nothing import Nothing
from fromnoise.nets.patch_gan import PatchDiscriminator
from fromnoise.nets.presets import PRESETS
from fromnoise.nets.token_transformer import TokenTransformer
from fromnoise.nets.unet import UNet
from fromnoise.nets.vae import VAE, Autoencoder
from fromnoise.nets.vector_transformer import VectorTransformer

NETS = Kinds("network")
NETS.register("unet")(UNet)
NETS.register("mlp")(MLP)
NETS.register("dit")(DiT)
NETS.register("classifier")(Classifier)
NETS.register("image_text")(ImageText)
NETS.register("vector_transformer")(VectorTransformer)
NETS.register("token_transformer")(TokenTransformer)
NETS.register("vae")(VAE)
NETS.register("hvae")(HVAE)
NETS.register("gan")(GAN)
NETS.register("discriminator")(Discriminator)
NETS.register("patch_discriminator")(PatchDiscriminator)
NETS.register("nothing")(Nothing)


def build(name: str | Mapping[str, Any], device: str | torch.device | None = None) -> Network:
    """A network by its published name, or from a configuration `{"kind": "unet", ...}`.

    Its weights are drawn from torch's global generator. With device="meta" it has shapes but no
    memory, whatever its size.

    Raises UsageError for an unknown name or kind (with the nearest), an unknown argument, or a
    value it cannot take.
    """
    where = torch.device("cpu" if device is None else device)
    with without_memory() if where.type == "meta" else where:
        network: Network = NETS.build(NETS.config_of(name, PRESETS))
    return network


__all__ = [
    "CLASSIFIERS",
    "FLAGS",
    "GAN",
    "HVAE",
    "LATENT_PRESETS",
    "MLP",
    "NETS",
    "PRESETS",
    "SELF",
    "VAE",
    "Accepts",
    "AttentionStyle",
    "Autoencoder",
    "Classifier",
    "ClassifierFlags",
    "DiT",
    "Discriminator",
    "Flags",
    "ImageText",
    "Network",
    "Nothing",
    "PatchDiscriminator",
    "Style",
    "TokenTransformer",
    "UNet",
    "VectorTransformer",
    "build",
]
