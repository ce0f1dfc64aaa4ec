"""A tiny class-conditional model with random weights, the same at every call."""

import torch

from fromnoise import codecs, encoders, nets, parameterizations, processes, schedules
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.model import Card, Defaults, Model


def tiny(seed: int = 0) -> Model:
    """8×8 grey pictures in three classes, v-prediction on a cosine schedule."""
    torch.manual_seed(seed)
    net = nets.build(
        {
            "kind": "unet",
            "in_channels": 1,
            "channels": 8,
            "multipliers": [1, 2],
            "blocks": 1,
            "attention": {"at": [2]},
            "style": {"groups": 4},
            "accepts": {"vector": {"label": 3}},
        }
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    denoiser = NetworkDenoiser(net, processes.Gaussian(schedules.cosine()), parameterizations.V())
    return Model(
        denoiser,
        (1, 8, 8),
        codecs.Identity(),
        encoders.Conditioning({"label": encoders.Label(3)}),
        Defaults(steps=4),
        Card(name="tiny", classes=["0", "1", "2"], levels=17),
    )


def tiny_text(seed: int = 0) -> Model:
    """8×8 colour pictures that are told a prompt, and attend to its bytes."""
    torch.manual_seed(seed)
    net = nets.build(
        {
            "kind": "unet",
            "in_channels": 3,
            "channels": 8,
            "multipliers": [1, 2],
            "blocks": 1,
            "attention": {"at": [2]},
            "style": {"groups": 4},
            "accepts": {"tokens": 8},
        }
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    text = encoders.Text(vocabulary=258, length=32, width=8, depth=1, heads=2)
    with torch.no_grad():
        text.embedding.weight.mul_(50.0)
    denoiser = NetworkDenoiser(net, processes.Gaussian(schedules.cosine()), parameterizations.V())
    return Model(
        denoiser,
        (3, 8, 8),
        codecs.Identity(),
        encoders.Conditioning({"prompt": text}),
        Defaults(steps=5),
        Card(name="tiny-text"),
    )
