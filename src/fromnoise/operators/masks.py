"""Masks: what an inpainting keeps. Given, a box, random boxes, soft holes grown from a centre."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.randomness import Noise
from fromnoise.operators.base import OPERATORS, SpectralOperator, Svd, check_cutoff, invert
from fromnoise.operators.basis import spatial


@dataclass(frozen=True, eq=False)
class Mask(SpectralOperator):
    """Keep some pixels, put mid-grey elsewhere: y = m·x.

    keep: m in [0, 1], (B or 1, C or 1, *spatial); 1 keeps, 0 removes, between is soft.
    cutoff: softer parts of m than this part of its largest value count as zero in `pinv`.
    Raises UsageError for values out of range, ShapeError for a picture it does not fit.
    """

    keep: Tensor
    cutoff: float = 1e-3

    def __post_init__(self) -> None:
        spatial(self.keep)
        check_cutoff(self.cutoff)
        if not bool(((self.keep >= 0) & (self.keep <= 1)).all()):
            raise UsageError("a mask's values must be from 0 (removed) to 1 (kept)")

    def __call__(self, x: Tensor) -> Tensor:
        return x * self._fit(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self(y)

    def pinv(self, y: Tensor) -> Tensor:
        return y * invert(self._fit(y), self.cutoff)

    def svd(self, like: Tensor) -> Svd:
        return Svd(self._fit(like), _same, _same, _same, _same)

    def _fit(self, x: Tensor) -> Tensor:
        fits = self.keep.ndim == x.ndim and all(
            m in (1, n) for m, n in zip(self.keep.shape, x.shape, strict=True)
        )
        if not fits or tuple(self.keep.shape[2:]) != spatial(x):
            raise ShapeError(
                f"a mask of {tuple(self.keep.shape)} does not fit pictures of {tuple(x.shape)}"
            )
        return self.keep.to(x)


@OPERATORS.register("mask")
def mask(keep: Sequence[Sequence[float]], cutoff: float = 1e-3) -> Mask:
    """The mask of given rows, one number in [0, 1] for each pixel: (H, W).

    Raises UsageError for ragged rows or values out of range.
    """
    try:
        values = torch.tensor(keep, dtype=torch.float64)
    except (ValueError, TypeError) as error:
        raise UsageError(f"the mask is no table of numbers: {error}") from None
    return Mask(values[None, None], cutoff)


@OPERATORS.register("box")
@dataclass(frozen=True)
class Box(SpectralOperator):
    """Remove a box from a picture of any size.

    top, left, height, width: parts of the picture, 0 to 1; edges go to the nearest pixel.
    Raises UsageError for a box that leaves the picture or is empty.
    """

    top: float = 0.25
    left: float = 0.25
    height: float = 0.5
    width: float = 0.5

    def __post_init__(self) -> None:
        # Decimal parts that meet the edge may add up to a little more than 1.
        inside = max(self.top + self.height, self.left + self.width) <= 1 + 1e-9
        if min(self.top, self.left) < 0 or min(self.height, self.width) <= 0 or not inside:
            raise UsageError(f"{self} does not lie in the picture; use parts of it from 0 to 1")

    def __call__(self, x: Tensor) -> Tensor:
        return self.mask(x)(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.mask(y).adjoint(y)

    def pinv(self, y: Tensor) -> Tensor:
        return self.mask(y).pinv(y)

    def svd(self, like: Tensor) -> Svd:
        return self.mask(like).svd(like)

    def mask(self, like: Tensor) -> Mask:
        """The mask of this box on pictures (B, C, H, W) of the shape of `like`."""
        sizes = spatial(like)
        if len(sizes) != 2:
            raise ShapeError(f"a box needs pictures (B, C, H, W), got {tuple(like.shape)}")
        height, width = sizes
        rows = slice(round(self.top * height), round((self.top + self.height) * height))
        columns = slice(round(self.left * width), round((self.left + self.width) * width))
        keep = like.new_ones((1, 1, height, width))
        keep[..., rows, columns] = 0
        return Mask(keep)


def random_boxes(noise: Noise, like: Tensor, smallest: float = 0.25, largest: float = 0.5) -> Mask:
    """Masks that remove one random box from each sample of `like` (B, C, *spatial).

    smallest, largest: the side of a box as a part of the picture's, uniform between, each axis of
    its own; at least one pixel. Its place is uniform. Each sample draws from its own seed.
    Raises UsageError unless 0 < smallest ≤ largest ≤ 1.
    """
    if not 0 < smallest <= largest <= 1:
        raise UsageError(
            f"box sides from {smallest} to {largest}; use 0 < smallest <= largest <= 1"
        )
    sizes = spatial(like)
    drawn = noise.uniform(torch.empty(like.shape[0], len(sizes), 2, device=like.device))
    inside = torch.ones((like.shape[0], 1, *sizes), dtype=torch.bool, device=like.device)
    for axis, size in enumerate(sizes):
        u_side, u_place = drawn[:, axis].unbind(-1)
        side = ((smallest + (largest - smallest) * u_side) * size).round().clamp(1, size)
        start = (u_place * (size - side + 1)).floor()
        place = torch.arange(size, device=like.device)
        within = (place >= start[:, None]) & (place < (start + side)[:, None])
        inside &= within.reshape([-1, 1] + [size if a == axis else 1 for a in range(len(sizes))])
    return Mask((~inside).to(like.dtype))


def squared_distance(centre: Tensor, like: Tensor) -> Tensor:
    """The squared distance of each pixel from a centre, the longest side of the picture being 1.

    centre: (B, number of spatial axes) in [0, 1], 0 the middle of the first pixel, 1 of the last.
    Returns (B, 1, *spatial) in at least float32, device of `like`.
    """
    sizes = spatial(like)
    dtype = torch.promote_types(like.dtype, torch.float32)
    at = centre.to(device=like.device, dtype=dtype)
    total = torch.zeros((at.shape[0], 1, *sizes), dtype=dtype, device=like.device)
    for axis, size in enumerate(sizes):
        place = torch.arange(size, dtype=dtype, device=like.device)
        offset = (place - at[:, axis, None] * (size - 1)) / max(sizes)
        total += (offset**2).reshape(
            [-1, 1] + [size if a == axis else 1 for a in range(len(sizes))]
        )
    return total


def soft_holes(noise: Noise, like: Tensor, width: float = 0.2) -> Mask:
    """Masks with one soft hole at a random centre of each sample: m = 1 − exp(−r²/(2·width²)).

    width: in parts of the picture's longest side, above 0; r likewise.
    The mask of one step in Bansal et al. 2022, "Cold Diffusion" (inpainting).
    """
    if width <= 0:
        raise UsageError(f"hole width {width} is out of range; use a number above 0")
    empty = torch.empty(like.shape[0], len(spatial(like)), device=like.device)
    r2 = squared_distance(noise.uniform(empty), like)
    return Mask((-torch.expm1(-r2 / (2 * width**2))).to(like.dtype))


def _same(x: Tensor) -> Tensor:
    return x
