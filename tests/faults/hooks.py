"""Where a training run can be killed: each phase of the loop by name."""

import os
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from fromnoise.core import files
from fromnoise.training import Run, checkpoint, loop, runner
from fromnoise.training.ema import EMA
from fromnoise.training.metrics import Metrics

STEP = 7
SAVE = 8
EVERY = 2
"""The steps that are killed, and those between checkpoints."""


def die(*_: Any) -> None:
    """End as by a power cut: no handler, no `finally`."""
    os.kill(os.getpid(), signal.SIGKILL)


def at(owner: Any, name: str, turn: int, before: Callable[..., object] = die) -> None:
    """Call `before` where `owner.name` is called for the turn-th time."""
    real, left = getattr(owner, name), iter(range(turn - 1))

    def called(*arguments: Any, **options: Any) -> Any:
        if next(left, None) is None:
            before(*arguments)
        return real(*arguments, **options)

    setattr(owner, name, called)


def always(owner: Any, name: str, before: Callable[..., object]) -> None:
    """Call `before` wherever `owner.name` is called."""
    real = getattr(owner, name)

    def called(*arguments: Any, **options: Any) -> Any:
        before(*arguments)
        return real(*arguments, **options)

    setattr(owner, name, called)


def after(owner: Any, name: str, turn: int) -> None:
    """Die where `owner.name` returns for the turn-th time."""
    real, left = getattr(owner, name), iter(range(turn - 1))

    def called(*arguments: Any, **options: Any) -> Any:
        value = real(*arguments, **options)
        if next(left, None) is None:
            die()
        return value

    setattr(owner, name, called)


def die_at_byte(number: int) -> None:
    """From now on, die where any file would grow beyond so many bytes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))


def _die_in_a_large_file(*_: Any) -> None:
    die_at_byte(1500)


def _one_file_less(path: Any, *_: Any) -> None:
    if ".tmp-" in path.name and path.parent.name == checkpoint.FOLDER:
        next(p for p in path.iterdir() if p.is_file()).unlink()
        die()


def _half(metrics: Metrics, data: bytes) -> None:
    metrics._file.write(data[: len(data) // 2])
    die()


def _preview(made: Run) -> None:
    def preview() -> bytes:
        if checkpoint.steps(made.folder)[-1].name.endswith(f"{SAVE}"):
            die()
        return b"picture"

    made.task = replace(made.task, preview=preview)


_SAVES = SAVE // EVERY
_RENAMES = _SAVES + _SAVES - 3
"""Pruning renames as well: each save after the second, when two are kept."""
PHASES: dict[str, Callable[[Run], None]] = {
    "a batch is read": lambda _: after(loop, "_next", STEP),
    "the loss is known": lambda _: at(torch.autograd, "backward", STEP),
    "the gradient is known": lambda _: at(torch.nn.utils, "get_total_norm", STEP),
    "the weights are stepped": lambda made: at(made.task.objective, "after_step", STEP),
    "the average is updated": lambda _: after(EMA, "update", STEP),
    "a line of metrics is half written": lambda _: at(Metrics, "_append", STEP, _half),
    "validation is under way": lambda _: at(runner, "_held_out", 2),
    "saving begins": lambda _: at(checkpoint, "save", _SAVES),
    "a file is half written": lambda _: at(checkpoint, "save", _SAVES, _die_in_a_large_file),
    "all but the manifest is written": lambda _: at(files, "_seal", _SAVES),
    "all is flushed and not renamed": lambda _: at(files.os, "rename", _RENAMES),
    "it is renamed and nothing pruned": lambda _: at(checkpoint, "prune", _SAVES),
    "the oldest is half pruned": lambda _: always(shutil, "rmtree", _one_file_less),
    "a picture is drawn": _preview,
}
"""What is just done, or is being done, when the run is killed."""
