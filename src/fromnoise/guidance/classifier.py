"""Guidance by a classifier: towards what it would read as a class."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.tensors import expand
from fromnoise.denoisers import Bound, Denoiser, Prediction
from fromnoise.encoders import Label
from fromnoise.guidance.base import (
    Ask,
    Decode,
    Guide,
    Informed,
    Named,
    Part,
    Wrapper,
    each_has_one,
    finite_scale,
    moved,
    slope,
)
from fromnoise.guidance.named import Load, register
from fromnoise.guidance.noisy_classifier import NoisyClassifier, Opened
from fromnoise.guidance.scheduled import Tell
from fromnoise.layers.condition import Condition

Reads = Callable[..., Tensor]
"""Log-odds of each class (B, K), differentiable: of pictures in [−1, 1], or of (x_t, t)."""

LogOdds = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(x_t, t (B,), the belief where it is looked at) → log-odds (B, K)."""

LABEL = "label"
"""The name a class has in a condition."""

USUAL = 3.0
"""The scale of a classifier that is asked for by name without one; at 1, Bayes' rule, a trained one
steers too little (Dhariwal & Nichol 2021, section 4.3)."""

NO_LABEL = "guidance by a classifier needs a class to go to; give a label (--label 3)"

Through = Literal["x_t", "x0"]
"""What a classifier is shown: the noisy sample, or the belief about the clean one."""


class ClassifierGuided(Wrapper):
    """s' = s + w·∇_x log p(y | x_t), that is x̂0' = x̂0 + w·(σ²/α)·∇_x log p(y | x_t).

    In ε it is algorithm 2 of Dhariwal & Nichol 2021, ε' = ε − w·σ·∇; the ancestral sampler then
    moves its mean by w·β/√(1−β)·∇, and algorithm 1 by w·β·∇, the same for small β. Of several
    classes y with weights it follows Σ_y weight_y·log p(y | x_t).

    log_odds: (x_t, t, belief) → (B, K), differentiable in x_t. through: whether it looks at x_t
    or at the belief, whose gradient then goes through the denoiser. label: a class, or one for each
    sample, as the encoder `Label` takes them; None is the label in the condition. scale w: a
    number, or one for each sample (B,); 0 is no guidance and bit-identical to none. limit: see
    `moved`. known: the classes by name.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        log_odds: LogOdds,
        label: Any,
        scale: float | Tensor = 1.0,
        through: Through = "x_t",
        limit: float | None = None,
        known: Label | None = None,
    ) -> None:
        super().__init__(denoiser)
        self.log_odds = log_odds
        self.label = label
        self.scale = torch.as_tensor(scale, dtype=torch.float64)
        self.through = through
        self.limit = limit
        self.known = known

    def believe(self, ask: Ask, x: Tensor, t: Tensor, condition: Condition | None) -> Prediction:
        if bool((self.scale == 0).all()):
            return ask(x, t)
        if self.scale.ndim and self.scale.shape != x.shape[:1]:
            raise ShapeError(f"{len(self.scale)} classifier scales for {x.shape[0]} samples")
        if self.through == "x0":
            gradient, prediction = slope(
                ask, x, t, lambda leaf, belief: self._chosen(leaf, t, belief.x0, condition)
            )
        else:
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(self._chosen(leaf, t, None, condition), leaf)
            # Without gradients: the network is asked as it is without guidance.
            prediction = ask(x, t)
        scale = expand(self.scale, gradient) if self.scale.ndim else self.scale.item()
        return moved(prediction, scale * gradient, self.limit)

    def _chosen(
        self, x: Tensor, t: Tensor, belief: Tensor | None, condition: Condition | None
    ) -> Tensor:
        """Σ weight_y·log p(y | x), summed over the samples: each one's gradient is its own."""
        odds = self.log_odds(x, t, belief)
        return (self._weights(odds, condition) * odds.log_softmax(dim=1)).sum()

    def _weights(self, odds: Tensor, condition: Condition | None) -> Tensor:
        """What each class counts for each sample, (B, K)."""
        if self.label is not None:
            known = self.known or Label(odds.shape[1])
            return known.vector(self.label, len(odds)).to(odds)
        told = None
        if condition is not None:
            told = condition.vector.get(LABEL, condition.channels.get(LABEL))
        if told is None or told.ndim != 2:
            raise UsageError(NO_LABEL)
        if told.shape != odds.shape:
            raise UsageError(
                f"the label is one of {told.shape[1]} classes, and the classifier knows "
                f"{odds.shape[1]}; use one of the same classes"
            )
        return told.to(odds)


