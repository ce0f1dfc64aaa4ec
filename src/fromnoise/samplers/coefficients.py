"""The numbers of one step, in float64, remembered for each (rule, process, times).

With r = σ/α, λ = −log r and h = λ_s − λ_t, a step from t to s is
x_s = keep·x_t + Σ_j weight_j·y_j + noise·z with outputs y_j (beliefs about x0, or about ε). The
numbers are plain floats where all pixels share one noise level, fields (H, W) where each frequency
has its own.
"""

import functools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fromnoise.core.errors import UsageError
from fromnoise.processes import Level, Process

Array = NDArray[np.float64]
Times = tuple[float, ...]
Space = Literal["x0", "eps"]
Weighting = Literal["exact", "midpoint", "bh1", "bh2", "published", "linear", "adams", "momentum"]
Key = TypeVar("Key", bound=Hashable)
R = TypeVar("R")

ADAMS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Adams–Bashforth weights for 1 to 4 outputs, newest first."""

MOMENTUM = ((1.0,), (2.0, -1.0))
"""Twice the newest direction less the one before."""


@dataclass(frozen=True)
class Rule:
    """How outputs at several times become one step.

    space: what the outputs are beliefs about. weighting: which integral of the polynomial through
    them is taken (see `transition`). eta: how much of the noise is fresh, 0 on the deterministic
    flow.
    """

    space: Space
    weighting: Weighting = "exact"
    eta: float = 0.0

    @property
    def over_ratio(self) -> bool:
        """Whether the integral is over r, and so stays finite at σ_s = 0."""
        return self.weighting in ("linear", "adams", "momentum")


class Transition(NamedTuple):
    """x_s = keep·x_t + Σ weights·outputs + noise·z."""

    keep: Level
    weights: tuple[Level, ...]
    noise: Level


class Ends(NamedTuple):
    """What is special about a step: its start or end at pure data (σ = 0) or pure noise (α = 0)."""

    from_data: bool
    from_noise: bool
    to_data: bool
    to_noise: bool


class Levels(NamedTuple):
    """α and σ at one time as arrays: 0-dimensional, or one value for each frequency."""

    alpha: Array
    sigma: Array

    @property
    def log_ratio(self) -> Array:
        """λ = log(α/σ): ∞ at the data, −∞ where nothing of it is left."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.alpha) - np.log(self.sigma))


def remembered(
    function: Callable[[Key, Process, Times], R],
) -> Callable[[Key, Process, Times], R]:
    """Remember results. Fields (H, W) are large, so few of those are kept."""
    numbers = functools.lru_cache(maxsize=8192)(function)
    fields = functools.lru_cache(maxsize=64)(function)

    def call(key: Key, process: Process, times: Times) -> R:
        one_level = isinstance(process.levels(times[0])[0], float)
        return numbers(key, process, times) if one_level else fields(key, process, times)

    return functools.wraps(function)(call)


def levels(process: Process, t: float) -> Levels:
    """α and σ of the process at t as arrays."""
    alpha, sigma = process.levels(t)
    return Levels(np.asarray(alpha, dtype=np.float64), np.asarray(sigma, dtype=np.float64))


def plain(value: Array) -> Level:
    """A float where there is one value or nothing but zeros, else a tensor."""
    if value.ndim == 0:
        return float(value)
    return torch.from_numpy(np.ascontiguousarray(value)) if value.any() else 0.0


@remembered
def ends(key: None, process: Process, times: Times) -> Ends:
    """Which ends of the step (t, s) are at pure data or pure noise."""
    (a, b), (c, d) = (levels(process, t) for t in times)
    return Ends(not b.any(), not a.any(), not d.any(), not c.any())


@remembered
def noise_level(key: None, process: Process, times: Times) -> tuple[Level, Level]:
    """(1/σ, −α/σ) at (t,): ε = x/σ − (α/σ)·x0."""
    alpha, sigma = levels(process, times[0])
    return plain(np.asarray(1.0 / sigma)), plain(np.asarray(-alpha / sigma))


