"""Coloured signs from an emoji font, as they are and dyed, each with its name in words."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fromnoise.core.errors import FileError, UsageError
from fromnoise.data import fonts as rooms
from fromnoise.data.base import DATA, Dataset

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

HUES = {
    "red": 358,
    "orange": 28,
    "yellow": 48,
    "green": 120,
    "blue": 215,
    "purple": 275,
    "pink": 328,
}
"""The hue of each dye, in degrees."""

_GREYS = ("black", "white", "heavy")
_FILLERS = frozenset(
    [
        "sign",
        "symbol",
        "face",
        "mark",
        "with",
        "large",
        "medium",
        "small",
        "of",
        "for",
        "and",
        "ornament",
    ]
)
_SHADES = 256 / 360
_REACH = 30
_PURE = 0.8
_COLOURFUL = 0.25


@dataclass(frozen=True)
class Entry:
    """One sample: which sign and picture by number, what it is called, and its dye or None."""

    sign: int
    picture: int
    caption: str
    dye: str | None


@dataclass(frozen=True)
class View:
    """A sign as it is, or dyed, with all it is called."""

    image: Image.Image
    captions: tuple[str, ...]
    dye: str | None


@DATA.register("emoji")
class Emoji(Dataset):
    """The signs of a colour-emoji font on white, (3, size, size), each captioned with its name.

    All single characters that the font draws in colour and Unicode names, in the order of their
    numbers; without keycaps, regional letters, skin tones and sequences. Pictures are drawn at the
    font's own 109 pixels and made smaller.

    With `dyed`, there are copies to learn words from. Every sign comes four times: twice by its
    name, once by its name without words such as "face" and "sign", once with its colour named.
    A sign that is of one hue for the most part comes once more in each other hue of `HUES`, by
    that colour and its name without colours: the red apple is a "blue apple". Names say "black"
    of what is filled in and "white" of an outline; of a colourful sign these words are left out.

    size: side in pixels, up to 128. font: path of a font file with colour bitmaps; by default one
    installed on this machine (Debian: fonts-noto-color-emoji).
    Raises UsageError when there is none, saying how to install one, FileError for a font that
    cannot be read or holds no colour bitmaps.
    """

    def __init__(self, size: int = 32, font: str | None = None, dyed: bool = False) -> None:
        if not 8 <= size <= 128:
            raise UsageError(f"size is {size}; use 8 to 128, as emoji fonts hold small pictures")
        path = rooms.colour_font() if font is None else Path(font)
        chosen = sorted(c for c in rooms.characters(path) if _is_sign(c))
        signs: list[str] = []
        pictures: list[Pixels] = []
        entries: list[Entry] = []
        for character, image in rooms.coloured(path, chosen):
            name = rooms.named(character)
            views = _views(image, name) if dyed else [View(image, (name,), None)]
            for view in views:
                place = (len(signs), len(pictures))
                entries += [Entry(*place, caption, view.dye) for caption in view.captions]
                pictures.append(_on_white(view.image, size))
            signs.append(character)
        if not signs:
            raise FileError(f"{path} holds no coloured signs; give a colour-emoji font")
        self.signs, self.entries = tuple(signs), tuple(entries)
        self._pixels: Pixels = np.stack(pictures)
        self.name, self.levels, self.shape = "emoji", 256, (3, size, size)
        self.classes, self.labels = (), None

    def __len__(self) -> int:
        return len(self.entries)

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        places = [self.entries[int(i)].picture for i in indices]
        pixels = self._pixels[places].transpose(0, 3, 1, 2).astype(np.float32)
        return torch.from_numpy(pixels) / 127.5 - 1.0

    def captions(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> list[str]:
        return [self.entries[int(i)].caption for i in indices]


def _is_sign(character: str) -> bool:
    """Whether it is a picture of its own: no letter, digit, modifier, or part of a flag."""
    name = unicodedata.name(character, "")
    if not name or name.startswith(("REGIONAL INDICATOR", "EMOJI MODIFIER")):
        return False
    return unicodedata.category(character) in ("So", "Sm", "Po", "Pd") and ord(character) > 0x7F


def _views(image: Image.Image, name: str) -> Iterator[View]:
    hues, coloured = _hues(image)
    ink = np.asarray(image)[..., 3] > 128
    colourful = coloured.sum() > _COLOURFUL * ink.sum()
    if colourful:
        name = " ".join(word for word in name.split() if word not in _GREYS) or name
    noun = " ".join(word for word in name.split() if word not in HUES) or name
    short = " ".join(word for word in name.split() if word not in _FILLERS) or name
    own = _own(hues, coloured) if colourful else None
    fourth = name if own is None or noun != name else f"{own} {name}"
    yield View(image, (name, name, short, fourth), None)
    if own is None or noun in HUES:
        return
    for dye in HUES:
        if dye != own and f"{dye} {noun}" != name:
            yield View(_redyed(image, HUES[dye] - HUES[own]), (f"{dye} {noun}",), dye)


def _hues(image: Image.Image) -> tuple[Floats, Mask]:
    """The hue of every pixel in degrees, and which pixels have one that can be seen."""
    parts = np.asarray(image.convert("RGB").convert("HSV")).astype(np.float64)
    opaque = np.asarray(image)[..., 3] > 128
    return parts[..., 0] / _SHADES, opaque & (parts[..., 1] > 64) & (parts[..., 2] > 64)


def _own(hues: Floats, coloured: Mask) -> str | None:
    """The hue that nearly all of the coloured pixels have, by name; None where they differ."""
    seen = hues[coloured]
    for hue in HUES.values():
        if (_apart(seen, hue) < _REACH).mean() > _PURE:
            middle = np.median(_about(seen, hue))
            nearest: str = min(HUES, key=lambda other: float(_apart(middle, HUES[other])))
            return nearest
    return None


def _apart(one: Any, other: Any) -> Any:
    """The angle between hues, 0 to 180 degrees."""
    return np.abs((one - other + 180) % 360 - 180)


def _about(hues: Floats, centre: float) -> Floats:
    """The same hues as numbers near `centre`, so that they have a median."""
    return (hues - centre + 180) % 360 - 180 + centre


def _redyed(image: Image.Image, turn: float) -> Image.Image:
    """The picture with every hue turned by so many degrees; greys stay."""
    hue, saturation, value = image.convert("RGB").convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int64) + round(turn * _SHADES)) % 256
    bands = (Image.fromarray(turned.astype(np.uint8)), saturation, value)
    dyed = Image.merge("HSV", bands).convert("RGB")
    dyed.putalpha(image.getchannel("A"))
    return dyed


def _on_white(image: Image.Image, size: int) -> Pixels:
    white = Image.new("RGBA", image.size, "white")
    flat = Image.alpha_composite(white, image).convert("RGB")
    return np.asarray(flat.resize((size, size), Image.Resampling.LANCZOS))
