"""A path that learns: a monotone network γ(t) between two ends (variational diffusion)."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from fromnoise.core.errors import UsageError
from fromnoise.schedules.base import Path, Schedule
from fromnoise.schedules.paths import FLOOR
from fromnoise.schedules.scalings import VariancePreserving

_HALVINGS = 60


class Monotone(nn.Module):
    """s(u) from 0 at u = 0 to 1 at u = 1, increasing whatever its weights are.

    s = (f(u) − f(0))/(f(1) − f(0)) with f(u) = h + Σ_j a_j·sigmoid(b_j·h + c_j), h = b·u, and
    a, b above 0 by softplus (Kingma et al. 2021, appendix H, whose layer has 1024 features). It
    starts close to a straight line, its steps spread evenly.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        centres = (torch.arange(features) + 0.5) / features
        slopes = torch.full((features,), 10.0)
        self.enter = nn.Parameter(_raw(torch.ones(1)))
        self.slopes = nn.Parameter(_raw(slopes))
        self.offsets = nn.Parameter(-slopes * centres)
        self.heights = nn.Parameter(_raw(torch.full((features,), 0.5 / features)))

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """s and ds/du at u (any shape), float64."""
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64, device=u.device)
        (low, high), _ = self._raised(ends)
        value, slope = self._raised(u)
        return (value - low) / (high - low), slope / (high - low)

    def _raised(self, u: Tensor) -> tuple[Tensor, Tensor]:
        enter, slopes, heights = (
            softplus(p.double()) for p in (self.enter, self.slopes, self.heights)
        )
        h = enter[0] * u
        gate = torch.sigmoid(slopes * h[..., None] + self.offsets.double())
        rise = (heights * slopes * gate * (1.0 - gate)).sum(-1)
        return h + (heights * gate).sum(-1), enter[0] * (1.0 + rise)


def _raw(value: Tensor) -> Tensor:
    """What softplus turns into `value`."""
    return value + torch.log(-torch.expm1(-value))


class Gamma(nn.Module):
    """γ(u) = γ_min + (γ_max − γ_min)·s(u), the negative log-SNR; its ends may learn as well."""

    def __init__(self, gamma_min: float, gamma_max: float, features: int, learn_ends: bool) -> None:
        super().__init__()
        ends = torch.tensor([gamma_min, math.log(gamma_max - gamma_min)])
        self.ends = nn.Parameter(ends, requires_grad=learn_ends)
        self.interior = Monotone(features)

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """γ and dγ/du at u in [0, 1], float64."""
        share, slope = self.interior(u)
        low, span = self.low, torch.exp(self.ends[1].double())
        return low + span * share, span * slope

    @property
    def low(self) -> Tensor:
        """γ_min, float64."""
        return self.ends[0].double()


class Learned(Path):
    """log(σ/α) = γ/2 from γ_min at t = 1e-3 to γ_max at t = 1; below, σ/α runs linearly to 0."""

    def __init__(self, gamma: Gamma) -> None:
        self._gamma = gamma

    @property
    def weights(self) -> Gamma:
        return self._gamma

    @property
    def interior(self) -> tuple[nn.Parameter, ...]:
        return tuple(self._gamma.interior.parameters())

    def log_ratio(self, t: Tensor) -> Tensor:
        first = 0.5 * self._gamma.low + torch.log(t / FLOOR)
        return torch.where(t < FLOOR, first, 0.5 * self._gamma(_place(t))[0])

    def rate(self, t: Tensor) -> Tensor:
        inner = 0.5 * self._gamma(_place(t))[1] / (1.0 - FLOOR)
        return torch.where(t < FLOOR, 1.0 / t, inner)

    @torch.no_grad()
    def time(self, log_ratio: Tensor) -> Tensor:
        """By bisection, and so without a derivative."""
        low, high = torch.zeros_like(log_ratio), torch.ones_like(log_ratio)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            below = 0.5 * self._gamma(middle)[0] < log_ratio
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        first = FLOOR * torch.exp(log_ratio - 0.5 * self._gamma.low)
        inner = FLOOR + (1.0 - FLOOR) * 0.5 * (low + high)
        return torch.where(first < FLOOR, first, inner).clamp(0.0, 1.0)


def _place(t: Tensor) -> Tensor:
    return ((t - FLOOR) / (1.0 - FLOOR)).clamp(0.0, 1.0)


class LearnedSchedule(Schedule):
    """A variance-preserving schedule on a path that learns: nothing of it can be remembered."""

    def __init__(self, path: Learned) -> None:
        super().__init__(path, VariancePreserving())

    def at(self, t: float) -> tuple[float, float]:
        alpha, sigma = self(torch.tensor(t, dtype=torch.float64))
        return alpha.item(), sigma.item()


def learned(
    gamma_min: float = -13.3,
    gamma_max: float = 5.0,
    features: int = 64,
    learn_ends: bool = False,
) -> LearnedSchedule:
    """γ(t) = −log(α²/σ²) a monotone network between γ_min and γ_max; see `Monotone`.

    The process it is part of owns its weights, which are trained and saved with the model. With
    `learn_ends` the ends train too, and those given are where they start. features: of the
    monotone network. Raises UsageError for ends out of order or no features.
    Reference: Kingma, Salimans, Poole & Ho 2021, "Variational Diffusion Models", section 4.1 and
    appendix H.
    """
    if not -math.inf < gamma_min < gamma_max < math.inf or features < 1:
        raise UsageError(
            f"need gamma_min < gamma_max and a feature, got {gamma_min}, {gamma_max}, {features}"
        )
    return LearnedSchedule(Learned(Gamma(gamma_min, gamma_max, features, learn_ends)))
