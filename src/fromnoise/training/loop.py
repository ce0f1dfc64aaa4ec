"""The one training loop: a generator that takes a step and says how it went."""

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fromnoise.core.errors import TrainingError, UsageError
from fromnoise.core.machine import is_out_of_memory
from fromnoise.data import Batch
from fromnoise.training.draws import Draws, derive, seeded
from fromnoise.training.ema import EMA
from fromnoise.training.objective import Objective, Phase
from fromnoise.training.optimizers import Optimization, learning_rate
from fromnoise.training.ranks import Ranks, join
from fromnoise.training.settings import TrainSettings

_DROPOUT = 3


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
    ranks: Ranks | None = None,
) -> Iterator[Event]:
    """Train from step `start` up to `steps`, yielding an `Event` after each step.

    All randomness is a function of seed, step and place in the batch, so a run that goes on at
    `start` with its state restored does, bit for bit, what it would have done. The caller's own
    random state is neither used nor changed. Everything else (progress, saving, stopping) is the
    caller's: it happens between two steps.
    ranks: the processes that take each step together; those this one was started with by default.
    Raises TrainingError, in all of them and before anything is changed, when a loss or gradient
    is not finite or memory runs out in one.
    """
    ranks = ranks or join()
    step_of = _Step(objective, optimization, ranks)
    rate = _Rate()
    source = batches.start(start)
    for step in range(start + 1, steps + 1):
        began = time.perf_counter()
        with ranks.together(), within_memory(optimization.settings.batch_size):
            batch = _next(source)
        with within_memory(len(batch)):
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

    def __init__(self, objective: Objective, optimization: Optimization, ranks: Ranks) -> None:
        self._device = ranks.machine.device
        self._objective = objective.to(self._device).train()
        self._optimization = optimization
        self._settings: TrainSettings = optimization.settings
        self._ranks = ranks
        ranks.same(objective)

    def __call__(self, batch: Batch, step: int, steps: int) -> tuple[dict[str, float], float]:
        """The losses by phase, and the norm of all gradients."""
        total = len(batch)
        spans = _spans(total, self._settings.accumulation, self._ranks)
        running = [self._micro(batch, span, step, total) for span in spans]
        losses: dict[str, float] = {}
        norms: list[float] = []
        seen: list[list[Tensor]] = []
        rate = learning_rate(step, steps, self._settings)
        while True:
            self._optimization.zero()
            with self._ranks.together() as shared, within_memory(total):
                done = [next(phases, None) for phases in running]
                reached = [phase for phase in done if phase is not None]
                shared.mine = sum(value for _, value in reached)
            if not reached:
                break
            name, group = reached[0][0].name, reached[0][0].group
            norm = self._gradient(group, step, name, shared.all)
            self._optimization.step(group, norm, rate)
            losses[name] = sum(shared.all)
            norms.append(float(norm))
            seen.append([phase.each.detach() for phase, _ in reached if phase.each is not None])
        for each in filter(None, seen):
            self._objective.observed(torch.arange(total), self._ranks.rows(torch.cat(each)))
        return losses, math.hypot(*norms)

    def _micro(
        self, batch: Batch, span: range, step: int, total: int
    ) -> Iterator[tuple[Phase, float]]:
        """The phases of a part of the batch, each with its gradient added and its share of loss."""
        settings, device = self._settings, self._device
        part = batch.rows(slice(span.start, span.stop))
        draws = Draws.of_step(settings.seed, step, span, total)
        share = len(span) / total
        key = derive(settings.seed, step, _DROPOUT, span.start)
        phases = iter(self._objective.phases(part, draws))
        index = 0
        while True:
            with seeded(derive(key, index), device):
                with autocast(settings.precision, device):
                    phase = next(phases, None)
                if phase is None:
                    return
                parameters = self._optimization.parameters[phase.group]
                torch.autograd.backward(phase.loss * share, inputs=parameters)
            index += 1
            yield phase, phase.loss.item() * share

    def _gradient(self, group: str, step: int, name: str, losses: list[float]) -> Tensor:
        """Add up the gradients of all processes and check them; the norm of their sum."""
        ranks, parameters = self._ranks, self._optimization.parameters[group]
        own: list[Tensor] = []
        if ranks.count > 1:
            own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
            for p, gradient in zip(parameters, ranks.add(own), strict=True):
                p.grad = gradient
        norm = self._optimization.norm(group)
        loss = sum(losses)
        if math.isfinite(loss) and math.isfinite(float(norm)):
            return norm
        self._optimization.zero()
        if math.isfinite(loss):
            what = f"its gradient is {float(norm)}"
            fine = torch.tensor([bool(torch.isfinite(g).all()) for g in own]).all()
            broken = (~ranks.gather(fine)).tolist()
        else:
            what = f"the {name} is {loss}"
            broken = [not math.isfinite(part) for part in losses]
        if ranks.count > 1:
            named = [ranks.name(index) for index, bad in enumerate(broken) if bad]
            what += f" by {' and '.join(named) or 'all processes together'}"
        raise ranks.hush(_not_finite(step, what))


def _not_finite(step: int, what: str) -> TrainingError:
    return TrainingError(
        f"step {step}: {what}; stopped before this step changed anything. Try a lower "
        "--train.learning-rate, a longer --train.warmup, --train.precision float32, or look "
        "for broken values in the data"
    )


def _spans(total: int, parts: int, ranks: Ranks) -> list[range]:
    """The places of the batch that this process takes, one range for each micro-step."""
    pieces = parts * ranks.count
    if total < pieces and ranks.count > 1:
        raise ranks.hush(
            UsageError(
                f"a batch of {total} cannot be split over {ranks.count} processes of {parts} "
                "micro-steps; use a larger --train.batch-size"
            )
        )
    edges = [total * i // pieces for i in range(pieces + 1)]
    first = parts * ranks.index
    own = zip(edges[first : first + parts], edges[first + 1 : first + parts + 1], strict=True)
    return [range(a, b) for a, b in own if b > a]


def _next(source: Iterator[Batch]) -> Batch:
    batch = next(source, None)
    if batch is None:
        raise TrainingError("the data came to an end before training did; check the data set")
    return batch


@contextmanager
def within_memory(batch: int) -> Iterator[None]:
    """Turn memory that runs out at a batch of so many into an error that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory with {batch} samples a step; what was saved is whole. Use a larger "
            "--train.accumulation (the same result in less memory), a smaller --train.batch-size "
            "or smaller pictures"
        ) from error


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
