"""What the sampler tests share: an exact mixture, a true flow, and noise that probes a sampler."""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fromnoise import schedules
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import Denoiser, MixtureDenoiser, Prediction
from fromnoise.processes import Gaussian, Process
from fromnoise.samplers import Sampler, last, sample
from fromnoise.schedules import Schedule

WEIGHTS, MEANS, STDS = (0.3, 0.7), (-1.0, 0.6), (0.3, 0.2)


def mixture(schedule: Schedule) -> MixtureDenoiser:
    """Two Gaussians on a line."""
    return MixtureDenoiser(
        torch.tensor(WEIGHTS, dtype=torch.float64),
        torch.tensor(MEANS, dtype=torch.float64)[:, None],
        torch.tensor(STDS, dtype=torch.float64),
        schedule,
    )


@functools.cache
def flow_problem() -> tuple[MixtureDenoiser, Callable[[int], Tensor], Tensor, Tensor]:
    """The mixture with σ from 20 to 0.02: denoiser, grid of N steps even in log σ, start, truth."""
    from scipy.integrate import solve_ivp

    schedule = schedules.ve(0.02, 20.0)
    start = 20.0 * torch.linspace(-2.0, 2.0, 33, dtype=torch.float64)[:, None]
    weights, means, variances = (np.array(v) for v in (WEIGHTS, MEANS, np.square(STDS)))

    def slope(log_sigma: float, x: np.ndarray) -> np.ndarray:
        total = variances + math.exp(2 * log_sigma)
        gap = x[:, None] - means
        log_share = np.log(weights) - 0.5 * gap**2 / total - 0.5 * np.log(total)
        share = np.exp(log_share - log_share.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        return x - (share * (means + variances / total * gap)).sum(1)

    span = (math.log(20.0), math.log(0.02))
    solved = solve_ivp(slope, span, start[:, 0].numpy(), method="DOP853", rtol=1e-12, atol=1e-13)

    def grid(steps: int) -> Tensor:
        log_sigma = torch.linspace(*span, steps + 1, dtype=torch.float64)
        return schedule.time(-2.0 * log_sigma)

    return mixture(schedule), grid, start, torch.tensor(solved.y[:, -1])[:, None]


class Pooled(Noise):
    """One stream for all rows, which takes less time where no row must keep its own."""

    def __init__(self, seed: int, rows: int) -> None:
        super().__init__(seed, rows)
        self.pool = Noise(seed, 1)

    def normal(self, like: Tensor) -> Tensor:
        return self.pool.normal(like[None])[0]


class Impulses(Noise):
    """Draw k is `unit` for sample k + 1, 0 for the others: each row answers to one draw alone."""

    def __init__(self, rows: int, unit: Tensor) -> None:
        super().__init__(0, rows)
        self.unit, self.drawn = unit, 0

    def normal(self, like: Tensor) -> Tensor:
        self.drawn += 1
        out = torch.zeros_like(like)
        out[self.drawn] = self.unit
        return out


def variance(denoiser: Denoiser, sampler: Sampler, grid: Tensor, start: Tensor) -> Tensor:
    """The exact variance of what a sampler linear in x and its noise makes of N(0, start²).

    With a denoiser of data with mean 0 the result is a sum of answers to independent draws, so its
    variance is the sum of their squares, coefficient by coefficient in the process's basis.
    start: the standard deviation of one sample (1, ...) there. At most one draw a step.
    """
    process, rows = denoiser.process, len(grid) + 1
    x = torch.zeros((rows, *start.shape[1:]), dtype=torch.float64)
    x[:1] = process.synthesise(start)
    unit = process.synthesise(torch.ones_like(start))[0]
    final = last(sample(denoiser, sampler, grid, x, noise=Impulses(rows, unit)))
    return process.analyse(final).square().sum(0)


class Believing(Denoiser):
    """A denoiser made of a function (x, t) → Prediction's fields; for what no shipped one says."""

    def __init__(self, process: Process | Schedule, x0: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.process = Gaussian(process) if isinstance(process, Schedule) else process
        self.x0 = x0
        self.var_fraction: float | None = None

    def __call__(self, x: Tensor, t: Tensor, condition: object = None) -> Prediction:
        fraction = None
        if self.var_fraction is not None:
            fraction = torch.full_like(x, self.var_fraction)
        return Prediction(self.x0(x, t), x, t, self.process, var_fraction=fraction)
