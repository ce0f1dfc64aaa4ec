"""Reverse kernels p(x_s | x_t): the true one's coefficients, and which variance a model takes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError, unknown
from fromnoise.denoisers import Prediction
from fromnoise.processes import Process


class Kernel(NamedTuple):
    """q(x_s | x_t, x0) = N(x_gain·x_t + x0_gain·x0, small) for s < t, and what p may take for it.

    large: β = σ_t² − (α_t/α_s)²·σ_s², the variance of q(x_t | x_s). clipped: `small`, except in the
    step to the data, where it is 0 and the next step's stands for it. t: (B,).
    """

    t: Tensor
    x_gain: Tensor
    x0_gain: Tensor
    small: Tensor
    clipped: Tensor
    large: Tensor


def kernel(process: Process, t: Tensor, s: Tensor, like: Tensor, last: Tensor) -> Kernel:
    """The true kernel from times t to s (B,); `last` stands for `small` where that is 0."""
    now, then = process.scales(t, like), process.scales(s, like)
    # 1 − (r_s/r_t)², r = σ/α, without the cancellation of σ_t² − (α_t/α_s)²·σ_s².
    fresh = -torch.expm1(2 * (then.log_ratio - now.log_ratio))
    small = then.sigma**2 * fresh
    return Kernel(
        t=t,
        x_gain=now.alpha * then.sigma**2 / (then.alpha * now.sigma**2),
        x0_gain=then.alpha * fresh,
        small=small,
        clipped=torch.where(small > 0, small, last),
        large=now.sigma**2 * fresh,
    )


class Variance(ABC):
    """The variance of the model's reverse kernel p(x_s | x_t), in the basis of the process."""

    @abstractmethod
    def __call__(self, prediction: Prediction, kernel: Kernel) -> Tensor:
        """Broadcastable to x."""


class Small(Variance):
    """β̃, right for data that is one point (Ho et al. 2020, section 3.2)."""

    def __call__(self, prediction: Prediction, kernel: Kernel) -> Tensor:
        return kernel.clipped


class Large(Variance):
    """β, right for data N(0, 1) where variance is preserved (Ho et al. 2020, section 3.2)."""

    def __call__(self, prediction: Prediction, kernel: Kernel) -> Tensor:
        return kernel.large


class Learned(Variance):
    """exp(v·log β + (1 − v)·log β̃), v by the network (Nichol & Dhariwal 2021, eq. 15)."""

    def __call__(self, prediction: Prediction, kernel: Kernel) -> Tensor:
        if prediction.var_fraction is None:
            raise UsageError("this denoiser has not learned its variance; use another variance")
        fraction = prediction.var_fraction.double()
        return torch.exp(
            fraction * torch.log(kernel.large) + (1 - fraction) * torch.log(kernel.clipped)
        )


class Optimal(Variance):
    """β̃ + x0_gain²·Var[x0|x_t], the best there is (Bao et al. 2022, "Analytic-DPM", eq. 4)."""

    def __call__(self, prediction: Prediction, kernel: Kernel) -> Tensor:
        if prediction.var is None:
            raise UsageError("this denoiser does not know Var[x0|x_t]; use another variance")
        return kernel.small + kernel.x0_gain**2 * prediction.var.double()


VARIANCES: Mapping[str, type[Variance]] = {
    "small": Small,
    "large": Large,
    "learned": Learned,
    "optimal": Optimal,
}
"""Reverse variances by name."""


def variance(name: str) -> Variance:
    """The reverse variance of that name; UsageError offers the nearest names."""
    if name not in VARIANCES:
        raise unknown("variance", name, VARIANCES)
    return VARIANCES[name]()
