"""A sheet of pictures in rows and columns, each row and column with its name."""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from fromnoise.core.errors import UsageError

_SIZE = 12
_LINE = _SIZE + 3
_LINES = 4
_GAP = 6
_WIDEST = 180
"""The most pixels the names of rows take."""


def labelled_sheet(
    rows: Sequence[Sequence[Image.Image]], across: Sequence[str], down: Sequence[str]
) -> Image.Image:
    """Pictures in rows, the columns' names above and the rows' names at the left, on white.

    across, down: one name for each column and row; the names of rows may all be empty. A name that
    is too long for its place is set in up to four lines, and then cut. Pictures smaller than the
    largest are centred. Raises UsageError for rows of different lengths, or names that do not fit
    their number.
    """
    if not rows or not rows[0] or any(len(row) != len(across) for row in rows):
        raise UsageError(f"a sheet needs full rows of {len(across)} pictures, one for each name")
    if len(rows) != len(down):
        raise UsageError(f"{len(down)} names given for {len(rows)} rows; give one each")
    font = label_font(_SIZE)
    width = max(picture.width for row in rows for picture in row)
    height = max(picture.height for row in rows for picture in row)
    # A short name in a narrow column still has room.
    across_step = max(width, min(_WIDEST, max(_wide(name, font) for name in across))) + _GAP
    above = [_lines(name, across_step - _GAP, font) for name in across]
    left = min(_WIDEST, max(_wide(name, font) for name in down))
    beside = [_lines(name, left, font) for name in down]
    top = max(len(lines) for lines in above) * _LINE + _GAP
    left_step = left + 2 * _GAP if left else _GAP
    down_step = max(height, max(len(lines) for lines in beside) * _LINE) + _GAP
    size = (left_step + len(across) * across_step, top + len(rows) * down_step)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, lines in enumerate(above):
        middle = left_step + column * across_step + (across_step - _GAP) / 2
        for line, text in enumerate(lines):
            at = (middle - _wide(text, font) / 2, top - _GAP - (len(lines) - line) * _LINE + 1)
            draw.text(at, text, "black", font)
    for row, lines in enumerate(beside):
        middle = top + row * down_step + (down_step - _GAP) / 2
        for line, text in enumerate(lines):
            draw.text((_GAP, middle + (line - len(lines) / 2) * _LINE), text, "black", font)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            x = left_step + column * across_step + (across_step - _GAP - picture.width) // 2
            y = top + row * down_step + (down_step - _GAP - picture.height) // 2
            sheet.paste(picture.convert("RGB"), (x, y))
    return sheet


@cache
def label_font(size: int) -> Any:
    """DejaVu Sans, which has most alphabets, where matplotlib brought it; else Pillow's own."""
    found = find_spec("matplotlib")
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def _wide(text: str, font: Any) -> int:
    return int(font.getlength(text) + 0.999)


def _lines(text: str, width: int, font: Any) -> list[str]:
    """A text in lines that are no wider, broken between words, or within one where it must be."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        joined = f"{line} {word}" if line else word
        if _wide(joined, font) <= width:
            line = joined
            continue
        lines += [line] if line else []
        while _wide(word, font) > width and len(word) > 1:
            fits = next(n for n in range(len(word) - 1, 0, -1) if _wide(word[:n], font) <= width)
            lines.append(word[:fits])
            word = word[fits:]
        line = word
    lines += [line] if line else []
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], _cut(lines[_LINES - 1], width, font)]
    return lines


def _cut(text: str, width: int, font: Any) -> str:
    while text and _wide(text + "…", font) > width:
        text = text[:-1]
    return text + "…"
