"""Changes to training samples, drawn for each sample from (seed, epoch, index) alone.

So the same run sees the same changes whatever the number of workers and wherever it resumes. Each
change also says in numbers what it did, all zeros for nothing. A network that is told these
numbers learns changed pictures as such and, told zeros, draws unchanged ones: the augmentation
does not leak (Karras et al. 2022, "Elucidating the Design Space", appendix F.2).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import reduce
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from fromnoise.core.config import Kinds
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.data.order import bits

AUGMENTATIONS = Kinds("augmentation")
"""Every augmentation a configuration file can name, by kind."""

_AUGMENT = 2


def generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one sample in one epoch."""
    words = bits(2, seed, _AUGMENT, epoch, index)
    return np.random.Generator(np.random.PCG64([int(word) for word in words]))


class Changed(NamedTuple):
    """A changed sample, and the numbers (width,) that say how, float32, zeros for not at all."""

    x: Tensor
    told: Tensor


class Augment(ABC):
    """A random change to one sample. width: how many numbers say what it did."""

    config: dict[str, Any]
    width: int

    @abstractmethod
    def __call__(self, x: Tensor, random: np.random.Generator) -> Changed:
        """x has shape (C, H, W) and range [−1, 1], and is left as it was."""


@AUGMENTATIONS.register("flip")
class Flip(Augment):
    """Mirror left and right, or up and down, with a probability. Told: 1 where it did."""

    width = 1

    def __init__(
        self, probability: float = 0.5, axis: Literal["horizontal", "vertical"] = "horizontal"
    ) -> None:
        _check_probability(probability)
        self.probability, self.axis = probability, -1 if axis == "horizontal" else -2

    def __call__(self, x: Tensor, random: np.random.Generator) -> Changed:
        _check_picture(x)
        flipped = bool(random.random() < self.probability)
        return Changed(x.flip(self.axis) if flipped else x, torch.tensor([float(flipped)]))


@AUGMENTATIONS.register("shift")
class Shift(Augment):
    """Move by up to `pixels` in each direction; what comes in repeats the border.

    Told: down and right in parts of `pixels`.
    """

    width = 2

    def __init__(self, pixels: int = 1) -> None:
        if pixels < 0:
            raise UsageError(f"a shift of {pixels} pixels is out of range; use 0 or more")
        self.pixels = pixels

    def __call__(self, x: Tensor, random: np.random.Generator) -> Changed:
        _check_picture(x)
        down, right = random.integers(-self.pixels, self.pixels + 1, 2)
        rows = (torch.arange(x.shape[-2]) - int(down)).clamp(0, x.shape[-2] - 1)
        columns = (torch.arange(x.shape[-1]) - int(right)).clamp(0, x.shape[-1] - 1)
        told = torch.tensor([float(down), float(right)]) / max(self.pixels, 1)
        return Changed(x[..., rows, :][..., columns], told)


@AUGMENTATIONS.register("crop")
class Crop(Augment):
    """Cut out a window anywhere in the picture and enlarge it to the whole size.

    least: the smallest side of the window in parts of the picture's; it is uniform from there to 1.
    Told: how much is cut off and where the window is, down and right of the middle, all in parts
    of the most there can be; zeros are the whole picture.
    """

    width = 3

    def __init__(self, least: float = 0.8) -> None:
        if not 0.0 < least <= 1.0:
            raise UsageError(f"a window of {least} of the side is out of range; use 0 to 1")
        self.least = least

    def __call__(self, x: Tensor, random: np.random.Generator) -> Changed:
        _check_picture(x)
        cut = random.random() * (1.0 - self.least)
        down, right = (2.0 * random.random(2) - 1.0) * cut
        inverse = np.eye(3)
        inverse[0, 0] = inverse[1, 1] = 1.0 - cut
        inverse[:2, 2] = right * x.shape[-1] / 2, down * x.shape[-2] / 2
        most = max(1.0 - self.least, 1e-12)
        told = torch.tensor([cut, down, right], dtype=torch.float32) / most
        return Changed(_resampled(x, inverse), told)


