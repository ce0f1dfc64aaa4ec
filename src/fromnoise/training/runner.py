"""A run: a folder with all that is needed to go on with a training, or to reproduce it.

config.json        the resolved recipe, `train` settings included
environment.json   versions, processor, threads
checkpoints/       see `checkpoint`
metrics.jsonl      one line a step
snapshots/         see `snapshots`, where averages are tracked for later
samples/           a sheet of samples every so many steps
tensorboard/       event files, on request
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fromnoise.core.config import validated
from fromnoise.core.environment import environment
from fromnoise.core.errors import FileError, FromNoiseError, UsageError
from fromnoise.core.files import lock, read_json, sweep, write_bytes, write_json
from fromnoise.data import Augment, Batch, Dataset, Loader
from fromnoise.training import checkpoint, snapshots
from fromnoise.training.draws import derive
from fromnoise.training.ema import EMA
from fromnoise.training.loop import Event, held_out_loss, train, within_memory
from fromnoise.training.metrics import Metrics
from fromnoise.training.objective import Objective
from fromnoise.training.optimizers import Optimization
from fromnoise.training.parameters import parts, train_only
from fromnoise.training.ranks import Ranks, join
from fromnoise.training.settings import FREE, LENGTH, TrainSettings
from fromnoise.training.signals import Interrupts, Stopped

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
    complete: gives a configuration of an earlier version the keys that are new since, with their
    defaults; where it cannot (UsageError), the configuration is compared as it is.
    Raises UsageError for training settings that cannot be.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any],
        task: Task,
        warn: checkpoint.Warn | None = None,
        complete: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.config = dict(config)
        self.settings = TrainSettings.model_validate(config["train"])
        self.task = task
        self._warn = warn or checkpoint._say
        self._complete = complete or _with_settings
        self._interrupts = Interrupts()
        self.steps = self.settings.total(len(task.data))
        groups = task.objective.groups()
        self.trained = train_only(task.objective, self.settings.parts)
        _none_left_out(groups, task.objective.groups(), self.settings.parts)

    def stop(self) -> None:
        """Ask for a stop after the step under way: it is saved, and `train` raises Stopped."""
        self._interrupts.ask()

    def held_out_loss(self) -> float:
        """The loss of the weights as they are on held-out data, on the same noise every time.

        Raises UsageError for a run that holds no data out.
        """
        if self.task.held_out is None:
            raise UsageError(f"{self.folder} holds no data out, so there is no loss to measure")
        seed = derive(self.settings.seed, _VALIDATE)
        batches = _held_out(self.task.held_out, self.settings)
        return held_out_loss(self.task.objective, batches, seed, self.settings.precision)

    def train(self) -> Iterator[Event]:
        """Train to the end, from the newest valid checkpoint if there is one.

        Yields an Event after each step. Bit for bit, a run that was killed and goes on does what
        it would have done. SIGINT and SIGTERM finish the step and save, then raise Stopped.
        Raises FileError when another process trains in the folder, UsageError when the
        configuration is not the one the run began with, TrainingError when it cannot go on.
        """
        ranks = join(self.settings.group_timeout)
        self.task.objective.to(ranks.machine.device)
        self.task.objective.save_memory(self.settings.gradient_checkpointing)
        with ExitStack() as stack:
            with ranks.together():
                optimization = Optimization(self.task.objective.groups(), self.settings)
                work = _Work(self, optimization, ranks)
                if ranks.first:
                    stack.enter_context(lock(self.folder))
                    sweep(self.folder)
                    self._claim()
            start = work.restore()
            if start >= self.steps:
                return
            metrics = None
            with ranks.together():
                if ranks.first:
                    checkpoint.check_room(
                        self.folder, self.task.objective, work.ema, work.optimization,
                        self.task.write_model is not None,
                    )  # fmt: skip
                    metrics = Metrics(self.folder, start, self.settings.tensorboard)
                    stack.enter_context(metrics)
            stack.enter_context(self._interrupts.caught())
            yield from self._steps(work, metrics, start)

    def _steps(self, work: "_Work", metrics: Metrics | None, start: int) -> Iterator[Event]:
        task, settings = self.task, self.settings
        batches = Loader(
            task.data, settings.batch_size, settings.seed, settings.workers, settings.timeout,
            task.augment,
        )  # fmt: skip
        loop = train(
            task.objective, batches, work.optimization, work.ema, self.steps, start, work.ranks
        )
        asked = work.asked()
        if asked is not None:
            raise work.ranks.hush(
                Stopped("stopped before the first step; nothing was changed", asked)
            )
        for event in loop:
            asked = work.asked()
            with within_memory(settings.batch_size):
                event = work.measured(event)
                # Before the checkpoint: a run that goes on from it would not write this line again.
                if metrics is not None and self._logged(event):
                    metrics.write(_line(event))
                event = work.after(event, leaving=asked is not None)
            yield event
            if asked is None:
                asked = work.asked()
            if asked is not None and event.step < self.steps:
                if event.checkpoint is None:
                    work.save(event.step)
                raise work.ranks.hush(
                    Stopped(
                        f"stopped after step {event.step} of {self.steps}, which is saved in "
                        f"{self.folder}; give the same command to go on",
                        asked,
                    )
                )

    def _logged(self, event: Event) -> bool:
        every = event.step % self.settings.log_every == 0
        return every or event.validation is not None or event.step == self.steps

    def _claim(self) -> None:
        """Write the configuration into a new folder, or compare it with the one that is there."""
        path = self.folder / CONFIG
        if path.exists():
            before = read_config(self.folder)
            with suppress(UsageError):
                before = self._complete(before)
            _compare(before, self.config, self.folder)
        elif any(p.name != ".lock" for p in self.folder.iterdir()):
            raise FileError(f"{self.folder} is not empty and holds no run; choose another folder")
        # First of all files: a folder without it is not ours, even if we are killed after it.
        write_json(path, {"format": FORMAT, "config": self.config})
        told = self.folder / "environment.json"
        if not told.exists():
            write_json(told, {"format": FORMAT, **environment()})


class _Work:
    """The state of a run while it trains, and what is done between two steps."""

    def __init__(self, run: Run, optimization: Optimization, ranks: Ranks) -> None:
        self.run = run
        self.optimization = optimization
        self.ranks = ranks
        self.ema = EMA(run.task.objective, run.settings.ema, run.settings.post_hoc)

    def restore(self) -> int:
        """The step to go on from: 0, prepared, or that of the newest valid checkpoint."""
        with self.ranks.together() as shared:
            shared.mine = self._restored()
        # All have read it before the first one removes what came later.
        step = int(min(shared.all))
        with self.ranks.together():
            if min(shared.all) != max(shared.all):
                raise FileError(f"the processes do not see the same files in {self.run.folder}")
            if self.ranks.first and step:
                checkpoint.forget_after(self.run.folder, step)
        return step

    def _restored(self) -> int:
        run = self.run
        path = checkpoint.latest(run.folder, run._warn)
        if path is None:
            sample = next(run.task.data.batches(_PREPARED)).x
            run.task.objective.prepare(sample, derive(run.settings.seed, _PREPARE))
            self.ema = EMA(run.task.objective, run.settings.ema, run.settings.post_hoc)
            return 0
        state = checkpoint.load(path, run.task.objective, self.ema, self.optimization)
        before = int(state.get("processes", 1))
        if before != self.ranks.count and self.ranks.first:
            run._warn(
                f"{path.name} was written by {before} processes and {self.ranks.count} go on: "
                "closely, but not bit for bit as it would have"
            )
        return int(state["step"])

    def measured(self, event: Event) -> Event:
        """Validate where this step is due; the event with the loss on held-out data."""
        settings, last = self.run.settings, event.step == self.run.steps
        if self._due(event.step, settings.validate_every, last):
            event = replace(event, validation=self.validate())
        return event

    def after(self, event: Event, leaving: bool) -> Event:
        """Save and draw where this step is due; the event with what was done."""
        settings, last = self.run.settings, event.step == self.run.steps
        # Before the checkpoint: one that a kill prevents is taken again, one after it would not be.
        if settings.post_hoc and (last or _every(event.step, settings.snapshot_every)):
            self.snapshot(event.step)
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
        with self.ranks.together() as shared:
            # The same in all, so that any objective may keep what it learns from it.
            with self.ema.swap():
                value = run.held_out_loss()
            shared.mine = value
        return shared.all[0] if math.isfinite(shared.all[0]) else None

    def draw(self, step: int) -> Path | None:
        """A sheet of samples by the averaged weights."""
        run = self.run
        if run.task.preview is None or not self.ranks.first:
            return None
        path = run.folder / "samples" / f"step-{step:08d}.png"
        run.task.objective.eval()
        try:
            with self.ema.swap():
                write_bytes(path, run.task.preview())
        finally:
            run.task.objective.train()
        return path

    def snapshot(self, step: int) -> None:
        """A snapshot of the averages whose length is chosen after training."""
        with self.ranks.together():
            if self.ranks.first:
                precision = self.run.settings.snapshot_precision
                snapshots.write(self.run.folder, step, self.ema.power, precision)

    def save(self, step: int) -> Path:
        """A checkpoint; older ones beyond `keep` are removed."""
        run = self.run
        path = run.folder / checkpoint.FOLDER / f"step-{step:08d}"
        with self.ranks.together():
            if self.ranks.first:
                path = checkpoint.save(
                    run.folder, step, run.task.objective, self.ema, self.optimization, run.config,
                    run.task.write_model, self.ranks.count,
                )  # fmt: skip
                checkpoint.prune(run.folder, run.settings.keep)
        return path

    def asked(self) -> int | None:
        """The signal that any process received; all of them stop after the same step."""
        return self.ranks.largest(self.run._interrupts.asked or 0) or None


def _none_left_out(
    before: Mapping[str, list[Any]], after: Mapping[str, list[Any]], named: str
) -> None:
    """UsageError where the parts that were named leave a phase of training with no parameter."""
    for group, parameters in before.items():
        if parameters and not after.get(group):
            own = ", ".join(parts(name for name, _ in parameters))
            raise UsageError(
                f"{named} leaves nothing to train in the phase {group}; name some of {own} as well"
            )


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


def _with_settings(config: dict[str, Any]) -> dict[str, Any]:
    train = validated(TrainSettings, config.get("train"), "train")
    return {**config, "train": train.model_dump(mode="json")}


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
