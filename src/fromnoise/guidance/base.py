"""What a guide is, and what every guide is made of."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.tensors import expand
from fromnoise.denoisers import Bound, Denoiser, Prediction
from fromnoise.guidance.scheduled import Tell
from fromnoise.layers.condition import Condition

Decode = Callable[[Tensor], Tensor]
"""x0 as it is diffused → data (pictures in [−1, 1]); differentiable, the identity for pixels."""

Guide = Callable[[Denoiser, Decode], Denoiser]
"""What makes a guided denoiser of a denoiser, once it is known which one and what it draws."""

Ask = Callable[[Tensor, Tensor], Prediction]
"""The denoiser below, its condition given: (x (B, ...), t (B,)) → its belief."""

FAINT = 1e-3
"""Below this α/σ nothing can be read of a belief's gradient: the belief is left as it is."""


class Wrapper(Denoiser, ABC):
    """A denoiser that asks another one, as often as it likes, and changes what it believes.

    `believe` is all there is to write. It holds for one call and for a run alike, and must
    remember nothing: what remembers writes a `bind` of its own.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.process = denoiser.process

    @abstractmethod
    def believe(self, ask: Ask, x: Tensor, t: Tensor, condition: Condition | None) -> Prediction:
        """The belief at x (B, ...), t (B,), from that of `ask(x, t)`."""

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        return self.believe(lambda x, t: self.denoiser(x, t, condition), x, t, condition)

    def bind(self, condition: Condition | None, grid: Tensor) -> Bound:
        return _Run(self, self.denoiser.bind(condition, grid), condition)


class _Run(Bound):
    def __init__(self, wrapper: Wrapper, inner: Bound, condition: Condition | None) -> None:
        self.process = inner.process
        self._wrapper = wrapper
        self._inner = inner
        self._condition = condition

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        return self._wrapper.believe(self._inner, x, t, self._condition)


@dataclass(frozen=True)
class Part:
    """The samples of a call that one batch holds.

    index (B,): which of them; a batch that is filled up holds its last one several times.
    dtype: what the network is run in.
    """

    index: Tensor
    dtype: torch.dtype = torch.float32

    def of(self, values: Any) -> Any:
        """What of values, a tensor or a sequence with one for each sample, is of these."""
        if isinstance(values, Tensor):
            return values[self.index.to(values.device)]
        return [values[i] for i in self.index.tolist()]


class Informed(ABC):
    """A guide that wants to know which samples it guides, or what the model is told of them."""

    def check(self, count: int) -> None:
        """Raise ShapeError where it has a value for each sample, and not for `count` of them."""
        del count

    @abstractmethod
    def informed(self, tell: Tell, part: Part) -> Guide:
        """The guide for one batch; `tell(conditioning)` is what is asked, by those encoders."""

    @abstractmethod
    def __call__(self, denoiser: Denoiser, decode: Decode) -> Denoiser:
        """The guided denoiser, as any guide gives it."""


@dataclass(frozen=True)
class Named(Informed):
    """A guide that was asked for by a text, such as "color:blue:20": so it can be asked again.

    used: the fingerprints of the models and files that the text names, by those names.
    """

    text: str
    guide: Guide
    used: Mapping[str, str] = field(default_factory=dict)

    def check(self, count: int) -> None:
        if isinstance(self.guide, Informed):
            self.guide.check(count)

    def informed(self, tell: Tell, part: Part) -> Guide:
        return self.guide.informed(tell, part) if isinstance(self.guide, Informed) else self.guide

    def __call__(self, denoiser: Denoiser, decode: Decode) -> Denoiser:
        return self.guide(denoiser, decode)


def each_has_one(what: str, given: int, count: int) -> None:
    """Raise ShapeError where values for each sample are not as many as the samples."""
    if given != count:
        raise ShapeError(f"{given} {what} given for {count} samples; give one each")


def finite_scale(scale: float | Tensor | Sequence[float], what: str) -> float | Tensor:
    """A scale, or one for each sample (B,), as it is; UsageError for what is none."""
    try:
        values = torch.as_tensor(scale, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"{what} {scale!r:.60} is no number, nor one for each sample") from None
    if not bool(torch.isfinite(values).all()):
        raise UsageError(f"{what} {scale} is not finite")
    if values.ndim > 1:
        raise ShapeError(f"{what} of shape {tuple(values.shape)}; give a number, or (B,)")
    return values if values.ndim else values.item()


def slope(
    ask: Ask, x: Tensor, t: Tensor, value: Callable[[Tensor, Prediction], Tensor]
) -> tuple[Tensor, Prediction]:
    """∇_x of value(x, belief at x), a number summed over the samples, (B, ...), and the belief.

    Where a guide around this one asks for a gradient itself, the belief lets it through: it goes
    through the network, and what this one adds counts as constant in it. Raises UsageError for a
    gradient that is not there or not finite.
    """
    around = x.requires_grad and torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = x if around else x.detach().requires_grad_()
        prediction = ask(leaf, t)
        total = value(leaf, prediction)
        if not total.requires_grad:
            raise UsageError("the guide does not depend on x in a way that gradients can follow")
        (gradient,) = torch.autograd.grad(total, leaf, retain_graph=around)
    if not bool(torch.isfinite(gradient).all()):
        raise UsageError(
            "the gradient of a guide is not finite; a square root at 0 is the usual cause: add a "
            "little inside it"
        )
    if around:
        return gradient, prediction
    fraction = prediction.var_fraction
    fraction = None if fraction is None else fraction.detach()
    return gradient, replace(prediction, x0=prediction.x0.detach(), x=x, var_fraction=fraction)


def moved(prediction: Prediction, gradient: Tensor, limit: float | None = None) -> Prediction:
    """The belief once ∇_x log p(y | x_t), `gradient` (B, ...), is added to its score.

    x̂0' = x̂0 + (σ²/α)·∇_x log p(y | x_t), which is s' = s + ∇_x log p(y | x_t) in the score
    (Dhariwal & Nichol 2021, section 4.2; Chung et al. 2023, eq. 7). Where α/σ < 1e-3 the belief is
    left as it is: x says nothing of x0 there.

    limit: the most that a belief may be moved, as the root mean square over one sample, in
    standard deviations of x0 given x_t for data of spread 1/2, σ/√(α² + 4σ²); None for no limit.
    A longer move is shortened to it and keeps its direction. Raises UsageError for a limit that
    is not above 0, and for a process without noise.
    """
    if limit is not None and not limit > 0:
        raise UsageError(f"a limit of {limit} leaves no guidance; use one above 0, or none")
    process = prediction.process
    alpha, sigma = process.scales(prediction.t, prediction.x)
    gain = torch.where(alpha > FAINT * sigma, sigma**2 / alpha.clamp(min=1e-12), 0.0)
    score = process.analyse(gradient.to(prediction.x.dtype))
    move = process.synthesise(gain.to(prediction.x) * score)
    if limit is not None:
        alpha, sigma = process.reference(prediction.t)
        most = limit * sigma / torch.sqrt(alpha**2 + 4.0 * sigma**2)
        size = move.double().flatten(1).square().mean(dim=1).sqrt()
        share = torch.where(size > most, most / size.clamp(min=1e-30), 1.0)
        move = move * expand(share, move)
    return replace(prediction, x0=prediction.x0 + move.to(prediction.x0.dtype), var=None)
