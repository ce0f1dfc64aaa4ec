"""Choose the length of a run's averaged weights after training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fromnoise.app.asked import recipe_of
from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import EmaRequest
from fromnoise.app.train import prepare
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import check_folder, load_tensors, write_bytes, write_json
from fromnoise.evaluate import line_plot
from fromnoise.model import Model, save_model
from fromnoise.training import Run, checkpoint, snapshots

WIDTHS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.085, 0.1, 0.125, 0.15, 0.2, 0.25)
"""The widths whose held-out loss is measured."""

_TRUSTED = 0.1


def ema(request: EmaRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise ema`."""
    if request.std is None and not request.sweep:
        raise UsageError("give --std WIDTH (0.05, say) for a model, or --sweep to compare widths")
    opened = _open(Path(request.run), reporter)
    if request.sweep:
        sweep(opened, request, reporter)
    if request.std is not None:
        write(opened, request, request.std, reporter)
    return 0


@dataclass(frozen=True)
class Opened:
    """A run, what it trains with the weights of its last checkpoint, and its snapshots."""

    folder: Path
    run: Run
    model: Model
    checkpoint: Path
    snapshots: list[snapshots.Snapshot]

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Set the weights that are trained."""
        own = dict(self.run.task.objective.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                if name not in own:
                    raise FileError(f"the averages hold {name!r}, which this run does not train")
                own[name].copy_(value)


def write(opened: Opened, request: EmaRequest, std: float, reporter: Reporter) -> Path:
    """Write the model folder of one average."""
    found = snapshots.average(opened.snapshots, std, request.step)
    out = check_folder(request.out or opened.folder / "averages" / f"std-{std:g}")
    if found.error > _TRUSTED:
        reporter.warn(
            f"the snapshots come within {found.error:.0%} of the profile of width {std:g} only; "
            "more of them (--train.snapshot-every) or a width between those tracked is closer"
        )
    opened.put(found.weights)
    told = {"std": std, "step": found.step, "profile_error": found.error}
    opened.model.card.figures["power_ema"] = told
    save_model(opened.model, out)
    reporter.say(f"average of width {std:g} at step {found.step}: {out}")
    return out


def sweep(opened: Opened, request: EmaRequest, reporter: Reporter) -> None:
    """Measure the held-out loss of averages of many widths; write ema.json and ema.png."""
    errors = {s: snapshots.profile_error(opened.snapshots, s, request.step) for s in WIDTHS}
    widths = [std for std in WIDTHS if errors[std] <= snapshots.WORST]
    if not widths:
        raise UsageError(
            "the snapshots come near none of the widths; more of them are needed "
            "(--train.snapshot-every), or another --step"
        )
    if len(widths) < len(WIDTHS):
        left = ", ".join(f"{std:g}" for std in WIDTHS if std not in widths)
        reporter.warn(f"the snapshots do not come near these widths, which are left out: {left}")
    losses: dict[float, float] = {}
    with reporter.progress("held-out loss by width", len(widths) + 1) as progress:
        for index, std in enumerate(widths, start=1):
            opened.put(snapshots.average(opened.snapshots, std, request.step).weights)
            losses[std] = opened.run.held_out_loss()
            progress.advance(index, f"width {std:g}  {losses[std]:.4f}")
        ordinary, _ = load_tensors(opened.checkpoint / "ema.safetensors")
        opened.put(ordinary)
        usual = opened.run.held_out_loss()
        progress.advance(len(widths) + 1)
    best = min(losses, key=lambda std: losses[std])
    result: dict[str, Any] = {
        "format": 1,
        "step": request.step or opened.snapshots[-1].step,
        "widths": {
            f"{s:g}": {"held_out_loss": losses[s], "profile_error": errors[s]} for s in widths
        },
        "best": best,
        "ordinary": {"decay": opened.run.settings.ema, "held_out_loss": usual},
    }
    write_json(opened.folder / "ema.json", result)
    write_bytes(opened.folder / "ema.png", _picture(losses, usual, opened))
    reporter.say(
        f"lowest held-out loss {losses[best]:.4f} at width {best:g}; the run's own average has "
        f"{usual:.4f}: {opened.folder / 'ema.png'}"
    )


def _picture(losses: Mapping[float, float], usual: float, opened: Opened) -> bytes:
    ends = (min(losses), max(losses))
    tracked = sorted({std for one in opened.snapshots for std in one.stds if std in losses})
    curves = {
        "chosen after training": list(losses.items()),
        f"ordinary average, decay {opened.run.settings.ema:g}": [(x, usual) for x in ends],
        **{f"tracked, {std:g}": [(std, losses[std])] for std in tracked},
    }
    return line_plot(curves, "relative width of the average", "loss on held-out data")


def _open(folder: Path, reporter: Reporter) -> Opened:
    recipe = recipe_of(folder)
    kept = snapshots.found(folder, reporter.warn)
    path = checkpoint.latest(folder, reporter.warn)
    if path is None:
        raise FileError(f"{folder} has no checkpoint yet; wait for its first")
    run, model = prepare(recipe, folder, reporter)
    checkpoint.load_objective(path, run.task.objective)
    return Opened(folder, run, model, path, kept)
