"""Paths of noise levels: t in [0, 1] → log(σ/α), with rate and inverse in closed form."""

import math

import torch
from torch import Tensor

from fromnoise.schedules.base import Path, Scales, Scaling

FLOOR = 1e-3
"""The time at which schedules given by a least noise level reach it; below, σ/α runs to 0."""


class Knots(Path):
    """log(σ/α) linear between knots at t = (k+1)/T.

    Below the first knot σ/α runs linearly to 0 at t = 0. When the last knot is +∞ (zero terminal
    signal), α/σ runs linearly to 0 over the last interval: the same rule seen from the noise.
    """

    def __init__(self, knots: Tensor) -> None:
        self.knots = knots.double()
        self.count = knots.shape[0]
        self.endless = bool(torch.isinf(self.knots[-1]))

    def _place(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        knots = self.knots.to(t.device)
        place = t * self.count - 1.0
        low = place.floor().clamp(0, max(self.count - 2, 0)).long()
        high = (low + 1).clamp(max=self.count - 1)
        return place, low, knots[low], knots[high]

    def log_ratio(self, t: Tensor) -> Tensor:
        place, low, left, right = self._place(t)
        fraction = place - low
        inner = left + fraction * torch.where(torch.isinf(right), 0.0, right - left)
        if self.endless:
            tail = left - torch.log1p(-fraction.clamp(0, 1))
            inner = torch.where(torch.isinf(right), tail, inner)
        first = self.knots[0].to(t.device) + torch.log(t * self.count)
        return torch.where(place < 0, first, inner)

    def rate(self, t: Tensor) -> Tensor:
        place, low, left, right = self._place(t)
        inner = self.count * torch.where(torch.isinf(right), 0.0, right - left)
        if self.endless:
            tail = self.count / (1.0 - (place - low)).clamp(min=0.0)
            inner = torch.where(torch.isinf(right), tail, inner)
        return torch.where(place < 0, 1.0 / t, inner)

    def time(self, log_ratio: Tensor) -> Tensor:
        knots = self.knots.to(log_ratio.device)
        high = torch.searchsorted(knots, log_ratio.contiguous()).clamp(1, max(self.count - 1, 1))
        high = high.clamp(max=self.count - 1)
        low = (high - 1).clamp(min=0)
        left, right = knots[low], knots[high]
        span = torch.where(torch.isinf(right) | (right == left), 1.0, right - left)
        fraction = (log_ratio - left) / span
        if self.endless:
            fraction = torch.where(torch.isinf(right), -torch.expm1(left - log_ratio), fraction)
        inner = (low + 1.0 + fraction.clamp(max=1.0)) / self.count
        first = torch.exp(log_ratio - knots[0]) / self.count
        return torch.where(log_ratio < knots[0], first, inner).clamp(0.0, 1.0)


class Geometric(Path):
    """σ/α geometric from `sigma_min` at t = 1e-3 to `sigma_max` at t = 1, then linear to 0."""

    def __init__(self, sigma_min: float, sigma_max: float) -> None:
        self.low = math.log(sigma_min)
        self.slope = (math.log(sigma_max) - self.low) / (1.0 - FLOOR)

    def log_ratio(self, t: Tensor) -> Tensor:
        first = self.low + torch.log(t / FLOOR)
        return torch.where(t < FLOOR, first, self.low + (t - FLOOR) * self.slope)

    def rate(self, t: Tensor) -> Tensor:
        return torch.where(t < FLOOR, 1.0 / t, torch.full_like(t, self.slope))

    def time(self, log_ratio: Tensor) -> Tensor:
        first = FLOOR * torch.exp(log_ratio - self.low)
        inner = FLOOR + (log_ratio - self.low) / self.slope
        return torch.where(log_ratio < self.low, first, inner).clamp(0.0, 1.0)


class LinearBeta(Path):
    """∫β = B(t) = β_min·t + (β_max − β_min)·t²/2 for the variance-preserving SDE: r² = e^B − 1."""

    def __init__(self, beta_min: float, beta_max: float) -> None:
        self.beta_min = beta_min
        self.growth = beta_max - beta_min

    def _integral(self, t: Tensor) -> Tensor:
        return self.beta_min * t + 0.5 * self.growth * t**2

    def _inverse(self, integral: Tensor) -> Tensor:
        root = torch.sqrt(self.beta_min**2 + 2.0 * self.growth * integral)
        return (2.0 * integral / (self.beta_min + root)).clamp(0.0, 1.0)

    def log_ratio(self, t: Tensor) -> Tensor:
        return 0.5 * torch.log(torch.expm1(self._integral(t)))

    def rate(self, t: Tensor) -> Tensor:
        return 0.5 * (self.beta_min + self.growth * t) / -torch.expm1(-self._integral(t))

    def time(self, log_ratio: Tensor) -> Tensor:
        # softplus(2·log r) = log(1 + r²) stays finite where r² would overflow.
        integral = torch.logaddexp(2.0 * log_ratio, torch.zeros_like(log_ratio))
        return self._inverse(integral.clamp(max=self.beta_min + 0.5 * self.growth))


class LinearBetaSub(LinearBeta):
    """The same B(t) for the sub-variance-preserving SDE: r = 2·sinh(B/2)."""

    def log_ratio(self, t: Tensor) -> Tensor:
        return torch.log(2.0 * torch.sinh(0.5 * self._integral(t)))

    def rate(self, t: Tensor) -> Tensor:
        half = 0.5 * self._integral(t)
        return 0.5 * (self.beta_min + self.growth * t) / torch.tanh(half)

    def time(self, log_ratio: Tensor) -> Tensor:
        top = self.beta_min + 0.5 * self.growth
        ratio = torch.exp(log_ratio).clamp(max=2.0 * math.sinh(0.5 * top))
        return self._inverse(2.0 * torch.asinh(0.5 * ratio))


class ShiftedFlow(Path):
    """r = shift·t/(1 − t): rectified flow with σ = shift·t/(1 + (shift − 1)·t)."""

    def __init__(self, shift: float) -> None:
        self.log_shift = math.log(shift)

    def log_ratio(self, t: Tensor) -> Tensor:
        return self.log_shift + torch.log(t) - torch.log1p(-t)

    def rate(self, t: Tensor) -> Tensor:
        return 1.0 / (t * (1.0 - t))

    def time(self, log_ratio: Tensor) -> Tensor:
        return torch.sigmoid(log_ratio - self.log_shift)


class ZeroTerminal(Path):
    """Another path's α shifted and stretched so that it ends at 0: α' = (α − α₁)/(1 − α₁).

    For variance-preserving schedules only. The discrete rule of Lin et al. 2024 ("Common
    Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1) in continuous time.
    """

    def __init__(self, path: Path, scaling: Scaling) -> None:
        self.path = path
        self.scaling = scaling
        self.last = self._inner(torch.ones((), dtype=torch.float64)).alpha.item()

    def _inner(self, t: Tensor) -> Scales:
        return self.scaling.scales(self.path.log_ratio(t))

    def log_ratio(self, t: Tensor) -> Tensor:
        alpha, sigma = self._inner(t)
        # 1 − α without cancellation: σ²/(1 + α).
        below = sigma**2 / (1.0 + alpha) / (1.0 - self.last)
        stretched = (alpha - self.last) / (1.0 - self.last)
        variance = below * (1.0 + stretched)
        return 0.5 * torch.log(variance) - torch.log(stretched.clamp(min=0.0))

    def rate(self, t: Tensor) -> Tensor:
        scales = self._inner(t)
        stretched = (scales.alpha - self.last) / (1.0 - self.last)
        variance = scales.sigma**2 / (1.0 + scales.alpha) / (1.0 - self.last) * (1.0 + stretched)
        slope = self.scaling.log_alpha_slope(scales) * scales.alpha * self.path.rate(t)
        # log r = ½ log(1 − α'²) − log α', so d log r/dα' = −1/(α'(1 − α'²)).
        return -slope / (1.0 - self.last) / (stretched * variance)

    def time(self, log_ratio: Tensor) -> Tensor:
        stretched = torch.sqrt(torch.sigmoid(-2.0 * log_ratio))
        below = torch.sigmoid(2.0 * log_ratio) / (1.0 + stretched) * (1.0 - self.last)
        alpha = self.last + stretched * (1.0 - self.last)
        sigma = torch.sqrt(below * (1.0 + alpha))
        return self.path.time(torch.log(sigma) - torch.log(alpha))
