"""Degradations indexed by time, D(x, t): the forward processes of cold diffusion.

Bansal et al. 2022, "Cold Diffusion: Inverting Arbitrary Image Transforms Without Noise". Level k
of a published schedule of T steps stands at t = k/T; between levels a family goes on smoothly.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fromnoise.core.config import Kinds
from fromnoise.core.errors import ShapeError, UsageError, unknown
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import expand
from fromnoise.operators.base import Operator
from fromnoise.operators.basis import heat, spatial
from fromnoise.operators.downsampling import block_mean, repeat
from fromnoise.operators.masks import squared_distance
from fromnoise.operators.pointwise import check_colour, colour_like

FAMILIES = Kinds("operator family")
"""Every family that a configuration file can name, by kind."""


class Family(ABC):
    """A degradation D(x0, t) that grows with t in [0, 1] from D(x0, 0) = x0, bit for bit.

    What differs between samples (the centre of a mask) is drawn once for each sample and handed
    to every later call, so that it is the same at all times.
    """

    config: dict[str, Any]

    @property
    @abstractmethod
    def steps(self) -> int:
        """The number of levels of the schedule; level k stands at t = k/steps."""

    @property
    def linear(self) -> bool:
        """Whether D(x0, t) is linear in x0 at every t."""
        return True

    @property
    def learned(self) -> nn.Module:
        """The module of the parameters that training may change; empty for most families."""
        return nn.Module()

    @property
    def end_held(self) -> bool:
        """Whether D(x, 1) stays the same whatever is learned, and with it a prior fitted to it."""
        return True

    def draw(self, noise: Noise, like: Float[Tensor, "batch ..."]) -> Tensor | None:
        """The randomness of each sample, (B, ...), from its own seed; None where there is none."""
        return None

    def at(self, t: Tensor, draw: Tensor | None = None) -> Operator:
        """The operator x0 ↦ D(x0, t) for fixed times (B,) and a fixed draw."""
        return Snapshot(self, t, draw)

    def apply(
        self, x0: Float[Tensor, "batch ..."], t: Float[Tensor, " times"], draw: Tensor | None = None
    ) -> Float[Tensor, "batch ..."]:
        """D(x0, t), each sample at its own time.

        x0: (B, C, H, W) or (B, C, T). t: (B,) in [0, 1]. draw: what `draw` gave for these samples.
        Raises ShapeError for other shapes, UsageError for a time outside [0, 1].
        """
        spatial(x0)
        if t.shape != x0.shape[:1]:
            raise ShapeError(f"times of shape {tuple(t.shape)} for {x0.shape[0]} samples")
        if draw is not None and draw.shape[:1] != x0.shape[:1]:
            raise ShapeError(f"a draw of shape {tuple(draw.shape)} for {x0.shape[0]} samples")
        if not bool(((t >= 0) & (t <= 1)).all()):
            raise UsageError(f"times must be from 0 to 1, got {t.tolist()}")
        # Rounding may not touch a sample at t = 0: its degradation is the identity.
        untouched = (t == 0).to(x0.device).reshape([-1] + [1] * (x0.ndim - 1))
        return torch.where(untouched, x0, self._degrade(x0, t.to(x0.device), draw))

    @abstractmethod
    def _degrade(self, x0: Tensor, t: Tensor, draw: Tensor | None) -> Tensor:
        """D(x0, t) up to rounding, for checked arguments."""


class Snapshot(Operator):
    """One family at fixed times with a fixed draw."""

    def __init__(self, family: Family, t: Tensor, draw: Tensor | None) -> None:
        self.family, self.t, self.draw = family, t, draw

    def __call__(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        return self.family.apply(x, self.t, self.draw)


def widths(steps: int, first: float, last: float, growth: str) -> Tensor:
    """The widths of `steps` levels from first to last, float64: evenly spaced, or in their logs.

    Raises UsageError for no steps, a width that is not above 0, or another growth.
    """
    if steps < 1:
        raise UsageError(f"a family of {steps} steps; use 1 or more")
    if not (0 < first < math.inf and 0 < last < math.inf):
        raise UsageError(f"widths from {first} to {last} must be above 0")
    if growth == "linear":
        return torch.linspace(first, last, steps, dtype=torch.float64)
    if growth == "exponential":
        return torch.logspace(math.log2(first), math.log2(last), steps, 2.0, dtype=torch.float64)
    raise unknown("growth", growth, ("linear", "exponential"))


def accumulated(increments: Tensor, t: Tensor) -> Tensor:
    """The sum of the first t·steps increments (steps,), the last one in part; t (B,), float64."""
    total = torch.cat([increments.new_zeros(1), increments.cumsum(0)]).to(t.device)
    steps = increments.shape[0]
    level = t.to(torch.float64) * steps
    below = level.floor().long().clamp(max=steps - 1)
    return torch.lerp(total[below], total[below + 1], level - below)


@FAMILIES.register("blur")
@dataclass(frozen=True)
class Blur(Family):
    """Gaussian blurs applied one after another: D(x, k/T) = G(σ_k)·…·G(σ_1)·x.

    With reflecting edges the blurs add up to one of variance Σσ_i², exactly; part of a level is
    that part of its variance. steps: T. first, last: σ_1 and σ_T in pixels. growth: linear or
    exponential, how σ grows.
    At t = 1 a picture of side n keeps exp(−(π/n)²·Σσ²/2) of its slowest wave: choose the widths so
    that this is small where samples shall start from colours alone.
    """

    steps: int = 40
    first: float = 0.4
    last: float = 2.0
    growth: str = "linear"

    def __post_init__(self) -> None:
        widths(self.steps, self.first, self.last, self.growth)

    def _degrade(self, x0: Tensor, t: Tensor, draw: Tensor | None) -> Tensor:
        sigma = widths(self.steps, self.first, self.last, self.growth)
        return heat(x0, accumulated(sigma**2, t))


class LevelWidths(nn.Module):
    """Positive widths, one for each level, as parameters: σ_k = softplus(raw_k)."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        # The inverse of softplus, in the form that stays finite for large widths.
        self.raw = nn.Parameter((start + torch.log(-torch.expm1(-start))).to(torch.float32))

    def forward(self) -> Tensor:
        """The widths, float64, with gradients."""
        return nn.functional.softplus(self.raw.to(torch.float64))


