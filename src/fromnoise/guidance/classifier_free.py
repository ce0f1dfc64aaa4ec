"""Guidance without a classifier: believe more of what the condition adds."""

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.tensors import expand
from fromnoise.denoisers import Bound, Denoiser, Prediction
from fromnoise.layers.attention import during
from fromnoise.layers.condition import Condition, concatenate

Interval = tuple[float, float]
"""The times [low, high] in which guidance acts."""

ALWAYS: Interval = (0.0, 1.0)


class ClassifierFree(Denoiser):
    """x0 = x0(null) + w·(x0(condition) − x0(null)): Ho & Salimans 2022, eq. 6, their w plus 1.

    The same affine map holds for ε, v, score and flow. scale w: a number, or one for each sample
    (B,); 1 is no guidance and costs one evaluation, bit-identical to none. `negative` is what to
    move away from in place of the null. Both beliefs are formed in one batch.

    interval: the times [low, high] in which it acts (Kynkäänniemi et al. 2024); at others it costs
    one evaluation and is bit-identical to none. rescale: the share φ of x0·std(x0(condition))/
    std(x0) in what is believed, each deviation that of one sample (Lin et al. 2023, section 3.4;
    they use 0.7). Rescaling is no affine map, and this one is of x0.
    Raises UsageError when the condition has no null and no negative is given, for an interval that
    is not one of times, and for a share that is none.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        scale: float | Tensor,
        negative: Condition | None = None,
        interval: Interval = ALWAYS,
        rescale: float = 0.0,
    ) -> None:
        self.denoiser = denoiser
        self.process = denoiser.process
        self.scale = torch.as_tensor(scale, dtype=torch.float64)
        self.negative = negative
        self.interval = checked_interval(interval)
        self.rescale = checked_rescale(rescale)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        scale = self._at(t, x)
        if scale is None:
            return self.denoiser(x, t, condition)
        with during(told=_first_half(x)):
            both = self.denoiser(torch.cat([x, x]), torch.cat([t, t]), self._both(condition))
        return self._combine(both, x, t, scale)

    def bind(self, condition: Condition | None, grid: Tensor) -> Bound:
        if bool((self.scale == 1).all()):
            return self.denoiser.bind(condition, grid)
        return _Guided(self, condition, self._both(condition), grid)

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

    def _at(self, t: Tensor, x: Tensor) -> Tensor | None:
        """The scale of each sample (B,) at its time; None where none of them is guided."""
        if self.scale.ndim and self.scale.shape != x.shape[:1]:
            raise ShapeError(f"{len(self.scale)} guidance scales for {x.shape[0]} samples")
        low, high = self.interval
        inside = (t >= low) & (t <= high)
        scale = torch.where(inside, self.scale.to(t.device), 1.0)
        return None if bool((scale == 1).all()) else scale

    def _combine(self, both: Prediction, x: Tensor, t: Tensor, scale: Tensor) -> Prediction:
        told, null = both.x0.chunk(2)
        x0 = null + expand(scale, told) * (told - null)
        if self.rescale:
            factor = 1.0 + self.rescale * (_spread(told, x0) - 1.0)
            # What is not guided is left as it is.
            x0 = expand(torch.where(scale == 1, 1.0, factor), x0) * x0
        fraction = None if both.var_fraction is None else both.var_fraction.chunk(2)[0]
        return Prediction(x0, x, t, both.process, var_fraction=fraction)


class _Guided(Bound):
    """A run that asks in pairs where guidance acts, and once where it does not."""

    def __init__(
        self, guidance: ClassifierFree, told: Condition | None, both: Condition, grid: Tensor
    ) -> None:
        self.process = guidance.process
        self._guidance = guidance
        self._conditions = {True: both, False: told}
        self._grid = grid
        self._bound: tuple[bool, Bound] | None = None

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        scale = self._guidance._at(t, x)
        if scale is None:
            return self._inner(False)(x, t)
        inner = self._inner(True)
        with during(told=_first_half(x)):
            both = inner(torch.cat([x, x]), torch.cat([t, t]))
        return self._guidance._combine(both, x, t, scale)

    def _inner(self, pairs: bool) -> Bound:
        # What a run remembers is of one batch: at either end of the interval it begins anew.
        if self._bound is None or self._bound[0] != pairs:
            bound = self._guidance.denoiser.bind(self._conditions[pairs], self._grid)
            self._bound = (pairs, bound)
        return self._bound[1]


def _first_half(x: Tensor) -> Tensor:
    """Which rows of a pair of batches are told something, for attention hooks."""
    return torch.arange(2 * len(x), device=x.device) < len(x)


def _spread(told: Tensor, guided: Tensor) -> Tensor:
    """std(told)/std(guided) of each sample (B,), 1 where there is nothing to divide by."""
    wanted, found = (part.double().flatten(1).std(dim=1, correction=0) for part in (told, guided))
    return torch.where(found > 0, wanted / found.clamp(min=1e-30), 1.0)


def checked_interval(interval: Interval) -> Interval:
    """The interval, if it is one of times in [0, 1]; UsageError otherwise."""
    try:
        low, high = (float(end) for end in interval)
    except (TypeError, ValueError):
        raise UsageError(f"the interval {interval!r:.60} is not two times (low, high)") from None
    if not 0.0 <= low < high <= 1.0:
        raise UsageError(
            f"guidance cannot act from t = {low:g} to {high:g}; give two times in [0, 1], the "
            "lower first (0 is data, 1 is noise)"
        )
    return low, high


def checked_rescale(share: float) -> float:
    """The share, if it is one from 0 to 1; UsageError otherwise."""
    if not (isinstance(share, int | float) and 0.0 <= share <= 1.0):
        raise UsageError(f"rescale {share} is not a share from 0 (none) to 1")
    return float(share)
