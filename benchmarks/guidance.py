"""Fidelity against diversity over the scale: a classifier's guidance, and guidance without one.

    python -m benchmarks.guidance [--samples N] [--steps N] [--scales W …]

Three ways to ask for p(x)·p(y | x)^w of the digits: a model told nothing, guided by a classifier of
noisy digits with scale w; the model that is told the class, guided by the same classifier with
w − 1; and that model guided by itself, w. All draw the same seeds and labels in the same few
steps. Samples are compared with the held-out scans in the features of a reader of digits, and so is
the same number of training scans. The runs are trained first where they are not there.

The curves are those of Dhariwal & Nichol 2021, figure 4, and of Ho & Salimans 2022, figure 4.
"""

import argparse
import io
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.output import PICTURES, RESULTS
from benchmarks.steps import Yardstick, scans, yardstick
from fromnoise import guidance
from fromnoise.app.asked import recipe_of
from fromnoise.app.train import split
from fromnoise.cli.main import run as command
from fromnoise.core.files import write_bytes, write_json
from fromnoise.evaluate import Estimate, label_accuracy
from fromnoise.interop.loading import load
from fromnoise.model import Model

SCALES = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0)
MEASURES = ("frechet_distance", "precision", "recall", "label_accuracy")
RUNS = {
    "told": "digits",
    "untold": "digits-classifier-guidance",
    "classifier": "digits-classifier",
}
"""What is measured, and the recipe of each."""

Draw = Callable[[float], Mapping[str, Any]]
Found = dict[str, dict[float, dict[str, Estimate]]]


def runs(given: Mapping[str, Path | None]) -> dict[str, Model]:
    """The models: of the given folders, or of the recipes' own, trained now or gone on with."""
    found = {}
    for name, recipe in RUNS.items():
        folder = given[name]
        if folder is None:
            folder = Path("runs") / recipe
            code = command(["train", recipe, "--out", str(folder)])
            if code:
                raise SystemExit(code)
        found[name] = load(folder)
    return found


def ways(models: Mapping[str, Model]) -> dict[str, tuple[str, Draw]]:
    """Way → the model it draws from, and what it asks of it for p(x)·p(y | x)^w.

    What it asks is empty where it cannot: a model that is told the class counts it once already.
    """
    classifier = models["classifier"]

    def guided(scale: float) -> Mapping[str, Any]:
        return {"guide": guidance.classifier(classifier, scale=scale)}

    return {
        "classifier, model told nothing": ("untold", guided),
        "classifier, model told the class": ("told", lambda w: guided(w - 1) if w >= 1 else {}),
        "without a classifier": ("told", lambda w: {"guidance": w}),
    }


def measured(yard: Yardstick, x: Tensor, label: Tensor) -> dict[str, Estimate]:
    """The figures of samples that were asked for by label."""
    found = yard.measure(yard.reader(x))
    return {**found, "label_accuracy": label_accuracy(yard.reader, x, label)}


def sweep(models: Mapping[str, Model], yard: Yardstick, options: argparse.Namespace) -> Found:
    """Every way at every scale; prints a line of each as it comes."""
    label = [i % 10 for i in range(options.samples)]
    print(f"{'way':34s}{'w':>5s}" + "".join(f"{key.replace('_', ' '):>26s}" for key in MEASURES))
    found: Found = {}
    for way, (name, draw) in ways(models).items():
        found[way] = {}
        for scale in options.scales:
            asked = draw(scale)
            if not asked:
                continue
            x = models[name].sample(
                options.samples, label=label, steps=options.steps, seed=0,
                batch_size=min(options.samples, 250), dtype="float32", **asked,
            ).tensor  # fmt: skip
            found[way][scale] = measured(yard, x, torch.tensor(label))
            print(row(way, f"{scale:g}", found[way][scale]), flush=True)
    return found


def row(way: str, scale: str, figures: Mapping[str, Estimate]) -> str:
    """A line of the table: each figure with its interval."""
    line = f"{way:34s}{scale:>5s}"
    for key in MEASURES:
        if key in figures:
            one = figures[key]
            line += f"{f'{one.value:.3f} ({one.low:.3f} to {one.high:.3f})':>26s}"
    return line


def plot(found: Found, real: Mapping[str, Estimate]) -> bytes:
    """Two panels as PNG: Fréchet distance over the scale, and precision against recall."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 4.2), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    for way, by_scale in found.items():
        scales = list(by_scale)
        distances = [by_scale[w]["frechet_distance"] for w in scales]
        middle = [one.value for one in distances]
        bars = [
            [one.value - (one.low or 0.0) for one in distances],
            [(one.high or 0.0) - one.value for one in distances],
        ]
        left.errorbar(scales, middle, yerr=bars, label=way, marker="o", markersize=3, capsize=2)
        recall = [by_scale[w]["recall"].value for w in scales]
        precision = [by_scale[w]["precision"].value for w in scales]
        right.plot(recall, precision, label=way, marker="o", markersize=3)
        for w, x, y in zip(scales, recall, precision, strict=True):
            right.annotate(f"{w:g}", (x, y), (3, 3), textcoords="offset points", fontsize=7)
    left.axhline(real["frechet_distance"].value, color="grey", linewidth=0.8, linestyle="--")
    right.plot(
        real["recall"].value, real["precision"].value, "*", color="grey", label="training scans"
    )
    left.set_xlabel("w, how often p(class | x) counts")
    left.set_ylabel("Fréchet distance (dashed: training scans)")
    right.set_xlabel("recall (varied)")
    right.set_ylabel("precision (believable)")
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.25, linewidth=0.6)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def as_json(found: Found) -> dict[str, Any]:
    """Way → scale → measure → value with interval."""
    return {
        way: {f"{w:g}": {k: one.as_json() for k, one in row.items()} for w, row in rows.items()}
        for way, rows in found.items()
    }


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, recipe in RUNS.items():
        parser.add_argument(f"--{name}", type=Path, help=f"run folder, in place of {recipe}'s")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--scales", type=float, nargs="+", default=list(SCALES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the figures and the plot."""
    options = parsed(arguments)
    models = runs({name: getattr(options, name) for name in RUNS})
    recipe = recipe_of(options.told or Path("runs") / RUNS["told"])
    train, held_out = split(recipe)
    started = time.perf_counter()
    yard = yardstick(train, held_out, recipe.name)
    real = yard.measure(yard.reader(scans(train, options.samples)))
    found = sweep(models, yard, options)
    print(row("training scans", "", real))
    write_bytes(options.pictures / "guidance-curve.png", plot(found, real))
    write_json(
        options.results / "guidance.json",
        {
            "format": 1,
            "recipes": RUNS,
            "samples": options.samples,
            "steps": options.steps,
            "held_out": len(held_out),
            "features": yard.reader.card,
            "training_scans": {k: v.as_json() for k, v in real.items()},
            "ways": as_json(found),
        },
    )
    minutes = (time.perf_counter() - started) / 60
    print(f"\nplot guidance-curve.png, figures guidance.json; {minutes:.1f} minutes after training")


if __name__ == "__main__":
    main()
