"""Measure a run that draws to label maps: maps of held-out scenes, read back from its pictures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import EvaluateRequest
from fromnoise.app.train import split
from fromnoise.core.errors import UsageError
from fromnoise.core.files import read_json, write_bytes, write_json
from fromnoise.core.images import grid_image, png_bytes, to_pil
from fromnoise.data.maps import MAP, NAMES
from fromnoise.evaluate import Estimate, figure_text
from fromnoise.evaluate.maps import measure_maps
from fromnoise.interop.loading import load
from fromnoise.model import Model
from fromnoise.recipes import Recipe

_GUIDANCE = 2.0
_SHOWN = 8
_ROWS = 4
_INKS = (
    (255, 255, 255), (228, 26, 28), (55, 126, 184), (77, 175, 74), (255, 180, 0), (120, 120, 120),
)  # fmt: skip
"""What the numbers of a map are shown as."""


def evaluate_maps(
    folder: Path, recipe: Recipe, request: EvaluateRequest, reporter: Reporter
) -> int:
    """Carry out `fromnoise evaluate` on a run that is told label maps."""
    if recipe.encoders[MAP].get("classes") != list(NAMES):
        raise UsageError(f"{folder} is told maps of other classes than shapes, which none can read")
    model = load(folder)
    _, held_out = split(recipe)
    count = min(request.samples, len(held_out))
    batch = held_out.batch(list(range(count)))
    asked = batch.given[MAP]
    scale = request.guidance
    if scale is None:
        scale = max(recipe.sampling.guidance, _GUIDANCE)
    real = measure_maps(asked, batch.x)
    drawn = {s: _drawn(model, asked, s, request, reporter) for s in dict.fromkeys((1.0, scale))}
    found = {s: measure_maps(asked, pictures) for s, pictures in drawn.items()}
    figures = {key: _beside(key, found, real, scale) for key in real}
    told: dict[str, Any] = {"format": 1}
    told |= {key: estimate.as_json() for key, estimate in figures.items()}
    told |= {"counts": {"held_out": len(held_out), "samples": count}, "seed": request.seed}
    write_json(folder / "evaluation.json", {**told, **earlier(folder)})
    write_bytes(folder / "maps.png", png_bytes(pairs(asked, list(drawn.values())[-1])))
    for key, estimate in figures.items():
        value, interval = figure_text(estimate.as_json())
        reporter.say(f"  {key:12s}  {value:>8s}  {interval and f'({interval})'}")
    reporter.say(f"figures {folder / 'evaluation.json'}, maps and pictures {folder / 'maps.png'}")
    return 0


def earlier(folder: Path) -> dict[str, Any]:
    """What was measured of a run's usefulness before, to be kept beside other figures."""
    path = folder / "evaluation.json"
    before = read_json(path) if path.is_file() else {}
    return {key: value for key, value in before.items() if key == "usefulness"}


def _beside(
    key: str, found: dict[float, dict[str, Estimate]], real: dict[str, Estimate], scale: float
) -> Estimate:
    plain = found[1.0][key]
    more = {**plain.more, "real": real[key]}
    if scale != 1.0:
        more |= {"guided": found[scale][key], "guidance": scale}
    return replace(plain, more=more)


def _drawn(
    model: Model, asked: Tensor, scale: float, request: EvaluateRequest, reporter: Reporter
) -> Tensor:
    stream = model.stream(
        len(asked),
        inputs={MAP: asked},
        guidance=scale,
        sampler=request.sampler,
        steps=request.steps,
        seed=request.seed,
    )
    x = asked
    with reporter.progress(f"sampling, guidance {scale:g}", stream.recipe["steps"]) as progress:
        for step in stream:
            x = step.x
            progress.advance(step.index + 1)
    return model.decode(x)


def pairs(maps: Tensor, pictures: Tensor, columns: int = _SHOWN, rows: int = _ROWS // 2) -> Any:
    """A sheet of maps (N, H, W), each with the picture (3, H, W) that was drawn to it below."""
    inks = torch.tensor(_INKS, dtype=torch.float32) / 127.5 - 1.0
    shown = []
    for row in range(min(rows, len(maps) // columns)):
        part = slice(row * columns, (row + 1) * columns)
        coloured = inks[maps[part].clamp(max=len(_INKS) - 1)].permute(0, 3, 1, 2)
        shown += [to_pil(one) for one in (*coloured, *pictures[part])]
    return grid_image(shown or [to_pil(pictures[0])], columns, scale=3)
