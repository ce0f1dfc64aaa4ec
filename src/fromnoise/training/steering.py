"""How a degradation with parameters is trained: so that what must be restored grows evenly."""

from typing import Any

import torch
from torch import Tensor, nn

_SLOW = 0.1


class _Rescaled(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a factor for each sample."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        (gradient,) = gradients
        return gradient * factor.reshape([-1] + [1] * (gradient.ndim - 1)), None


class Steering(nn.Module):
    """Trains D of x_t = D(x0, t) towards a restoration error that rises in a straight line.

    With e(t) the mean squared error of what the network restores, D descends Σ (e(t) − t·e(1))²/2:
    its gradient is (e(t) − t·e(1))·∂e/∂D, so a time whose error is above the line gets less
    degradation and one below it more. Descending e itself would take the degradation away. Each
    step of a walk on evenly spaced times then has as much to restore as any other.
    e is a running mean over `bins` of time; until every bin is seen, D stays. The gradient of the
    network is left as it is: both are had from one backward pass.

    The aim is that of time warping (Dieleman et al. 2022, "Continuous Diffusion for Categorical
    Data"), with parameters of the degradation in place of a map of time.
    """

    errors: Tensor
    known: Tensor

    def __init__(self, bins: int = 20) -> None:
        super().__init__()
        self.register_buffer("errors", torch.zeros(bins, dtype=torch.float64))
        self.register_buffer("known", torch.zeros(bins, dtype=torch.bool))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x_t (B, ...) as it is; the gradient that comes back through it is the steered one."""
        return _Rescaled.apply(x, self.excess(t).to(x))  # type: ignore[no-any-return, no-untyped-call]

    def excess(self, t: Tensor) -> Tensor:
        """(e(t) − t·e(1))/e(1) at t (B,); 0 until every bin is known."""
        if not bool(self.known.all()):
            return torch.zeros_like(t)
        bins = len(self.errors)
        # Bin means stand at the middles of their bins; e(0) is 0, and e(1) continues the last two.
        last = 1.5 * self.errors[-1] - 0.5 * self.errors[-2]
        knots = torch.cat([self.errors.new_zeros(1), self.errors, last[None]])
        place = torch.cat(
            [knots.new_zeros(1), (torch.arange(bins).to(knots) + 0.5) / bins, knots.new_ones(1)]
        )
        t = t.to(knots)
        right = torch.searchsorted(place, t).clamp(1, len(place) - 1)
        a, b = place[right - 1], place[right]
        error = torch.lerp(knots[right - 1], knots[right], (t - a) / (b - a))
        return error / last - t

    def observe(self, t: Tensor, errors: Tensor) -> None:
        """Take in the errors (B,) of a step at times t (B,)."""
        bins = len(self.errors)
        index = (t.to(self.errors) * bins).long().clamp(max=bins - 1)
        count = torch.zeros_like(self.errors).index_add_(
            0, index, torch.ones_like(self.errors[index])
        )
        total = torch.zeros_like(self.errors).index_add_(0, index, errors.to(self.errors))
        seen = count > 0
        mean = total / count.clamp(min=1)
        moved = torch.where(self.known, self.errors + _SLOW * (mean - self.errors), mean)
        self.errors.copy_(torch.where(seen, moved, self.errors))
        self.known |= seen
