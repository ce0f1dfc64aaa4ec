"""Samples over two settings on one labelled sheet, with the recipe of every cell beside it."""

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from fromnoise.app import provenance
from fromnoise.app.opening import about, opened
from fromnoise.app.reporting import Progress, Reporter
from fromnoise.app.requests import GridRequest, SampleRequest
from fromnoise.app.sample import draw_arguments
from fromnoise.core.atomic import try_writing
from fromnoise.core.config import validated
from fromnoise.core.environment import environment
from fromnoise.core.errors import FileError, UsageError, unknown
from fromnoise.core.files import check_file, read_json, write_json
from fromnoise.core.images import write_png
from fromnoise.core.sheets import labelled_sheet
from fromnoise.interop.loading import load
from fromnoise.model import Model, Samples, Stream
from fromnoise.samplers import Step

FORMAT = 1

AXES = (
    "prompt", "label", "prior", "negative", "sampler", "steps", "grid", "guidance", "interval",
    "rescale", "guide", "threshold", "eta", "seed", "width", "height", "input", "image",
    "strength", "hires", "hires_strength", "hires_steps", "hires_upscaler", "clip_skip",
    "tile",
)  # fmt: skip
"""What may differ from cell to cell."""

_LISTS = ("guide", "input")
_MOST = 1024
_SIDE = 64
"""Smaller pictures are enlarged to about this many pixels."""


@dataclass(frozen=True)
class Axis:
    """One setting and the values it goes through, as they were typed."""

    name: str
    values: tuple[str, ...]

    def labels(self) -> list[str]:
        """What stands above the columns, or beside the rows."""
        plain = self.name in ("prompt", "sampler")
        return [value if plain else f"{self.name} {value}" for value in self.values]


@dataclass(frozen=True)
class Cell:
    """One cell: where it is, what was asked, and the stream that will draw it."""

    row: int
    column: int
    asked: SampleRequest
    stream: Stream


def grid(request: GridRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise grid`."""
    if request.model is None:
        raise UsageError("name a run or model, e.g. `fromnoise grid runs/digits --across …`")
    across, down = axes(request)
    out = check_file(request.out)
    if out.suffix.lower() != ".png":
        raise UsageError(f"{out} is no PNG; name the sheet, e.g. --out grid.png")
    _check_table(out.with_suffix(".json"))
    try_writing(out.parent)
    rows = [None] if down is None else list(down.values)
    asked = [[_asked(request, across, a, down, b) for a in across.values] for b in rows]
    model = opened(request)
    opener = functools.cache(load)
    # Each is checked before the first is drawn.
    cells = [
        Cell(row, column, one, model.stream(**draw_arguments(model, one, opener)))
        for row, line in enumerate(asked)
        for column, one in enumerate(line)
    ]
    for note in dict.fromkeys(note for cell in cells for note in cell.stream.notes):
        reporter.warn(note)
    drawn = _drawn(model, cells, across, down, reporter)
    width = len(across.values)
    shown = [picture(samples) for samples in drawn]
    pictures = [shown[first : first + width] for first in range(0, len(shown), width)]
    sheet = labelled_sheet(pictures, across.labels(), down.labels() if down else [""])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_png(out, sheet, {})
    write_json(out.with_suffix(".json"), _told(model, cells, drawn, across, down))
    reporter.say(f"{len(cells)} cells in {out}, how each was drawn in {out.with_suffix('.json')}")
    return 0


def _check_table(path: Path) -> None:
    """FileError for a file beside the sheet that is not the table of an earlier one."""
    check_file(path)
    if not path.exists():
        return
    try:
        found = read_json(path)
    except FileError:
        found = None
    if not isinstance(found, dict) or not {"format", "across", "down", "cells"} <= found.keys():
        raise FileError(
            f"{path} is there and not of a sheet, and would be lost; give --out another name"
        )


def axes(request: GridRequest) -> tuple[Axis, Axis | None]:
    """The settings across and down. UsageError for one there is none of, or that is given too."""
    across = axis(request.across, "across")
    down = None if request.down is None else axis(request.down, "down")
    if down is not None and down.name == across.name:
        raise UsageError(f"{down.name} goes across and down; give two settings")
    for one in (across, *([] if down is None else [down])):
        if one.name in request.model_fields_set and getattr(request, one.name) not in (None, []):
            raise UsageError(f"{one.name} is given, and goes through values too; leave out one")
    cells = len(across.values) * (len(down.values) if down else 1)
    if cells > _MOST:
        raise UsageError(f"{cells} cells are too many for a sheet; at most {_MOST}")
    return across, down


def axis(text: str, way: str) -> Axis:
    """`guidance=1,2,4` as a setting and its values."""
    name, found, listed = text.partition("=")
    name = name.strip().replace("-", "_")
    values = [v.strip() for v in listed.split("|" if "|" in listed else ",")]
    if not found or not all(values):
        raise UsageError(f"--{way} {text!r} is not NAME=VALUE,VALUE; write e.g. guidance=1,2,4")
    if name not in AXES:
        raise unknown(f"setting for --{way}", name, AXES)
    return Axis(name, tuple(values))


def picture(drawn: Samples) -> Image.Image:
    """One sample as it is, several as a sheet; small ones enlarged."""
    if len(drawn) > 1 or drawn.tensor.ndim == 2:
        return drawn.sheet()
    one: Image.Image = drawn[0]
    scale = max(1, _SIDE // max(one.size))
    return one.resize((one.width * scale, one.height * scale), Image.Resampling.NEAREST)


def _asked(
    request: GridRequest, across: Axis, column: str, down: Axis | None, row: str | None
) -> SampleRequest:
    """The request of one cell: what was given, and the values of its row and column."""
    given = request.model_dump(
        include=request.model_fields_set & SampleRequest.model_fields.keys(), exclude={"out"}
    )
    given["count"] = request.count
    for one, value in ((across, column), (down, row)):
        if one is not None:
            given[one.name] = [value] if one.name in _LISTS else value
    return validated(SampleRequest, given, "grid")


def _drawn(
    model: Model, cells: Sequence[Cell], across: Axis, down: Axis | None, reporter: Reporter
) -> list[Samples]:
    done, made = 0, []
    total = sum(cell.stream.count for cell in cells)
    with reporter.progress("drawing", total) as progress:
        for cell in cells:
            note = across.labels()[cell.column]
            if down is not None:
                note += f", {down.labels()[cell.row]}"
            made.append(cell.stream.samples(_followed(cell.stream, progress, done, note)))
            done += cell.stream.count
    return made


def _followed(steps: Iterator[Step], progress: Progress, done: int, note: str) -> Iterator[Step]:
    for step in steps:
        progress.advance(done + step.index + 1, note)
        yield step


def _told(
    model: Model,
    cells: Sequence[Cell],
    drawn: Sequence[Samples],
    across: Axis,
    down: Axis | None,
) -> dict[str, Any]:
    """What the JSON file holds."""
    return {
        "format": FORMAT,
        "model": about(model),
        "environment": environment(),
        "across": {"name": across.name, "values": list(across.values)},
        "down": None if down is None else {"name": down.name, "values": list(down.values)},
        "cells": [
            {
                "row": cell.row,
                "column": cell.column,
                "asked": cell.asked.model_dump(exclude_unset=True),
                "samples": [
                    json.loads(provenance.texts(samples.recipe, i, about(model))[provenance.KEY])
                    for i in range(len(samples))
                ],
            }
            for cell, samples in zip(cells, drawn, strict=True)
        ],
    }
