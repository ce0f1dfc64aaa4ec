"""What a sampler is, and the one loop every sample is drawn with."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import Bound, Denoiser, Prediction
from fromnoise.layers.condition import Condition

State = Any
"""What a sampler carries from step to step: its own, immutable, and never kept in the sampler."""


class Sampler(ABC):
    """A rule for one step from time t to time s. Immutable: all state is passed.

    `order` is the order of convergence on the probability-flow ODE, 0 for stochastic samplers.
    `evaluations` is how many network evaluations a full step takes.
    """

    order: float = 1.0
    evaluations: int = 1
    stochastic: bool = False

    def init(self, x: Tensor, t: float) -> State:
        """The state before the first step, from x at the first time."""
        del x, t
        return None

    @abstractmethod
    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, State, Prediction]:
        """x at s, the next state, and the belief about x0 formed on the way."""


@dataclass(frozen=True)
class Step:
    """One step of sampling: after `index` + 1 of `count` steps the picture is x, at time t.

    x0 is the belief about the finished picture: a preview at every step.
    """

    index: int
    count: int
    t: float
    x: Tensor
    x0: Tensor


def sample(
    denoiser: Denoiser,
    sampler: Sampler,
    grid: Tensor,
    x_start: Tensor,
    condition: Condition | None = None,
    noise: Noise | None = None,
) -> Iterator[Step]:
    """Walk the grid from x_start, yielding a `Step` after each.

    grid: times (N+1,), decreasing (increasing for inversion), float64.
    x_start: x at grid[0], (B, ...).
    noise: the source of what a stochastic sampler adds; by default seeds 0 … B−1.
    Raises UsageError for a grid that is not a path of times in [0, 1].
    """
    times = check_grid(grid)
    batch = x_start.shape[0]
    noise = Noise(0, batch) if noise is None else noise
    if len(noise) != batch:
        raise ShapeError(f"noise for {len(noise)} samples, but x_start holds {batch}")
    bound = denoiser.bind(condition, grid)
    x, state = x_start, sampler.init(x_start, times[0])
    count = len(times) - 1
    for index in range(count):
        # Entered for each step and left before yielding: a caller's own gradients stay untouched.
        with torch.no_grad():
            x, state, prediction = sampler.step(
                bound, x, times[index], times[index + 1], state, noise
            )
        yield Step(index, count, times[index + 1], x, prediction.x0)


def check_grid(grid: Tensor) -> list[float]:
    """The grid as numbers. UsageError unless it moves one way through [0, 1]."""
    times = [float(v) for v in grid.double().tolist()]
    pairs = list(zip(times, times[1:], strict=False))
    monotone = all(a > b for a, b in pairs) or all(a < b for a, b in pairs)
    if len(times) < 2 or not monotone or min(times) < 0 or max(times) > 1:
        raise UsageError("a grid is at least two times in [0, 1], strictly decreasing or increasing")
    return times


def last(steps: Iterator[Step]) -> Tensor:
    """Run to the end and return the final x."""
    x = None
    for step in steps:
        x = step.x
    if x is None:
        raise UsageError("no step was taken")
    return x