@dataclass(frozen=True, eq=False)
class ByClassifier(Informed):
    """The guide that `classifier` makes: calling it guides a denoiser.

    label None: each sample's label is that of the call, whether or not the network is told it.
    known: the classes of a noisy classifier. In a call each batch gets its samples' own labels and
    scales.
    """

    log_odds: Callable[[Denoiser, Decode], LogOdds]
    label: Any
    scale: float | Tensor
    through: Through
    limit: float | None
    known: Label | None

    def check(self, count: int) -> None:
        if _several(self.label):
            each_has_one("labels of a classifier", len(self.label), count)
        if isinstance(self.scale, Tensor) and self.scale.ndim:
            each_has_one("classifier scales", len(self.scale), count)

    def informed(self, tell: Tell, part: Part) -> Guide:
        del tell
        label = part.of(self.label) if _several(self.label) else self.label
        each = isinstance(self.scale, Tensor) and self.scale.ndim
        return replace(self, label=label, scale=part.of(self.scale) if each else self.scale)

    def __call__(self, denoiser: Denoiser, decode: Decode) -> Denoiser:
        return ClassifierGuided(
            denoiser,
            self.log_odds(denoiser, decode),
            self.label,
            self.scale,
            self.through,
            self.limit,
            self.known,
        )


def _several(label: Any) -> bool:
    """Whether a label is one for each sample."""
    return isinstance(label, Sequence) and not isinstance(label, str)


class Unheard(Denoiser):
    """The denoiser of a network that is not told its label, which guides are told all the same."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.process = denoiser.process

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        return self.denoiser(x, t, _without_label(condition))

    def bind(self, condition: Condition | None, grid: Tensor) -> Bound:
        return self.denoiser.bind(_without_label(condition), grid)


def _without_label(condition: Condition | None) -> Condition | None:
    if condition is None:
        return None
    vector = {name: value for name, value in condition.vector.items() if name != LABEL}
    return replace(condition, vector=vector, null=_without_label(condition.null))


def asks_label(guides: Iterable[Guide]) -> list[ByClassifier]:
    """Those of the guides that ask for the label of the call."""
    bare = [guide.guide if isinstance(guide, Named) else guide for guide in guides]
    return [one for one in bare if isinstance(one, ByClassifier) and one.label is None]


def classifier(
    by: Opened | NoisyClassifier | Reads,
    label: Any = None,
    scale: float | Tensor = 1.0,
    through: Through | None = None,
    limit: float | None = None,
) -> ByClassifier:
    """Guidance towards a class by a classifier of noisy samples, or of clean ones.

    by: a classifier's run as `fn.load` opens it; or a function that gives log-odds (B, K) and lets
    gradients through: of pictures (B, C, H, W) in [−1, 1], or of (x_t, t) with through="x_t".
    label: a class by number or name, one for each sample, or weights that mix classes; None takes
    the label that `sample` is given, which the network itself need not know.
    scale: 0 is none, 1 is Bayes' rule, above it more of the class; or one for each sample (B,).
    through: "x_t" shows it the noisy sample, as published; "x0" the belief about the clean one,
    whose gradient goes back through the network. By default "x_t" for a run, "x0" for a function.
    limit: the most that a belief may be moved, in standard deviations (see `fn.guidance.moved`).
    Raises UsageError for a label that is no class of it, a run that is no classifier's, and a scale
    or limit that cannot be.

    Reference: Dhariwal & Nichol 2021, section 4, algorithms 1 and 2; through the belief: Bansal et
    al. 2023, "Universal Guidance", eq. 6.
    """
    if limit is not None and not limit > 0:
        raise UsageError(f"a limit of {limit} leaves no guidance; use one above 0, or none")
    scale = finite_scale(scale, "classifier scale")
    if isinstance(label, Tensor | np.ndarray):
        label = label.tolist()
    if callable(by) and not isinstance(by, NoisyClassifier):
        return ByClassifier(_of_function(by), label, scale, through or "x0", limit, None)
    noisy = by if isinstance(by, NoisyClassifier) else NoisyClassifier.of(by)
    if label is not None:
        noisy.label.vector(label, len(label) if _several(label) else 1)
    return ByClassifier(_of_network(noisy), label, scale, through or "x_t", limit, noisy.label)


def _of_network(noisy: NoisyClassifier) -> Callable[[Denoiser, Decode], LogOdds]:
    def made(denoiser: Denoiser, decode: Decode) -> LogOdds:
        del decode

        def log_odds(x: Tensor, t: Tensor, belief: Tensor | None) -> Tensor:
            odds: Tensor
            if belief is None:
                odds = noisy(x, t, denoiser.process)
            else:
                odds = noisy(belief, torch.zeros_like(t))
            return odds

        return log_odds

    return made


def _of_function(reads: Reads) -> Callable[[Denoiser, Decode], LogOdds]:
    def made(denoiser: Denoiser, decode: Decode) -> LogOdds:
        del denoiser

        def log_odds(x: Tensor, t: Tensor, belief: Tensor | None) -> Tensor:
            return reads(x, t) if belief is None else reads(decode(belief))

        return log_odds

    return made


@register("classifier:RUN")
def _noisy(values: Sequence[str], scale: float | None, load: Load) -> Guide:
    return classifier(load(values[0]), scale=USUAL if scale is None else scale)


@register("classifier-x0:RUN")
def _clean(values: Sequence[str], scale: float | None, load: Load) -> Guide:
    return classifier(load(values[0]), scale=USUAL if scale is None else scale, through="x0")
