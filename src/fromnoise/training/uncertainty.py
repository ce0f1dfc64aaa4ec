"""A learned measure of how hard each time is, which evens out what the times count."""

import math

import torch
from torch import Tensor, nn

from fromnoise.core.errors import UsageError


class Uncertainty(nn.Module):
    """u(t), with which the loss at t is L·e^(−u) + u.

    The best u is log E[L | t]: every time then counts the same, whatever the weighting and however
    its loss falls while the network learns. u is a linear function of cos(π·k·t), k below
    `features`, and starts at 0, where the loss is L. It trains with the network and is not part
    of the model.
    Raises UsageError for no features.
    Reference: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion
    Models", eq. 20 to 22; Kendall, Gal & Cipolla 2018.
    """

    def __init__(self, features: int = 32) -> None:
        super().__init__()
        if features < 1:
            raise UsageError(f"{features} features of an uncertainty; use 1 or more")
        self.weight = nn.Parameter(torch.zeros(features))

    def forward(self, t: Tensor) -> Tensor:
        """u at t (B,), in the type of its weights."""
        order = torch.arange(len(self.weight), device=t.device)
        basis = torch.cos(math.pi * t.double()[:, None] * order)
        u: Tensor = basis.to(self.weight) @ self.weight
        return u

    def evened(self, losses: Tensor, t: Tensor) -> Tensor:
        """L·e^(−u) + u for losses (B,) at times t (B,)."""
        u: Tensor = self(t).to(losses)
        return losses * torch.exp(-u) + u