def log_step(start: Levels, end: Levels, eta: float) -> Array:
    """h = λ_s − λ_t. UsageError for fresh noise on the way from data to noise."""
    h = np.asarray(end.log_ratio - start.log_ratio)
    if eta > 0 and bool((h < 0).any()):
        raise UsageError(
            "fresh noise is added on the way to the data only; use eta 0, or ddim_inverse"
        )
    return h


@remembered
def first_order(key: Rule, process: Process, times: Times) -> Transition:
    """A step (t, s) from one belief about x0, finite at σ_s = 0 and at α_t = 0.

    keep = (σ_s/σ_t)·e^{−ηh}, weight = α_s·(1 − e^{−(1+η)h}), noise = σ_s·√(1 − e^{−2ηh}): for η = 0
    DDIM, which is Euler in r and DPM-Solver++(1); at h = ∞ what is kept falls away if η > 0.
    """
    start, end = (levels(process, t) for t in times)
    h = log_step(start, end, key.eta)
    fresh = key.eta * h if key.eta else np.zeros_like(h)
    return _one_belief(
        start, end, h, -fresh, np.asarray(end.sigma * np.sqrt(-np.expm1(-2 * fresh)))
    )


@remembered
def ancestral(key: float, process: Process, times: Times) -> Transition:
    """DDIM with η = `key`: keep = √(σ_s² − η²β̃)/σ_t, weight = α_s − α_t·keep, noise = η·√β̃.

    β̃ = σ_s²·(1 − e^{−2h}) is the variance of q(x_s | x_t, x0) (Song et al. 2021, eq. 12 and 16).
    """
    start, end = (levels(process, t) for t in times)
    h = log_step(start, end, key)
    fresh = -np.expm1(-2 * h) if key else np.zeros_like(h)
    with np.errstate(divide="ignore"):
        kept = 0.5 * np.log1p(-(key**2) * fresh)
    return _one_belief(
        start, end, h, np.asarray(kept), np.asarray(key * end.sigma * np.sqrt(fresh))
    )


def _one_belief(start: Levels, end: Levels, h: Array, kept: Array, noise: Array) -> Transition:
    """keep = (σ_s/σ_t)·e^kept and weight = α_s − α_t·keep, without cancellation for small h."""
    keep = np.asarray(end.sigma / start.sigma * np.exp(kept))
    with np.errstate(invalid="ignore", over="ignore"):
        weight = -end.alpha * np.expm1(kept - h)
    # Towards pure noise h is −∞ and the first form is 0·∞.
    weight = np.where(np.isfinite(weight), weight, end.alpha - start.alpha * keep)
    return Transition(plain(keep), (plain(weight),), plain(noise))


@remembered
def transition(key: Rule, process: Process, times: Times) -> Transition:
    """A step from times[0] to times[1] with the polynomial P through outputs at times[2:].

    In x0 space x_s = (σ_s/σ_t)·e^{−ηh}·x_t + α_s·c∫₀ʰ e^{c(u−h)}P(u)du + σ_s·√(1−e^{−2ηh})·z with
    c = 1 + η; in ε space x_s = (α_s/α_t)·x_t − σ_s·∫₀ʰ e^{h−u}P(u)du, the same with c = −1.
    `exact` integrates P. `midpoint` and `bh2` take ½·M₀ for the slope of two outputs, `bh1` ½·ch;
    `published` also halves the second difference of three. `linear` has P in r, `adams` and
    `momentum` fixed weights: x_s = (α_s/α_t)·x_t + α_s·(r_s − r_t)·Σ w·ε.
    """
    start, end = levels(process, times[0]), levels(process, times[1])
    if key.over_ratio:
        return _over_ratio(key, process, times)
    h = log_step(start, end, key.eta)
    nodes = np.stack([(levels(process, t).log_ratio - start.log_ratio) / h for t in times[2:]])
    c = 1.0 + key.eta if key.space == "x0" else -1.0
    moments = _modified(_moments(np.asarray(c * h), len(nodes)), np.asarray(c * h), key.weighting)
    if key.space == "x0":
        keep = end.sigma / start.sigma * np.exp(-key.eta * h)
        scale, noise = end.alpha, end.sigma * np.sqrt(-np.expm1(-2 * key.eta * h))
    else:
        keep, scale, noise = end.alpha / start.alpha, end.sigma, np.zeros_like(h)
    weights = scale * _weights(nodes, moments)
    return Transition(
        plain(np.asarray(keep)),
        tuple(plain(np.asarray(w)) for w in weights),
        plain(np.asarray(noise)),
    )


