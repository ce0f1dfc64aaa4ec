"""Checkpoints: one folder each, whole or absent, found by their manifests. No pickle anywhere.

checkpoints/step-00001234/
    objective.safetensors   everything in the objective's state
    ema.safetensors         the averaged weights
    power_ema.safetensors   the power-function averages, where they are tracked
    optimizer.safetensors   what the optimizers remember, named group/parameter/quantity
    state.json              step, samples seen, seed, hash of the configuration, versions
    model/                  the model with its averaged weights, ready to load
    MANIFEST.json           size and SHA-256 of every file
Randomness needs no state: it is a function of seed, step and place (see `draws`).
"""

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fromnoise import __version__
from fromnoise.core.errors import FileError, TrainingError
from fromnoise.core.files import (
    atomic_folder,
    load_tensors,
    read_json,
    require_room,
    save_tensors,
    size_of,
    verify_folder,
    write_json,
)

if TYPE_CHECKING:
    from torch import Tensor

    from fromnoise.training.ema import EMA
    from fromnoise.training.objective import Objective
    from fromnoise.training.optimizers import Optimization

FORMAT = 1
FOLDER = "checkpoints"
_TEXTS = 64 * 1024
_NAME = re.compile(r"^step-(\d{8,})$")

Warn = Callable[[str], None]


def _say(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def fingerprint(config: Mapping[str, Any]) -> str:
    """SHA-256 of a configuration, whatever the order of its keys."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def save(
    run: Path,
    step: int,
    objective: "Objective",
    ema: "EMA",
    optimization: "Optimization",
    config: Mapping[str, Any],
    write_model: Callable[[Path], None] | None = None,
    processes: int = 1,
) -> Path:
    """Write the checkpoint of `step` into a run folder, whole or not at all; return its folder.

    write_model: writes the model into a folder; it is called with the averaged weights in place.
    processes: how many took each step together.
    Raises DiskError when it cannot be written, TrainingError when a weight is not finite.
    """
    weights = dict(objective.state_dict())
    _check_finite(weights, step)
    settings = optimization.settings
    path = run / FOLDER / f"step-{step:08d}"
    check_room(run, objective, ema, optimization, write_model is not None)
    with atomic_folder(path) as folder:
        save_tensors(folder / "objective.safetensors", weights, {})
        save_tensors(folder / "ema.safetensors", ema.shadow, {})
        if ema.power.stds:
            save_tensors(folder / "power_ema.safetensors", ema.power.state(), {})
        save_tensors(folder / "optimizer.safetensors", optimization.state(), {})
        if write_model is not None:
            (folder / "model").mkdir()
            with ema.swap():
                write_model(folder / "model")
        state = {
            "format": FORMAT,
            "step": step,
            "samples": step * settings.batch_size,
            "seed": settings.seed,
            "processes": processes,
            "config": fingerprint(config),
            "versions": {"fromnoise": __version__, "torch": version("torch")},
        }
        write_json(folder / "state.json", state)
    return path


def check_room(
    run: Path, objective: "Objective", ema: "EMA", optimization: "Optimization", model: bool
) -> None:
    """Raise DiskError when the disk has no room for a checkpoint, before the first step too.

    model: whether the model is written as well.
    """
    average = size_of(ema.shadow)
    # Before it has taken a step an optimizer remembers nothing; most keep two numbers a weight.
    remembered = size_of(optimization.state()) or 2 * average
    averages = (1 + model) * average + size_of(ema.power.state())
    needed = size_of(objective.state_dict()) + averages + remembered + _TEXTS
    require_room(run / FOLDER, needed)


def load(
    path: Path, objective: "Objective", ema: "EMA", optimization: "Optimization"
) -> dict[str, Any]:
    """Restore all from a checkpoint that was verified; return its state.json.

    Raises FileError when it does not belong to this objective.
    """
    state = _state(path)
    load_objective(path, objective)
    ema.load(load_tensors(path / "ema.safetensors")[0])
    if ema.power.stds:
        ema.power.load(load_tensors(path / "power_ema.safetensors")[0])
    optimization.load(load_tensors(path / "optimizer.safetensors")[0])
    return state


def load_objective(path: Path, objective: "Objective") -> None:
    """Restore what is trained from a checkpoint, as it was at that step, not averaged.

    Raises FileError when the checkpoint is of another objective.
    """
    objective_file = path / "objective.safetensors"
    weights, _ = load_tensors(objective_file)
    wanted = objective.state_dict().keys()
    if weights.keys() != wanted:
        odd = sorted(weights.keys() ^ wanted)[0]
        raise FileError(f"{objective_file} does not fit what is trained: {odd!r}")
    try:
        objective.load_state_dict(weights)
    except RuntimeError as error:
        raise FileError(f"{objective_file} does not fit what is trained: {error}") from None


def steps(run: Path) -> list[Path]:
    """The checkpoint folders of a run, oldest first, whether they are valid or not."""
    folder = run / FOLDER
    if not folder.is_dir():
        return []
    found = [(int(m[1]), p) for p in folder.iterdir() if (m := _NAME.match(p.name))]
    return [path for _, path in sorted(found)]


def latest(run: Path, warn: Warn = _say) -> Path | None:
    """The newest checkpoint whose files all have the sizes and hashes of its manifest.

    `warn` is told of each newer one that is damaged, and which file it is. None when the run has
    no checkpoint; TrainingError when it has some and none is valid.
    """
    paths = steps(run)
    for path in reversed(paths):
        try:
            verify_folder(path)
            _state(path)
        except FileError as error:
            warn(f"checkpoint {path.name} is damaged and was passed over: {error}")
            continue
        return path
    if paths:
        raise TrainingError(
            f"{run}: none of its {len(paths)} checkpoints is valid; "
            "restore the folder from a copy, or train again into another"
        )
    return None


def latest_model(run: Path, warn: Warn = _say) -> Path:
    """The model folder of the newest valid checkpoint. FileError when there is none yet."""
    path = latest(run, warn)
    if path is None or not (path / "model").is_dir():
        raise FileError(f"{run} holds no trained model yet; wait for its first checkpoint")
    return path / "model"


def prune(run: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints; what is removed vanishes at once."""
    for path in steps(run)[:-keep]:
        # Renamed first, to a name that `sweep` knows: a kill half-way leaves no half checkpoint.
        gone = path.with_name(f"{path.name}.tmp-{os.getpid()}-{path.name[-8:]}")
        os.rename(path, gone)
        shutil.rmtree(gone)


def forget_after(run: Path, step: int) -> None:
    """Remove the checkpoints later than `step`: damaged ones, before they are written again."""
    for path in steps(run):
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)


def _state(path: Path) -> dict[str, Any]:
    state = read_json(path / "state.json")
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise FileError(f"{path / 'state.json'} is of another format; this version reads {FORMAT}")
    step, named = state.get("step"), int(path.name.removeprefix("step-"))
    if type(step) is not int or step != named:
        raise FileError(
            f"{path / 'state.json'} is of step {step!r}, and the folder of step {named}"
        )
    return state


def _check_finite(weights: Mapping[str, "Tensor"], step: int) -> None:
    import torch

    for name, value in weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise TrainingError(f"step {step}: weight {name!r} is not finite; nothing was saved")
