"""Densities of the normal distribution, and the probability it gives to levels: all in nats."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError

LogMass = Callable[[Tensor, Tensor], Tensor]
"""log of the standard normal probability between two ends, which may be infinite."""


def cell(levels: int) -> float:
    """The distance 2/(levels − 1) between neighbouring levels of data in [−1, 1]."""
    if levels < 2:
        raise UsageError(f"data with {levels} levels has nothing to tell apart; use 2 or more")
    return 2.0 / (levels - 1)


def normal_log_density(x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """log N(x; mean, var) for each element, in nats."""
    return -0.5 * ((x - mean) ** 2 / var + torch.log(2 * torch.pi * var))


def normal_kl(
    mean_a: Tensor | float,
    log_var_a: Tensor | float,
    mean_b: Tensor | float,
    log_var_b: Tensor | float,
) -> Tensor:
    """KL(N(mean_a, e^log_var_a) ‖ N(mean_b, e^log_var_b)) for each element, in nats."""
    m, u, n, v = (
        torch.as_tensor(a, dtype=torch.float64) for a in (mean_a, log_var_a, mean_b, log_var_b)
    )
    # expm1: the two variances may be almost the same.
    return 0.5 * (torch.expm1(u - v) - (u - v) + (m - n) ** 2 * torch.exp(-v))


def log_mass(lower: Tensor, upper: Tensor) -> Tensor:
    """log(Φ(upper) − Φ(lower)), exact into both tails."""
    # Far to the right Φ is 1 to the last digit: mirrored, the same mass is in the left tail.
    right = lower > 0
    low, high = torch.where(right, -upper, lower), torch.where(right, -lower, upper)
    top, bottom = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    found: Tensor = top + torch.log(-torch.expm1(bottom - top))
    return found


def published_log_mass(lower: Tensor, upper: Tensor) -> Tensor:
    """The same with Φ(z) ≈ ½(1 + tanh(√(2/π)·(z + 0.044715·z³))), never under log 1e-12.

    What the code of Ho et al. 2020 and its successors computes: for comparing with their figures.
    """
    a, b = (
        0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
        for z in (lower, upper)
    )
    return torch.log((b - a).clamp(min=1e-12))


def discretised_log_likelihood(
    x: Tensor, mean: Tensor, log_std: Tensor, levels: int = 256, mass: LogMass = log_mass
) -> Tensor:
    """log of the probability a Gaussian gives each level x in [−1, 1], for each element, in nats.

    The mass between x − w/2 and x + w/2, w = 2/(levels − 1), the outermost cells reaching to ±∞,
    so that the probabilities of all levels sum to 1 (Ho et al. 2020, eq. 13).
    """
    half = 0.5 * cell(levels)
    inverse = torch.exp(-log_std)
    lower, upper = inverse * (x - half - mean), inverse * (x + half - mean)
    # Half a cell inwards of the outermost levels: rounding in x must not move it to the next.
    lower = torch.where(x < -1.0 + half, -torch.inf, lower)
    upper = torch.where(x > 1.0 - half, torch.inf, upper)
    return mass(lower, upper)
