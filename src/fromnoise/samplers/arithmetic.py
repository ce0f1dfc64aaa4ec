"""What every step does with tensors: ask the denoiser, and add up a few of them."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from fromnoise.core.randomness import Noise
from fromnoise.denoisers import Bound, Prediction
from fromnoise.processes import Level, Process
from fromnoise.samplers.coefficients import Transition, noise_level


def ask(bound: Bound, x: Tensor, t: float) -> Prediction:
    """The belief about x0 given x at time t, the same for the whole batch."""
    return bound(x, _times(t, x.shape[0], x.device))


@functools.lru_cache(maxsize=4096)
def _times(t: float, batch: int, device: torch.device) -> Tensor:
    # Shared by all who ask: nobody changes the times they are given. A tensor made in inference
    # mode could not be used with gradients by the next one who asks.
    with torch.inference_mode(False):
        return torch.full((batch,), t, dtype=torch.float64, device=device)


def belief_of(prediction: Prediction, x: Tensor) -> Tensor:
    """The belief about x0 in x's type (a network may answer in a narrower one)."""
    x0 = prediction.x0
    return x0 if x0.dtype == x.dtype else x0.to(x.dtype)


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
