"""A noise schedule is a path of noise-to-signal ratios and a rule that splits it into two scales.

Everything Gaussian is x_t = α(t)·x0 + σ(t)·ε with time t in [0, 1], 0 = data and 1 = noise. Only
the ratio r = σ/α says how noisy x_t is; how α and σ are scaled together is bookkeeping. So a
schedule is a `Path` t → r and a `Scaling` r → (α, σ), all in float64.
"""

import functools
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fromnoise.core.errors import UsageError


class Scales(NamedTuple):
    """The two coefficients of x_t = α·x0 + σ·ε, float64, the shape of the times asked for."""

    alpha: Tensor
    sigma: Tensor

    @property
    def log_ratio(self) -> Tensor:
        """log(σ/α), −∞ where σ = 0 and +∞ where α = 0."""
        return torch.log(self.sigma) - torch.log(self.alpha)


class Path(ABC):
    """A strictly increasing path of noise levels: t in [0, 1] → log(σ/α).

    weights: what of it is learned, which the process it is part of owns; nothing for a formula.
    interior: those of them that only shape it between its ends.
    """

    @property
    def weights(self) -> nn.Module:
        return nn.Module()

    @property
    def interior(self) -> tuple[nn.Parameter, ...]:
        return ()

    @abstractmethod
    def log_ratio(self, t: Tensor) -> Tensor:
        """log(σ/α) at t; −∞ at t = 0."""

    @abstractmethod
    def rate(self, t: Tensor) -> Tensor:
        """d log(σ/α) / dt at t."""

    @abstractmethod
    def time(self, log_ratio: Tensor) -> Tensor:
        """The inverse of `log_ratio`, clamped to [0, 1]."""


class Scaling(ABC):
    """How a ratio r = σ/α is split into α and σ."""

    @abstractmethod
    def scales(self, log_ratio: Tensor) -> Scales:
        """α and σ with σ/α = r."""

    @abstractmethod
    def log_alpha_slope(self, scales: Scales) -> Tensor:
        """d log α / d log r."""


def _inside(t: Tensor) -> Tensor:
    """t kept above 0 by less than anything can see: where d log r/dt is infinite, limits hold."""
    return t.double().clamp(min=1e-100)


class Schedule:
    """Noise over time: `schedule(t)` is `Scales(alpha, sigma)`, float64.

    As an SDE, dx = f(t)·x dt + g(t) dw with f = d log α/dt and g² = 2σ²·d log(σ/α)/dt
    (Song et al. 2021, "Score-Based Generative Modeling through SDEs", eq. 5; the second from
    g² = dσ²/dt − 2fσ²).

    `steps` is the number of discrete steps T when the schedule has them: index k sits at
    t = (k+1)/T.
    """

    config: dict[str, Any]

    def __init__(self, path: Path, scaling: Scaling, steps: int | None = None) -> None:
        self.path = path
        self.scaling = scaling
        self.steps = steps

    def __call__(self, t: Tensor) -> Scales:
        return self.scaling.scales(self.path.log_ratio(t.double()))

    def log_snr(self, t: Tensor) -> Tensor:
        """log(α²/σ²) at t: +∞ at t = 0."""
        return -2.0 * self.path.log_ratio(t.double())

    def time(self, log_snr: Tensor) -> Tensor:
        """The time in [0, 1] at which log(α²/σ²) is `log_snr`: the inverse of `log_snr`."""
        return self.path.time(-0.5 * log_snr.double())

    def drift(self, t: Tensor) -> Tensor:
        """f(t) = d log α/dt."""
        t = _inside(t)
        return self.scaling.log_alpha_slope(self(t)) * self.path.rate(t)

    def diffusion2(self, t: Tensor) -> Tensor:
        """g²(t) = dσ²/dt − 2·f(t)·σ²(t)."""
        t = _inside(t)
        return 2.0 * self(t).sigma ** 2 * self.path.rate(t)

    @property
    def limits(self) -> tuple[float, float]:
        """The times between which the log-SNR is finite: its first level, and 1.

        Where α is 0 at t = 1 the end is 0.001 below it.
        """
        first = 1e-3 if self.steps in (None, 1) else 1.0 / self.steps
        return first, 1.0 - 1e-3 if self.at(1.0)[0] == 0.0 else 1.0

    def at(self, t: float) -> tuple[float, float]:
        """(α, σ) at one time as plain numbers; remembered, for samplers walking the same grid."""
        return self._at(t)

    @functools.lru_cache(maxsize=8192)  # noqa: B019 (schedules are few and live as long as a run)
    def _at(self, t: float) -> tuple[float, float]:
        alpha, sigma = self(torch.tensor(t, dtype=torch.float64))
        return alpha.item(), sigma.item()

    def index_time(self, index: Tensor) -> Tensor:
        """The time of discrete index k, which may be fractional: (k+1)/T."""
        if self.steps is None:
            raise UsageError("a continuous schedule has no indices; use times in [0, 1]")
        return (index.double() + 1.0) / self.steps


class DiscreteSchedule(Schedule):
    """A schedule given by T betas; between its knots log(σ/α) is linear in t.

    ᾱ_k = Π_{j≤k} (1 − β_j); α = √ᾱ, σ = √(1−ᾱ) (Ho et al. 2020, "Denoising Diffusion
    Probabilistic Models", eq. 4).
    """

    alphas_cumprod: Tensor
    betas: Tensor

    def __init__(self, path: Path, scaling: Scaling, alphas_cumprod: Tensor) -> None:
        super().__init__(path, scaling, steps=alphas_cumprod.shape[0])
        self.alphas_cumprod = alphas_cumprod
        previous = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[:-1]])
        self.betas = 1.0 - alphas_cumprod / previous
