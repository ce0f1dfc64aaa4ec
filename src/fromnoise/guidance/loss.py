"""Guidance by any function of the picture: its gradient goes through the network."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.denoisers import Denoiser, Prediction
from fromnoise.guidance.base import Ask, Decode, Guide, Wrapper, moved, slope
from fromnoise.guidance.classifier_free import ALWAYS, Interval, checked_interval
from fromnoise.layers.condition import Condition

Loss = Callable[[Tensor], Tensor]
"""Pictures (B, C, H, W) in [−1, 1], or points (B, D) → a number for each (B,), or one for all."""

Scale = float | Callable[[Tensor, Tensor], Tensor]
"""A number, or a function of α and σ, each (B,) float64, that gives one for each sample (B,)."""


class LossGuided(Wrapper):
    """s' = s − w·∇_x L(x̂0(x)), that is x̂0' = x̂0 − w·(σ²/α)·∇_x L(x̂0(x)).

    It is guidance by log p(y | x_t) = −w·L(x̂0(x_t)) + const. With x0 ~ N(m, C) and y = A·x0 + n,
    p(y | x_t) is a Gaussian around A·x̂0(x_t), so L = ‖y − A·x0‖²/2 with
    w = 1/(σ_y² + A·Cov[x0 | x_t]·Aᵀ) is exact. For other data it is what is left when the spread
    of x0 given x_t is passed over (Chung et al. 2023, "DPS", eq. 11; Bansal et al. 2023,
    "Universal Guidance", eq. 6).

    scale w: a number (0 is bit-identical to none), or a function of (α, σ). limit: see `moved`.
    interval: the times [low, high] in which it acts.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        decode: Decode,
        loss: Loss,
        scale: Scale = 1.0,
        limit: float | None = None,
        interval: Interval = ALWAYS,
    ) -> None:
        super().__init__(denoiser)
        self.decode = decode
        self.loss = loss
        self.scale = scale
        self.limit = limit
        self.interval = checked_interval(interval)

    def believe(self, ask: Ask, x: Tensor, t: Tensor, condition: Condition | None) -> Prediction:
        scale = self._at(t)
        if scale is None:
            return ask(x, t)

        def log_prob(leaf: Tensor, belief: Prediction) -> Tensor:
            del leaf
            losses = self._losses(self.decode(belief.x0))
            return -(scale.to(losses) * losses).sum()

        gradient, prediction = slope(ask, x, t, log_prob)
        return moved(prediction, gradient, self.limit)

    def _at(self, t: Tensor) -> Tensor | None:
        """The scale of each sample (B,); None where none of them is guided."""
        low, high = self.interval
        inside = (t >= low) & (t <= high)
        scale = self.scale(*self.process.reference(t)) if callable(self.scale) else self.scale
        weights = torch.where(inside, torch.as_tensor(scale, dtype=torch.float64), 0.0)
        return None if bool((weights == 0).all()) else weights

    def _losses(self, pictures: Tensor) -> Tensor:
        """A loss for each sample (B,), so that none depends on its neighbours."""
        found = self.loss(pictures)
        if isinstance(found, Tensor) and found.ndim == 0:
            # One number for all: asked one by one, so that the batch does not change it.
            each = [self.loss(pictures[i : i + 1]) for i in range(len(pictures))]
            found = torch.stack(each)
        if not isinstance(found, Tensor) or found.shape[:1] != pictures.shape[:1]:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ShapeError(
                f"a loss of {len(pictures)} pictures is one number, or one for each, not {shape}"
            )
        if not found.requires_grad:
            raise UsageError(
                "the loss does not depend on the picture in a way gradients can follow"
            )
        return found.flatten(1).sum(dim=1) if found.ndim > 1 else found


def loss(
    function: Loss,
    scale: Scale = 1.0,
    limit: float | None = None,
    interval: Interval = ALWAYS,
) -> Guide:
    """A guide towards pictures for which a function is small.

    `fn.guidance.loss(lambda x0: (x0[:, 2].mean((1, 2)) - 1) ** 2, scale=50)` asks for blue. The
    function is given pictures (B, C, H, W) in [−1, 1], or points (B, D), and gives one number for
    each. One that gives a single number is asked for each picture by itself. Each step costs the
    network's gradient: about three times its evaluation.

    scale: log p(y | x0) = −scale·function(x0); a number, or a function of (α, σ). The exact form
    is the default; limit=1 keeps a scale that is too large for it from breaking pictures (see
    `fn.guidance.moved`). interval: the times [low, high] in which it acts.
    Raises UsageError for a scale, limit or interval that is none.
    """
    if not callable(function):
        raise UsageError(f"{function!r} is no function of pictures")
    if not callable(scale) and not math.isfinite(scale):
        raise UsageError(f"scale {scale} is not finite")
    if limit is not None and not limit > 0:
        raise UsageError(f"a limit of {limit} leaves no guidance; use one above 0, or none")
    times = checked_interval(interval)

    def guide(denoiser: Denoiser, decode: Decode) -> Denoiser:
        return LossGuided(denoiser, decode, function, scale, limit, times)

    return guide
