"""Says from a picture what coloured shapes are in it, and so which captions are true.

The picture is taken apart by colour. Moments give the centre and area of each part; the kind is
the one whose drawing at that centre and area covers the same pixels. Nothing is learned and
nothing is random, so the measure of one model means the same as that of another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.data import scenes
from fromnoise.data.scenes import COLOURS, KINDS, SIZES, Thing
from fromnoise.data.shapes import WHITE, coverage

Floats = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

UNKNOWN_KIND, UNKNOWN_COLOUR = "something", "other"

_PALETTE = np.array(list(COLOURS.values()), np.float64) / WHITE
_INK = 0.35
_SPECK = 0.25
_COLOUR_LIMIT = 0.3
_FIT = 0.8


@dataclass(frozen=True)
class Reading:
    """The things read from one picture. What is no known shape has the kind "something"."""

    things: tuple[Thing, ...]

    def holds(self, caption: str) -> bool:
        """Whether all that the caption says is true; there may be other things beside."""
        return scenes.parse(caption).holds(self.things)

    def covers(self, caption: str) -> bool:
        """Whether the caption is true and mentions everything in the picture."""
        return scenes.parse(caption).covers(self.things)

    def attributes(self, caption: str) -> dict[str, bool]:
        """What of the caption is true: kind, colour, size, count, position; if it speaks of it."""
        return scenes.parse(caption).attributes(self.things)

    def captions(self) -> list[str]:
        """Every caption that is true of the picture."""
        return list(scenes.captions(self.things))


def read(picture: Float[Tensor, "3 height width"]) -> Reading:
    """Read a picture in [−1, 1] of shapes on white, at least 32 pixels on each side.

    Raises ShapeError for another shape, UsageError for values that are not finite.
    """
    return Reading(tuple(thing for thing, _ in covered(picture)))


def covered(picture: Float[Tensor, "3 height width"]) -> list[tuple[Thing, Floats]]:
    """The things read from a picture, each with the share of every pixel (H, W) that it covers.

    Raises as `read` does.
    """
    if picture.ndim != 3 or picture.shape[0] != 3 or min(picture.shape[1:]) < 32:
        raise ShapeError(f"a picture to read is (3, H, W), 32 or more; not {tuple(picture.shape)}")
    if not bool(torch.isfinite(picture).all()):
        raise UsageError("the picture holds values that are not finite; it cannot be read")
    unit = ((picture.detach().double().cpu() + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy()
    side = min(unit.shape[:2])
    least = _SPECK * math.pi * (SIZES["small"][0] * side) ** 2
    parts = [part for part in _parts(unit) if part.sum() >= least]
    return [_thing(unit, part, side) for part in parts]


def score(
    pictures: Float[Tensor, "batch 3 height width"], captions: Sequence[str]
) -> Bool[Tensor, " batch"]:
    """Whether each picture shows what its caption says and nothing else.

    Raises UsageError for another number of captions, or one that `scenes.parse` cannot read.
    """
    if len(pictures) != len(captions):
        raise UsageError(f"{len(captions)} captions for {len(pictures)} pictures; give one each")
    claims = [scenes.parse(caption) for caption in captions]
    readings = [read(picture) for picture in pictures]
    told = [c.covers(r.things) for c, r in zip(claims, readings, strict=True)]
    return torch.tensor(told, dtype=torch.bool)


def _parts(unit: Floats) -> list[Mask]:
    """The connected parts of one colour, from left to right and top to bottom."""
    from scipy import ndimage

    ink = (1.0 - unit).max(axis=2) > _INK
    whole, count = ndimage.label(ink)
    parts: list[Mask] = [whole == number for number in range(1, count + 1)]
    return parts


def _thing(unit: Floats, part: Mask, side: int) -> tuple[Thing, Floats]:
    colour = _ink_colour(unit, part)
    share = _shares(unit, part, colour)
    area = share.sum()
    rows, columns = np.indices(share.shape) + 0.5
    x, y = (share * columns).sum() / area, (share * rows).sum() / area
    radius = math.sqrt(area / math.pi)
    kind = _kind(share, float(x) / side, float(y) / side, radius / side, side)
    name = _colour_name(colour)
    return Thing(kind, name, float(x) / side, float(y) / side, radius / side), share


def _ink_colour(unit: Floats, part: Mask) -> Floats:
    """The median colour of the pixels that lie wholly inside, as far as there are any."""
    from scipy import ndimage

    inner = ndimage.binary_erosion(part, np.ones((3, 3)))
    pixels = unit[inner] if inner.sum() >= 4 else unit[part]
    return np.median(pixels, axis=0)


def _shares(unit: Floats, part: Mask, colour: Floats) -> Floats:
    """How much of every pixel is covered: its place on the line from white to the colour."""
    from scipy import ndimage

    line = colour - 1.0
    along = ((unit - 1.0) @ line) / max(float(line @ line), 1e-6)
    near = ndimage.binary_dilation(part, np.ones((3, 3)))
    return np.where(near, along.clip(0.0, 1.0), 0.0)


def _colour_name(colour: Floats) -> str:
    distance = np.sqrt(((_PALETTE - colour) ** 2).sum(axis=1))
    best = int(distance.argmin())
    return list(COLOURS)[best] if distance[best] <= _COLOUR_LIMIT else UNKNOWN_COLOUR


def _kind(share: Floats, x: float, y: float, radius: float, side: int) -> str:
    """The kind whose drawing overlaps most: Σ min(a, b) / Σ max(a, b), and enough of it."""
    height, width = share.shape
    overlaps = []
    for kind in KINDS:
        drawn = coverage(Thing(kind, "black", x, y, radius), height, width, side)
        overlaps.append(np.minimum(share, drawn).sum() / np.maximum(share, drawn).sum())
    best = int(np.argmax(overlaps))
    return KINDS[best] if overlaps[best] >= _FIT else UNKNOWN_KIND
