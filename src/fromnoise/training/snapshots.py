"""Snapshots of the power-function averages in a run's folder, and averages put together from them.

snapshots/step-00000050/
    averages.safetensors    one average for each width, named width/parameter
    snapshot.json           step and widths
    MANIFEST.json           size and SHA-256 of every file
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import (
    atomic_folder,
    load_tensors,
    read_json,
    save_tensors,
    verify_folder,
    write_json,
)
from fromnoise.training.checkpoint import Warn, _say

if TYPE_CHECKING:
    from torch import Tensor

    from fromnoise.training.power_ema import PowerEMA

FORMAT = 1
FOLDER = "snapshots"
_NAME = re.compile(r"^step-(\d{8,})$")
_FILE = "averages.safetensors"

WORST = 0.5
"""The largest relative error of a profile that still counts as an average of its width."""


@dataclass(frozen=True)
class Snapshot:
    """One snapshot: its folder, the step it was taken after, the widths it holds."""

    path: Path
    step: int
    stds: tuple[float, ...]


@dataclass(frozen=True)
class Average:
    """Weights by name (float32), the relative width and step they are the average of.

    error: norm of the difference between its profile and the one asked for, relative to that.
    """

    weights: "dict[str, Tensor]"
    std: float
    step: int
    error: float


def write(run: Path, step: int, averages: "PowerEMA", precision: str = "float32") -> Path:
    """Write the snapshot of `step` into a run folder, whole or not at all; return its folder.

    precision: "float32", or "float16" for half the space and 3 digits of each weight.
    """
    import torch

    dtype = torch.float16 if precision == "float16" else torch.float32
    path = run / FOLDER / f"step-{step:08d}"
    held = {name: value.to(dtype) for name, value in averages.state().items()}
    with atomic_folder(path) as folder:
        save_tensors(folder / _FILE, held, {})
        told = {"format": FORMAT, "step": step, "stds": list(averages.stds)}
        write_json(folder / "snapshot.json", told)
    return path


def found(run: Path, warn: Warn = _say) -> list[Snapshot]:
    """The snapshots of a run, oldest first; a damaged one is passed over, and `warn` told of it."""
    folder = run / FOLDER
    paths = [p for p in folder.iterdir() if _NAME.match(p.name)] if folder.is_dir() else []
    kept = []
    for path in paths:
        try:
            verify_folder(path)
            kept.append(_read(path))
        except FileError as error:
            warn(f"snapshot {path.name} is damaged and was passed over: {error}")
    return sorted(kept, key=lambda one: one.step)


def average(snapshots: Sequence[Snapshot], std: float, step: int | None = None) -> Average:
    """The average of relative width `std` at `step` (the last by default), from snapshots.

    Raises UsageError for a width out of range or too far from any that the snapshots can make, no
    snapshots, or a step before the first of them or after the last.
    """
    step, shares, error = _fitted(snapshots, std, step)
    if error > WORST:
        raise UsageError(
            f"the snapshots come within {error:.0%} of the profile of width {std:g} at step {step} "
            "only, which is no average of that width; use a width nearer to those tracked, or "
            "more snapshots (--train.snapshot-every)"
        )
    by_snapshot: dict[Path, dict[float, float]] = {}
    for one, own, share in shares:
        by_snapshot.setdefault(one.path, {})[own] = share
    total: dict[str, Tensor] = {}
    for path, counts in by_snapshot.items():
        _add(total, load_tensors(path / _FILE)[0], counts, path)
    return Average({name: value.float() for name, value in total.items()}, std, step, error)


def profile_error(snapshots: Sequence[Snapshot], std: float, step: int | None = None) -> float:
    """How far the profile that `average` would make is from the one asked for, as a share of it.

    Raises UsageError for no snapshots, or a step before the first of them or after the last.
    """
    return _fitted(snapshots, std, step)[2]


def _fitted(
    snapshots: Sequence[Snapshot], std: float, step: int | None
) -> tuple[int, list[tuple[Snapshot, float, float]], float]:
    """The step, what each width of each snapshot counts, and how far the profile is off."""
    from fromnoise.training.power_ema import combination

    if not snapshots:
        raise UsageError(
            "this run holds no snapshots of its averages; train with --train.post-hoc 0.05 "
            "--train.post-hoc 0.1"
        )
    first, last = snapshots[0].step, snapshots[-1].step
    step = last if step is None else step
    if step > last:
        raise UsageError(f"step {step} is after the last snapshot, of step {last}; use {last}")
    if step < first:
        raise UsageError(f"the first snapshot is of step {first}, after step {step}")
    pairs = [(one, own) for one in snapshots if one.step <= step for own in one.stds]
    shares, error = combination(
        [one.step for one, _ in pairs], [own for _, own in pairs], step, std
    )
    counted = [(one, own, share) for (one, own), share in zip(pairs, shares, strict=True)]
    return step, counted, error


def _add(
    total: "dict[str, Tensor]", held: "dict[str, Tensor]", counts: dict[float, float], path: Path
) -> None:
    for std, share in counts.items():
        prefix = f"{std:g}/"
        own = {k.removeprefix(prefix): v for k, v in held.items() if k.startswith(prefix)}
        if not own or (total and not own.keys() <= total.keys()):
            raise FileError(f"{path} does not hold the averages that the other snapshots hold")
        for name, value in own.items():
            part = share * value.double()
            total[name] = total[name] + part if name in total else part


def _read(path: Path) -> Snapshot:
    told: Any = read_json(path / "snapshot.json")
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise FileError(f"{path} is of another format; this version reads {FORMAT}")
    return Snapshot(path, int(told["step"]), tuple(float(s) for s in told["stds"]))
