"""Sizes that pictures are brought to: one for all, or buckets of equal area and many shapes."""

import bisect
import math
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any

import numpy as np

from fromnoise.core.config import Kinds
from fromnoise.core.errors import UsageError
from fromnoise.data.order import Indices, shuffled

SIZES = Kinds("size")
"""Every rule for sizes that a configuration file can name, by kind."""

Size = tuple[int, int]
_ROUND, _SAMPLES = 3, 4


class Sizes(ABC):
    """Which sizes pictures may have, and which of them suits a picture."""

    config: dict[str, Any]
    sizes: tuple[Size, ...]

    @property
    def nominal(self) -> Size:
        """The (height, width) that stands for all: the one nearest to a square."""
        return min(self.sizes, key=lambda size: abs(math.log(size[0] / size[1])))

    @abstractmethod
    def nearest(self, height: int, width: int) -> int:
        """The place in `sizes` of the one that suits a picture of this height and width."""


class OneSize(Sizes):
    """Every picture is brought to (height, width)."""

    def __init__(self, height: int, width: int) -> None:
        if height < 1 or width < 1:
            raise UsageError(f"size is {height}×{width}; use 1 or more")
        self.sizes = ((height, width),)

    def nearest(self, height: int, width: int) -> int:
        del height, width
        return 0


@SIZES.register("buckets")
class Buckets(Sizes):
    """Sizes of nearly equal area, their aspect ratios spaced evenly in log(width/height).

    2·steps + 1 ratios go from 1/most to most. The shorter side is side/√ratio, down or up to a
    multiple of `divisor`; the longer is the multiple that then comes nearest to the area side². So
    every area is within the share divisor/(2·side) of side²; of down and up, what comes nearer to
    the ratio is taken.
    side: of the square bucket, a multiple of divisor. Sizes that fall together count once.
    Raises UsageError for a side that is no multiple, or a ratio below 1.
    """

    def __init__(self, side: int, divisor: int = 8, most: float = 2.0, steps: int = 4) -> None:
        if divisor < 1 or side < divisor or side % divisor:
            raise UsageError(f"side {side} must be a multiple of divisor {divisor}")
        if not 1.0 <= most <= 16.0 or not 0 <= steps <= 64:
            raise UsageError(f"most is {most} and steps {steps}; use 1 to 16, and 0 to 64")
        ratios = [most ** (k / max(steps, 1)) for k in range(steps + 1)]
        wide = [_of_area(side, divisor, ratio) for ratio in ratios]
        both = {*wide, *((width, height) for height, width in wide)}
        self.sizes = tuple(sorted(both, key=lambda size: (size[1] / size[0], size)))
        self._logs = np.array([math.log(width / height) for height, width in self.sizes])

    def nearest(self, height: int, width: int) -> int:
        return int(np.abs(self._logs - math.log(width / height)).argmin())


def _of_area(side: int, divisor: int, ratio: float) -> Size:
    """(shorter, longer), multiples of divisor, of nearly the area side² and the ratio wanted."""
    exact = side / math.sqrt(ratio) / divisor
    both = [divisor * max(1, whole) for whole in (math.ceil(exact), math.floor(exact))]
    sizes = [(shorter, divisor * round(side * side / shorter / divisor)) for shorter in both]
    return min(sizes, key=lambda size: abs(math.log(size[1] / size[0] / ratio)))


def sizes_of(size: int | tuple[int, int] | Sizes) -> Sizes:
    """A rule for sizes from what a person writes: a side, (height, width), or a rule."""
    if isinstance(size, Sizes):
        return size
    height, width = (size, size) if isinstance(size, int) else size
    return OneSize(height, width)


class GroupedOrder:
    """Which samples each global step reads, when a batch must be of one group (of one shape).

    Step k is a function of seed and k alone. In each group the samples are read in the order of
    its own epochs, one after another without a gap, and every batch is full. The groups take
    turns: after r rounds, group g of n_g samples has given ⌈r·n_g/B⌉ batches, so every sample has
    been read equally often to within one batch of its group; in a round they are mixed. A group
    smaller than a batch repeats its samples in it.

    groups: the group of every sample (N,), whole numbers from 0.
    """

    def __init__(self, groups: Indices, batch_size: int, seed: int) -> None:
        self.length, self.batch_size, self.seed = len(groups), batch_size, seed
        if self.length < 1 or batch_size < 1:
            raise UsageError(
                f"{self.length} samples in batches of {batch_size} cannot be read; use 1 or more"
            )
        self._names = np.unique(groups)
        self._members = [np.flatnonzero(groups == name) for name in self._names]
        self._counts = np.array([len(members) for members in self._members], np.int64)

    def __call__(self, step: int) -> tuple[Indices, Indices]:
        """The samples of a step (B,), all of one group, and the epoch each belongs to (B,)."""
        if step < 0:
            raise UsageError(f"step {step} is negative; use 0 or more")
        place, ordinal = self._turn(step)
        members = self._members[place]
        positions = ordinal * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
        epochs, within = np.divmod(positions, len(members))
        indices = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            mixed = _mixed(self.seed, int(self._names[place]), int(epoch), len(members))
            indices[here] = members[mixed[within[here]]]
        return indices, epochs

    def _given(self, rounds: int) -> Indices:
        """How many batches each group has given after so many rounds."""
        return -(-rounds * self._counts // self.batch_size)

    def _turn(self, step: int) -> tuple[int, int]:
        """Whose turn a step is, and how many batches that group gave before."""
        enough = -(-(step + 1) * self.batch_size // self.length)
        rounds = range(enough + 1)
        low = bisect.bisect_right(rounds, step, key=lambda r: int(self._given(r).sum())) - 1
        before = self._given(low)
        turns = np.repeat(np.arange(len(before)), self._given(low + 1) - before)
        mixed = turns[_round(self.seed, low, len(turns))]
        at = step - int(before.sum())
        return int(mixed[at]), int(before[mixed[at]] + (mixed[:at] == mixed[at]).sum())


@lru_cache(maxsize=256)
def _mixed(seed: int, group: int, epoch: int, length: int) -> Indices:
    return shuffled(length, seed, _SAMPLES, group, epoch)


@lru_cache(maxsize=4)
def _round(seed: int, number: int, length: int) -> Indices:
    return shuffled(length, seed, _ROUND, number)
