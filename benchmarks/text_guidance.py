"""How many drawn scenes show their caption when an image-text model guides them.

    python -m benchmarks.text_guidance runs/shapes-text --by runs/shapes-clip-noisy -n 200

The model itself is told nothing: its guidance scale is 0, so captions act through the image-text
model alone. Captions are of scenes that no training saw (another seed). `--cutouts 8` shows it
cut-outs of the belief in place of x_t; several `--scales` are one row each, and 0 is no guidance.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fromnoise.core.files import write_bytes
from fromnoise.core.images import png_bytes
from fromnoise.data import Shapes
from fromnoise.evaluate import wilson
from fromnoise.evaluate.prompts import scene_judge
from fromnoise.guidance import Guide, clip
from fromnoise.interop.loading import load
from fromnoise.model import Model

_SEED = 1_000_003


def captions(count: int) -> list[str]:
    """Captions of scenes of another seed."""
    dataset = Shapes(size=32, count=count, seed=_SEED)
    return [dataset.scene(i).caption for i in range(count)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each scale: the reader's share by attribute, and of true captions."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default="runs/shapes-text")
    parser.add_argument("--by", default="runs/shapes-clip-noisy")
    parser.add_argument("-n", "--count", type=int, default=200)
    parser.add_argument("--scales", default="0,1,3")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--cutouts", type=int, default=None)
    parser.add_argument("--limit", type=float, default=None)
    parser.add_argument("--distance", default="cosine", choices=("cosine", "spherical"))
    parser.add_argument("--guidance", type=float, default=0.0)
    parser.add_argument("--sampler", default=None)
    parser.add_argument("--pictures", type=Path, default=None)
    options = parser.parse_args(arguments)
    model, by, asked = load(options.model), load(options.by), captions(options.count)
    through = None if options.cutouts is None else "x0"
    for scale in (float(part) for part in options.scales.split(",")):
        guide = clip(by, None, scale, through, options.cutouts, options.distance, options.limit)
        row(model, asked, guide, scale, options)


def row(
    model: Model, asked: list[str], guide: Guide, scale: float, options: argparse.Namespace
) -> None:
    """Draw, read, and print one row."""
    drawn = model.sample(
        len(asked),
        prompt=asked,
        guidance=options.guidance,
        guide=guide,
        steps=options.steps,
        sampler=options.sampler,
        seed=0,
    )
    found = scene_judge(drawn.tensor, asked)
    parts = []
    for name, verdict in found.items():
        known = verdict[~verdict.isnan()]
        share = wilson(int(known.sum()), len(known))
        parts.append(f"{name} {share.value:.3f} ({share.low:.3f} to {share.high:.3f})")
    print(f"scale {scale:g}: " + ", ".join(parts), flush=True)
    if options.pictures is not None:
        sheet = png_bytes(drawn[:40].sheet(columns=10))
        write_bytes(options.pictures / f"text-guidance-{scale:g}.png", sheet)


if __name__ == "__main__":
    main()