@FAMILIES.register("learnable_blur")
class LearnableBlur(Family):
    """The `blur` family with every level's width a parameter of `learned`.

    The first arguments are those of `Blur` and give the widths at the start. Widths stay above 0,
    so the blur still grows with t whatever is learned.
    end: `free`, or `held`: the widths are scaled to σ_k²·Σσ_start²/Σσ², so that the blur at t = 1
    stays what it was and only the way to it is learned. A loss that is to be small would else take
    the blur away. The parameters are saved with `learned`, not in the configuration.
    """

    def __init__(
        self,
        steps: int = 40,
        first: float = 0.4,
        last: float = 2.0,
        growth: str = "linear",
        end: Literal["free", "held"] = "free",
    ) -> None:
        start = widths(steps, first, last, growth)
        self._widths = LevelWidths(start)
        self._total = float((start**2).sum())
        self._steps = steps
        self._end = end

    @property
    def steps(self) -> int:
        return self._steps

    @property
    def learned(self) -> nn.Module:
        return self._widths

    @property
    def end_held(self) -> bool:
        return self._end == "held"

    def variances(self) -> Tensor:
        """What each level adds to the blur's variance (steps,), in pixels², with gradients."""
        squares: Tensor = self._widths() ** 2
        return squares * (self._total / squares.sum()) if self.end_held else squares

    def _degrade(self, x0: Tensor, t: Tensor, draw: Tensor | None) -> Tensor:
        return heat(x0, accumulated(self.variances(), t))


@FAMILIES.register("downsample")
@dataclass(frozen=True)
class Downsampling(Family):
    """Coarser and coarser: D(x, k/T) is x with every block of 2^k pixels set to its mean.

    The picture keeps its size (nearest-neighbour upsampling). Between levels the two neighbours
    are mixed linearly. Sizes must divide by 2^steps, else ShapeError; steps = log2(size) ends in
    one colour a channel.
    """

    steps: int = 3

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"a family of {self.steps} steps; use 1 or more")

    def _degrade(self, x0: Tensor, t: Tensor, draw: Tensor | None) -> Tensor:
        if any(size % 2**self.steps for size in spatial(x0)):
            raise ShapeError(
                f"{self.steps} halvings need sizes that divide by {2**self.steps}, "
                f"got {spatial(x0)}; use fewer steps or another size"
            )
        level = t.to(torch.float64) * self.steps
        mixed = torch.zeros_like(x0)
        coarse = x0
        for k in range(self.steps + 1):
            if k:
                # A mean of means of equal blocks is the mean of the larger block.
                coarse = block_mean(coarse, 2)
            weight = (1 - (level - k).abs()).clamp(min=0)
            mixed = mixed + expand(weight, x0) * repeat(coarse, 2**k)
        return mixed


