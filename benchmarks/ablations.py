"""One change at a time to one recipe: what each choice is worth here, with seeds and error bars.

    python -m benchmarks.ablations [--steps N] [--seeds N] [--samples N] [--workers N] [NAME …]

The base predicts ε on digits, with a cosine schedule, attention at 4×4, nearest-neighbour
enlargement, the simple loss and averaged weights. Each variant changes one of these. All are
trained alike, drawn from alike (the same seeds and labels, no guidance), and compared with the
held-out scans in the features of one reader of digits. A figure is the mean over the training seeds
with its standard error, and a difference is paired by seed.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from benchmarks.output import RESULTS
from benchmarks.steps import Yardstick, yardstick
from fromnoise.app.reporting import Silent
from fromnoise.app.train import prepare, split
from fromnoise.core.errors import unknown
from fromnoise.core.files import write_json
from fromnoise.interop.loading import load
from fromnoise.recipes import Recipe, digits, get

MEASURES = ("frechet_distance", "precision", "recall", "label_accuracy")
SAMPLING = {"sampler": "dpm++2m", "grid": "log_snr", "steps": 20}

Change = Callable[[dict[str, Any]], object]

BASE = "base"
CHANGES: dict[str, Change] = {
    BASE: lambda recipe: None,
    "linear schedule": lambda recipe: recipe.update(process=gaussian("linear")),
    "min-SNR weighting": lambda recipe: recipe["objective"].update(weighting="min_snr"),
    "P2 weighting": lambda recipe: recipe["objective"].update(weighting="p2"),
    "self-conditioning": lambda recipe: (
        recipe["objective"].update(self_conditioning=0.5),
        recipe["net"]["accepts"].update(channels={"self": 1}),
    ),
    "no averaging": lambda recipe: recipe["train"].update(ema=0.0),
    "no attention": lambda recipe: recipe["net"].update(attention={"middle": False}),
    "pixel shuffle": lambda recipe: recipe["net"]["style"].update(up="shuffle"),
}
"""Variant → what it changes in the plain values of the base recipe."""

Figures = dict[str, float]


def gaussian(schedule: str) -> dict[str, Any]:
    """The process of a schedule by name."""
    return {"kind": "gaussian", "schedule": {"kind": schedule}}


def variant(name: str, steps: int, seed: int) -> Recipe:
    """The recipe of a variant. Raises UsageError for an unknown one."""
    if name not in CHANGES:
        raise unknown("variant", name, CHANGES)
    plain = get("digits").model_dump(mode="json")
    plain["net"] = digits.net(style={"groups": 8})
    plain |= {"process": gaussian("cosine"), "parameterization": {"kind": "eps"}}
    CHANGES[name](plain)
    quiet = {"sample_every": 0, "validate_every": 0, "checkpoint_every": 0}
    plain["train"] |= {"steps": steps, "seed": seed, "epochs": None, **quiet}
    return Recipe.model_validate(plain)


def cell(measured: Yardstick, name: str, seed: int, options: argparse.Namespace) -> Figures:
    """One variant trained with one seed, and its figures."""
    # Small networks gain more by two processes than by two threads.
    torch.set_num_threads(1)
    recipe = variant(name, options.steps, seed)
    with tempfile.TemporaryDirectory() as place:
        run, _ = prepare(recipe, Path(place) / "run", Silent())
        for _ in run.train():
            pass
        model = load(Path(place) / "run")
        label = [i % len(model.card.classes) for i in range(options.samples)]
        drawn = model.sample(options.samples, label=label, guidance=1.0, batch_size=250, **SAMPLING)
    features = measured.reader(drawn.tensor)
    found = {key: estimate.value for key, estimate in measured.measure(features).items()}
    right = measured.reader.predict(drawn.tensor) == torch.tensor(label)
    return found | {"label_accuracy": float(right.double().mean())}


def measure(measured: Yardstick, options: argparse.Namespace) -> dict[str, list[Figures]]:
    """Variant → its figures, one set for each seed; a line of each as it comes."""
    found: dict[str, list[Figures]] = {}
    print(header())
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        jobs = {
            name: [pool.submit(cell, measured, name, s, options) for s in range(options.seeds)]
            for name in options.names
        }
        for name, waiting in jobs.items():
            found[name] = [job.result() for job in waiting]
            print(row(name, found[name], found.get(BASE)), flush=True)
    return found


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error; the error is NaN for one value."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return fmean(values), error


def against(found: Sequence[Figures], base: Sequence[Figures], key: str) -> tuple[float, float]:
    """The difference from the base, paired by seed, and its standard error."""
    return spread([own[key] - other[key] for own, other in zip(found, base, strict=True)])


def header() -> str:
    """The first line of the table."""
    columns = "".join(f"{key.replace('_', ' '):>18s}" for key in MEASURES)
    return f"{'variant':20s}{columns}{'Fréchet less base':>20s}"


def row(name: str, found: Sequence[Figures], base: Sequence[Figures] | None) -> str:
    """A variant's line: the mean ± standard error of each figure."""
    line = f"{name:20s}"
    for key in MEASURES:
        value, error = spread([figures[key] for figures in found])
        line += f"{f'{value:.3f} ± {error:.3f}':>18s}"
    if base is None or name == BASE:
        return line
    value, error = against(found, base, "frechet_distance")
    return f"{line}{f'{value:+.3f} ± {error:.3f}':>20s}"


def as_json(found: Mapping[str, Sequence[Figures]]) -> dict[str, Any]:
    """Variant → measure → the value of each seed."""
    return {
        name: {key: [round(one[key], 6) for one in figures] for key in MEASURES}
        for name, figures in found.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, print the table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="variants; all by default")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--workers", type=int, default=torch.get_num_threads())
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    options.names = options.names or list(CHANGES)
    recipes = [variant(name, options.steps, 0) for name in options.names]
    started = time.perf_counter()
    train, held_out = split(recipes[0])
    measured = yardstick(train, held_out, "digits")
    found = measure(measured, options)
    write_json(
        options.results / "ablations.json",
        {
            "format": 1,
            "train_steps": options.steps,
            "samples": options.samples,
            "sampling": SAMPLING,
            "features": measured.reader.card,
            "variants": as_json(found),
        },
    )
    print(f"\nfigures ablations.json; {(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
