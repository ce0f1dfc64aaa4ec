"""Likelihood of pictures that have levels: bits per dimension, and what the bounds are made of."""

import math

import torch
from torch import Tensor

from fromnoise.core.densities import (
    cell,
    discretised_log_likelihood,
    normal_kl,
    normal_log_density,
    published_log_mass,
)
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import flat_sum
from fromnoise.processes import Process

__all__ = [
    "bits_per_dim",
    "cell",
    "decode_log_prob",
    "dequantise",
    "discretised_log_likelihood",
    "normal_kl",
    "normal_log_density",
    "published_log_mass",
]


def bits_per_dim(log_density: Tensor, dimensions: int, levels: int | None = None) -> Tensor:
    """−log₂ p/D, in bits, of a log density in nats.

    With `levels` the density is that of dequantised data in [−1, 1], and the bits are those of the
    data's own levels: −log₂(p(x)·wᴰ)/D = −log₂ p/D − log₂ w with w = 2/(levels − 1). Digits have
    17 levels (w = 1/8, 3 bits are added), photographs 256.
    """
    width = 1.0 if levels is None else cell(levels)
    return -log_density / (dimensions * math.log(2.0)) - math.log2(width)


def dequantise(x: Tensor, levels: int, noise: Noise) -> Tensor:
    """x (B, ...) spread evenly over its level's cell: x + w·(u − ½), u uniform on [0, 1).

    The mean log density of what comes out bounds the log probability of the levels from below
    (Theis et al. 2016, "A Note on the Evaluation of Generative Models", section 3.1).
    """
    return x + cell(levels) * (noise.uniform(x) - 0.5)


def decode_log_prob(
    process: Process, x0: Tensor, mean: Tensor, var: Tensor, levels: int | None
) -> Tensor:
    """log N(x0; mean, var) (B,) in the process's basis, or the probability of its levels.

    Levels are a matter of pixels, so there `var` is taken for each pixel. Every positive variance
    makes a decoder whose probabilities sum to 1, so what is bounded with it stays a bound.
    """
    if levels is None:
        z, middle = process.analyse(x0.double()), process.analyse(mean.double())
        return flat_sum(normal_log_density(z, middle, var))
    log_std = 0.5 * torch.log(var.double())
    return flat_sum(discretised_log_likelihood(x0.double(), mean.double(), log_std, levels))
