"""Points in the plane: whole distributions that can be seen at a glance, about the unit square."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.errors import UsageError, unknown
from fromnoise.data.base import DATA, Dataset

Floats = np.ndarray[Any, np.dtype[np.float64]]
Labels = np.ndarray[Any, np.dtype[np.int64]]
Draw = Callable[[np.random.Generator, Labels], Floats]

_STD = 0.06


def _moons(random: np.random.Generator, label: Labels) -> Floats:
    angle = np.pi * random.random(len(label))
    upper: Floats = np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25], axis=1)
    sign = 1.0 - 2.0 * label[:, None]
    return 0.6 * sign * upper + 0.04 * random.standard_normal((len(label), 2))


def _spiral(random: np.random.Generator, label: Labels) -> Floats:
    # The square root spreads the points evenly along the arm.
    angle = 3.0 * np.pi * np.sqrt(random.random(len(label)))
    arm: Floats = (angle / (3.0 * np.pi))[:, None] * np.stack(
        [np.cos(angle), np.sin(angle)], axis=1
    )
    sign = 1.0 - 2.0 * label[:, None]
    return sign * arm + 0.02 * random.standard_normal((len(label), 2))


def _pinwheel(random: np.random.Generator, label: Labels) -> Floats:
    along = 0.55 + 0.15 * random.standard_normal(len(label))
    across = 0.05 * random.standard_normal(len(label))
    angle = 2.0 * np.pi * label / 5 + 0.8 * (along - 0.55) / 0.15 * 0.4
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([along * cos - across * sin, along * sin + across * cos], axis=1)


def _checkerboard(random: np.random.Generator, label: Labels) -> Floats:
    column = random.integers(0, 4, len(label))
    row = 2 * random.integers(0, 2, len(label)) + column % 2
    return (np.stack([column, row], axis=1) + random.random((len(label), 2))) / 2.0 - 1.0


def _rings(random: np.random.Generator, label: Labels) -> Floats:
    angle = 2.0 * np.pi * random.random(len(label))
    radius = np.array([0.3, 0.6, 0.9])[label] + 0.02 * random.standard_normal(len(label))
    ring: Floats = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return ring


def _circle(count: int, radius: float) -> Floats:
    angle = 2.0 * np.pi * np.arange(count) / count
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


_MEANS = {"two-gaussians": _circle(2, 0.5), "eight-gaussians": _circle(8, 0.8)}


def _gaussians(means: Floats) -> Draw:
    def draw(random: np.random.Generator, label: Labels) -> Floats:
        return means[label] + _STD * random.standard_normal((len(label), 2))

    return draw


SHAPES: dict[str, tuple[int, Draw]] = {
    "moons": (2, _moons),
    "spiral": (2, _spiral),
    "pinwheel": (5, _pinwheel),
    "checkerboard": (1, _checkerboard),
    "rings": (3, _rings),
    "two-gaussians": (2, _gaussians(_MEANS["two-gaussians"])),
    "eight-gaussians": (8, _gaussians(_MEANS["eight-gaussians"])),
}
"""How many classes each shape has, and how its points are drawn."""


@DATA.register("points")
class Points(Dataset):
    """Points (D = 2) drawn once from a named distribution; the classes are its parts, in turn.

    shape: moons, spiral, pinwheel, checkerboard, rings, two-gaussians or eight-gaussians.
    Raises UsageError for another shape, a negative seed, or a count below 1.
    """

    def __init__(self, shape: str = "moons", count: int = 10_000, seed: int = 0) -> None:
        if shape not in SHAPES:
            raise unknown("shape of points", shape, SHAPES)
        if count < 1 or seed < 0:
            raise UsageError(f"count is {count} and seed {seed}; use 1 or more, and 0 or more")
        parts, draw = SHAPES[shape]
        label = np.arange(count, dtype=np.int64) % parts
        x = draw(np.random.Generator(np.random.PCG64(seed)), label)
        self.name, self.levels, self.shape = f"points-{shape}", None, (2,)
        self.classes = tuple(str(i) for i in range(parts)) if parts > 1 else ()
        self.labels = torch.from_numpy(label) if parts > 1 else None
        self._x = torch.from_numpy(x.astype(np.float32))
        self._means = _MEANS.get(shape)

    def __len__(self) -> int:
        return self._x.shape[0]

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        return self._x[torch.from_numpy(indices)]

    def mixture(self) -> tuple[Tensor, Tensor, Tensor]:
        """The exact distribution of the gaussian shapes: weights (K,), means (K, 2), stds (K,).

        Float64, as exact denoisers take them. Raises UsageError for the other shapes.
        """
        if self._means is None:
            raise UsageError(
                f"{self.name} is no mixture of Gaussians; two- and eight-gaussians are"
            )
        means = torch.from_numpy(self._means.copy())
        ones = torch.ones(len(means), dtype=torch.float64)
        return ones / len(means), means, ones * _STD

    def log_density(self, x: Tensor) -> Tensor:
        """The exact log density (B,) of the gaussian shapes at x (B, 2), in nats."""
        weights, means, stds = self.mixture()
        squared = (x.double()[:, None] - means).square().sum(dim=-1)
        parts = weights.log() - squared / (2 * stds**2) - 2 * stds.log() - math.log(2 * math.pi)
        return torch.logsumexp(parts, dim=1)
