"""What a sampler is, and the one loop every sample is drawn with."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import Bound, Denoiser, Prediction
from fromnoise.layers.condition import Condition
from fromnoise.processes import Process

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

    def plan(self, times: Sequence[float]) -> "Sampler":
        """The sampler for one grid; what depends on the number of steps (churn) is fixed here."""
        del times
        return self

    def with_eta(self, eta: float) -> "Sampler":
        """The same method with this share of fresh noise. UsageError where there is none to set."""
        raise UsageError(f"it takes no eta (got {eta}); ddim, *_a and *_sde samplers do")

    def with_churn(self, churn: float) -> "Sampler":
        """The same method with EDM's churn. UsageError where steps depend on earlier ones."""
        raise UsageError(f"it takes no churn (got {churn}); euler, heun and dpm2 do")

    def with_snr(self, snr: float) -> "Sampler":
        """The same method with this signal-to-noise ratio of its corrector, or UsageError."""
        raise UsageError(f"it takes no snr (got {snr}); pc does")

    def with_tolerance(self, tolerance: float) -> "Sampler":
        """The same method with this relative and absolute tolerance, or UsageError."""
        raise UsageError(f"it takes no tolerance (got {tolerance}); ode does")

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
    Arithmetic is never done below float32: x has at least that type, whatever the network's.
    Raises UsageError for a grid that is not a path of times in [0, 1].
    """
    if not isinstance(sampler, Sampler):
        raise UsageError(f"{sampler!r} is no sampler; `fn.samplers.get` gives one by its name")
    times = check_grid(grid)
    batch = x_start.shape[0]
    noise = Noise(0, batch) if noise is None else noise
    if len(noise) != batch:
        raise ShapeError(f"noise for {len(noise)} samples, but x_start holds {batch}")
    bound = denoiser.bind(condition, grid)
    process = bound.process.begin(noise, x_start)
    if process is not bound.process:
        bound = _Begun(bound, process)
    x = x_start.to(torch.promote_types(x_start.dtype, torch.float32))
    sampler = sampler.plan(times)
    state = sampler.init(x, times[0])
    count = len(times) - 1
    for index in range(count):
        # Entered for each step and left before yielding: a caller's own gradients stay untouched.
        with torch.no_grad():
            x, state, prediction = sampler.step(
                bound, x, times[index], times[index + 1], state, noise
            )
        yield Step(index, count, times[index + 1], x, prediction.x0)


class _Begun(Bound):
    """A run whose process has drawn what is random once per sample."""

    def __init__(self, bound: Bound, process: Process) -> None:
        self.process = process
        self._bound = bound

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        return replace(self._bound(x, t), process=self.process)


def check_grid(grid: Tensor) -> list[float]:
    """The grid as numbers. UsageError unless it moves one way through [0, 1]."""
    times = [float(v) for v in grid.double().tolist()]
    pairs = list(pairwise(times))
    monotone = all(a > b for a, b in pairs) or all(a < b for a, b in pairs)
    if len(times) < 2 or not monotone or min(times) < 0 or max(times) > 1:
        raise UsageError(
            "a grid is at least two times in [0, 1], strictly decreasing or increasing"
        )
    return times


def last(steps: Iterator[Step]) -> Tensor:
    """Run to the end and return the final x."""
    x = None
    for step in steps:
        x = step.x
    if x is None:
        raise UsageError("no step was taken")
    return x
