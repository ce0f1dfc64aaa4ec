"""A run: a folder with all that is needed to go on with a training, or to reproduce it.

config.json        the resolved recipe, `train` settings included
environment.json   versions, processor, threads
checkpoints/       see `checkpoint`
metrics.jsonl      one line a step
samples/           a sheet of samples every so many steps
tensorboard/       event files, on request
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fromnoise.core.environment import environment
from fromnoise.core.errors import FileError, FromNoiseError, UsageError
from fromnoise.core.files import lock, read_json, sweep, write_bytes, write_json
from fromnoise.data import Augment, Batch, Dataset, Loader
from fromnoise.training import checkpoint
from fromnoise.training.draws import derive
from fromnoise.training.ema import EMA
from fromnoise.training.loop import Event, default_accelerator, held_out_loss, train
from fromnoise.training.metrics import Metrics
from fromnoise.training.objective import Objective
from fromnoise.training.optimizers import Optimization
from fromnoise.training.settings import FREE, LENGTH, TrainSettings
from fromnoise.training.signals import Interrupts, Stopped

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Run", "Stopped", "Task", "read_config"]

FORMAT = 1
CONFIG = "config.json"
_PREPARE, _VALIDATE = 5, 6
_PREPARED = 4096


@dataclass(frozen=True)
class Task:
    """What a run trains, on what, and what it writes of it.

    augment: a change of the training samples, drawn anew for each in each epoch.
    write_model: writes the model into a folder; preview: draws a sheet of samples, as PNG bytes.
    Both are called with the averaged weights in place and the objective in evaluation mode.
    """

    objective: Objective
    data: Dataset
    held_out: Dataset | None = None
    augment: Augment | None = None
    write_model: Callable[[Path], None] | None = None
    preview: Callable[[], bytes] | None = None


class Run:
    """One training run in its folder; `train` begins it or goes on with it.

    config: the resolved recipe as plain values, with the training settings under "train".
    warn: told of what is unexpected but does not stop the run.
    Raises UsageError for training settings that cannot be.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any],
        task: Task,
        warn: checkpoint.Warn | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.config = dict(config)
        self.settings = TrainSettings.model_validate(config["train"])
        self.task = task
        self._warn = warn or checkpoint._say
        self._interrupts = Interrupts()
        self.steps = self.settings.total(len(task.data))

    def stop(self) -> None:
        """Ask for a stop after the step under way: it is saved, and `train` raises Stopped."""
        self._interrupts.ask()

    def train(self) -> Iterator[Event]:
        """Train to the end, from the newest valid checkpoint if there is one.

        Yields an Event after each step. Bit for bit, a run that was killed and goes on does what
        it would have done. SIGINT and SIGTERM finish the step and save, then raise Stopped.
        Raises FileError when another process trains in the folder, UsageError when the
        configuration is not the one the run began with, TrainingError when it cannot go on.
        """
        machine = default_accelerator()
        self.task.objective.to(machine.device)
        optimization = Optimization(self.task.objective.groups(), self.settings)
        work = _Work(self, optimization, machine)
        with ExitStack() as stack:
            if machine.is_main_process:
                stack.enter_context(lock(self.folder))
                sweep(self.folder)
                self._claim()
            machine.wait_for_everyone()
            start = work.restore()
            if start >= self.steps:
                return
            metrics = None
            if machine.is_main_process:
                metrics = stack.enter_context(
                    Metrics(self.folder, start, self.settings.tensorboard)
                )
            stack.enter_context(self._interrupts.caught())
            yield from self._steps(work, metrics, start)

    def _steps(self, work: "_Work", metrics: Metrics | None, start: int) -> Iterator[Event]:
        task, settings = self.task, self.settings
        batches = Loader(
            task.data, settings.batch_size, settings.seed, settings.workers, settings.timeout,
            task.augment,
        )  # fmt: skip
        loop = train(
            task.objective, batches, work.optimization, work.ema, self.steps, start, work.machine
        )
        asked = work.agreed(self._interrupts.asked)
        if asked is not None:
            raise Stopped("stopped before the first step; nothing was changed", asked)
        for event in loop:
            asked = work.agreed(self._interrupts.asked)
            event = work.after(event, leaving=asked is not None)
            if metrics is not None and self._logged(event):
                metrics.write(_line(event))
            yield event
            if asked is None:
                asked = work.agreed(self._interrupts.asked)
            if asked is not None and event.step < self.steps:
                if event.checkpoint is None:
                    work.save(event.step)
                raise Stopped(
                    f"stopped after step {event.step} of {self.steps}, which is saved in "
                    f"{self.folder}; give the same command to go on",
                    asked,
                )

    def _logged(self, event: Event) -> bool:
        every = event.step % self.settings.log_every == 0
        return every or event.validation is not None or event.step == self.steps

    def _claim(self) -> None:
        """Write the configuration into a new folder, or compare it with the one that is there."""
        path = self.folder / CONFIG
        if path.exists():
            _compare(read_config(self.folder), self.config, self.folder)
        elif any(p.name != ".lock" for p in self.folder.iterdir()):
            raise FileError(f"{self.folder} is not empty and holds no run; choose another folder")
        # First of all files: a folder without it is not ours, even if we are killed after it.
        write_json(path, {"format": FORMAT, "config": self.config})
        told = self.folder / "environment.json"
        if not told.exists():
            write_json(told, {"format": FORMAT, **environment()})


