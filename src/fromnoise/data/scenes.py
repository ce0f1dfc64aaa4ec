"""Scenes of coloured shapes, and a small language that says what is in them.

A caption is one of
    PHRASE                       "three green triangles"
    PHRASE PLACE                 "a small star in the top left"
    PHRASE RELATION PHRASE       "a red circle above a blue square"
with PHRASE = COUNT [size] [colour] KIND. It is exact: "a red circle" says that there is exactly
one. Positions are meant of single things.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from fromnoise.core.errors import UsageError

KINDS = ("circle", "square", "triangle", "star")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 40),
    "green": (30, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (250, 200, 20),
    "purple": (150, 50, 190),
    "black": (25, 25, 25),
}
"""The name and the 8-bit RGB of every colour."""

SIZES: dict[str, tuple[float, float]] = {"small": (0.08, 0.095), "large": (0.13, 0.15)}
"""The radius of the circle of equal area, as shares of the picture's side: least and most."""

COUNTS = ("no", "one", "two", "three", "four", "five", "six")
RELATIONS = ("above", "below", "to the left of", "to the right of")
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "middle", "right")

Mention = tuple[int, str | None, str | None, str | None]


@dataclass(frozen=True)
class Thing:
    """One shape: kind and colour by name, its centre of area and the radius of equal area.

    x, y, radius: shares of the picture's side; x grows to the right and y downwards. kind is
    "something" and colour "other" where a reader could not tell.
    """

    kind: str
    colour: str
    x: float
    y: float
    radius: float

    @property
    def size(self) -> str:
        """Small or large: which of the two its radius is nearer to, as a ratio."""
        middle = math.sqrt(SIZES["small"][1] * SIZES["large"][0])
        return "small" if self.radius < middle else "large"

    @property
    def place(self) -> str:
        """The ninth of the picture its centre is in: "in the top left", "on the left", …"""
        row = _ROWS[min(2, max(0, int(3 * self.y)))]
        column = _COLUMNS[min(2, max(0, int(3 * self.x)))]
        if row == "middle":
            return "in the middle" if column == "middle" else f"on the {column}"
        return f"at the {row}" if column == "middle" else f"in the {row} {column}"


PLACES = tuple(
    dict.fromkeys(
        Thing("circle", "red", (i + 0.5) / 3, (j + 0.5) / 3, 0.1).place
        for j in range(3)
        for i in range(3)
    )
)
"""The nine places, row by row."""


def relation(a: Thing, b: Thing) -> str:
    """Where a is, seen from b: along the axis on which their centres are further apart."""
    right, down = a.x - b.x, a.y - b.y
    if abs(down) > abs(right):
        return "below" if down > 0 else "above"
    return "to the right of" if right > 0 else "to the left of"


@dataclass(frozen=True)
class Phrase:
    """Exactly `count` things of a size, colour and kind; None stands for any."""

    count: int
    size: str | None = None
    colour: str | None = None
    kind: str | None = None

    def among(self, things: Sequence[Thing]) -> list[Thing]:
        """The things that answer to it, whatever their number."""
        return [
            thing
            for thing in things
            if self.size in (None, thing.size)
            and self.colour in (None, thing.colour)
            and self.kind in (None, thing.kind)
        ]

    def __str__(self) -> str:
        noun = (self.kind or "shape") + ("" if self.count == 1 else "s")
        rest = " ".join(word for word in (self.size, self.colour, noun) if word)
        if self.count == 1:
            return f"{'an' if rest[0] in 'aeiou' else 'a'} {rest}"
        return f"{COUNTS[self.count]} {rest}"


