"""Guidance without a classifier: believe more of what the condition adds."""

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.tensors import expand
from fromnoise.denoisers import Bound, Denoiser, Prediction
from fromnoise.layers.condition import Condition, concatenate


class ClassifierFree(Denoiser):
    """x0 = x0(null) + w·(x0(condition) − x0(null)): Ho & Salimans 2022, eq. 6, their w plus 1.

    The same affine map holds for ε, v, score and flow. scale w: a number, or one for each sample
    (B,); 1 is no guidance and costs one evaluation, bit-identical to none. `negative` is what to
    move away from in place of the null. Both beliefs are formed in one batch.
    Raises UsageError when the condition has no null and no negative is given.
    """

    def __init__(
        self, denoiser: Denoiser, scale: float | Tensor, negative: Condition | None = None
    ) -> None:
        self.denoiser = denoiser
        self.process = denoiser.process
        self.scale = torch.as_tensor(scale, dtype=torch.float64)
        self.negative = negative

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        if bool((self.scale == 1).all()):
            return self.denoiser(x, t, condition)
        both = self.denoiser(torch.cat([x, x]), torch.cat([t, t]), self._both(condition))
        return self._combine(both, x, t)

    def bind(self, condition: Condition | None, grid: Tensor) -> Bound:
        if bool((self.scale == 1).all()):
            return self.denoiser.bind(condition, grid)
        return _Guided(self, self.denoiser.bind(self._both(condition), grid))

    def _both(self, condition: Condition | None) -> Condition:
        null = self.negative
        if null is None and condition is not None:
            null = condition.null
        if condition is None or null is None:
            raise UsageError(
                "guidance needs a condition with a null: a label or prompt, and a model trained "
                "with condition dropout; leave guidance at 1 otherwise"
            )
        return concatenate(condition, null)

    def _combine(self, both: Prediction, x: Tensor, t: Tensor) -> Prediction:
        if self.scale.ndim and self.scale.shape != x.shape[:1]:
            raise ShapeError(f"{len(self.scale)} guidance scales for {x.shape[0]} samples")
        told, null = both.x0.chunk(2)
        scale = expand(self.scale.to(x), x) if self.scale.ndim else self.scale.item()
        x0 = null + scale * (told - null)
        fraction = None if both.var_fraction is None else both.var_fraction.chunk(2)[0]
        return Prediction(x0, x, t, both.process, var_fraction=fraction)


class _Guided(Bound):
    def __init__(self, guidance: ClassifierFree, inner: Bound) -> None:
        self._guidance = guidance
        self._inner = inner
        self.process = inner.process

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        both = self._inner(torch.cat([x, x]), torch.cat([t, t]))
        return self._guidance._combine(both, x, t)