def _over_ratio(rule: Rule, process: Process, times: Times) -> Transition:
    start, end = levels(process, times[0]), levels(process, times[1])
    first, span = start.sigma / start.alpha, end.sigma / end.alpha - start.sigma / start.alpha
    count = len(times) - 2
    if rule.weighting == "linear":
        at = (levels(process, t) for t in times[2:])
        nodes = np.stack([(level.sigma / level.alpha - first) / span for level in at])
        moments = np.stack([np.full_like(span, 1.0 / (k + 1)) for k in range(count)])
        shares = list(_weights(nodes, moments))
    else:
        fixed = ADAMS if rule.weighting == "adams" else MOMENTUM
        shares = [np.full_like(span, w) for w in fixed[count - 1]]
    weights = tuple(plain(np.asarray(end.alpha * span * share)) for share in shares)
    return Transition(plain(np.asarray(end.alpha / start.alpha)), weights, 0.0)


def _moments(z: Array, count: int) -> Array:
    """m_k = z∫₀¹ e^{z(v−1)}·v^k dv for k < count: 1 − e^{−z}, then m_k = 1 − (k/z)·m_{k−1}.

    The recurrence loses digits near z = 0, where Σ_n (−1)ⁿ z^{n+1} k!/(k+n+1)! is used.
    """
    small = np.abs(z) < 1.0
    near = np.where(small, z, 0.0)
    far = np.where(small, 1.0, z)
    found: list[Array] = []
    for k in range(count):
        term = near / (k + 1)
        series = term.copy()
        for n in range(1, 22):
            term = -term * near / (k + n + 1)
            series = series + term
        recurrence = -np.expm1(-far) if k == 0 else 1.0 - k / far * np.where(small, 0.0, found[-1])
        found.append(np.asarray(np.where(small, series, recurrence)))
    return np.stack(found)


def _modified(moments: Array, z: Array, weighting: Weighting) -> Array:
    """The moments as published rules take them in place of the exact ones."""
    moments = moments.copy()
    if len(moments) == 2 and weighting in ("midpoint", "bh2", "published"):
        moments[1] = 0.5 * moments[0]
    elif len(moments) == 2 and weighting == "bh1":
        moments[1] = 0.5 * z
    elif len(moments) == 3 and weighting == "published":
        moments[2] = 0.5 * moments[2]
    return moments


def _weights(nodes: Array, moments: Array) -> Array:
    """Weights w with Σ_j w_j·v_j^k = m_k for every k: exact on polynomials through the nodes."""
    powers = np.stack([nodes**k for k in range(len(nodes))])
    matrix = np.moveaxis(powers, (0, 1), (-2, -1))
    right = np.moveaxis(moments, 0, -1)[..., None]
    solved = np.asarray(np.linalg.solve(matrix, right), dtype=np.float64)
    return np.moveaxis(solved[..., 0], -1, 0)


def between(process: Process, t: float, s: float, fraction: float) -> float:
    """The time at which λ has gone the given fraction of its way from t to s."""
    if fraction == 1.0:
        return s
    schedule = process.schedule
    (a, b), (c, d) = schedule.at(t), schedule.at(s)
    start, end = math.log(a / b), math.log(c / d)
    return time_of(process, start + fraction * (end - start))


def time_of(process: Process, log_ratio: float) -> float:
    """The time at which λ = log(α/σ) is the given one."""
    snr = torch.tensor(2.0 * log_ratio, dtype=torch.float64)
    return float(process.schedule.time(snr).item())
