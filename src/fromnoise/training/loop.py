"""The one training loop: a generator that takes a step and says how it went."""

import atexit
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from fromnoise.core.errors import TrainingError, UsageError
from fromnoise.data import Batch
from fromnoise.training.draws import Draws, derive, seeded
from fromnoise.training.ema import EMA
from fromnoise.training.objective import Objective, Phase
from fromnoise.training.optimizers import Optimization, learning_rate
from fromnoise.training.settings import TrainSettings

if TYPE_CHECKING:
    from accelerate import Accelerator

_DROPOUT = 3
_NO_MEMORY = ("can't allocate memory", "out of memory")


@dataclass(frozen=True)
class Event:
    """What one step did.

    step: optimizer steps taken, of `steps`. loss: mean over the batch; losses: by phase.
    grad_norm: before clipping. rate: steps a second, lately. validation: loss on held-out data,
    checkpoint and picture: what was written after this step, where there is one.
    """

    step: int
    steps: int
    loss: float
    losses: dict[str, float]
    grad_norm: float
    learning_rate: float
    rate: float
    validation: float | None = None
    checkpoint: Path | None = None
    picture: Path | None = None


class Batches(Protocol):
    """A source of batches that can start at any step."""

    def start(self, step: int) -> Iterator[Batch]:
        """The batches from global step `step` (0 for the first), without end."""


def train(
    objective: Objective,
    batches: Batches,
    optimization: Optimization,
    ema: EMA,
    steps: int,
    start: int = 0,
    accelerator: "Accelerator | None" = None,
) -> Iterator[Event]:
    """Train from step `start` up to `steps`, yielding an `Event` after each step.

    All randomness is a function of seed, step and place in the batch, so a run that goes on at
    `start` with its state restored does, bit for bit, what it would have done. The caller's own
    random state is neither used nor changed. Everything else (progress, saving, stopping) is the
    caller's: it happens between two steps.
    Raises TrainingError, before anything is changed, when a loss or gradient is not finite or
    memory runs out.
    """
    machine = accelerator or default_accelerator()
    step_of = _Step(objective, optimization, machine)
    rate = _Rate()
    source = batches.start(start)
    for step in range(start + 1, steps + 1):
        began = time.perf_counter()
        batch = _next(source)
        with _memory(len(batch)):
            losses, norm = step_of(batch, step, steps)
        objective.after_step()
        ema.update(step)
        rate.took(time.perf_counter() - began)
        yield Event(
            step=step,
            steps=steps,
            loss=sum(losses.values()),
            losses=losses,
            grad_norm=norm,
            learning_rate=learning_rate(step, steps, optimization.settings),
            rate=rate.value,
        )


def default_accelerator() -> "Accelerator":
    """The device and processes this program was started with (alone, or by `accelerate launch`)."""
    from accelerate import Accelerator

    if "WORLD_SIZE" in os.environ:
        # Imported later, its functions would keep the group of processes alive as a default.
        import_module("torch.distributed.nn.functional")
    machine = Accelerator()
    if machine.num_processes > 1:
        # The threads of a group that still lives when the interpreter ends abort the process.
        atexit.unregister(_leave)
        atexit.register(_leave)
    return machine


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def held_out_loss(
    objective: Objective,
    batches: Iterable[Batch],
    seed: int,
    precision: str = "float32",
) -> float:
    """The mean loss over held-out batches, with the same noise and times at every call.

    The sum of the phases' losses, in evaluation mode; nothing is changed.
    """
    was_training = objective.training
    device = next(objective.parameters()).device
    total, count = 0.0, 0
    objective.eval()
    try:
        with torch.no_grad():
            for index, batch in enumerate(batches):
                size = len(batch)
                draws = Draws.of_step(seed, index, range(size), size)
                with seeded(derive(seed, index), device), autocast(precision, device):
                    losses = [p.loss.item() for p in objective.phases(batch, draws)]
                total, count = total + size * sum(losses), count + size
    finally:
        objective.train(was_training)
    return total / max(count, 1)


