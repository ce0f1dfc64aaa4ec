"""Tokens that disappear behind a mask."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.special import ndtr

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.processes.base import PROCESSES, Noiseless


@PROCESSES.register("absorbing")
class Absorbing(Noiseless):
    """Tokens disappear behind a mask: at time t each of them is hidden with probability m(t).

    x0 (B, K, ...) is one-hot over K codes, and a masked token is zero in all of them. Once hidden,
    a token stays so: D3PM with an absorbing state (Austin et al. 2021, section 3.1).

    mask: m(t), `linear` t or `cosine` sin(πt/2), which hides early what is left to find at once
    (Chang et al. 2022, "MaskGIT", section 3.3, its γ at 1 − t).
    Tokens are hidden and shown by the first number of the noise, Φ(ε) < m: nothing else is drawn.
    """

    missing = (
        "masked tokens have no noise; sample them with unmask, unmask_even or maskgit, and leave "
        "out guides that need gradients"
    )

    def __init__(self, mask: Literal["linear", "cosine"] = "linear") -> None:
        super().__init__()
        self.mask = mask

    def share(self, t: Tensor) -> Tensor:
        t = t.double()
        return t if self.mask == "linear" else torch.sin(0.5 * math.pi * t)

    def rate(self, t: Tensor) -> Tensor:
        """m'(t)/m(t) (B,): the weight of the likelihood bound (Sahoo et al. 2024, eq. 10)."""
        t = t.double()
        if self.mask == "linear":
            return 1.0 / t
        return 0.5 * math.pi / torch.tan(0.5 * math.pi * t)

    def corrupt(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x0 (B, K, ...) but for what is hidden; a belief counts as its likeliest tokens."""
        tokens = one_hot(x0.argmax(1), x0)
        return torch.where(_below(noise, self.share(t)), 0.0, tokens)

    def move(
        self, x: Tensor, x0: Tensor, t: Tensor, s: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """x_s given x_t and tokens x0 (Sahoo et al. 2024, "MDLM", eq. 6).

        Towards the data each hidden token is shown with probability (m_t − m_s)/m_t, and the
        others stay as they are; away from it each token is hidden with (m_s − m_t)/(1 − m_t).
        Raises UsageError without noise: nothing in x_t says which token comes next.
        """
        if noise is None:
            raise UsageError(self.missing)
        here, there = self.share(t), self.share(s)
        shown = torch.where(here > 0, (here - there) / here.clamp(min=1e-300), 0.0)
        lost = torch.where(here < 1, (there - here) / (1.0 - here).clamp(min=1e-300), 0.0)
        found = torch.where(hidden(x) & _below(noise, shown), x0, x)
        return torch.where(_below(noise, lost), 0.0, found)

    def prior(self, noise: Noise, like: Tensor, t: float = 1.0) -> Tensor:
        """Every token hidden."""
        return torch.zeros_like(like)


def hidden(x: Tensor) -> Tensor:
    """Which tokens of x (B, K, ...) are masked, (B, 1, ...)."""
    return (x == 0).all(1, keepdim=True)


def one_hot(codes: Tensor, like: Tensor) -> Tensor:
    """Codes (B, ...) as tokens (B, K, ...) of the shape and type of `like`."""
    return torch.zeros_like(like).scatter_(1, codes[:, None], 1.0)


def _below(noise: Tensor, chance: Tensor) -> Tensor:
    """Φ(ε) < chance (B,) by the first number of ε (B, K, ...) at each place, (B, 1, ...)."""
    first: Tensor = ndtr(noise[:, :1].double())
    return first < chance.to(noise.device).reshape((-1,) + (1,) * (noise.ndim - 1))
