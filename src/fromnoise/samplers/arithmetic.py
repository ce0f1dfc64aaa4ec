"""What every step does with tensors: ask the denoiser, and add up a few of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fromnoise.core.randomness import Noise
from fromnoise.denoisers import Bound, Prediction
from fromnoise.processes import Level, Process
from fromnoise.samplers.coefficients import Transition, noise_level


def ask(bound: Bound, x: Tensor, t: float) -> Prediction:
    """The belief about x0 given x at time t, the same for the whole batch."""
    return bound(x, torch.full((x.shape[0],), t, dtype=torch.float64, device=x.device))


def scaled(level: Level, x: Tensor) -> Tensor:
    """level·x, a new tensor of x's type."""
    return x * level if isinstance(level, float) else x * level.to(x)


def add(out: Tensor, level: Level, x: Tensor) -> Tensor:
    """out + level·x, in place: `out` must be this step's own."""
    if isinstance(level, float):
        return out.add_(x, alpha=level) if level else out
    return out.addcmul_(x.to(out), level.to(out))


def combine(numbers: Transition, z: Tensor, outputs: Sequence[Tensor]) -> Tensor:
    """keep·z + Σ weights·outputs, in the process's basis."""
    out = scaled(numbers.keep, z)
    for weight, output in zip(numbers.weights, outputs, strict=True):
        out = add(out, weight, output)
    return out


def with_noise(process: Process, z: Tensor, level: Level, like: Tensor, noise: Noise) -> Tensor:
    """z + level·(fresh noise in the process's basis); nothing is drawn for a level of 0."""
    if isinstance(level, float) and level == 0.0:
        return z
    return add(z, level, process.analyse(noise.normal(like)))


def implied_noise(process: Process, z: Tensor, x0: Tensor, t: float) -> Tensor:
    """ε = (z − α·x0)/σ in the process's basis."""
    inverse, share = noise_level(None, process, (t,))
    return add(scaled(inverse, z), share, x0)
