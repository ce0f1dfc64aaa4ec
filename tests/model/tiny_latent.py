"""A tiny latent diffusion model as Stable Diffusion is made: CLIP, U-Net, autoencoder; random."""

from pathlib import Path

import torch
from encoders.tiny_clip import randomised, write_vocabulary
from torch import nn

from fromnoise import codecs, encoders, nets, parameterizations, processes, schedules
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders.clip_towers import TextSettings
from fromnoise.encoders.tokenizers import read_vocabulary
from fromnoise.model import Card, Defaults, Model

TOWER = TextSettings(vocabulary=600, width=16, depth=3, heads=2, hidden=24, end=513)


def tiny_latent(folder: Path, size: int = 32, seed: int = 0) -> Model:
    """Colour pictures by latents of 4 channels and a quarter of the size; a multiple of 8 each."""
    codec = shaken(codecs.KL(widths=(8, 8, 16), groups=4, blocks=1), seed)
    net = nets.build(
        {
            "kind": "unet",
            "in_channels": 4,
            "channels": 8,
            "multipliers": [1, 2],
            "blocks": 1,
            "attention": {"at": [2], "heads": 2},
            "style": {"groups": 4},
            "accepts": {"tokens": 16},
        }
    )
    shaken(net, seed)
    text = encoders.CLIPText(TOWER)
    randomised(text)
    text.set_vocabulary(read_vocabulary(write_vocabulary(folder / "vocabulary")))
    schedule = schedules.scaled_linear(steps=1000, beta_start=0.00085, beta_end=0.012)
    return Model(
        NetworkDenoiser(
            net, processes.Gaussian(schedule), parameterizations.Eps("index", clock_scale=1000.0)
        ),
        (3, size, size),
        codec.eval(),
        encoders.Conditioning({"prompt": text}),
        Defaults(sampler="ddim", grid="leading", steps=5, guidance=3.0),
        Card(name="tiny-latent"),
    )


def shaken(module: nn.Module, seed: int) -> nn.Module:
    """Noise in every parameter, also in those that start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.2 * noise / max(1.0, parameter[0].numel() ** 0.5))
    return module
