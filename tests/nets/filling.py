"""Networks with noise in every parameter, and conditions for them."""

import math

import torch
from torch import nn

from fromnoise import nets
from fromnoise.layers.condition import Condition, Tokens


def filled(config: dict) -> nets.Network:
    """A network with noise in every parameter, those that start at zero included."""
    torch.manual_seed(0)
    network = nets.build(config)
    for parameter in network.parameters():
        scale = 0.2 if parameter.ndim == 1 else 1 / math.sqrt(parameter[0].numel())
        nn.init.normal_(parameter, std=scale)
    return network.eval()


def told(network: nets.Network, batch: int, space: tuple[int, ...], seed: int = 0) -> Condition:
    generator = torch.Generator().manual_seed(seed)
    accepts = network.accepts
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    return Condition(
        {name: draw(batch, count, *space) for name, count in accepts.channels.items()},
        {name: draw(batch, width) for name, width in accepts.vector.items()},
        None if accepts.tokens is None else Tokens(draw(batch, 4, accepts.tokens)),
    )
