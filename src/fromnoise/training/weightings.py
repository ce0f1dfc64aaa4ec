"""Loss weights as functions of the noise level. All multiply the squared error of x0.

With SNR = α²/σ² the errors of one belief in other spaces are multiples of its x0 error:
‖ε̂−ε‖² = SNR·‖x̂0−x0‖², and ‖F̂−F‖² = ‖x̂0−x0‖²/out² for the network's own output F. So one weight
says it for all, and a loss does not depend on the parameterization it is computed in.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fromnoise.core.config import Kinds
from fromnoise.core.errors import UsageError
from fromnoise.schedules import Scales

WEIGHTINGS = Kinds("weighting")


@dataclass(frozen=True)
class Level:
    """The noise level of each sample, float64, in any shape that broadcasts to the picture.

    t: (B,). scales_at: α and σ at other times (B,), in the same shape as those at t.
    out: the coefficient of the network's output in x0 = skip·x + out·F.
    """

    t: Tensor
    scales_at: Callable[[Tensor], Scales]
    out: Tensor

    def log_snr_at(self, t: Tensor) -> Tensor:
        """log(α²/σ²) at times (B,)."""
        return -2.0 * self.scales_at(t).log_ratio

    @property
    def log_snr(self) -> Tensor:
        """λ = log(α²/σ²)."""
        return self.log_snr_at(self.t)

    @property
    def snr(self) -> Tensor:
        """α²/σ²."""
        return torch.exp(self.log_snr)

    @property
    def slope(self) -> Tensor:
        """dλ/dt, below 0."""
        # Each λ depends on its own sample's t only, but there may be many λ for one t: two reverse
        # passes, the second through the first's weights, give every derivative.
        with torch.enable_grad():
            t = self.t.detach().requires_grad_()
            value = self.log_snr_at(t)
            weight = torch.zeros_like(value, requires_grad=True)
            (pulled,) = torch.autograd.grad(value, t, weight, create_graph=True)
            (slope,) = torch.autograd.grad(pulled, weight, torch.ones_like(pulled))
        return slope


class Weighting(ABC):
    """A weight for the squared error of x0 at each noise level."""

    config: dict[str, Any]
    needs_noise = True

    @abstractmethod
    def __call__(self, level: Level) -> Tensor:
        """The weight, float64, in the shape of `level.log_snr`."""


@WEIGHTINGS.register("simple")
class Simple(Weighting):
    """1/out²: the plain squared error of the network's own output (Ho et al. 2020, eq. 14)."""

    needs_noise = False

    def __call__(self, level: Level) -> Tensor:
        return level.out**-2


@WEIGHTINGS.register("snr")
class SNR(Weighting):
    """SNR: the plain squared error of ε, whatever the network predicts."""

    def __call__(self, level: Level) -> Tensor:
        return level.snr


@WEIGHTINGS.register("min_snr")
class MinSNR(Weighting):
    """min(SNR, γ) (Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting")."""

    def __init__(self, gamma: float = 5.0) -> None:
        if gamma <= 0:
            raise UsageError(f"gamma {gamma} must be above 0")
        self.gamma = gamma

    def __call__(self, level: Level) -> Tensor:
        return level.snr.clamp(max=self.gamma)


@WEIGHTINGS.register("p2")
class P2(Weighting):
    """SNR/(k + SNR)^γ: the squared error of ε times 1/(k + SNR)^γ.

    Choi et al. 2022, "Perception Prioritized Training of Diffusion Models".
    """

    def __init__(self, k: float = 1.0, gamma: float = 1.0) -> None:
        if k <= 0 or gamma < 0:
            raise UsageError(f"k {k} must be above 0 and gamma {gamma} 0 or more")
        self.k, self.gamma = k, gamma

    def __call__(self, level: Level) -> Tensor:
        log_sum = torch.logaddexp(level.log_snr, torch.tensor(math.log(self.k)).double())
        return torch.exp(level.log_snr - self.gamma * log_sum)


@WEIGHTINGS.register("edm")
class EDMWeighting(Weighting):
    """SNR + 1/σ_d², which is (r² + σ_d²)/(r·σ_d)² with r = σ/α.

    Karras et al. 2022, table 1; with their parameterization of the same σ_d it is `simple`.
    """

    def __init__(self, sigma_data: float = 0.5) -> None:
        if sigma_data <= 0:
            raise UsageError(f"sigma_data {sigma_data} must be above 0")
        self.sigma_data = sigma_data

    def __call__(self, level: Level) -> Tensor:
        return level.snr + self.sigma_data**-2


@WEIGHTINGS.register("elbo")
class ELBO(Weighting):
    """−½·dSNR/dt: with uniform times the mean loss is the diffusion term of the bound.

    Nats for each dimension; the prior and reconstruction terms do not train (Kingma et al. 2021,
    "Variational Diffusion Models", eq. 15 to 17).
    With `steps` T it is the bound of the discrete chain, ½·T·(SNR(t − 1/T) − SNR(t)) (eq. 13);
    for the first of the T steps, where SNR(0) is infinite, ½·T·SNR(t).
    """

    def __init__(self, steps: int | None = None) -> None:
        if steps is not None and steps < 1:
            raise UsageError(f"steps {steps} must be 1 or more")
        self.steps = steps

    def __call__(self, level: Level) -> Tensor:
        if self.steps is None:
            return -0.5 * level.snr * level.slope
        before = level.t - 1.0 / self.steps
        # Half a step of slack: t = 1/T may come a rounding above or below.
        inside = before > 0.5 / self.steps
        earlier = torch.exp(level.log_snr_at(torch.where(inside, before, level.t)))
        inside = inside.reshape(inside.shape + (1,) * (earlier.ndim - 1))
        change = torch.where(inside, earlier - level.snr, level.snr)
        return 0.5 * self.steps * change


@WEIGHTINGS.register("sigmoid")
class Sigmoid(Weighting):
    """½·(−dλ/dt)·SNR·sigmoid(bias − λ) with λ = log SNR: that of the bound, damped.

    On the error of ε it is ½·(−dλ/dt)·sigmoid(bias − λ), so that with uniform times the mean loss
    is the same integral over λ on every schedule. It rises with the noise and never beyond the
    bound's own weight: a mixture of bounds of noisy data (Kingma & Gao 2023, "Understanding
    Diffusion Objectives as the ELBO with Simple Data Augmentation"; Hoogeboom et al. 2024).
    Without −½·dλ/dt it is P2's with γ = 1 and k = e^bias, up to the factor k.

    bias: the λ at which the weight is half the bound's.
    """

    def __init__(self, bias: float = 2.0) -> None:
        if not math.isfinite(bias):
            raise UsageError(f"bias {bias} must be finite")
        self.bias = bias

    def __call__(self, level: Level) -> Tensor:
        # SNR·sigmoid(bias − λ) = e^bias·sigmoid(λ − bias), which is finite where the SNR is not.
        return -0.5 * level.slope * math.exp(self.bias) * torch.sigmoid(level.log_snr - self.bias)
