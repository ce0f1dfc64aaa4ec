"""DDPM, DDIM and other samplers that draw x_s from a Gaussian around a mean."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import Bound, Prediction
from fromnoise.processes import Level, Process
from fromnoise.samplers.arithmetic import add, ask, belief_of, combine, scaled, with_noise
from fromnoise.samplers.base import Sampler, State
from fromnoise.samplers.coefficients import (
    Rule,
    Times,
    ancestral,
    ends,
    first_order,
    levels,
    log_step,
    plain,
    remembered,
)
from fromnoise.samplers.inversion import leave_data

Variance = Literal["small", "large", "learned", "optimal"]


class Betas(NamedTuple):
    """Of the step (t, s): β = σ_t² − (α_t/α_s)²·σ_s², β̃ = β·σ_s²/σ_t², and α_t/α_s."""

    large: Level
    small: Level
    ratio: Level


@remembered
def betas(key: None, process: Process, times: Times) -> Betas:
    """The variances of q(x_t | x_s) and of q(x_s | x_t, x0) for the step (t, s)."""
    start, end = (levels(process, t) for t in times)
    fresh = -np.expm1(-2 * log_step(start, end, 1.0))
    large, small = start.sigma**2 * fresh, end.sigma**2 * fresh
    return Betas(*(plain(np.asarray(v)) for v in (large, small, start.alpha / end.alpha)))


@dataclass(frozen=True)
class Ancestral(Sampler):
    """x_s = α_s·x0 + √(σ_s² − η²β̃)·ε + noise, of variance η²β̃ unless `variance` says otherwise.

    η = 0 is DDIM, η = 1 DDPM (Song, Meng & Ermon 2021, "DDIM", eq. 12 and 16).
    variance, with the mean of η = 1: `small` β̃ and `large` β (Ho et al. 2020, section 3.2);
    `learned`, log-linear between them at `Prediction.var_fraction` (Nichol & Dhariwal 2021,
    eq. 15); `optimal`, β̃ + (α_s·β/σ_t²)²·Var[x0|x_t], which is exact for Gaussian data at any
    number of steps (Bao et al. 2022, "Analytic-DPM"); it alone adds noise in the step to σ = 0.
    Raises UsageError where the denoiser does not know what `learned` or `optimal` need.
    """

    eta: float = 0.0
    variance: Variance = "small"

    def __post_init__(self) -> None:
        if self.eta < 0 or self.eta > 1:
            raise UsageError(f"eta {self.eta} must be from 0 (no noise) to 1 (all of it)")
        object.__setattr__(self, "stochastic", self.eta > 0)
        object.__setattr__(self, "order", 0.0 if self.eta > 0 else 1.0)

    def with_eta(self, eta: float) -> "Ancestral":
        if self.variance != "small":
            raise UsageError("eta has no meaning with another variance than β̃; use ddim")
        return replace(self, eta=eta)

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, State, Prediction]:
        process = bound.process
        special = ends(None, process, (t, s))
        if special.from_data:
            if self.eta > 0:
                raise UsageError("a sampler that adds noise cannot start at t = 0")
            moved, prediction = leave_data(bound, x, s)
            return moved, state, prediction
        prediction = ask(bound, x, t)
        belief = process.analyse(belief_of(prediction, x))
        numbers = ancestral(self.eta, process, (t, s))
        moved = combine(numbers, process.analyse(x), (belief,))
        if self.variance == "small":
            moved = with_noise(process, moved, numbers.noise, x, noise)
        elif self.variance == "optimal" or not special.to_data:
            spread = self._spread(prediction, numbers.weights[0], process, (t, s))
            moved = moved + spread * process.analyse(noise.normal(x))
        return process.synthesise(moved), state, prediction

    def _spread(
        self, prediction: Prediction, weight: Level, process: Process, times: Times
    ) -> Tensor:
        """The standard deviation of the noise, broadcastable to x."""
        like = prediction.x
        large, small, _ = (tensor(v, like) for v in betas(None, process, times))
        if self.variance == "large":
            return torch.sqrt(large)
        if self.variance == "learned":
            if prediction.var_fraction is None:
                raise UsageError("this model has no learned variance; use ddpm or ddpm_large")
            low, high = torch.log(small), torch.log(large)
            fraction = prediction.var_fraction.to(like.dtype)
            return torch.exp(0.5 * (low + fraction * (high - low)))
        if prediction.var is None:
            raise UsageError("this denoiser does not know Var[x0|x]; use ddpm or ddpm_large")
        return torch.sqrt(small + tensor(weight, like) ** 2 * prediction.var.to(like.dtype))


def tensor(level: Level, like: Tensor) -> Tensor:
    """A level as a tensor of the type of `like`."""
    return torch.as_tensor(level, dtype=like.dtype, device=like.device)


@dataclass(frozen=True)
class ReverseDiffusion(Sampler):
    """x_s = (2 − a)·x_t + β·score + √β·z with a = α_t/α_s, β = σ_t² − a²σ_s².

    The forward step from s to t run backwards (Song et al. 2021, "Score-Based Generative Modeling
    through SDEs", appendix E). A step to σ = 0 returns the belief about x0; one from α = 0 is the
    ancestral one.
    """

    order = 0.0
    stochastic = True

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, State, Prediction]:
        process = bound.process
        prediction = ask(bound, x, t)
        special = ends(None, process, (t, s))
        if special.to_data or special.from_noise:
            return to_belief(process, prediction, x, (t, s), noise), state, prediction
        large, _, ratio = betas(None, process, (t, s))
        spread = large**0.5
        moved = scaled(2.0 - ratio, process.analyse(x))
        moved = add(moved, large, process.analyse(prediction.score.to(x.dtype)))
        return process.synthesise(with_noise(process, moved, spread, x, noise)), state, prediction


@dataclass(frozen=True)
class EulerMaruyama(Sampler):
    """x_s = x_t − (f·x_t − g²·score)·(t − s) + g·√(t − s)·z: the reverse SDE by Euler's rule.

    Song et al. 2021, "Score-Based Generative Modeling through SDEs", eq. 6.
    A step to σ = 0 returns the belief about x0; one from α = 0 is the ancestral one.
    Raises UsageError for a process with a noise level for each frequency.
    """

    order = 0.0
    stochastic = True

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, State, Prediction]:
        process = bound.process
        prediction = ask(bound, x, t)
        special = ends(None, process, (t, s))
        if special.to_data or special.from_noise:
            return to_belief(process, prediction, x, (t, s), noise), state, prediction
        drift, diffusion2 = _sde(None, process, (t,))
        step = t - s
        moved = scaled(1.0 - drift * step, x)
        moved = add(moved, diffusion2 * step, prediction.score.to(x.dtype))
        return add(moved, (diffusion2 * step) ** 0.5, noise.normal(x)), state, prediction


@remembered
def _sde(key: None, process: Process, times: Times) -> tuple[float, float]:
    if not isinstance(process.levels(times[0])[0], float):
        raise UsageError(
            "euler_maruyama needs one noise level for all pixels; use reverse_diffusion or ddpm"
        )
    t = torch.tensor(times[0], dtype=torch.float64)
    return process.schedule.drift(t).item(), process.schedule.diffusion2(t).item()


def to_belief(
    process: Process, prediction: Prediction, x: Tensor, times: Times, noise: Noise
) -> Tensor:
    """The ancestral step, finite at σ_s = 0 (where it is the belief itself) and at α_t = 0."""
    numbers = first_order(Rule("x0", eta=1.0), process, times)
    belief = process.analyse(belief_of(prediction, x))
    moved = combine(numbers, process.analyse(x), (belief,))
    return process.synthesise(with_noise(process, moved, numbers.noise, x, noise))