class _Work:
    """The state of a run while it trains, and what is done between two steps."""

    def __init__(self, run: Run, optimization: Optimization, machine: "Accelerator") -> None:
        self.run = run
        self.optimization = optimization
        self.machine = machine
        self.ema = EMA(run.task.objective, run.settings.ema)

    def restore(self) -> int:
        """The step to go on from: 0, prepared, or that of the newest valid checkpoint."""
        run = self.run
        path = checkpoint.latest(run.folder, run._warn)
        if path is None:
            sample = next(run.task.data.batches(_PREPARED)).x
            run.task.objective.prepare(sample, derive(run.settings.seed, _PREPARE))
            self.ema = EMA(run.task.objective, run.settings.ema)
            return 0
        state = checkpoint.load(path, run.task.objective, self.ema, self.optimization)
        step = int(state["step"])
        self.machine.wait_for_everyone()
        if self.machine.is_main_process:
            checkpoint.forget_after(run.folder, step)
        return step

    def after(self, event: Event, leaving: bool) -> Event:
        """Validate, draw and save where this step is due; the event with what was done."""
        settings, last = self.run.settings, event.step == self.run.steps
        if self._due(event.step, settings.validate_every, last):
            event = replace(event, validation=self.validate())
        if last or leaving or _every(event.step, settings.checkpoint_every):
            event = replace(event, checkpoint=self.save(event.step))
        # After saving, and never fatal: a picture that fails must not cost what was trained.
        if self._due(event.step, settings.sample_every, last):
            try:
                event = replace(event, picture=self.draw(event.step))
            except FromNoiseError as error:
                self.run._warn(f"no sample picture at step {event.step}: {error}")
        return event

    def _due(self, step: int, every: int, last: bool) -> bool:
        return bool(every) and (last or _every(step, every))

    def validate(self) -> float | None:
        """The loss of the averaged weights on held-out data; None where there is none."""
        run = self.run
        if run.task.held_out is None:
            return None
        seed = derive(run.settings.seed, _VALIDATE)
        with self.ema.swap():
            batches = _held_out(run.task.held_out, run.settings)
            value = held_out_loss(run.task.objective, batches, seed, run.settings.precision)
        return value if math.isfinite(value) else None

    def draw(self, step: int) -> Path | None:
        """A sheet of samples by the averaged weights."""
        run = self.run
        if run.task.preview is None or not self.machine.is_main_process:
            return None
        path = run.folder / "samples" / f"step-{step:08d}.png"
        run.task.objective.eval()
        try:
            with self.ema.swap():
                write_bytes(path, run.task.preview())
        finally:
            run.task.objective.train()
        return path

    def save(self, step: int) -> Path:
        """A checkpoint; older ones beyond `keep` are removed."""
        run = self.run
        path = run.folder / checkpoint.FOLDER / f"step-{step:08d}"
        if self.machine.is_main_process:
            path = checkpoint.save(
                run.folder, step, run.task.objective, self.ema, self.optimization, run.config,
                run.task.write_model,
            )  # fmt: skip
            checkpoint.prune(run.folder, run.settings.keep)
        self.machine.wait_for_everyone()
        return path

    def agreed(self, asked: int | None) -> int | None:
        """The signal any process received; all of them stop after the same step."""
        if self.machine.num_processes == 1:
            return asked
        mine = torch.tensor([asked or 0], device=self.machine.device)
        return int(self.machine.gather(mine).max()) or None


def _held_out(data: Dataset, settings: TrainSettings) -> Iterator[Batch]:
    return data.batches(settings.batch_size, settings.validation_samples)


def _every(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _line(event: Event) -> dict[str, Any]:
    line: dict[str, Any] = {
        "step": event.step,
        "loss": event.loss,
        "grad_norm": event.grad_norm,
        "learning_rate": event.learning_rate,
        "rate": round(event.rate, 3),
    }
    if len(event.losses) > 1:
        line |= {f"loss/{name}": value for name, value in event.losses.items()}
    if event.validation is not None:
        line["validation"] = event.validation
    return line


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run. FileError when the folder holds none that can be read."""
    path = folder / CONFIG
    raw = read_json(path)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT or "config" not in raw:
        raise FileError(f"{path} is of another format; this version reads {FORMAT}")
    return dict(raw["config"])


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = ""
) -> dict[str, tuple[Any, Any]]:
    """Dotted key → (before, after) for every value that differs."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found[prefix + key] = (old, new)
    return found


def _compare(before: Mapping[str, Any], after: Mapping[str, Any], folder: Path) -> None:
    free = (*FREE, *LENGTH) if after["train"]["schedule"] == "constant" else FREE
    changed = {
        key: values
        for key, values in differences(before, after).items()
        if not any(key == name or key.startswith(f"{name}.") for name in free)
    }
    if changed:
        listed = "; ".join(f"{k} was {old!r}, now {new!r}" for k, (old, new) in changed.items())
        raise UsageError(
            f"{folder} was begun with another configuration: {listed}. "
            "Leave these as they were, or train into another folder"
        )
