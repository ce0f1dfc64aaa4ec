"""Gaussian noise: on every pixel alike, or on each frequency with blur."""

import functools
import math

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import times
from fromnoise.operators.basis import dct, frequencies, idct
from fromnoise.processes.base import PROCESSES, Level, Process
from fromnoise.schedules import Scales, Schedule


class _Noisy(Process):
    """What every Gaussian process shares, written once in its basis."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self._schedule = schedule
        # What a schedule learns is trained and saved with the process.
        self.path = schedule.path.weights

    @property
    def schedule(self) -> Schedule:
        return self._schedule

    def reference(self, t: Tensor) -> Scales:
        return self._schedule(t)

    def corrupt(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        alpha, sigma = typed(self.scales(t, x0), x0)
        return self.synthesise(alpha * self.analyse(x0) + sigma * self.analyse(noise))

    def move(
        self, x: Tensor, x0: Tensor, t: Tensor, s: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """x_s = α_s·x0 + √(σ_s² − η²)·ε̂ + η·z with ε̂ = (x_t − α_t·x0)/σ_t.

        η = 0 without noise. With noise η² is the variance of q(x_s | x_t, x0) towards the data
        and of q(x_s | x_t) away from it (Song et al. 2021, "DDIM", eq. 12 and 16).
        """
        a, b = self.scales(t, x)
        c, d = self.scales(s, x)
        z, z0 = self.analyse(x), self.analyse(x0)
        inverse = torch.where(b > 0, 1.0 / b, 0.0)
        implied = (z - a.to(x.dtype) * z0) * inverse.to(x.dtype)
        if noise is None:
            return self.synthesise(c.to(x.dtype) * z0 + d.to(x.dtype) * implied)
        # |β| as in q(x_late | x_early): σ_late² − (α_late/α_early)²·σ_early².
        towards = (a * d) <= (c * b)
        late = torch.where(towards, b**2 - _carried(a, d, c), d**2 - _carried(c, b, a)).clamp(min=0)
        fresh = torch.where(towards, late * (d * inverse) ** 2, late)
        kept = torch.sqrt((d**2 - fresh).clamp(min=0))
        c, kept, added = (w.to(x.dtype) for w in (c, kept, torch.sqrt(fresh)))
        return self.synthesise(c * z0 + kept * implied + added * self.analyse(noise))

    def prior(self, noise: Noise, like: Tensor, t: float = 1.0) -> Tensor:
        """√(α² + σ²)·ε: what x_t is for data of mean 0 and variance 1."""
        alpha, sigma = self.scales(times(t, like.shape[0]), like)
        spread = torch.sqrt(alpha**2 + sigma**2).to(like)
        return self.synthesise(spread * self.analyse(noise.normal(like)))


@PROCESSES.register("gaussian")
class Gaussian(_Noisy):
    """x_t = α(t)·x0 + σ(t)·ε for every pixel alike."""

    def scales(self, t: Tensor, like: Tensor) -> Scales:
        alpha, sigma = self._schedule(t)
        shape = (-1,) + (1,) * (like.ndim - 1)
        return Scales(alpha.reshape(shape), sigma.reshape(shape))

    def levels(self, t: float) -> tuple[Level, Level]:
        return self._schedule.at(t)


@PROCESSES.register("spectral")
class Spectral(_Noisy):
    """Blur and coloured noise: α and σ for each frequency of the DCT.

    α_k(t) = α(t)·((1 − d_min)·exp(−λ_k·b(t)²/2) + d_min) with blur width
    b(t) = `blur`·sin²(πt/2) in pixels, and σ_k(t) = σ(t)·n_k with n_k ∝ (1 + λ_k/λ_c)^(−`tilt`/2),
    mean square 1: `tilt` 0 is white noise, above 0 neighbours share noise. Blur with white noise
    is Hoogeboom & Salimans 2023, "Blurring Diffusion Models", eq. 13 to 19.
    """

    def __init__(
        self,
        schedule: Schedule,
        height: int,
        width: int,
        blur: float = 0.0,
        tilt: float = 0.0,
        d_min: float = 0.001,
    ) -> None:
        super().__init__(schedule)
        if blur < 0 or not 0 < d_min < 1:
            raise UsageError(f"blur {blur} must be 0 or more and d_min {d_min} between 0 and 1")
        self.blur, self.d_min, self.size = blur, d_min, (height, width)
        self._frequencies = frequencies(height, width)
        colour = (1.0 + self._frequencies / (math.pi**2 / 16)) ** (-0.5 * tilt)
        self._colour = colour / torch.sqrt((colour**2).mean())

    def _decay(self, t: Tensor) -> Tensor:
        """How much of each frequency is left, (B, 1, H, W)."""
        width = self.blur * torch.sin(0.5 * math.pi * t.double()) ** 2
        exponent = -0.5 * self._frequencies.to(t.device) * width.reshape(-1, 1, 1, 1) ** 2
        return (
            (1.0 - self.d_min) * torch.exp(exponent) + self.d_min if self.blur else exponent.exp()
        )

    def scales(self, t: Tensor, like: Tensor) -> Scales:
        if tuple(like.shape[-2:]) != self.size:
            raise ShapeError(f"this process is for {self.size} pictures, got {tuple(like.shape)}")
        alpha, sigma = self._schedule(t)
        return Scales(
            alpha.reshape(-1, 1, 1, 1) * self._decay(t),
            sigma.reshape(-1, 1, 1, 1) * self._colour.to(t.device),
        )

    def levels(self, t: float) -> tuple[Level, Level]:
        alpha, sigma = self._schedule.at(t)
        return alpha * self._decay_at(t), sigma * self._colour

    @functools.lru_cache(maxsize=4096)  # noqa: B019 (a process lives as long as a run)
    def _decay_at(self, t: float) -> Tensor:
        return self._decay(torch.tensor([t], dtype=torch.float64))[0, 0]

    def analyse(self, x: Tensor) -> Tensor:
        return dct(x)

    def synthesise(self, z: Tensor) -> Tensor:
        return idct(z)


def _carried(late: Tensor, sigma: Tensor, early: Tensor) -> Tensor:
    """The early time's noise variance as it is left at the late one: (α_late/α_early·σ)²."""
    return torch.where(late > 0, late * sigma / early, 0.0) ** 2


def typed(scales: Scales, like: Tensor) -> Scales:
    """Scales in the type and on the device of `like`, so that arithmetic keeps its type."""
    return Scales(scales.alpha.to(like), scales.sigma.to(like))


def as_process(process: Process | Schedule) -> Process:
    """Where a denoiser takes a process, a schedule means Gaussian noise on it."""
    return process if isinstance(process, Process) else Gaussian(process)
