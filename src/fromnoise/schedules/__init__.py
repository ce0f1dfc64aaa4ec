"""Noise schedules by name: `linear`, `cosine`, `vp`, `ve`, `edm`, `flow`, …

Discrete ones take any number of steps and any betas; all are float64 inside.
"""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fromnoise.core.config import Kinds
from fromnoise.core.errors import UsageError
from fromnoise.schedules.base import DiscreteSchedule, Path, Scales, Scaling, Schedule
from fromnoise.schedules.learned import learned as _learned
from fromnoise.schedules.paths import (
    Geometric,
    Knots,
    LinearBeta,
    LinearBetaSub,
    ShiftedFlow,
    ZeroTerminal,
)
from fromnoise.schedules.scalings import (
    Straight,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
)

__all__ = [
    "SCHEDULES",
    "DiscreteSchedule",
    "Path",
    "Scales",
    "Scaling",
    "Schedule",
    "cosine",
    "edm",
    "flow",
    "from_alphas_cumprod",
    "from_betas",
    "learned",
    "linear",
    "listed",
    "scaled_linear",
    "sigmoid",
    "sub_vp",
    "ve",
    "vp",
    "zero_terminal_snr",
]

SCHEDULES = Kinds("schedule")


def _discrete(alphas_cumprod: Tensor, remainder: Tensor) -> DiscreteSchedule:
    """From ᾱ and 1 − ᾱ, the second given apart so that it keeps its digits near t = 0."""
    log_ratio = 0.5 * (torch.log(remainder) - torch.log(alphas_cumprod))
    return DiscreteSchedule(Knots(log_ratio), VariancePreserving(), alphas_cumprod)


def from_betas(betas: Tensor) -> DiscreteSchedule:
    """A discrete schedule of any betas (T,), each in (0, 1]."""
    betas = betas.double()
    if betas.ndim != 1 or len(betas) == 0 or not bool(((betas > 0) & (betas <= 1)).all()):
        raise UsageError("betas must be a non-empty list of numbers above 0 and at most 1")
    if bool((betas[:-1] == 1).any()) or betas[0] == 1:
        raise UsageError("only the last of two or more betas may be 1: it removes the data")
    log_bar = torch.cumsum(torch.log1p(-betas), 0)
    return _discrete(torch.exp(log_bar), -torch.expm1(log_bar))


@SCHEDULES.register("betas")
def listed(betas: Sequence[float]) -> DiscreteSchedule:
    """A discrete schedule of betas written out, as configuration files hold them; `from_betas`."""
    return from_betas(torch.tensor(list(betas), dtype=torch.float64))


def from_alphas_cumprod(alphas_cumprod: Tensor) -> DiscreteSchedule:
    """A discrete schedule of given ᾱ (T,), strictly decreasing in [0, 1)."""
    bar = alphas_cumprod.double()
    if bar.ndim != 1 or len(bar) == 0 or not bool(((bar < 1) & (bar >= 0)).all()):
        raise UsageError("alphas_cumprod must be a non-empty list of numbers from 0 to below 1")
    if bool((bar.diff() >= 0).any()) or bar[0] == 0:
        raise UsageError("alphas_cumprod must decrease strictly, and start above 0")
    return _discrete(bar, 1.0 - bar)


def _linspace(start: float, end: float, steps: int) -> Tensor:
    if steps < 1:
        raise UsageError(f"steps {steps} is not a number of steps; use 1 or more")
    return torch.linspace(start, end, steps, dtype=torch.float64)