@AUGMENTATIONS.register("geometric")
class Geometric(Augment):
    """Scale, rotate, stretch along some axis and move, each with a probability.

    Scale 2^(s·n); rotation by a uniform angle; stretch by 2^(s·n) along an axis and by its inverse
    across, the axis turned at random half the time; move by m·n of the picture's sides; n is
    standard normal. With flips before it in both directions this is the augmentation of EDM, whose
    probability is 0.12 for CIFAR-10 (Karras et al. 2022, table 6).
    The picture goes on beyond its edges as in a mirror; values are cubic interpolations, kept
    within [−1, 1].
    Told (7): n of the scale; cos − 1 and sin of the angle; n of the stretch times cos and sin of
    its axis; n of the moves to the right and down.

    scale: s, of the scale and of the stretch. turn: the largest angle in parts of a half turn.
    move: m.
    """

    width = 7

    def __init__(
        self, probability: float = 0.12, scale: float = 0.2, turn: float = 1.0, move: float = 0.125
    ) -> None:
        _check_probability(probability)
        if scale < 0 or not 0 <= turn <= 1 or move < 0:
            raise UsageError(
                f"scale {scale}, turn {turn} and move {move} are out of range; use 0 or more, and "
                "at most 1 for turn"
            )
        self.probability, self.scale, self.turn, self.move = probability, scale, turn, move

    def __call__(self, x: Tensor, random: np.random.Generator) -> Changed:
        _check_picture(x)
        happens = random.random(4) < self.probability
        if not happens.any():
            return Changed(x, torch.zeros(self.width))
        size, stretch, right, down = random.standard_normal(4) * happens[[0, 2, 3, 3]]
        angle = (2.0 * random.random() - 1.0) * math.pi * self.turn * happens[1]
        axis = (2.0 * random.random() - 1.0) * math.pi * (random.random() < 0.5)
        inverse = (
            _scaling(-self.scale * size, -self.scale * size)
            @ _rotation(-angle)
            @ _rotation(axis)
            @ _scaling(-self.scale * stretch, self.scale * stretch)
            @ _rotation(-axis)
        )
        moves = (self.move * right * x.shape[-1], self.move * down * x.shape[-2])
        inverse[:2, 2] -= inverse[:2, :2] @ moves
        told = [size, math.cos(angle) - 1.0, math.sin(angle)]
        told += [stretch * math.cos(axis), stretch * math.sin(axis), right, down]
        return Changed(_resampled(x, inverse), torch.tensor(told, dtype=torch.float32))


@AUGMENTATIONS.register("both")
class Both(Augment):
    """One change after another; what they tell stands in the same order."""

    def __init__(self, first: Augment, second: Augment) -> None:
        self.first, self.second = first, second
        self.width = first.width + second.width

    def __call__(self, x: Tensor, random: np.random.Generator) -> Changed:
        changed, before = self.first(x, random)
        changed, after = self.second(changed, random)
        return Changed(changed, torch.cat([before, after]))


def chain(parts: Sequence[Augment]) -> Augment | None:
    """All changes one after another; None for none."""
    return reduce(Both, parts) if parts else None


def _check_probability(probability: float) -> None:
    if not 0.0 <= probability <= 1.0:
        raise UsageError(f"probability {probability} is out of range; use 0 to 1")


def _check_picture(x: Tensor) -> None:
    if x.ndim != 3:
        raise ShapeError(
            f"only pictures (C, H, W) can be augmented, not samples of shape {tuple(x.shape)}"
        )


Matrix = np.ndarray[Any, np.dtype[np.float64]]


def _scaling(x: float, y: float) -> Matrix:
    return np.diag([2.0**x, 2.0**y, 1.0])


def _rotation(angle: float) -> Matrix:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _resampled(x: Tensor, inverse: Matrix) -> Tensor:
    """The picture whose pixel p, (x, y) from the middle, is x's at `inverse` p."""
    half = np.diag([x.shape[-1] / 2.0, x.shape[-2] / 2.0, 1.0])
    theta = torch.from_numpy((np.linalg.inv(half) @ inverse @ half)[:2]).to(x)
    grid = affine_grid(theta[None], [1, *x.shape], align_corners=False)
    # The border itself is not repeated at the mirror, so no row of pixels counts twice.
    moved = grid_sample(
        x[None], grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )
    return moved[0].clamp(-1.0, 1.0)