@dataclass(frozen=True)
class Claim:
    """What a caption says: one phrase, alone or with a place, or two with a relation."""

    phrases: tuple[Phrase, ...]
    position: str | None = None

    def __str__(self) -> str:
        words = [str(phrase) for phrase in self.phrases]
        if self.position is None:
            return words[0]
        return " ".join([words[0], self.position, *words[1:]])

    def attributes(self, things: Sequence[Thing]) -> dict[str, bool]:
        """What of the claim is true, attribute by attribute; only those it speaks of.

        kind: there are such kinds. colour: they have the colours. size: and the sizes. count: each
        phrase is met by exactly as many. position: the place or relation holds for the ones meant.
        """
        told: dict[str, bool] = {}
        coloured = [replace(phrase, size=None) for phrase in self.phrases]
        kinds = [replace(phrase, colour=None) for phrase in coloured]
        for name, wider in (("kind", kinds), ("colour", coloured), ("size", self.phrases)):
            if any(getattr(phrase, name) is not None for phrase in self.phrases):
                told[name] = all(phrase.among(things) for phrase in wider)
        meant = [phrase.among(things) for phrase in self.phrases]
        counts = zip(meant, self.phrases, strict=True)
        told["count"] = all(len(found) == phrase.count for found, phrase in counts)
        if self.position is not None:
            told["position"] = _positioned(self.position, meant)
        return told

    def holds(self, things: Sequence[Thing]) -> bool:
        """Whether all of it is true; there may be other things beside."""
        return all(self.attributes(things).values())

    def covers(self, things: Sequence[Thing]) -> bool:
        """Whether all of it is true and it mentions everything there is."""
        mentioned = sum(phrase.count for phrase in self.phrases)
        return self.holds(things) and len(things) == mentioned


def _positioned(position: str, meant: list[list[Thing]]) -> bool:
    if len(meant) == 1:
        return bool(meant[0]) and all(thing.place == position for thing in meant[0])
    pairs = [(a, b) for a in meant[0] for b in meant[1] if a is not b]
    return bool(pairs) and all(relation(a, b) == position for a, b in pairs)


def _any_of(words: Sequence[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


_PHRASE = (
    rf"(a|an|{_any_of(COUNTS[1:])})(?: ({_any_of(tuple(SIZES))}))?(?: ({_any_of(tuple(COLOURS))}))?"
    rf" ({_any_of((*KINDS, 'shape'))})(s?)"
)
_CAPTION = re.compile(
    rf"{_PHRASE}(?: (?:({_any_of(PLACES)})|({_any_of(RELATIONS)}) {_PHRASE}))?\.?"
)


def parse(caption: str) -> Claim:
    """What a caption claims. Raises UsageError when it is not of this language."""
    match = _CAPTION.fullmatch(" ".join(caption.lower().split()))
    if match is None:
        raise UsageError(
            f"the caption {caption!r} is not one of drawn scenes; write for example 'two small red "
            "circles', 'a star in the top left' or 'a red circle above a blue square'"
        )
    parts = match.groups()
    first, second = _phrase(parts[:5], caption), parts[7:12]
    if parts[6] is not None:
        return Claim((first, _phrase(second, caption)), parts[6])
    return Claim((first,), parts[5])


def _phrase(parts: Sequence[str | None], caption: str) -> Phrase:
    word, size, colour, kind, plural = parts
    count = 1 if word in ("a", "an") else COUNTS.index(str(word))
    if (count > 1) != bool(plural):
        raise UsageError(f"the caption {caption!r} says {word} {kind}{plural}; which is meant?")
    return Phrase(count, size, colour, None if kind == "shape" else kind)


def captions(things: Sequence[Thing]) -> Iterator[str]:
    """Every caption that is true of some things, with kinds and colours named."""
    known = [t for t in things if t.kind in KINDS and t.colour in COLOURS]
    makers: tuple[Callable[[Thing], Mention], ...] = (
        lambda t: (1, None, t.colour, t.kind),
        lambda t: (1, t.size, t.colour, t.kind),
    )
    single: list[tuple[Phrase, Thing]] = []
    phrases: dict[Phrase, None] = {}
    for make in makers:
        for thing in known:
            found = Phrase(*make(thing)).among(things)
            phrase = replace(Phrase(*make(thing)), count=len(found))
            if len(found) < len(COUNTS):
                phrases[phrase] = None
            if len(found) == 1:
                single.append((phrase, thing))
    yield from (str(phrase) for phrase in phrases)
    yield from (f"{phrase} {thing.place}" for phrase, thing in single)
    for (first, a), (second, b) in permutations(single, 2):
        if a is not b:
            yield f"{first} {relation(a, b)} {second}"
