"""The four ways published schedules split a ratio r = σ/α into α and σ."""

import torch
from torch import Tensor

from fromnoise.schedules.base import Scales, Scaling


class VariancePreserving(Scaling):
    """α² + σ² = 1."""

    def scales(self, log_ratio: Tensor) -> Scales:
        return Scales(
            torch.sqrt(torch.sigmoid(-2 * log_ratio)), torch.sqrt(torch.sigmoid(2 * log_ratio))
        )

    def log_alpha_slope(self, scales: Scales) -> Tensor:
        return -(scales.sigma**2)


class VarianceExploding(Scaling):
    """α = 1."""

    def scales(self, log_ratio: Tensor) -> Scales:
        return Scales(torch.ones_like(log_ratio), torch.exp(log_ratio))

    def log_alpha_slope(self, scales: Scales) -> Tensor:
        return torch.zeros_like(scales.sigma)


class SubVariancePreserving(Scaling):
    """σ = 1 − α², so r = (1 − α²)/α and α = 2/(r + √(r² + 4)) (Song et al. 2021, eq. 29)."""

    def scales(self, log_ratio: Tensor) -> Scales:
        ratio = torch.exp(log_ratio)
        alpha = 2.0 / (ratio + torch.sqrt(ratio**2 + 4.0))
        return Scales(alpha, torch.where(torch.isinf(ratio), 1.0, ratio * alpha))

    def log_alpha_slope(self, scales: Scales) -> Tensor:
        return -scales.sigma / (1.0 + scales.alpha**2)


class Straight(Scaling):
    """α + σ = 1: straight lines between data and noise."""

    def scales(self, log_ratio: Tensor) -> Scales:
        return Scales(torch.sigmoid(-log_ratio), torch.sigmoid(log_ratio))

    def log_alpha_slope(self, scales: Scales) -> Tensor:
        return -scales.sigma
