"""Changes to training samples, drawn for each sample from (seed, epoch, index) alone.

So the same run sees the same changes whatever the number of workers and wherever it resumes.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.config import Kinds
from fromnoise.core.errors import UsageError
from fromnoise.data.order import bits

AUGMENTATIONS = Kinds("augmentation")
"""Every augmentation a configuration file can name, by kind."""

_AUGMENT = 2


def generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one sample in one epoch."""
    words = bits(2, seed, _AUGMENT, epoch, index)
    return np.random.Generator(np.random.PCG64([int(word) for word in words]))


class Augment(ABC):
    """A random change to one sample."""

    config: dict[str, Any]

    @abstractmethod
    def __call__(self, x: Tensor, random: np.random.Generator) -> Tensor:
        """The changed picture; x has shape (C, H, W) and range [−1, 1], and is left as it was."""


@AUGMENTATIONS.register("flip")
class Flip(Augment):
    """Mirror left and right, with a probability."""

    def __init__(self, probability: float = 0.5) -> None:
        if not 0.0 <= probability <= 1.0:
            raise UsageError(f"probability {probability} is out of range; use 0 to 1")
        self.probability = probability

    def __call__(self, x: Tensor, random: np.random.Generator) -> Tensor:
        return x.flip(-1) if random.random() < self.probability else x


@AUGMENTATIONS.register("shift")
class Shift(Augment):
    """Move by up to `pixels` in each direction; what comes in repeats the border."""

    def __init__(self, pixels: int = 1) -> None:
        if pixels < 0:
            raise UsageError(f"a shift of {pixels} pixels is out of range; use 0 or more")
        self.pixels = pixels

    def __call__(self, x: Tensor, random: np.random.Generator) -> Tensor:
        down, right = random.integers(-self.pixels, self.pixels + 1, 2)
        rows = (torch.arange(x.shape[-2]) - int(down)).clamp(0, x.shape[-2] - 1)
        columns = (torch.arange(x.shape[-1]) - int(right)).clamp(0, x.shape[-1] - 1)
        return x[..., rows, :][..., columns]


@AUGMENTATIONS.register("both")
class Both(Augment):
    """One change after another."""

    def __init__(self, first: Augment, second: Augment) -> None:
        self.first, self.second = first, second

    def __call__(self, x: Tensor, random: np.random.Generator) -> Tensor:
        return self.second(self.first(x, random), random)
