"""The seed contract: sample i of a call draws all its noise from its own generator.

Noise is drawn in float32 on the CPU and only then cast and moved, so the noise of a picture does
not depend on the batch it is drawn in, its place there, the number of processes or the device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError

_SEED_LIMIT = 2**63
_ENGINE_BITS = 2**32 - 1


def seeds_for(seed: int | Sequence[int], count: int) -> tuple[int, ...]:
    """The seeds of `count` samples: `seed + i`, or the given sequence, which must have that length.

    Raises UsageError for a negative seed, one of 2⁶³ or more, or a sequence of another length.
    """
    given: object = seed
    if isinstance(given, str) or not isinstance(given, int | Sequence):
        raise UsageError(f"seed {seed!r} is neither a whole number nor a sequence of them")
    if isinstance(seed, int):
        seeds = tuple(seed + i for i in range(count))
    else:
        seeds = tuple(int(s) for s in seed)
        if len(seeds) != count:
            raise UsageError(f"{len(seeds)} seeds given for {count} samples; give one each")
    for value in seeds:
        if not 0 <= value < _SEED_LIMIT:
            raise UsageError(f"seed {value} is out of range; use 0 to {_SEED_LIMIT - 1}")
    return seeds


def _engine_seed(seed: int) -> int:
    """The seed itself below 2³²; above, a hash of it.

    torch's CPU generator looks at 32 bits only: without this, seeds 2³² apart would draw the same.
    """
    if seed <= _ENGINE_BITS:
        return seed
    mixed = (seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
    return (mixed ^ (mixed >> 31)) & _ENGINE_BITS


class Noise:
    """A source of noise over per-sample seeds.

    Each call of `normal` or `uniform` advances every sample's own generator; a step may draw more
    than once, or not at all.
    """

    def __init__(self, seed: int | Sequence[int], count: int | None = None) -> None:
        if count is None:
            count = 1 if isinstance(seed, int) else len(seed)
        self.seeds = seeds_for(seed, count)
        self._generators = [torch.Generator().manual_seed(_engine_seed(s)) for s in self.seeds]

    def __len__(self) -> int:
        return len(self.seeds)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal noise of the shape (B, ...), dtype and device of `like`."""
        self._check(like.shape[0])
        drawn = [torch.randn(like.shape[1:], generator=g) for g in self._generators]
        return torch.stack(drawn).to(dtype=like.dtype, device=like.device)

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform noise on [0, 1) of the shape (B, ...), dtype and device of `like`."""
        self._check(like.shape[0])
        drawn = [torch.rand(like.shape[1:], generator=g) for g in self._generators]
        return torch.stack(drawn).to(dtype=like.dtype, device=like.device)

    def _check(self, batch: int) -> None:
        if batch != len(self.seeds):
            raise UsageError(f"noise source of {len(self.seeds)} samples asked for {batch}")


class ZeroNoise(Noise):
    """A source that draws zeros: a stochastic sampler with its added noise switched off."""

    def normal(self, like: Tensor) -> Tensor:
        self._check(like.shape[0])
        return torch.zeros_like(like)


class FixedNoise(Noise):
    """A source that hands out prepared tensors in order: for comparing two implementations."""

    def __init__(self, draws: Sequence[Tensor]) -> None:
        super().__init__(0, count=draws[0].shape[0])
        self._draws = list(draws)

    def normal(self, like: Tensor) -> Tensor:
        self._check(like.shape[0])
        if not self._draws:
            raise UsageError("the prepared noise is used up; prepare one tensor for each draw")
        return self._draws.pop(0).to(dtype=like.dtype, device=like.device)
