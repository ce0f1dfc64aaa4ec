"""How many drawn scenes show their caption when an image-text model guides them.

    python -m benchmarks.text_guidance runs/shapes-text --by runs/shapes-clip-noisy -n 200

The model itself is told nothing, so captions act through the image-text model alone. They are of
scenes that no training saw (another seed). `--cutouts 8` shows it cut-outs of the belief in place
of x_t, `--cutouts 0` the whole belief; several `--scales` are one row each, and 0 is no guidance.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fromnoise.core.files import write_bytes
from fromnoise.core.images import png_bytes
from fromnoise.data import Shapes
from fromnoise.evaluate import wilson
from fromnoise.evaluate.prompts import scene_judge
from fromnoise.guidance import ByText, clip
from fromnoise.guidance.classifier import Through
from fromnoise.interop.loading import load
from fromnoise.model import Model, Samples

SEED = 1_000_003


def captions(count: int) -> list[str]:
    """Captions of scenes of another seed."""
    dataset = Shapes(size=32, count=count, seed=SEED)
    return [dataset.scene(i).caption for i in range(count)]


def guided(
    model: Model, asked: Sequence[str], guide: ByText, options: argparse.Namespace
) -> Tensor:
    """A picture for each caption, guided to it alone: the model is told nothing."""
    with torch.no_grad():
        goals = guide.matcher.captions(asked)[:, None]
    to_each = replace(guide, goals=(goals, torch.ones(1)))
    return torch.cat(
        [
            model.sample(
                len(rows), guide=_rows(to_each, rows), steps=options.steps,
                sampler=options.sampler, seed=rows.start, batch_size=len(rows),
            ).tensor
            for rows in _batches(len(asked), options.batch)
        ]
    )  # fmt: skip


def _batches(count: int, batch: int) -> list[range]:
    return [range(first, min(first + batch, count)) for first in range(0, count, batch)]


def _rows(guide: ByText, rows: range) -> ByText:
    assert guide.goals is not None
    goals, weights = guide.goals
    return replace(guide, goals=(goals[rows.start : rows.stop], weights))


def shares(pictures: Tensor, asked: Sequence[str]) -> str:
    """The reader's share by attribute, and of captions that are true, with intervals."""
    parts = []
    for name, verdict in scene_judge(pictures, asked).items():
        known = verdict[~verdict.isnan()]
        found = wilson(int(known.sum()), len(known))
        parts.append(f"{name} {found.value:.3f} ({found.low:.3f} to {found.high:.3f})")
    return ", ".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each scale."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default="runs/shapes-text")
    parser.add_argument("--by", default="runs/shapes-clip-noisy")
    parser.add_argument("-n", "--count", type=int, default=200)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--scales", default="0,1,3")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--cutouts", type=int, default=None)
    parser.add_argument("--limit", type=float, default=None)
    parser.add_argument("--distance", default="cosine", choices=("cosine", "spherical"))
    parser.add_argument("--sampler", default=None)
    parser.add_argument("--pictures", type=Path, default=None)
    options = parser.parse_args(arguments)
    model, by, asked = load(options.model), load(options.by), captions(options.count)
    through: Through | None = None if options.cutouts is None else "x0"
    for scale in (float(part) for part in options.scales.split(",")):
        guide = clip(by, None, scale, through, options.cutouts, options.distance, options.limit)
        drawn = guided(model, asked, guide, options)
        print(f"scale {scale:g}: {shares(drawn, asked)}", flush=True)
        if options.pictures is not None:
            sheet = png_bytes(Samples(drawn[:40], {}).sheet(columns=10))
            write_bytes(options.pictures / f"text-guidance-{scale:g}.png", sheet)


if __name__ == "__main__":
    main()
