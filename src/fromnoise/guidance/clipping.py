"""A belief kept inside the range of the data."""

from dataclasses import replace

from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.denoisers import Bound, Denoiser, Prediction
from fromnoise.layers.condition import Condition


class Clipped(Denoiser):
    """x̂0 = clip(D(x_t, t, condition), −limit, limit), and so ε and every other view with it.

    Published DDPM samples its pictures so, at limit 1 (Ho, Jain & Abbeel 2020, their code). Wrap
    it around guidance, which moves the belief. Raises UsageError unless `limit` is above 0.
    """

    def __init__(self, denoiser: Denoiser, limit: float = 1.0) -> None:
        if not limit > 0:
            raise UsageError(f"clipping to {limit} leaves nothing; use a limit above 0")
        self.denoiser = denoiser
        self.process = denoiser.process
        self.limit = limit

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        return _clipped(self.denoiser(x, t, condition), self.limit)

    def bind(self, condition: Condition | None, grid: Tensor) -> Bound:
        return _ClippedRun(self.denoiser.bind(condition, grid), self.limit)


class _ClippedRun(Bound):
    def __init__(self, bound: Bound, limit: float) -> None:
        self.process = bound.process
        self._bound = bound
        self._limit = limit

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        return _clipped(self._bound(x, t), self._limit)


def _clipped(prediction: Prediction, limit: float) -> Prediction:
    return replace(prediction, x0=prediction.x0.clamp(-limit, limit))