def autocast(precision: str, device: torch.device) -> Any:
    """The type the network computes in: bfloat16 where it is safe, or float32 throughout."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


class _Step:
    """One optimizer step: micro-steps, gradients of all processes, checks, then the change."""

    def __init__(
        self, objective: Objective, optimization: Optimization, machine: "Accelerator"
    ) -> None:
        self._objective = objective.to(machine.device).train()
        self._optimization = optimization
        self._settings: TrainSettings = optimization.settings
        self._machine = machine
        if machine.num_processes > 1:
            _agree(objective)

    def __call__(self, batch: Batch, step: int, steps: int) -> tuple[dict[str, float], float]:
        """The losses by phase, and the norm of all gradients."""
        total = len(batch)
        spans = _spans(total, self._settings.accumulation, self._machine)
        running = [self._micro(batch, span, step, total) for span in spans]
        losses: dict[str, float] = {}
        norms: list[float] = []
        rate = learning_rate(step, steps, self._settings)
        while True:
            self._optimization.zero()
            done = [next(phases, None) for phases in running]
            reached = [phase for phase in done if phase is not None]
            if not reached:
                break
            name, group = reached[0][0].name, reached[0][0].group
            loss = self._sum(sum(value for _, value in reached), group)
            norm = self._optimization.norm(group)
            self._check(step, name, loss, float(norm))
            self._optimization.step(group, norm, rate)
            losses[name] = loss
            norms.append(float(norm))
        return losses, math.hypot(*norms)

    def _micro(
        self, batch: Batch, span: range, step: int, total: int
    ) -> Iterator[tuple[Phase, float]]:
        """The phases of a part of the batch, each with its gradient added and its share of loss."""
        settings = self._settings
        part = batch.rows(slice(span.start, span.stop))
        draws = Draws.of_step(settings.seed, step, span, total)
        share = len(span) / total
        key = derive(settings.seed, step, _DROPOUT, span.start)
        device = self._machine.device
        phases = iter(self._objective.phases(part, draws))
        index = 0
        while True:
            with seeded(derive(key, index), device):
                with autocast(settings.precision, device):
                    phase = next(phases, None)
                if phase is None:
                    return
                parameters = self._optimization.parameters[phase.group]
                self._machine.backward(phase.loss * share, inputs=parameters)
            index += 1
            yield phase, phase.loss.item() * share

    def _sum(self, loss: float, group: str) -> float:
        """The loss over all processes; their gradients are added up as well."""
        if self._machine.num_processes == 1:
            return loss
        parameters = self._optimization.parameters[group]
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        flat = self._machine.reduce(flat, reduction="sum")
        parts = flat.split([p.numel() for p in parameters])
        for p, gradient in zip(parameters, parts, strict=True):
            p.grad = gradient.view_as(p)
        value = torch.tensor([loss], dtype=torch.float64, device=self._machine.device)
        return float(self._machine.reduce(value, reduction="sum"))

    def _check(self, step: int, name: str, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        self._optimization.zero()
        what = f"the {name} is {loss}" if not math.isfinite(loss) else f"its gradient is {norm}"
        raise TrainingError(
            f"step {step}: {what}; stopped before this step changed anything. Try a lower "
            "--train.learning-rate, a longer --train.warmup, --train.precision float32, or look "
            "for broken values in the data"
        )


def _spans(total: int, parts: int, machine: "Accelerator") -> list[range]:
    """The places of the batch that this process takes, one range for each micro-step."""
    pieces = parts * machine.num_processes
    if total < pieces and machine.num_processes > 1:
        raise UsageError(
            f"a batch of {total} cannot be split over {machine.num_processes} processes of {parts} "
            "micro-steps; use a larger --train.batch-size"
        )
    edges = [total * i // pieces for i in range(pieces + 1)]
    first = parts * machine.process_index
    own = zip(edges[first : first + parts], edges[first + 1 : first + parts + 1], strict=True)
    return [range(a, b) for a, b in own if b > a]


def _next(source: Iterator[Batch]) -> Batch:
    batch = next(source, None)
    if batch is None:
        raise TrainingError("the data came to an end before training did; check the data set")
    return batch


@contextmanager
def _memory(batch: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if isinstance(error, RuntimeError) and not any(mark in text for mark in _NO_MEMORY):
            raise
        raise TrainingError(
            f"out of memory with {batch} samples a step; what was saved is whole. Use a larger "
            "--train.accumulation (the same result in less memory), a smaller --train.batch-size "
            "or smaller pictures"
        ) from error


def _agree(objective: Objective) -> None:
    """All processes start from the first one's weights."""
    from accelerate.utils import broadcast

    with torch.no_grad():
        for value in (*objective.parameters(), *objective.buffers()):
            value.copy_(broadcast(value.detach().clone()))


class _Rate:
    """Steps a second, recent steps counting most."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._weight = 0.0

    def took(self, seconds: float) -> None:
        self._seconds = 0.95 * self._seconds + 0.05 * seconds
        self._weight = 0.95 * self._weight + 0.05

    @property
    def value(self) -> float:
        return self._weight / max(self._seconds, 1e-9)
