"""Quality against the number of steps for one trained network: the claim of DDIM, measured here.

    python -m benchmarks.steps [--run FOLDER] [--samples N] [--workers N]

Each sampler draws the same seeds and labels from the run `digits-ddpm500` (trained first, if it is
not there) on the same grid. `trailing` is the grid: at 500 steps it visits every noise level the
network was trained on, so `ddpm` there is the method as published. Samples are compared with the
held-out scans in the features of a reader of digits; the same number of training scans is what a
perfect model would reach.

Intervals of single distances are wide and mostly of one cause, which scans were held out, that all
samplers share. So samplers are compared in pairs: the interval of the difference from DDIM, with
the same scans and the same seeds drawn again in both.
"""

import argparse
import functools
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.output import NAMES, PICTURES, RESULTS, STEPS, header, row, title
from fromnoise.app.asked import recipe_of
from fromnoise.app.train import split
from fromnoise.cli.main import run as command
from fromnoise.core.files import write_bytes, write_json
from fromnoise.data import Dataset
from fromnoise.evaluate import (
    Estimate,
    FeatureNetwork,
    frechet_distance,
    frechet_from_moments,
    manifolds,
    quality_curve,
    train_reader,
)
from fromnoise.evaluate.intervals import bootstrap
from fromnoise.interop.loading import load
from fromnoise.model import Model

RECIPE = "digits-ddpm500"
MEASURES = ("frechet_distance", "precision", "recall")
BASE = "ddim"
"""The sampler the others are compared with."""

Found = dict[str, dict[int, dict[str, Estimate]]]


@dataclass(frozen=True)
class Yardstick:
    """What samples are compared in and with."""

    reader: FeatureNetwork
    held_out: Tensor

    def measure(self, features: Tensor) -> dict[str, Estimate]:
        """Samples, in the reader's features (N, F), against held-out data."""
        found = manifolds(self.held_out, features)
        distance = frechet_distance(self.held_out, features)
        values = (distance, found.precision, found.recall)
        return dict(zip(MEASURES, values, strict=True))

    def difference(self, first: Tensor, second: Tensor) -> Estimate:
        """The Fréchet distance of `first` less that of `second`, features of the same seeds."""

        def of(scans: Tensor, seeds: Tensor) -> float:
            real = moments(self.held_out, scans)
            own, other = (frechet_from_moments(*real, *moments(x, seeds)) for x in (first, second))
            return own - other

        sizes = len(self.held_out), len(first)
        value = of(*(torch.ones(n, dtype=torch.float64) for n in sizes))
        return Estimate(value, *bootstrap(of, value, sizes), len(first))


