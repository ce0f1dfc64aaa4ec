"""Letters from fonts."""

import string
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.images import to_tensor
from fromnoise.data import fonts as rooms
from fromnoise.data.base import DATA, Dataset
from fromnoise.data.order import bits

_VARIANT = 7
_FINE = 4
_TURN, _SHRINK = 8.0, 0.2
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@DATA.register("glyphs")
class Glyphs(Dataset):
    """Letters, (1, size, size), black on white or white on black; the character is the class.

    Without `fonts`, the fonts in matplotlib that have all the characters are used. Sample i is
    character i mod C of font (i // C) mod F. With variants V > 1 every letter comes V times: first
    as it is, then turned by up to 8°, made smaller by up to a fifth and moved within the square,
    by (seed, i) alone. Captions name both: "latin capital letter a in DejaVu Sans Bold". A split
    keeps the letters of a font together: what is held out are fonts never seen.

    fonts: paths of font files. characters: which, each once. ink: of the letters.
    Raises UsageError for characters that repeat or cannot be seen, FileError for a font that
    cannot be read or lacks one of the characters.
    """

    def __init__(
        self,
        size: int = 32,
        fonts: Sequence[str] = (),
        characters: str = string.ascii_uppercase + string.ascii_lowercase + string.digits,
        variants: int = 1,
        seed: int = 0,
        ink: Literal["black", "white"] = "black",
    ) -> None:
        if size < 8 or variants < 1 or seed < 0:
            raise UsageError(
                f"size is {size}, variants {variants} and seed {seed}; use 8 or more, 1 or more, "
                "and 0 or more"
            )
        _check_characters(characters)
        paths = _given(fonts, characters) if fonts else _inside(characters)
        self.fonts = tuple(rooms.title(path) for path in paths)
        drawn = [rooms.letters(path, characters, _FINE * size) for path in paths]
        self._ink: Pixels = np.concatenate(drawn)
        self.name, self.levels, self.shape = "glyphs", 256, (1, size, size)
        self.classes = tuple(characters)
        self._count, self._seed, self._black = variants * len(self._ink), seed, ink == "black"
        self.labels = torch.arange(self._count) % len(characters)

    def __len__(self) -> int:
        return self._count

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        if len(indices) == 0:
            return torch.empty(0, *self.shape)
        return torch.stack([to_tensor(self._picture(int(i))) for i in indices])

    def captions(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> list[str]:
        every = len(self.classes)
        pairs = [(int(i) % every, int(i) // every % len(self.fonts)) for i in indices]
        return [f"{rooms.named(self.classes[c])} in {self.fonts[f]}" for c, f in pairs]

    def families(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        return np.arange(self._count) // len(self.classes) % len(self.fonts)

    def _picture(self, index: int) -> Pixels:
        variant, base = divmod(index, len(self._ink))
        ink = Image.fromarray(self._ink[base])
        if variant > 0:
            drawn = bits(4, self._seed, _VARIANT, index) / 2.0**64
            ink = _moved(ink, *(float(part) for part in drawn))
        # Reading four pixels for each makes edges of true grey, whatever the font's hints say.
        pixels = np.asarray(ink.reduce(_FINE))
        return 255 - pixels if self._black else pixels


def _moved(ink: Image.Image, turn: float, shrink: float, right: float, down: float) -> Image.Image:
    """Turned, made smaller and moved by four numbers in [0, 1); the ink stays inside."""
    angle, scale = np.deg2rad(_TURN * (2 * turn - 1)), 1.0 - _SHRINK * shrink
    side = ink.width
    room = side * (1 - scale) / 2
    x, y = side / 2 + room * (2 * right - 1), side / 2 + room * (2 * down - 1)
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    centre = side / 2
    matrix = (cos, sin, centre - cos * x - sin * y, -sin, cos, centre + sin * x - cos * y)
    return ink.transform(ink.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _check_characters(characters: str) -> None:
    if len(characters) < 1 or len(set(characters)) != len(characters):
        raise UsageError(f"characters are {characters!r}; give one or more, each once")
    for character in characters:
        if unicodedata.category(character)[0] in "CZM":
            raise UsageError(f"{rooms.named(character)} cannot be seen by itself; leave it out")


def _inside(characters: str) -> list[Path]:
    wanted = frozenset(characters)
    paths = [p for p in rooms.matplotlib_fonts() if wanted <= rooms.characters(p)]
    if not paths:
        raise UsageError(
            f"no font in matplotlib has all of {characters!r}; name font files with fonts"
        )
    return paths


def _given(fonts: Sequence[str], characters: str) -> list[Path]:
    for font in fonts:
        missing = [c for c in characters if c not in rooms.characters(Path(font))]
        if missing:
            raise FileError(f"{font} has no {', '.join(map(rooms.named, missing[:5]))}")
    return [Path(font) for font in fonts]
