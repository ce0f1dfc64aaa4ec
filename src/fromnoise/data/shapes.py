"""Drawn scenes with exact captions, masks and boxes: pictures about which everything is known."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.core.images import to_tensor
from fromnoise.data.base import DATA, Dataset
from fromnoise.data.order import bits
from fromnoise.data.scenes import (
    COLOURS,
    KINDS,
    SIZES,
    Claim,
    Phrase,
    Thing,
    relation,
)

Floats = np.ndarray[Any, np.dtype[np.float64]]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Box = tuple[float, float, float, float]

WHITE = 255.0
LEAST_SIDE = 32
_SCENE = 5
_GAP, _MARGIN, _CLEAR = 0.06, 0.02, 0.03
_DOMINANT = 0.75
_SUBPIXELS = 4
_INNER = 0.45

# Every shape has the area π of the unit circle and its centre of area at the origin.
_HALF = math.sqrt(math.pi) / 2
_TIP = math.sqrt(4 * math.pi / (3 * math.sqrt(3)))
_POINT = math.sqrt(math.pi / (5 * _INNER * math.sin(math.pi / 5)))


def _circle(u: Floats, v: Floats) -> Any:
    return u * u + v * v <= 1.0


def _square(u: Floats, v: Floats) -> Any:
    return (np.abs(u) <= _HALF) & (np.abs(v) <= _HALF)


def _triangle(u: Floats, v: Floats) -> Any:
    return (v <= _TIP / 2) & (math.sqrt(3) * np.abs(u) - v <= _TIP)


def _star(u: Floats, v: Floats) -> Any:
    """Five points, one up: all ten edges are one edge, seen in turned and mirrored planes."""
    angle = np.abs((np.arctan2(u, -v) + math.pi / 5) % (2 * math.pi / 5) - math.pi / 5)
    radius = np.hypot(u, v)
    along, across = radius * np.cos(angle), radius * np.sin(angle)
    inner_along, inner_across = _INNER * math.cos(math.pi / 5), _INNER * math.sin(math.pi / 5)
    edge = inner_across * (along / _POINT - 1.0) - (inner_along - 1.0) * across / _POINT
    return edge <= 0.0


_INSIDE: dict[str, Callable[[Floats, Floats], Any]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
}
_WIDE, _LOW = _POINT * math.sin(2 * math.pi / 5), _POINT * math.cos(math.pi / 5)
EXTENT: dict[str, Box] = {
    "circle": (-1.0, -1.0, 1.0, 1.0),
    "square": (-_HALF, -_HALF, _HALF, _HALF),
    "triangle": (-_TIP * math.sqrt(3) / 2, -_TIP, _TIP * math.sqrt(3) / 2, _TIP / 2),
    "star": (-_WIDE, -_POINT, _WIDE, _LOW),
}
"""(left, top, right, bottom) of each kind about its centre, in units of its radius."""


def box(thing: Thing, side: float = 1.0) -> Box:
    """(left, top, right, bottom) of a thing in a picture of that side; pixel i is from i to i+1."""
    left, top, right, bottom = (thing.radius * edge * side for edge in EXTENT[thing.kind])
    x, y = thing.x * side, thing.y * side
    return x + left, y + top, x + right, y + bottom


def window(
    thing: Thing, height: int, width: int, side: float
) -> tuple[tuple[slice, slice], Floats]:
    """(rows, columns) of the pixels a thing reaches, and the share of each that it covers.

    The share is counted at 4×4 points in every pixel.
    """
    left, top, right, bottom = box(thing, side)
    first, last = max(0, math.floor(left)), min(width, math.ceil(right))
    upper, lower = max(0, math.floor(top)), min(height, math.ceil(bottom))
    first, upper = min(first, last), min(upper, lower)
    columns = first + (np.arange((last - first) * _SUBPIXELS) + 0.5) / _SUBPIXELS
    rows = upper + (np.arange((lower - upper) * _SUBPIXELS) + 0.5) / _SUBPIXELS
    scale = thing.radius * side
    u, v = (columns - thing.x * side) / scale, (rows - thing.y * side) / scale
    inside = _INSIDE[thing.kind](u[None, :], v[:, None])
    blocks = inside.reshape(lower - upper, _SUBPIXELS, last - first, _SUBPIXELS)
    return (slice(upper, lower), slice(first, last)), blocks.mean(axis=(1, 3))


def coverage(thing: Thing, height: int, width: int, side: float) -> Floats:
    """The share of every pixel (height, width) that a thing covers."""
    shares = np.zeros((height, width))
    place, inner = window(thing, height, width, side)
    shares[place] = inner
    return shares


@dataclass(frozen=True)
class Scene:
    """Some things on white, and a caption that mentions all of them."""

    things: tuple[Thing, ...]
    caption: str

    def draw(self, side: int) -> Pixels:
        """The picture (side, side, 3)."""
        picture = np.full((side, side, 3), WHITE)
        for thing in self.things:
            place, share = window(thing, side, side, side)
            picture[place] += share[..., None] * (np.array(COLOURS[thing.colour]) - picture[place])
        return np.round(picture).astype(np.uint8)

    def masks(self, side: int) -> Tensor:
        """The share of every pixel each thing covers: (things, side, side), float32 in [0, 1]."""
        shares = [coverage(thing, side, side, side) for thing in self.things]
        return torch.from_numpy(np.stack(shares).astype(np.float32))

    def boxes(self, side: int) -> Tensor:
        """(things, 4), float32: left, top, right, bottom in pixels, exact."""
        return torch.tensor([box(thing, side) for thing in self.things])


@DATA.register("shapes")
class Shapes(Dataset):
    """Scenes of one to four coloured shapes on white, each with a caption that is exact.

    A third are single things, a third pairs ("a red circle above a blue square"), a third groups
    ("three green triangles"). Scene i depends on seed and i alone. Things do not touch; their
    places and relations are never near the border between two words, so they can be read back
    (`shapes_reader`).

    size: side in pixels, at least 32. without: pairs such as "red star" that never appear, to see
    what a model makes of combinations it was never shown.
    Raises UsageError for a size too small to tell shapes apart, or an unknown pair.
    """

    def __init__(
        self, size: int = 64, count: int = 50_000, seed: int = 0, without: Sequence[str] = ()
    ) -> None:
        if size < LEAST_SIDE or count < 1 or seed < 0:
            raise UsageError(
                f"size is {size}, count {count} and seed {seed}; use {LEAST_SIDE} or more, 1 or "
                "more, and 0 or more"
            )
        every = [f"{colour} {kind}" for colour in COLOURS for kind in KINDS]
        for pair in without:
            if pair not in every:
                raise UsageError(f"{pair!r} is no colour and kind; write for example 'red star'")
        self._pairs = [(*pair.split(),) for pair in every if pair not in without]
        if len(self._pairs) < 2:
            raise UsageError("at least two pairs of colour and kind must be left to draw")
        self.name, self.levels, self.shape = "shapes", 256, (3, size, size)
        self.classes, self.labels = (), None
        self._count, self._seed = count, seed

    def __len__(self) -> int:
        return self._count

    def scene(self, index: int) -> Scene:
        """All that is known about sample `index`."""
        words = bits(2, self._seed, _SCENE, index)
        random = np.random.Generator(np.random.PCG64([int(word) for word in words]))
        return _MAKERS[int(random.random() * len(_MAKERS))](random, self._pairs)

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        if len(indices) == 0:
            return torch.empty(0, *self.shape)
        side = self.shape[1]
        return torch.stack([to_tensor(self.scene(int(i)).draw(side)) for i in indices])

    def captions(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> list[str]:
        return [self.scene(int(i)).caption for i in indices]


Pairs = list[tuple[str, ...]]


def _pick(random: np.random.Generator, among: Sequence[Any]) -> Any:
    return among[int(random.random() * len(among))]


def _single(random: np.random.Generator, pairs: Pairs) -> Scene:
    colour, kind = _pick(random, pairs)
    (thing,) = _placed(random, [(kind, colour, _pick(random, list(SIZES)))])
    size = thing.size if random.random() < 0.5 else None
    position = thing.place if random.random() < 0.5 else None
    return Scene((thing,), str(Claim((Phrase(1, size, colour, kind),), position)))


def _group(random: np.random.Generator, pairs: Pairs) -> Scene:
    colour, kind = _pick(random, pairs)
    count = 2 + int(random.random() * 3)
    # More than two large things leave too little room for places that can be told apart.
    size = "small" if count > 2 else _pick(random, list(SIZES))
    things = _placed(random, [(kind, colour, size)] * count)
    told = size if random.random() < 0.5 else None
    return Scene(tuple(things), str(Phrase(count, told, colour, kind)))


def _pair(random: np.random.Generator, pairs: Pairs) -> Scene:
    first = _pick(random, pairs)
    second = _pick(random, [pair for pair in pairs if pair != first])
    wanted = [(kind, colour, _pick(random, list(SIZES))) for colour, kind in (first, second)]
    things = _placed(random, wanted)
    with_size = random.random() < 0.5
    phrases = tuple(Phrase(1, t.size if with_size else None, t.colour, t.kind) for t in things)
    return Scene(tuple(things), str(Claim(phrases, relation(*things))))


_MAKERS = (_single, _pair, _group)


def _placed(
    random: np.random.Generator, wanted: Sequence[tuple[str, str, str]]
) -> tuple[Thing, ...]:
    """Things (kind, colour, size) at random places where they are clear of each other.

    When one finds no room, all begin anew; scenes of these sizes find room in a few attempts.
    """
    while True:
        things: list[Thing] = []
        for kind, colour, size in wanted:
            least, most = SIZES[size]
            radius = least + (most - least) * random.random()
            for _ in range(20):
                thing = _somewhere(random, kind, colour, radius)
                if _clear(thing) and all(_apart(thing, other) for other in things):
                    things.append(thing)
                    break
            else:
                break
        if len(things) == len(wanted):
            return tuple(things)


def _somewhere(random: np.random.Generator, kind: str, colour: str, radius: float) -> Thing:
    left, top, right, bottom = (radius * edge for edge in EXTENT[kind])
    x = _MARGIN - left + random.random() * (1 - 2 * _MARGIN + left - right)
    y = _MARGIN - top + random.random() * (1 - 2 * _MARGIN + top - bottom)
    return Thing(kind, colour, x, y, radius)


def _clear(thing: Thing) -> bool:
    """Whether its centre is well inside one of the nine places."""
    edges = [abs(value - third / 3) for value in (thing.x, thing.y) for third in (1, 2)]
    return min(edges) > _CLEAR


def _apart(a: Thing, b: Thing) -> bool:
    """Whether two things leave a gap, and, where they differ, have a plain relation."""
    one, two = box(a), box(b)
    gaps = (two[0] - one[2], one[0] - two[2], two[1] - one[3], one[1] - two[3])
    across, down = abs(a.x - b.x), abs(a.y - b.y)
    same = (a.kind, a.colour) == (b.kind, b.colour)
    plain = min(across, down) <= _DOMINANT * max(across, down)
    return max(gaps) > _GAP and (same or plain)
