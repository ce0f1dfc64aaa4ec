"""Optimizers at equal steps: held-out loss, memory, and the time of an update.

    python -m benchmarks.optimizers [--steps N --batch N --seeds N --shares X …]

The digits network is trained by each optimizer at several learning rates, multiples of what suits
it (`Maker.suits`, times AdamW's 0.002), with the first seed; the best of these is then trained with
the others. All see the same batches, times and noise. The loss is that of the averaged weights on
scans held out, the same for the choice of the rate and the figure: a small favour, to all alike.
The error is the standard error over seeds. The time is of one update of all weights with gradients
in place, the least of many in turn, since anything else on the machine only makes it longer.
"""

import argparse
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.output import RESULTS
from fromnoise import recipes
from fromnoise.app.train import build, split
from fromnoise.core.files import write_json
from fromnoise.data import Dataset, Loader
from fromnoise.recipes import Recipe
from fromnoise.training import EMA, Objective, Optimization, TrainSettings, train
from fromnoise.training.loop import held_out_loss
from fromnoise.training.objectives import objective_of
from fromnoise.training.optimizers import OPTIMIZERS, maker_of

RATE = 2e-3
"""AdamW's learning rate in the recipe."""


def objective(recipe: Recipe, data: Dataset, seed: int) -> Objective:
    """The recipe's untrained objective; the same seed, the same weights."""
    torch.manual_seed(seed)
    model = build(recipe, data)
    return objective_of(recipe.objective, model.denoiser, model.conditioning, data.levels)


def settings(kind: str, rate: float, seed: int, options: argparse.Namespace) -> TrainSettings:
    """The training settings of one run."""
    return TrainSettings(
        steps=options.steps, batch_size=options.batch, optimizer=kind, learning_rate=rate,
        warmup=options.steps // 10, ema=0.99, seed=seed,
    )  # fmt: skip


def trained(kind: str, rate: float, seed: int, options: argparse.Namespace) -> float:
    """The held-out loss after training so."""
    recipe = recipes.get("digits")
    data, held_out = split(recipe)
    asked = settings(kind, rate, seed, options)
    learner = objective(recipe, data, seed)
    optimization, ema = Optimization(learner.groups(), asked), EMA(learner, asked.ema)
    batches = Loader(data, options.batch, seed)
    for _ in train(learner, batches, optimization, ema, options.steps):
        pass
    with ema.swap():
        return held_out_loss(learner, held_out.batches(len(held_out)), 0)


def updates(kinds: Sequence[str], repeats: int) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds of one update and bytes remembered, by optimizer, taking turns."""
    recipe = recipes.get("digits")
    data, _ = split(recipe)
    made = {}
    for kind in kinds:
        learner = objective(recipe, data, 0)
        made[kind] = Optimization(learner.groups(), TrainSettings(optimizer=kind))
        for parameter in learner.parameters():
            parameter.grad = torch.randn_like(parameter)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind, optimization in made.items():
            norm = optimization.norm("main")
            started = time.perf_counter()
            optimization.step("main", norm, 1e-6)
            times[kind].append(time.perf_counter() - started)
    held = {
        kind: sum(v.numel() * v.element_size() for v in optimization.state().values())
        for kind, optimization in made.items()
    }
    return {kind: min(values) for kind, values in times.items()}, held


def measure(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """The losses of one optimizer: by rate with the first seed, by seed at the best rate."""
    suits = RATE * maker_of(kind).suits
    by_rate = {}
    for share in options.shares:
        rate = float(f"{suits * share:.3g}")
        by_rate[rate] = trained(kind, rate, 0, options)
        print(f"{kind:10s} rate {rate:<8g} seed 0  {by_rate[rate]:.4f}", flush=True)
    finite = {rate: loss for rate, loss in by_rate.items() if math.isfinite(loss)}
    best = min(finite, key=lambda rate: finite[rate])
    losses = [finite[best], *(trained(kind, best, s, options) for s in range(1, options.seeds))]
    spread = statistics.stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else None
    return {
        "rate": best,
        "by_rate": {f"{rate:g}": loss for rate, loss in by_rate.items()},
        "losses": losses,
        "mean": statistics.fmean(losses),
        "standard_error": spread,
    }


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.3, 1.0, 3.0])
    parser.add_argument("--repeats", type=int, default=50, help="updates that are timed")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the figures."""
    options = parsed(arguments)
    kinds = list(OPTIMIZERS)
    seconds, held = updates(kinds, options.repeats)
    found = {kind: measure(kind, options) for kind in kinds}
    print(
        f"\n{options.steps} steps of {options.batch}, {options.seeds} seeds\n"
        f"{'optimizer':10s}{'rate':>9s}{'held-out loss':>20s}{'bytes':>12s}{'update':>10s}"
    )
    for kind, one in found.items():
        error = f" ± {one['standard_error']:.4f}" if one["standard_error"] is not None else ""
        loss = f"{one['mean']:.4f}{error}"
        ratio = seconds[kind] / seconds["adamw"]
        update = f"{1000 * seconds[kind]:.1f} ms"
        print(f"{kind:10s}{one['rate']:>9g}{loss:>20s}{held[kind]:>12,}{update:>10s}{ratio:>7.1f}×")
        one |= {"bytes": held[kind], "update_seconds": seconds[kind]}
    write_json(
        options.results / "optimizers.json",
        {
            "format": 1,
            "recipe": "digits",
            "steps": options.steps,
            "batch": options.batch,
            "seeds": options.seeds,
            "optimizers": found,
        },
    )
    print("\nfigures optimizers.json")


if __name__ == "__main__":
    main()
