"""Where the randomness of a training step comes from: a hash of seed, step and place, no state.

What a sample draws depends on the run's seed, the step and its place in the step's whole batch;
never on workers, processes, micro-steps, or on what was drawn before. So there is no state to
save, and a run that goes on draws what it would have drawn.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fromnoise.core.randomness import Noise

_WORD = 2**64
_SHARED, _STEP = 1, 2


def derive(seed: int, *parts: int) -> int:
    """A seed below 2⁶³ for one purpose: the SplitMix64 finaliser chained over the parts.

    Reference: Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators".
    """
    value = seed % _WORD
    for part in parts:
        value = (value + 0x9E3779B97F4A7C15 * (part + 1)) % _WORD
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % _WORD
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB % _WORD
        value ^= value >> 31
    return value >> 1


@dataclass(frozen=True)
class Draws:
    """What the samples of one micro-step may draw.

    noise: each sample's own generator. shared: one for the whole step, the same in all its
    micro-steps and processes. positions: places in the step's batch, (B,). total: its size.
    """

    noise: Noise
    shared: Noise
    positions: Tensor
    total: int

    @classmethod
    def of_step(cls, seed: int, step: int, positions: range, total: int) -> "Draws":
        """The draws of the samples at `positions` of step `step`."""
        base = derive(seed, step)
        noise = Noise([derive(base, _STEP, p) for p in positions])
        return cls(noise, Noise(derive(base, _SHARED)), torch.tensor(list(positions)), total)

    def uniform(self) -> Tensor:
        """One number on [0, 1) for each sample, (B,) float64."""
        return self.noise.uniform(self._like())

    def normal(self) -> Tensor:
        """One standard normal number for each sample, (B,) float64."""
        return self.noise.normal(self._like())

    def stratified(self) -> Tensor:
        """(u + i/B) mod 1 with one u for the step: evenly spread, each uniform on [0, 1)."""
        offset = self.shared.uniform(torch.empty(1, dtype=torch.float64))
        return (offset + self.positions.double() / self.total) % 1.0

    def _like(self) -> Tensor:
        return torch.empty(len(self.noise), dtype=torch.float64)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's own generators seeded within (dropout draws from them), and put back after."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
