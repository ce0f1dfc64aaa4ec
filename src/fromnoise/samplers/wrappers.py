"""Sampler → Sampler: what changes the trajectory and not the belief."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise, ZeroNoise
from fromnoise.core.tensors import expand, flat_sum
from fromnoise.denoisers import Bound, Prediction
from fromnoise.processes import Level, Process
from fromnoise.samplers.arithmetic import ask, scaled, with_noise
from fromnoise.samplers.base import Sampler, State
from fromnoise.samplers.coefficients import Times, ends, levels, plain, remembered, time_of


@dataclass(frozen=True)
class WithoutNoise(Sampler):
    """A stochastic sampler with its added noise switched off: to show why it is there."""

    sampler: Sampler

    def __post_init__(self) -> None:
        object.__setattr__(self, "evaluations", self.sampler.evaluations)

    def plan(self, times: Sequence[float]) -> Sampler:
        return replace(self, sampler=self.sampler.plan(times))

    def init(self, x: Tensor, t: float) -> State:
        return self.sampler.init(x, t)

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, State, Prediction]:
        return self.sampler.step(bound, x, t, s, state, _silence(noise.seeds))


@functools.lru_cache(maxsize=16)
def _silence(seeds: tuple[int, ...]) -> ZeroNoise:
    return ZeroNoise(seeds)


@dataclass(frozen=True)
class ClippedData(Sampler):
    """A step to α_s·clip(x̂0, −limit, limit) and the noise of the belief before it was clipped.

    x_s + α_s·(clip(x̂0) − x̂0) after the inner step, which is DDIM's: so diffusers clips it, where
    `guidance.Clipped` takes the noise that fits the clipped belief.
    """

    sampler: Sampler
    limit: float = 1.0

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise UsageError(f"clipping to {self.limit} leaves nothing; use a limit above 0")
        object.__setattr__(self, "evaluations", self.sampler.evaluations)
        object.__setattr__(self, "stochastic", self.sampler.stochastic)

    def plan(self, times: Sequence[float]) -> Sampler:
        return replace(self, sampler=self.sampler.plan(times))

    def with_eta(self, eta: float) -> "ClippedData":
        return replace(self, sampler=self.sampler.with_eta(eta))

    def init(self, x: Tensor, t: float) -> State:
        return self.sampler.init(x, t)

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, State, Prediction]:
        moved, state, prediction = self.sampler.step(bound, x, t, s, state, noise)
        process, belief = bound.process, prediction.x0.to(moved.dtype)
        x0 = belief.clamp(-self.limit, self.limit)
        gained = scaled(process.levels(s)[0], process.analyse(x0 - belief))
        moved = moved + process.synthesise(gained)
        return moved, state, replace(prediction, x0=x0)


@remembered
def renoise(key: None, process: Process, times: Times) -> tuple[Level, Level]:
    """q(x_s | x_t) for s noisier than t: (α_s/α_t, √(σ_s² − (α_s/α_t)²·σ_t²))."""
    start, end = (levels(process, t) for t in times)
    ratio = np.asarray(end.alpha / start.alpha)
    spread = np.sqrt(np.maximum(end.sigma**2 - (ratio * start.sigma) ** 2, 0.0))
    return plain(ratio), plain(np.asarray(spread))


@dataclass(frozen=True)
class AncestralNoise(Sampler):
    """A deterministic step to a lower level than asked, then noise up to it ("ancestral").

    In r = σ/α: r_up = min(r_s, η·√(r_s²·(r_t² − r_s²)/r_t²)), r_down = √(r_s² − r_up²). The inner
    step goes from t to r_down; then x_s = (α_s/α_down)·x + √(σ_s² − (α_s/α_down)²σ_down²)·z. η = 0
    is the inner sampler. This is what k-diffusion's `_a` samplers do, for any schedule.
    """

    sampler: Sampler
    eta: float = 1.0

    order = 0.0
    stochastic = True

    def __post_init__(self) -> None:
        if self.eta < 0:
            raise UsageError(f"eta {self.eta} must not be negative")
        object.__setattr__(self, "evaluations", self.sampler.evaluations)

    def plan(self, times: Sequence[float]) -> Sampler:
        return replace(self, sampler=self.sampler.plan(times))

    def with_eta(self, eta: float) -> "AncestralNoise":
        return replace(self, eta=eta)

    def init(self, x: Tensor, t: float) -> State:
        return self.sampler.init(x, t)

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, State, Prediction]:
        process = bound.process
        down = _down(self.eta, process, (t, s))
        x, state, prediction = self.sampler.step(bound, x, t, down, state, noise)
        if down == s:
            return x, state, prediction
        ratio, spread = renoise(None, process, (down, s))
        z = scaled(ratio, process.analyse(x))
        return process.synthesise(with_noise(process, z, spread, x, noise)), state, prediction


@remembered
def _down(key: float, process: Process, times: Times) -> float:
    """The time at which r is r_down."""
    t, s = times
    (a, b), (c, d) = process.schedule.at(t), process.schedule.at(s)
    if d == 0.0 or key == 0.0:
        return s
    if s > t:
        raise UsageError("fresh noise is added on the way to the data only; use another sampler")
    # (r_s/r_t)², which is 0 at α_t = 0.
    share = (a * d / (c * b)) ** 2
    up = min(1.0, key**2 * (1.0 - share))
    if up >= 1.0:
        return 0.0
    ratio = d / c * float(np.sqrt(1.0 - up))
    return min(time_of(process, -float(np.log(ratio))), s)


@dataclass(frozen=True)
class Churn(Sampler):
    """Noise added before each step, which the step then removes (Karras et al. 2022, algorithm 2).

    r_hat = r_t·(1 + γ) with γ = min(`churn`/N, √2 − 1) where s_min ≤ r_t ≤ s_max, else 0; the added
    noise has standard deviation `s_noise`. The time of r_hat never exceeds 1. The levels are ratios
    σ/α. N is the number of steps of the grid (`plan`).
    """

    sampler: Sampler
    churn: float = 40.0
    s_min: float = 0.05
    s_max: float = 50.0
    s_noise: float = 1.003
    steps: int | None = None

    order = 0.0
    stochastic = True

    def __post_init__(self) -> None:
        if min(self.churn, self.s_min, self.s_noise) < 0 or self.s_max < self.s_min:
            raise UsageError("churn, s_min and s_noise must not be negative, nor s_max below s_min")
        object.__setattr__(self, "evaluations", self.sampler.evaluations)

    def plan(self, times: Sequence[float]) -> Sampler:
        return replace(self, sampler=self.sampler.plan(times), steps=len(times) - 1)

    def with_churn(self, churn: float) -> "Churn":
        return replace(self, churn=churn)

    def init(self, x: Tensor, t: float) -> State:
        return self.sampler.init(x, t)

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, State, Prediction]:
        if self.steps is None:
            raise UsageError("churn depends on the number of steps; call plan(times) first")
        process = bound.process
        growth = 1.0 + min(self.churn / self.steps, 2**0.5 - 1)
        up = _up((growth, self.s_min, self.s_max), process, (t, s))
        if up != t:
            ratio, spread = renoise(None, process, (t, up))
            z = scaled(ratio, process.analyse(x))
            z = with_noise(process, z, spread * self.s_noise, x, noise)
            x = process.synthesise(z)
        return self.sampler.step(bound, x, up, s, state, noise)


@remembered
def _up(key: tuple[float, float, float], process: Process, times: Times) -> float:
    """The time at which r is r_t·growth, where the level lies between the two given ones."""
    growth, low, high = key
    alpha, sigma = process.schedule.at(times[0])
    if alpha == 0.0 or sigma == 0.0 or growth == 1.0 or not low <= sigma / alpha <= high:
        return times[0]
    return max(time_of(process, -float(np.log(sigma / alpha * growth))), times[0])


@dataclass(frozen=True)
class PredictorCorrector(Sampler):
    """Langevin steps at level t, then the predictor's step (Song et al. 2021, algorithms 2 to 5).

    Each corrector step is x + ε·g + √(2ε)·z with the score g and ε = 2·(snr·‖z‖/‖g‖)²·(α_t/α_s)²,
    norms of each sample by itself (the paper's are means over the batch).
    corrector_steps: how many before each predictor step. snr: their signal-to-noise ratio, 0.16
    for 32 × 32 pictures in the paper.
    """

    predictor: Sampler
    corrector_steps: int = 1
    snr: float = 0.16

    order = 0.0
    stochastic = True

    def __post_init__(self) -> None:
        if self.corrector_steps < 1 or self.snr <= 0:
            raise UsageError("corrector_steps must be 1 or more and snr above 0")
        object.__setattr__(self, "evaluations", self.predictor.evaluations + self.corrector_steps)

    def plan(self, times: Sequence[float]) -> Sampler:
        return replace(self, predictor=self.predictor.plan(times))

    def with_snr(self, snr: float) -> "PredictorCorrector":
        return replace(self, snr=snr)

    def init(self, x: Tensor, t: float) -> State:
        return self.predictor.init(x, t)

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, State, Prediction]:
        process = bound.process
        if not ends(None, process, (t, s)).from_data:
            share = (process.schedule.at(t)[0] / process.schedule.at(s)[0]) ** 2
            for _ in range(self.corrector_steps):
                x = self._correct(x, ask(bound, x, t).score.to(x.dtype), noise.normal(x), share)
        return self.predictor.step(bound, x, t, s, state, noise)

    def _correct(self, x: Tensor, score: Tensor, z: Tensor, share: float) -> Tensor:
        pull = flat_sum(score.square())
        # A score of exactly 0 says nothing about the size of the step: none is made.
        epsilon = 2.0 * share * self.snr**2 * flat_sum(z.square()) / pull
        epsilon = expand(torch.where(pull > 0, epsilon, 0.0), x)
        return x + epsilon * score + torch.sqrt(2.0 * epsilon) * z
