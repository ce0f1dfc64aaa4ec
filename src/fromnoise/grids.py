"""Grids: the times a sampler visits, a decreasing float64 tensor (N+1,) that ends at data.

Each grid function takes the schedule and the number of steps N, and returns N starting times and
the end (0, pure data, unless asked otherwise).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError, unknown
from fromnoise.schedules import Schedule

Grid = Callable[..., Tensor]


def _steps(steps: int) -> int:
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise UsageError(f"steps {steps!r} is not a number of steps; use a whole number from 1")
    return steps


def _close(starts: Tensor, end: float) -> Tensor:
    """Append the end, unless the last start is there already or past it."""
    return torch.cat([starts[starts > end], torch.tensor([end], dtype=torch.float64)])


def _knots(schedule: Schedule) -> int:
    return 1000 if schedule.steps is None else schedule.steps


def uniform(schedule: Schedule, steps: int, end: float = 0.0) -> Tensor:
    """Times spaced evenly from 1 to `end`."""
    return torch.linspace(1.0, end, _steps(steps) + 1, dtype=torch.float64)


def trailing(schedule: Schedule, steps: int, end: float = 0.0) -> Tensor:
    """Indices round(T·i/N) − 1 for i = N … 1: starts at the last index (Lin et al. 2024, table 2).

    With T = 1000 and N = 10: 999, 899, …, 99. With more steps than T the indices are fractional.
    """
    count = _knots(schedule)
    index = torch.arange(_steps(steps), 0, -1, dtype=torch.float64) * (count / steps)
    return _close((torch.round(index) if steps <= count else index) / count, end)


def leading(
    schedule: Schedule, steps: int, offset: int = 0, end: float = 0.0, short: bool = False
) -> Tensor:
    """Indices i·⌊T/N⌋ + offset for i = N−1 … 0: never starts at the last index.

    With T = 1000 and N = 10: 900, 800, …, 0 (Song et al. 2021, "DDIM", linear τ).
    short: the first N of the N + 1 indices for one step more, as multistep solvers are often used.
    """
    if short:
        longer = leading(schedule, _steps(steps) + 1, offset, end)
        return _close(longer[:steps], end)
    count = _knots(schedule)
    stride = count // _steps(steps) if steps <= count else count / steps
    index = torch.arange(steps - 1, -1, -1, dtype=torch.float64) * stride
    # An offset that would pass the last index is cut, so that no step is taken twice.
    index = index + min(float(offset), count - 1 - index[0].item())
    return _close((index + 1.0) / count, end)


def linspace(
    schedule: Schedule, steps: int, end: float = 0.0, short: bool = False, rounded: bool = True
) -> Tensor:
    """Indices evenly from T − 1 to 0, both taken, rounded; `trailing` with more steps than T.

    short: the first N of the N + 1 indices for one step more, as multistep solvers are often used.
    rounded: whether the indices are whole.
    """
    if short:
        return _close(linspace(schedule, _steps(steps) + 1, end, rounded=rounded)[:steps], end)
    count = _knots(schedule)
    if _steps(steps) > count:
        return trailing(schedule, steps, end)
    index = torch.linspace(count - 1, 0, steps, dtype=torch.float64)
    return _close(((torch.round(index) if rounded else index) + 1.0) / count, end)


def quadratic(schedule: Schedule, steps: int, end: float = 0.0) -> Tensor:
    """Indices ⌊(√(0.8·T)·i/(N−1))²⌋, denser near the data (Song et al. 2021, "DDIM").

    Where rounding down would visit an index twice, the indices stay fractional; with more steps
    than T they are those of `trailing`.
    """
    count = _knots(schedule)
    if _steps(steps) > count:
        return trailing(schedule, steps, end)
    root = torch.linspace(math.sqrt(min(0.8 * count, count - 1)), 0.0, steps, dtype=torch.float64)
    index = torch.floor(root**2 + 1e-9)
    if bool((index.diff() >= 0).any()):
        index = root**2
    return _close((index + 1.0) / count, end)


def karras(
    schedule: Schedule,
    steps: int,
    rho: float = 7.0,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    end: float = 0.0,
) -> Tensor:
    """σ/α_i = (σ_max^{1/ρ} + i/(N−1)·(σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ (Karras et al. 2022, eq. 5).

    σ_min and σ_max are ratios σ/α; by default those of the schedule (its least level and t = 1).
    """
    low, high = _range(schedule, sigma_min, sigma_max)
    ramp = torch.linspace(0.0, 1.0, _steps(steps), dtype=torch.float64)
    levels = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return _close(_times(schedule, levels), end)


def log_snr(
    schedule: Schedule,
    steps: int,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    end: float = 0.0,
) -> Tensor:
    """Levels spaced evenly in log-SNR from σ_max to σ_min, then the end (Lu et al. 2022)."""
    low, high = _range(schedule, sigma_min, sigma_max)
    levels = torch.exp(
        torch.linspace(math.log(high), math.log(low), _steps(steps), dtype=torch.float64)
    )
    return _close(_times(schedule, levels), end)


def explicit(schedule: Schedule, timesteps: Sequence[float], end: float = 0.0) -> Tensor:
    """Given discrete indices (T = 1000 for a continuous schedule), strictly decreasing."""
    index = torch.tensor(list(timesteps), dtype=torch.float64)
    count = _knots(schedule)
    if len(index) == 0 or bool((index.diff() >= 0).any() | (index >= count).any()):
        raise UsageError(f"timesteps must decrease strictly and lie below {count}")
    if bool((index < 0).any()):
        raise UsageError("timesteps must not be negative")
    return _close((index + 1.0) / count, end)


def _times(schedule: Schedule, levels: Tensor) -> Tensor:
    return schedule.time(-2.0 * torch.log(levels))


def _range(schedule: Schedule, low: float | None, high: float | None) -> tuple[float, float]:
    """The schedule's own least and greatest σ/α, or the given ones."""
    first, last = schedule.limits
    ends = []
    for given, t in ((low, first), (high, last)):
        alpha, sigma = schedule.at(t)
        ends.append(sigma / alpha if given is None else given)
    if not 0 < ends[0] <= ends[1]:
        raise UsageError(f"need 0 < sigma_min <= sigma_max, got {ends[0]} and {ends[1]}")
    return ends[0], ends[1]


GRIDS: dict[str, Grid] = {
    "uniform": uniform,
    "trailing": trailing,
    "leading": leading,
    "linspace": linspace,
    "quadratic": quadratic,
    "karras": karras,
    "log_snr": log_snr,
}
"""Grids that need only a schedule and a number of steps, by name."""


def get(name: str) -> Grid:
    """The grid function of that name; UsageError offers the nearest names."""
    if name not in GRIDS:
        raise unknown("grid", name, GRIDS)
    return GRIDS[name]
