"""Operators that treat every pixel alike: identity, fading, grayscale."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.operators.base import OPERATORS, Operator, SpectralOperator, Svd
from fromnoise.operators.basis import spatial

LUMA = (0.299, 0.587, 0.114)
"""The weights of red, green and blue in brightness (ITU-R BT.601)."""


def _same(x: Tensor) -> Tensor:
    return x


@OPERATORS.register("identity")
@dataclass(frozen=True)
class Identity(SpectralOperator):
    """No degradation: y = x."""

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def pinv(self, y: Tensor) -> Tensor:
        return y

    def svd(self, like: Tensor) -> Svd:
        return Svd(like.new_ones([1] * like.ndim), _same, _same, _same, _same)


@OPERATORS.register("fade")
@dataclass(frozen=True)
class Fade(SpectralOperator):
    """Fade to mid-grey: y = scale·x.

    scale: what is left, 0 to 1. Raises UsageError for another. The pseudo-inverse of scale 0 is 0.
    """

    scale: float = 0.5

    def __post_init__(self) -> None:
        _check_scale(self.scale)

    def __call__(self, x: Tensor) -> Tensor:
        return self.scale * x

    def adjoint(self, y: Tensor) -> Tensor:
        return self.scale * y

    def pinv(self, y: Tensor) -> Tensor:
        return y / self.scale if self.scale else torch.zeros_like(y)

    def svd(self, like: Tensor) -> Svd:
        values = like.new_full([1] * like.ndim, self.scale)
        return Svd(values, _same, _same, _same, _same)


@OPERATORS.register("fade_to")
@dataclass(frozen=True)
class FadeTo(Operator):
    """Fade to a colour: y = scale·x + (1 − scale)·colour; affine, so it has no adjoint.

    scale: what is left, 0 to 1. colour: one number for each channel, or one for all, in [−1, 1].
    Raises UsageError for values out of range, ShapeError for a picture of other channels.
    """

    scale: float = 0.5
    colour: Sequence[float] = (1.0,)

    def __post_init__(self) -> None:
        _check_scale(self.scale)
        check_colour(self.colour)
        object.__setattr__(self, "colour", tuple(self.colour))

    def __call__(self, x: Tensor) -> Tensor:
        return self.scale * x + (1 - self.scale) * colour_like(self.colour, x)


@OPERATORS.register("grayscale")
@dataclass(frozen=True)
class Grayscale(SpectralOperator):
    """One channel from several: y = Σ_c w_c·x_c.

    weights: one for each channel of the picture; the mean of three by default, `LUMA` for
    brightness. The pseudo-inverse gives every channel w_c·y/‖w‖²; for the mean it repeats y.
    Raises UsageError for no weights or only zeros, ShapeError for a picture of other channels.
    """

    weights: Sequence[float] = (1 / 3, 1 / 3, 1 / 3)

    def __post_init__(self) -> None:
        if not any(self.weights) or not all(math.isfinite(w) for w in self.weights):
            raise UsageError(f"weights {list(self.weights)} must be finite and not all zero")
        object.__setattr__(self, "weights", tuple(self.weights))

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x, len(self.weights))
        return (x * self._column(x)).sum(dim=1, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, 1)
        return y * self._column(y)

    def pinv(self, y: Tensor) -> Tensor:
        return self.adjoint(y) / sum(w * w for w in self.weights)

    def svd(self, like: Tensor) -> Svd:
        self._check(like, len(self.weights))
        weights = torch.tensor(self.weights, dtype=torch.float64)
        mirror = _reflector(weights).to(like)
        values = like.new_zeros([1, len(self.weights)] + [1] * (like.ndim - 2))
        values[:, 0] = float(weights.norm())

        # The mirror is symmetric and its own inverse, so V and its transpose are one map.
        def turn(x: Tensor) -> Tensor:
            return torch.einsum("ij,bj...->bi...", mirror, x)

        def first(x: Tensor) -> Tensor:
            return x[:, :1]

        def refill(y: Tensor) -> Tensor:
            return torch.cat([y, y.new_zeros(y.shape[0], len(weights) - 1, *y.shape[2:])], dim=1)

        return Svd(values, turn, turn, first, refill)

    def _column(self, x: Tensor) -> Tensor:
        return x.new_tensor(self.weights).reshape([1, -1] + [1] * (x.ndim - 2))

    def _check(self, x: Tensor, channels: int) -> None:
        spatial(x)
        if x.shape[1] != channels:
            raise ShapeError(f"grayscale expects {channels} channels here, got {tuple(x.shape)}")


def _reflector(weights: Tensor) -> Tensor:
    """The Householder reflection whose first row is the direction of `weights`."""
    direction = weights / weights.norm()
    offset = direction.clone()
    offset[0] -= 1
    mirror = torch.eye(len(weights), dtype=weights.dtype)
    if offset.norm() == 0:
        return mirror
    offset /= offset.norm()
    return mirror - 2 * torch.outer(offset, offset)


def _check_scale(scale: float) -> None:
    if not 0 <= scale <= 1:
        raise UsageError(f"scale {scale} is out of range; use 0 (nothing left) to 1 (unchanged)")


def check_colour(colour: Sequence[float]) -> None:
    """Raise UsageError unless `colour` is one or more numbers in [−1, 1]."""
    if not colour or not all(-1 <= c <= 1 for c in colour):
        raise UsageError(f"colour {list(colour)} must be numbers from -1 to 1, one a channel")


def colour_like(colour: Sequence[float], x: Tensor) -> Tensor:
    """A colour as (1, channels or 1, 1, ...), to broadcast over the picture x (B, C, *spatial)."""
    spatial(x)
    if len(colour) not in (1, x.shape[1]):
        raise ShapeError(f"a colour of {len(colour)} numbers for {x.shape[1]} channels")
    return x.new_tensor(colour).reshape([1, -1] + [1] * (x.ndim - 2))
