"""Half 3, half 8: what a model draws when it is told weights of two classes.

    python -m benchmarks.mixing [--samples N] [--steps N] [--pair A B]

Two models are asked: `digits`, which learned whole labels only, and `digits-mix`, which learned
that weights are chances. For each weight the same seeds are drawn, without guidance, and a reader
of digits says how likely each is one class or the other. Of a true mixture the mean is a straight
line in the weight, and each single digit is one or the other; of what lies in between, many a digit
is neither. The runs are trained first where they are not there.
"""

import argparse
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.output import PICTURES, RESULTS
from fromnoise.app.asked import recipe_of
from fromnoise.app.train import split
from fromnoise.cli.main import run as command
from fromnoise.core.files import write_bytes, write_json
from fromnoise.evaluate import FeatureNetwork, train_reader
from fromnoise.evaluate.intervals import mean
from fromnoise.interop.loading import load
from fromnoise.model import Model, sheet

RUNS = ("digits", "digits-mix")
WEIGHTS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
SHOWN = 12
SURE = 0.8
"""From this probability on, a digit is surely read as a class."""


def opened(name: str, folder: Path | None) -> Model:
    """A run's model: of the folder, or of the recipe's own, trained now or gone on with."""
    if folder is None:
        folder = Path("runs") / name
        code = command(["train", name, "--out", str(folder)])
        if code:
            raise SystemExit(code)
    return load(folder)


def drawn(model: Model, weight: float, options: argparse.Namespace) -> Tensor:
    """Samples told 1 − weight of the first class and weight of the second."""
    first, second = options.pair
    return model.sample(
        options.samples, label={first: 1.0 - weight, second: weight}, steps=options.steps,
        guidance=1.0, seed=0, batch_size=min(options.samples, 250), dtype="float32",
    ).tensor  # fmt: skip


def read(reader: FeatureNetwork, x: Tensor, pair: Sequence[int]) -> dict[str, Any]:
    """How samples are read: each class's mean probability, and how many surely as which."""
    found = reader.probabilities(x)
    first, second = (found[:, label] for label in pair)
    return {
        "first": mean(first).as_json(),
        "second": mean(second).as_json(),
        "neither": mean(1.0 - first - second).as_json(),
        "surely_one": ((first >= SURE) | (second >= SURE)).double().mean().item(),
    }


def plot(found: dict[str, dict[str, Any]], pair: Sequence[int], pictures: dict[str, Any]) -> bytes:
    """The readings over the weight, a panel for each model, and some of what it drew below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 7.6), dpi=120, layout="constrained")
    axes = figure.subplots(2, len(found), height_ratios=(1.0, 1.3))
    for column, (name, rows) in enumerate(found.items()):
        top, below = axes[0][column], axes[1][column]
        weights = [float(w) for w in rows]
        names = {"first": f"reads {pair[0]}", "second": f"reads {pair[1]}", "neither": "neither"}
        for key, text in names.items():
            top.plot(weights, [row[key]["value"] for row in rows.values()], marker="o", ms=3,
                     label=text)  # fmt: skip
        top.plot([0, 1], [1, 0], color="grey", linewidth=0.8, linestyle="--")
        top.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
        top.set_title(name)
        top.set_xlabel(f"weight of {pair[1]}, the rest {pair[0]}")
        top.set_ylim(-0.02, 1.02)
        top.grid(alpha=0.25, linewidth=0.6)
        top.legend(frameon=False)
        below.imshow(pictures[name], interpolation="nearest")
        below.set_title("one noise a column, weight 0 at the top and 1 at the bottom", fontsize=9)
        below.set_axis_off()
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name in RUNS:
        parser.add_argument(f"--{name}", type=Path, help=f"run folder, in place of {name}'s")
    parser.add_argument("--pair", type=int, nargs=2, default=[3, 8])
    parser.add_argument("--samples", type=int, default=250)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the figures and the picture."""
    options = parsed(arguments)
    folders = {name: getattr(options, name.replace("-", "_")) for name in RUNS}
    models = {name: opened(name, folder) for name, folder in folders.items()}
    train, _ = split(recipe_of(folders["digits"] or Path("runs/digits")))
    known = train.batch(list(range(len(train))))
    assert known.label is not None
    started = time.perf_counter()
    reader = train_reader(known.x, known.label, len(train.classes), data="digits")
    found: dict[str, dict[str, Any]] = {}
    pictures: dict[str, Any] = {}
    first, second = options.pair
    print(f"{'model':12s}{'weight':>8s}{f'reads {first}':>10s}{f'reads {second}':>10s}"
          f"{'neither':>10s}{'surely one':>12s}")  # fmt: skip
    for name, model in models.items():
        rows, shown = {}, []
        for weight in WEIGHTS:
            x = drawn(model, weight, options)
            shown.append(x[:SHOWN])
            one = read(reader, x, options.pair)
            rows[f"{weight:g}"] = one
            values = (one[key]["value"] for key in ("first", "second", "neither"))
            print(f"{name:12s}{weight:8.3f}" + "".join(f"{v:10.3f}" for v in values)
                  + f"{one['surely_one']:12.3f}", flush=True)  # fmt: skip
        found[name] = rows
        pictures[name] = sheet(torch.cat(shown), columns=SHOWN).convert("RGB")
    picture = plot(found, options.pair, pictures)
    write_bytes(options.pictures / "digits-mix.png", picture)
    write_json(
        options.results / "mixing.json",
        {
            "format": 1,
            "pair": options.pair,
            "samples": options.samples,
            "steps": options.steps,
            "sure": SURE,
            "features": reader.card,
            "models": found,
        },
    )
    minutes = (time.perf_counter() - started) / 60
    print(f"\npicture digits-mix.png, figures mixing.json; {minutes:.1f} minutes after training")


if __name__ == "__main__":
    main()