@SCHEDULES.register("linear")
def linear(steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> DiscreteSchedule:
    """β linear from `beta_start` to `beta_end` (Ho et al. 2020, section 4)."""
    return from_betas(_linspace(beta_start, beta_end, steps))


@SCHEDULES.register("scaled_linear")
def scaled_linear(
    steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
) -> DiscreteSchedule:
    """√β linear: what latent diffusion calls "linear" (Rombach et al. 2022)."""
    if not (beta_start > 0 and beta_end > 0):
        raise UsageError(f"betas {beta_start} and {beta_end} must be above 0")
    return from_betas(_linspace(math.sqrt(beta_start), math.sqrt(beta_end), steps) ** 2)


@SCHEDULES.register("cosine")
def cosine(steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> DiscreteSchedule:
    """ᾱ(u) = cos²((u + s)/(1 + s)·π/2), β clipped at `max_beta` (Nichol & Dhariwal 2021, eq. 17).

    u = k/T at the start and (k+1)/T at the end of step k; β_k = 1 − ᾱ((k+1)/T)/ᾱ(k/T).
    """
    edges = _linspace(0.0, 1.0, steps + 1)
    bar = torch.cos((edges + offset) / (1 + offset) * math.pi / 2) ** 2
    return from_betas((1.0 - bar[1:] / bar[:-1]).clamp(max=max_beta))


@SCHEDULES.register("sigmoid")
def sigmoid(
    steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, span: float = 6.0
) -> DiscreteSchedule:
    """β = β₁ + (β₂ − β₁)·sigmoid(u) with u from −`span` to `span`."""
    betas = torch.sigmoid(_linspace(-span, span, steps)) * (beta_end - beta_start) + beta_start
    return from_betas(betas)


@SCHEDULES.register("vp")
def vp(beta_min: float = 0.1, beta_max: float = 20.0) -> Schedule:
    """The variance-preserving SDE with β(t) linear in t (Song et al. 2021, eq. 11 and 33)."""
    _check_betas(beta_min, beta_max)
    return Schedule(LinearBeta(beta_min, beta_max), VariancePreserving())


@SCHEDULES.register("sub_vp")
def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0) -> Schedule:
    """The sub-variance-preserving SDE: α of `vp`, σ = 1 − α² (Song et al. 2021, eq. 12)."""
    _check_betas(beta_min, beta_max)
    return Schedule(LinearBetaSub(beta_min, beta_max), SubVariancePreserving())


@SCHEDULES.register("ve")
def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> Schedule:
    """The variance-exploding SDE: α = 1, σ geometric (Song et al. 2021, eq. 9 and 30).

    σ_min sits at t = 1e-3; below, σ runs linearly to 0 at t = 0, so that data is reached.
    """
    if not 0 < sigma_min < sigma_max < math.inf:
        raise UsageError(f"need 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    return Schedule(Geometric(sigma_min, sigma_max), VarianceExploding())


@SCHEDULES.register("edm")
def edm(sigma_min: float = 0.002, sigma_max: float = 80.0) -> Schedule:
    """α = 1 and σ from 0.002 to 80 (Karras et al. 2022, table 1), time uniform in log σ.

    The paper's time is σ itself. Here t in [0, 1] only names a level; grids and time samplings
    are given in σ or log-SNR, so nothing depends on the choice.
    """
    return ve(sigma_min, sigma_max)


@SCHEDULES.register("flow")
def flow(shift: float = 1.0) -> Schedule:
    """Rectified flow: x_t = (1 − u)·x0 + u·ε with u = shift·t/(1 + (shift − 1)·t).

    Liu et al. 2023, "Flow Straight and Fast"; the shift is Esser et al. 2024, eq. 23.
    """
    if not 0 < shift < math.inf:
        raise UsageError(f"shift {shift} must be above 0")
    return Schedule(ShiftedFlow(shift), Straight())


learned = SCHEDULES.register("learned")(_learned)


@SCHEDULES.register("zero_terminal_snr")
def zero_terminal_snr(schedule: Schedule) -> Schedule:
    """Rescale any variance-preserving schedule so that α is exactly 0 at t = 1.

    √ᾱ'_k = (√ᾱ_k − √ᾱ_T)·√ᾱ_1/(√ᾱ_1 − √ᾱ_T), the first value kept (Lin et al. 2024, algorithm 1).
    A schedule that ends at 0 already (flow) is returned as it is; one with α = 1 raises UsageError.
    """
    if any(True for _ in schedule.path.weights.parameters()):
        raise UsageError("a schedule that learns has no fixed end to be rescaled by")
    one = torch.ones((), dtype=torch.float64)
    if schedule(one).alpha.item() == 0.0:
        return copy.copy(schedule)
    if not _preserves_variance(schedule):
        raise UsageError("only a variance-preserving schedule can be rescaled to zero terminal SNR")
    if schedule.steps is None:
        return Schedule(ZeroTerminal(schedule.path, schedule.scaling), schedule.scaling)
    if schedule.steps == 1:
        raise UsageError("one step has nothing to rescale; use 2 steps or more")
    root = schedule(schedule.index_time(torch.arange(schedule.steps))).alpha
    first, last = root[0].clone(), root[-1].clone()
    rescaled = ((root - last) * (first / (first - last))) ** 2
    rescaled[0] = first**2
    return from_alphas_cumprod(rescaled)


def _preserves_variance(schedule: Schedule) -> bool:
    scales = schedule(torch.tensor([0.3, 0.7], dtype=torch.float64))
    return bool(torch.allclose(scales.alpha**2 + scales.sigma**2, torch.ones(2).double()))


def _check_betas(beta_min: float, beta_max: float) -> None:
    if not 0 < beta_min < beta_max < math.inf:
        raise UsageError(f"need 0 < beta_min < beta_max, got {beta_min} and {beta_max}")