@FAMILIES.register("mask")
@dataclass(frozen=True)
class Masking(Family):
    """A soft hole that grows from a centre: D(x, k/T) = x·Π_{i≤k} (1 − exp(−r²/(2σ_i²))).

    steps: T. first, last: σ_1 and σ_T in parts of the picture's longest side. growth: linear or
    exponential, how σ grows.
    spread: where the centre may be, 0 always the middle, 1 anywhere in the picture; it is the draw
    of each sample. Part of a level is a power of its factor. What is removed becomes mid-grey.
    The default widths leave 0.2 % of a picture at t = 1 from a hole in the middle; with a spread of
    1 use last = 1, which leaves as little from a hole in a corner.
    """

    steps: int = 50
    first: float = 0.02
    last: float = 0.4
    spread: float = 0.0
    growth: str = "linear"

    def __post_init__(self) -> None:
        widths(self.steps, self.first, self.last, self.growth)
        if not 0 <= self.spread <= 1:
            raise UsageError(
                f"spread {self.spread} is out of range; use 0 (middle) to 1 (anywhere)"
            )

    def draw(self, noise: Noise, like: Tensor) -> Tensor:
        """The centre of each sample's hole, (B, number of spatial axes) in [0, 1]."""
        empty = torch.empty(like.shape[0], len(spatial(like)), device=like.device)
        return 0.5 + self.spread * (noise.uniform(empty) - 0.5)

    def _degrade(self, x0: Tensor, t: Tensor, draw: Tensor | None) -> Tensor:
        if draw is None:
            raise UsageError("a growing mask needs its centres; pass what `draw` gives")
        if draw.shape[1:] != (len(spatial(x0)),):
            raise ShapeError(f"centres of shape {tuple(draw.shape)} for pictures of {spatial(x0)}")
        r2 = squared_distance(draw, x0)
        level = t.to(torch.float64) * self.steps
        keep = torch.ones_like(r2)
        sigma = widths(self.steps, self.first, self.last, self.growth)
        for i, width in enumerate(sigma.tolist()):
            part = (level - i).clamp(0, 1)
            # At the centre the factor is 0, and 0 to the power 0 is 1: unreached levels do nothing.
            keep = keep * (-torch.expm1(-r2 / (2 * width**2))) ** expand(part, r2)
        return x0 * keep.to(x0.dtype)


@FAMILIES.register("fade")
@dataclass(frozen=True)
class Fading(Family):
    """A fade to one colour: D(x, t) = (1 − t)·x + t·colour.

    colour: one number for each channel, or one for all, in [−1, 1]; 0 is mid-grey.
    """

    steps: int = 50
    colour: Sequence[float] = (0.0,)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"a family of {self.steps} steps; use 1 or more")
        check_colour(self.colour)
        object.__setattr__(self, "colour", tuple(self.colour))

    @property
    def linear(self) -> bool:
        return not any(self.colour)

    def _degrade(self, x0: Tensor, t: Tensor, draw: Tensor | None) -> Tensor:
        return expand(1 - t, x0) * x0 + expand(t, x0) * colour_like(self.colour, x0)


@FAMILIES.register("fade_to_mean")
@dataclass(frozen=True)
class FadingToMean(Family):
    """A fade to each channel's mean: D(x, t) = (1 − t)·x + t·mean(x), the mean over the picture."""

    steps: int = 50

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"a family of {self.steps} steps; use 1 or more")

    def _degrade(self, x0: Tensor, t: Tensor, draw: Tensor | None) -> Tensor:
        mean = x0.mean(dim=tuple(range(2, x0.ndim)), keepdim=True)
        return expand(1 - t, x0) * x0 + expand(t, x0) * mean


def get_family(kind: str | Mapping[str, Any]) -> Family:
    """The family of a name, or of a configuration `{"kind": name, argument: value, ...}`.

    Raises UsageError for an unknown kind (with the nearest names) or a wrong argument.
    """
    return FAMILIES.build({"kind": kind} if isinstance(kind, str) else kind)  # type: ignore[no-any-return]