def moments(x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of rows (N, F), each counted so many times."""
    centre = counts @ x / counts.sum()
    gap = x - centre
    return centre, (counts[:, None] * gap).T @ gap / (counts.sum() - 1)


def trained(folder: Path | None) -> Path:
    """The run to measure: the given one, or the recipe's own, trained now or gone on with."""
    if folder is not None:
        return folder
    folder = Path("runs") / RECIPE
    code = command(["train", RECIPE, "--out", str(folder)])
    if code:
        raise SystemExit(code)
    return folder


def yardstick(train: Dataset, held_out: Dataset, name: str) -> Yardstick:
    """A reader of the training half, and the held-out half in its features."""
    known = train.batch(list(range(len(train))))
    if known.label is None:
        raise SystemExit(f"{name}: its data has no labels to train a reader on")
    reader = train_reader(known.x, known.label, len(train.classes), data=name)
    return Yardstick(reader, reader(held_out.batch(list(range(len(held_out)))).x))


def scans(train: Dataset, count: int) -> Tensor:
    """Training scans, drawn at random: neighbours in the file are of the same few writers."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    return train.batch(order[:count].tolist()).x


def draw(model: Model, name: str, steps: int, options: argparse.Namespace) -> Tensor:
    """The samples of one sampler: the same seeds and labels for all, in float32."""
    count, classes = options.samples, len(model.card.classes)
    label = [i % classes for i in range(count)] if classes else None
    return model.sample(
        count, label=label, sampler=name, steps=steps, grid=options.grid, seed=0,
        batch_size=min(count, 500), dtype="float32",
    ).tensor  # fmt: skip


@functools.cache
def opened(folder: Path) -> Model:
    """The run's model, read once in each process."""
    return load(folder)


def cell(
    measured: Yardstick, options: argparse.Namespace, name: str, steps: int
) -> tuple[dict[str, Estimate], Tensor]:
    """One sampler at one number of steps: its figures, and its samples' features."""
    # The network is small: it gains more by two processes than by two threads.
    torch.set_num_threads(1)
    features = measured.reader(draw(opened(options.run), name, steps, options))
    return measured.measure(features), features


def sweep(measured: Yardstick, options: argparse.Namespace) -> tuple[Found, dict[str, Any]]:
    """Every sampler at every number of steps; prints the Fréchet distances as they come.

    Returns the figures, and the features by sampler and steps.
    """
    print(f"Fréchet distance ({measured.reader.name}) against {len(measured.held_out)} scans")
    print(header(options.steps))
    found: Found = {}
    features: dict[str, dict[int, Tensor]] = {}
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        # The longest of each sampler first, so that none is left over at the end.
        jobs = {
            (name, n): pool.submit(cell, measured, options, name, n)
            for name in NAMES
            for n in sorted(options.steps, reverse=True)
        }
        for name in NAMES:
            done = {n: jobs[name, n].result() for n in options.steps}
            found[name] = {n: figures for n, (figures, _) in done.items()}
            features[name] = {n: x for n, (_, x) in done.items()}
            values = {n: one["frechet_distance"].value for n, one in found[name].items()}
            print(row(name, values, ".2f"), flush=True)
    return found, features


def compared(measured: Yardstick, features: dict[str, dict[int, Tensor]], found: Found) -> None:
    """Add each sampler's difference from DDIM at the same steps, and print the table."""
    print(f"\nFréchet distance less that of {BASE}; * where its interval leaves out 0")
    print(header(list(features[BASE])))
    for name in NAMES:
        if name == BASE:
            continue
        line = f"{title(name):16s}"
        for n, x in features[name].items():
            less = measured.difference(x, features[BASE][n])
            found[name][n]["frechet_less_ddim"] = less
            sure = (less.low or 0.0) > 0 or (less.high or 0.0) < 0
            line += f"{less.value:>+8.2f}{'*' if sure else ' '}"
        print(line, flush=True)


def as_json(found: Found) -> dict[str, Any]:
    """Sampler → steps → measure → value with interval."""
    return {
        name: {str(n): {k: v.as_json() for k, v in one.items()} for n, one in rows.items()}
        for name, rows in found.items()
    }


def report(found: Found, real: dict[str, Estimate], options: argparse.Namespace) -> None:
    """Print the shares and write the plot."""
    for key in ("precision", "recall"):
        print(f"\n{key} (training scans {real[key].value:.2f})\n{header(options.steps)}")
        for name, rows in found.items():
            print(row(name, {n: one[key].value for n, one in rows.items()}, ".2f"))
    # Without bars: those of single distances say nothing of the differences between the curves.
    curves = {
        title(name): [(n, *3 * (one["frechet_distance"].value,)) for n, one in rows.items()]
        for name, rows in found.items()
    }
    write_bytes(options.pictures / "steps.png", quality_curve(curves, "Fréchet distance"))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, help="run folder to measure, in place of the recipe's")
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS))
    parser.add_argument("--grid", default="trailing")
    parser.add_argument("--workers", type=int, default=torch.get_num_threads())
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the figures and the plot."""
    options = parsed(arguments)
    options.run = trained(options.run)
    recipe = recipe_of(options.run)
    train, held_out = split(recipe)
    started = time.perf_counter()
    measured = yardstick(train, held_out, recipe.name)
    real = measured.measure(measured.reader(scans(train, options.samples)))
    found, features = sweep(measured, options)
    best = real["frechet_distance"]
    print(f"{'training scans':16s}{best.value:9.2f}  ({best.low:.2f} to {best.high:.2f})")
    compared(measured, features, found)
    report(found, real, options)
    write_json(
        options.results / "steps.json",
        {
            "format": 1,
            "recipe": recipe.name,
            "train_steps": recipe.train.steps,
            "grid": options.grid,
            "samples": options.samples,
            "held_out": len(measured.held_out),
            "features": measured.reader.card,
            "training_scans": {k: v.as_json() for k, v in real.items()},
            "samplers": as_json(found),
        },
    )
    minutes = (time.perf_counter() - started) / 60
    print(f"\nplot steps.png, figures steps.json; {minutes:.1f} minutes after training")


if __name__ == "__main__":
    main()
