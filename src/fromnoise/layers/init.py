"""Initial values of weights, each with one meaning."""

from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def zero_(module: Module) -> Module:
    """Set every parameter of a module to zero, so that it adds nothing at the start; return it."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def xavier_(module: Module) -> Module:
    """Glorot uniform weights and zero biases for every convolution and linear layer; return it.

    DDPM's initialisation (variance scaling, fan average, uniform; Ho, Jain & Abbeel 2020).
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return module


def icnr_(weight: Tensor, factor: int) -> Tensor:
    """Make a convolution in front of a pixel shuffle start as nearest up-sampling, in place.

    One small kernel is drawn and repeated for all `factor` sub-pixels of an output channel, which
    removes the checkerboard a random start shows.

    weight: (C · factor, in, ...) convolution weight; its values after `xavier_` are kept for the
        first sub-pixel of each channel.
    Reference: Aitken et al. 2017, "Checkerboard artifact free sub-pixel convolution", section 3.
    """
    with torch.no_grad():
        weight.copy_(weight[::factor].repeat_interleave(factor, dim=0))
    return weight
