"""Fonts: where they are, which characters they have, and their letters as pictures."""

import importlib.util
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fromnoise.core.errors import FileError, UsageError

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

SYMBOLS = frozenset({"cmex10", "cmmi10", "cmsy10", "LastResortHE-Regular", "DejaVuSansDisplay"})
"""Fonts in matplotlib whose codes for letters hold signs, or no letters at all."""

COLOUR_FONTS = ("NotoColorEmoji.ttf", "NotoColorEmoji-Regular.ttf", "TwitterColorEmoji-SVGinOT.ttf")
_STRIKE = 109
_MEASURE = 256


def matplotlib_fonts() -> list[Path]:
    """The fonts with plain letters inside matplotlib, in the order of their names.

    Raises UsageError without matplotlib.
    """
    found = importlib.util.find_spec("matplotlib")
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            "the letters come from fonts in matplotlib; install it: pip install 'fromnoise[data]', "
            "or name font files with fonts"
        )
    folder = Path(found.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
    return sorted(path for path in folder.glob("*.ttf") if path.stem not in SYMBOLS)


def colour_font() -> Path:
    """A colour-emoji font of this machine. Raises UsageError, saying how to install one."""
    home = Path.home()
    shared = os.environ.get("XDG_DATA_DIRS", "/usr/local/share:/usr/share").split(":")
    roots = [home / ".local" / "share" / "fonts", home / ".fonts"]
    roots += [Path(folder) / "fonts" for folder in shared if folder]
    for root in roots:
        for name in COLOUR_FONTS:
            for path in sorted(root.rglob(name)):
                return path
    raise UsageError(
        "no colour-emoji font was found; install one (Debian, Ubuntu: apt install "
        "fonts-noto-color-emoji), or name a font file with font"
    )


def characters(path: Path) -> frozenset[str]:
    """The characters a font has.

    Raises FileError for what is no font, UsageError without fonttools.
    """
    try:
        from fontTools.ttLib import TTFont, TTLibError
    except ImportError:
        raise UsageError(
            "reading fonts needs fonttools; install it: pip install 'fromnoise[data]'"
        ) from None
    if not path.is_file():
        raise FileError(f"{path} does not exist; give the path of a font file")
    try:
        with TTFont(path, lazy=True, fontNumber=0) as font:
            return frozenset(chr(code) for code in font.getBestCmap() or ())
    except (TTLibError, AssertionError, OSError, ValueError, KeyError, EOFError) as error:
        raise FileError(f"{path} is no font that can be read: {error}") from None


def face(path: Path, size: float) -> ImageFont.FreeTypeFont:
    """A font at a size in pixels. Raises FileError when it cannot be opened at that size."""
    try:
        # The basic layout is the same whether or not a shaping library is installed.
        return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be drawn at {size:g} pixels: {error}") from None


def title(path: Path) -> str:
    """The name of a font as people write it: "DejaVu Sans Bold Oblique"."""
    family, style = face(path, 16).getname()
    words = [word for word in (family, style) if word and word not in ("Regular", "Book")]
    return " ".join(words) or path.stem


def named(character: str) -> str:
    """A character's Unicode name in small letters; its number where it has none."""
    return unicodedata.name(character, f"U+{ord(character):04X}").lower()


def letters(path: Path, text: Sequence[str], side: int, margin: float = 0.08) -> Pixels:
    """Each character as the share of ink (len(text), side, side), 0 to 255.

    All stand on one line at one size, the largest at which every one of them fits between the
    margins (shares of the side); each is centred across.
    Raises FileError when the font draws nothing for one of them.
    """
    probe = face(path, _MEASURE)
    found = [_inked(probe, character) for character in text]
    empty = [character for character, edges in zip(text, found, strict=True) if edges is None]
    if empty:
        raise FileError(f"{path} draws nothing for {', '.join(map(named, empty[:5]))}")
    boxes = np.array(found, np.float64)
    top, bottom = boxes[:, 1].min(), boxes[:, 3].max()
    reach = max(bottom - top, (boxes[:, 2] - boxes[:, 0]).max())
    scale = side * (1 - 2 * margin) / reach
    font = face(path, _MEASURE * scale)
    baseline = side / 2 - (top + bottom) / 2 * scale
    drawn = []
    for character, (left, _, right, _) in zip(text, boxes, strict=True):
        image = Image.new("L", (side, side))
        place = (side / 2 - (left + right) / 2 * scale, baseline)
        ImageDraw.Draw(image).text(place, character, 255, font, anchor="ls")
        drawn.append(np.asarray(image))
    return np.stack(drawn)


def _inked(
    font: ImageFont.FreeTypeFont, character: str
) -> tuple[float, float, float, float] | None:
    """The box of the ink about the start of the line; the font's own box counts the advance in."""
    mask, (left, top) = font.getmask2(character, anchor="ls")
    edges = mask.getbbox()
    if edges is None:
        return None
    return edges[0] + left, edges[1] + top, edges[2] + left, edges[3] + top


def coloured(path: Path, text: Sequence[str]) -> Iterator[tuple[str, Image.Image]]:
    """The characters a font draws in colour, each on transparency, cut to a square about it.

    Characters it has only in black are left out.
    """
    font = face(path, _STRIKE)
    for character in text:
        left, top, right, bottom = (int(edge) for edge in font.getbbox(character))
        side = max(right - left, bottom - top)
        if side < 1:
            continue
        image = Image.new("RGBA", (side, side))
        place = ((side - left - right) // 2, (side - top - bottom) // 2)
        ImageDraw.Draw(image).text(place, character, "black", font, embedded_color=True)
        if _has_colour(image):
            yield character, image


def _has_colour(image: Image.Image) -> bool:
    # Signs that a font has in black only come out as pure black on transparency.
    return any(channel.getextrema()[1] for channel in image.split()[:3])
