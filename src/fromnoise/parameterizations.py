"""What a network's output means: the ways to read it as a belief about x0, each a few lines.

D(x, t) = skip·x + out·F(in·x, time), and the target of F is a·x0 + b·ε with a = (1 − skip·α)/out
and b = −skip·σ/out, taken in float64 with their limits.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from fromnoise.core.config import Kinds
from fromnoise.core.tensors import expand
from fromnoise.schedules import Scales

PARAMETERIZATIONS = Kinds("parameterization")

Clock = Literal["index", "time", "log_ratio", "sigma"]
"""How a network is told the time: index k = t·T − 1 (scale T), scale·t, scale·log(σ/α), scale·σ."""


class Coefficients(NamedTuple):
    """skip, out and in of D(x, t) = skip·x + out·F(in·x), float64 (B,)."""

    skip: Tensor
    out: Tensor
    inside: Tensor


class Target(NamedTuple):
    """a and b of the target a·x0 + b·ε, float64 (B,)."""

    data: Tensor
    noise: Tensor


def _unit_variance(scales: Scales) -> Tensor:
    """1/√(α² + σ²): x_t of unit-variance data at unit variance; 1 where variance is preserved."""
    return torch.rsqrt(scales.alpha**2 + scales.sigma**2)


@dataclass(frozen=True)
class Parameterization(ABC):
    """How to read a network.

    `clock` and `clock_scale` say what the network is told of the time; `clock_shift` is added to
    it. `inputs`: of eps, x0, v and score, whether x_t comes in at unit variance or as it is, which
    differ where the schedule does not preserve the variance.
    """

    clock: Clock = "index"
    clock_scale: float = 1000.0
    clock_shift: float = 0.0
    inputs: Literal["unit", "as_is"] = "unit"

    @abstractmethod
    def coefficients(self, scales: Scales) -> Coefficients:
        """skip, out and in at these scales."""

    @abstractmethod
    def target(self, scales: Scales) -> Target:
        """What F should be: a·x0 + b·ε."""

    def time(self, t: Tensor, scales: Scales) -> Tensor:
        """What the network is told of the time t (B,), float64."""
        if self.clock == "index":
            return t * self.clock_scale - 1.0 + self.clock_shift
        if self.clock == "time":
            return t * self.clock_scale + self.clock_shift
        if self.clock == "sigma":
            return scales.sigma * self.clock_scale + self.clock_shift
        return scales.log_ratio * self.clock_scale + self.clock_shift

    def inside(self, scales: Scales) -> Tensor:
        """`in` of eps, x0, v and score: 1/√(α² + σ²), or 1 where inputs come in as they are."""
        return _unit_variance(scales) if self.inputs == "unit" else torch.ones_like(scales.alpha)

    def read(self, output: Tensor, x: Tensor, scales: Scales) -> Tensor:
        """x0 = skip·x + out·F."""
        skip, out, _ = self.coefficients(scales)
        return expand(skip, x) * x + expand(out, x) * output.to(x.dtype)

    def regression_target(self, x0: Tensor, noise: Tensor, scales: Scales) -> Tensor:
        """a·x0 + b·ε for pictures x0 and noise of the same shape."""
        a, b = self.target(scales)
        return expand(a, x0) * x0 + expand(b, x0) * noise


@PARAMETERIZATIONS.register("eps")
@dataclass(frozen=True)
class Eps(Parameterization):
    """F = ε: x0 = (x − σ·F)/α (Ho et al. 2020, eq. 11). Undefined at α = 0."""

    def coefficients(self, scales: Scales) -> Coefficients:
        alpha, sigma = scales
        return Coefficients(1 / alpha, -sigma / alpha, self.inside(scales))

    def target(self, scales: Scales) -> Target:
        return Target(torch.zeros_like(scales.alpha), torch.ones_like(scales.alpha))


@PARAMETERIZATIONS.register("x0")
@dataclass(frozen=True)
class X0(Parameterization):
    """F = x0."""

    def coefficients(self, scales: Scales) -> Coefficients:
        one = torch.ones_like(scales.alpha)
        return Coefficients(torch.zeros_like(one), one, self.inside(scales))

    def target(self, scales: Scales) -> Target:
        return Target(torch.ones_like(scales.alpha), torch.zeros_like(scales.alpha))


_SURE = 50.0


@PARAMETERIZATIONS.register("tokens")
@dataclass(frozen=True)
class Tokens(X0):
    """F = log p(x0 | x_t) of each token, (B, K, ...), up to a constant.

    The belief is its log-softmax, where guidance by differences is that of logits. A token that is
    not masked is known, and carried over: 50 more than any other (Sahoo et al. 2024, "MDLM",
    section 3.2.3).
    """

    clock: Clock = "time"

    def read(self, output: Tensor, x: Tensor, scales: Scales) -> Tensor:
        known = (x != 0).any(1, keepdim=True)
        return torch.where(known, _SURE * x, output.to(x.dtype).log_softmax(1))


@PARAMETERIZATIONS.register("v")
@dataclass(frozen=True)
class V(Parameterization):
    """F = v = α·ε − σ·x0: x0 = (α·x − σ·F)/(α² + σ²) (Salimans & Ho 2022, appendix D)."""

    def coefficients(self, scales: Scales) -> Coefficients:
        alpha, sigma = scales
        norm = alpha**2 + sigma**2
        return Coefficients(alpha / norm, -sigma / norm, self.inside(scales))

    def target(self, scales: Scales) -> Target:
        return Target(-scales.sigma, scales.alpha)


@PARAMETERIZATIONS.register("score")
@dataclass(frozen=True)
class Score(Parameterization):
    """F = σ·∇log p_t(x) = −ε: x0 = (x + σ·F)/α.

    The network's output divided by σ is the score, as in Song et al. 2021 (appendix A), so that
    its scale does not grow as 1/σ. `Prediction.score` is the score itself.
    """

    clock: Clock = "log_ratio"
    clock_scale: float = 1.0

    def coefficients(self, scales: Scales) -> Coefficients:
        alpha, sigma = scales
        return Coefficients(1 / alpha, sigma / alpha, self.inside(scales))

    def target(self, scales: Scales) -> Target:
        return Target(torch.zeros_like(scales.alpha), -torch.ones_like(scales.alpha))


@PARAMETERIZATIONS.register("flow")
@dataclass(frozen=True)
class Flow(Parameterization):
    """F = u = ε − x0: x0 = (x − σ·F)/(α + σ) (Liu et al. 2023, eq. 1 with time reversed)."""

    clock: Clock = "time"

    def coefficients(self, scales: Scales) -> Coefficients:
        alpha, sigma = scales
        norm = alpha + sigma
        return Coefficients(1 / norm, -sigma / norm, torch.ones_like(alpha))

    def target(self, scales: Scales) -> Target:
        one = torch.ones_like(scales.alpha)
        return Target(-one, one)


@PARAMETERIZATIONS.register("edm")
@dataclass(frozen=True)
class EDM(Parameterization):
    """Unit-variance inputs and targets at every level (Karras et al. 2022, table 1).

    With r = σ/α and σ_d the data's standard deviation: skip = σ_d²/(r² + σ_d²)/α,
    out = r·σ_d/√(r² + σ_d²), in = 1/(α·√(r² + σ_d²)), time = log(r)/4.
    """

    clock: Clock = "log_ratio"
    clock_scale: float = 0.25
    sigma_data: float = 0.5

    def _norm(self, scales: Scales) -> Tensor:
        return scales.sigma**2 + (scales.alpha * self.sigma_data) ** 2

    def coefficients(self, scales: Scales) -> Coefficients:
        norm = self._norm(scales)
        root = torch.sqrt(norm)
        return Coefficients(
            scales.alpha * self.sigma_data**2 / norm,
            scales.sigma * self.sigma_data / root,
            1 / root,
        )

    def target(self, scales: Scales) -> Target:
        root = torch.sqrt(self._norm(scales))
        return Target(
            scales.sigma / (self.sigma_data * root), -scales.alpha * self.sigma_data / root
        )
