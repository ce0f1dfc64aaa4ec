"""Guidance by a worse copy of the model itself: away from the mistakes it makes more of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.denoisers import Bound, Denoiser, NetworkDenoiser, Prediction
from fromnoise.encoders import Conditioning
from fromnoise.guidance.base import Decode, Guide, Informed, Part
from fromnoise.guidance.classifier_free import ALWAYS, Interval, checked_interval
from fromnoise.guidance.named import Load, register
from fromnoise.guidance.scheduled import Scheduled, Tell, Told
from fromnoise.guidance.self_conditioning import SelfConditioning
from fromnoise.layers.condition import Condition
from fromnoise.nets.base import SELF
from fromnoise.processes import Process

USUAL = 2.0
"""The scale where none is given: Karras et al. 2024 use 1.4 to 2.4."""


class Opened(Protocol):
    """A model as `fn.load` opens it."""

    denoiser: NetworkDenoiser
    conditioning: Conditioning

    def prepared(self, dtype: torch.dtype) -> NetworkDenoiser:
        """Its denoiser, ready to be run in a type."""
        ...


class AutoGuided(Denoiser):
    """x̂0 = D_worse + w·(D − D_worse): Karras et al. 2024, "Guiding a Diffusion Model with a Bad
    Version of Itself", eq. 2 with eq. 3.

    worse: a smaller or less trained model of the same data, process and condition. scale w: 1 is
    no guidance, costs one evaluation and is bit-identical to none; so is any time outside
    `interval`. told: what the worse one is told; None is what this one is.
    Raises UsageError for a process that is not the same.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        worse: Denoiser,
        scale: float,
        interval: Interval = ALWAYS,
        told: Told | None = None,
    ) -> None:
        if not _alike(denoiser.process, worse.process):
            raise UsageError(
                "autoguidance needs a worse copy of the model: this one is of another noise "
                "schedule; train both by one recipe"
            )
        self.denoiser = denoiser
        self.process = denoiser.process
        self.worse = worse if told is None else Scheduled(worse, told)
        self.scale = scale
        self.interval = checked_interval(interval)
        self.told = told

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        good = self.denoiser(x, t, condition)
        told = condition if self.told is None else self.told[0][1]
        return self._combine(good, self.worse(x, t, told)) if self._acts(t) else good

    def bind(self, condition: Condition | None, grid: Tensor) -> Bound:
        good = self.denoiser.bind(condition, grid)
        return good if self.scale == 1 else _Both(self, good, self.worse.bind(condition, grid))

    def _acts(self, t: Tensor) -> bool:
        low, high = self.interval
        return self.scale != 1 and bool(((t >= low) & (t <= high)).any())

    def _combine(self, good: Prediction, worse: Prediction) -> Prediction:
        low, high = self.interval
        inside = (good.t >= low) & (good.t <= high)
        bad = worse.x0.to(good.x0)
        x0 = bad + self.scale * (good.x0 - bad)
        inside = inside.reshape((-1,) + (1,) * (x0.ndim - 1))
        x0 = torch.where(inside, x0, good.x0)
        return Prediction(x0, good.x, good.t, good.process, var_fraction=good.var_fraction)


class _Both(Bound):
    def __init__(self, guidance: AutoGuided, good: Bound, worse: Bound) -> None:
        self.process = good.process
        self._guidance = guidance
        self._good = good
        self._worse = worse

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        good = self._good(x, t)
        guidance = self._guidance
        return guidance._combine(good, self._worse(x, t)) if guidance._acts(t) else good


@dataclass(frozen=True)
class Auto(Informed):
    """The guide that `auto` makes: told what is asked of the model, it tells the worse one too.

    dtype: what the worse one is run in; None is the type it is in.
    """

    worse: Denoiser | Opened
    scale: float
    interval: Interval
    told: Told | None = None
    dtype: torch.dtype | None = None

    def informed(self, tell: Tell, part: Part) -> Guide:
        if isinstance(self.worse, Denoiser):
            return self
        # A worse copy may have encoders of its own, which were trained less too.
        return replace(self, told=tell(self.worse.conditioning), dtype=part.dtype)

    def __call__(self, denoiser: Denoiser, decode: Decode) -> Denoiser:
        del decode
        worse = self.worse
        if not isinstance(worse, Denoiser):
            asked = worse.denoiser if self.dtype is None else worse.prepared(self.dtype)
            shown = SELF in worse.denoiser.net.accepts.channels
            worse = SelfConditioning(asked) if shown else asked
        return AutoGuided(denoiser, worse, self.scale, self.interval, self.told)


def auto(worse: Denoiser | Opened, scale: float = USUAL, interval: Interval = ALWAYS) -> Guide:
    """A guide away from what a worse copy of the model believes.

    worse: an early checkpoint, or a smaller model of the same data and recipe, as `fn.load` opens
    it; it is told what the model is told. Or a denoiser, which is given the model's own condition.
    scale: 1 is none. interval: the times [low, high] in which it acts.
    Each step costs an evaluation of either. Raises UsageError for a scale that is not finite, and
    where it is applied for a model of another noise schedule.

    Reference: Karras et al. 2024, "Guiding a Diffusion Model with a Bad Version of Itself".
    """
    if not math.isfinite(scale):
        raise UsageError(f"scale {scale} is not finite")
    return Auto(worse, float(scale), checked_interval(interval))


@register("auto:RUN")
def _named(values: Sequence[str], scale: float | None, load: Load) -> Guide:
    return auto(load(values[0]), USUAL if scale is None else scale)


def _alike(one: Process, other: Process) -> bool:
    """Whether x at a time means the same to both: the scales agree at all times."""
    if one is other:
        return True
    if one.noisy != other.noisy or type(one) is not type(other):
        return False
    t = torch.linspace(0.05, 1.0, 20, dtype=torch.float64)
    pairs = zip(one.reference(t), other.reference(t), strict=True)
    return all(torch.allclose(a, b, rtol=1e-6, atol=1e-9) for a, b in pairs)
