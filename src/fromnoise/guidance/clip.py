"""Guidance by a text, judged by an image-text model: towards pictures it finds the text near to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.tensors import expand
from fromnoise.denoisers import Denoiser, Prediction
from fromnoise.guidance.base import (
    Ask,
    Decode,
    Guide,
    Informed,
    Part,
    Wrapper,
    each_has_one,
    finite_scale,
    moved,
    slope,
)
from fromnoise.guidance.classifier import Through
from fromnoise.guidance.cutouts import WHOLE, Cutouts
from fromnoise.guidance.matcher import CLEAN, PROMPT, Matcher, Opened
from fromnoise.guidance.named import Load, register
from fromnoise.guidance.scheduled import Tell
from fromnoise.layers.condition import Condition

USUAL = 1.0
"""The scale of a text that is asked for without one: Bayes' rule, as far as the model is right."""

NO_PROMPT = "guidance by a text needs one: give a prompt, or a text to the guide"

Distance = Literal["cosine", "spherical"]
"""How far a picture is from a text: 1 − cos, or 2·arcsin²(‖f − g‖/2), half the angle squared."""


class TextGuided(Wrapper):
    """s' = s + w·∇_x e^s·(1 − d(f, g)), that is x̂0' = x̂0 + w·(σ²/α)·∇_x e^s·(1 − d(f, g)).

    f is the direction of the noisy picture, f(x_t, t), or that of the belief's cut-outs in turn,
    over which 1 − d is averaged and whose gradient goes through the denoiser; g is the direction of
    the text; d their distance. Of several texts the sum is followed, each with its weight.

    goals: g (1, N, D) for all samples, or (B, N, D), with the weight of each text (N,); without
    them it can be made, and not asked. scale w: a number, or one for each sample (B,); 0 is no
    guidance and bit-identical to none. limit: see `moved`.
    Reference: of x_t, Nichol et al. 2021 (GLIDE), section 2.4; of x̂0, Crowson 2021.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        decode: Decode,
        matcher: Matcher,
        goals: tuple[Tensor, Tensor] | None,
        scale: float | Tensor = 1.0,
        through: Through = "x_t",
        cutouts: Cutouts = WHOLE,
        distance: Distance = "cosine",
        limit: float | None = None,
    ) -> None:
        super().__init__(denoiser)
        self.decode = decode
        self.matcher = matcher
        self.goals = goals
        self.scale = torch.as_tensor(scale, dtype=torch.float64)
        self.through = through
        self.cutouts = cutouts
        self.distance = distance
        self.limit = limit

    def believe(self, ask: Ask, x: Tensor, t: Tensor, condition: Condition | None) -> Prediction:
        if bool((self.scale == 0).all()):
            return ask(x, t)
        goals, _ = self._told()
        if self.scale.ndim and self.scale.shape != x.shape[:1]:
            raise ShapeError(f"{len(self.scale)} scales of a text for {x.shape[0]} samples")
        if self.through == "x0":
            gradient, prediction = slope(
                ask, x, t, lambda leaf, belief: self._fit(belief.x0, t).sum()
            )
        else:
            prediction = ask(x, t)
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                fit = self._near(self.matcher.pictures(leaf, t, self.process), goals)
                (gradient,) = torch.autograd.grad(fit.sum(), leaf)
        scale = expand(self.scale, gradient) if self.scale.ndim else self.scale.item()
        return moved(prediction, scale * gradient, self.limit)

    def _fit(self, x0: Tensor, t: Tensor) -> Tensor:
        """How near the belief's cut-outs are to the text, their mean, (B,)."""
        pictures = self.decode(x0)
        goals = self._told()[0].expand(len(pictures), -1, -1)
        size = self.matcher.net.tower.side or min(pictures.shape[2:])
        fits = torch.zeros(len(pictures), dtype=pictures.dtype)
        for time in sorted(set(t.tolist())):
            rows = (t == time).nonzero()[:, 0]
            cut = self.cutouts(pictures[rows], time, size)
            directions = self.matcher.pictures(cut.flatten(0, 1))
            near = self._near(directions, goals[rows].repeat(len(cut), 1, 1))
            fits = fits.index_put((rows,), near.reshape(cut.shape[:2]).mean(0))
        return fits

    def _near(self, pictures: Tensor, goals: Tensor) -> Tensor:
        """e^s·Σ weight·(1 − d) of directions (B, D) and goals (1 or B, N, D), (B,)."""
        cosine = (goals.to(pictures) * pictures[:, None]).sum(2)
        if self.distance == "spherical":
            chord = (2.0 - 2.0 * cosine).clamp(min=1e-12).sqrt()
            cosine = 1.0 - 2.0 * torch.arcsin((chord / 2.0).clamp(max=1.0 - 1e-6)) ** 2
        _, weights = self._told()
        return self.matcher.net.scale.detach() * (cosine @ weights.to(pictures))

    def _told(self) -> tuple[Tensor, Tensor]:
        if self.goals is None:
            raise UsageError(NO_PROMPT)
        return self.goals


@dataclass(frozen=True)
class ByText(Informed):
    """The guide that `clip` makes; see `TextGuided`. goals: None is the prompt of the call."""

    matcher: Matcher
    goals: tuple[Tensor, Tensor] | None
    scale: float | Tensor
    through: Through
    cutouts: Cutouts
    distance: Distance
    limit: float | None

    def check(self, count: int) -> None:
        if isinstance(self.scale, Tensor) and self.scale.ndim:
            each_has_one("scales of a text", len(self.scale), count)

    def informed(self, tell: Tell, part: Part) -> Guide:
        """The guide of one batch: to the prompt of each sample, that of the first step."""
        each = isinstance(self.scale, Tensor) and self.scale.ndim
        own = replace(self, scale=part.of(self.scale) if each else self.scale)
        if own.goals is not None:
            return own
        _, told = tell(self.matcher.conditioning)[0]
        if told is None or told.null is None or _same(told, told.null):
            raise UsageError(NO_PROMPT)
        with torch.no_grad():
            goals = self.matcher.directions(told.vector[PROMPT], part.dtype)
        return replace(own, goals=(goals[:, None], torch.ones(1)))

    def __call__(self, denoiser: Denoiser, decode: Decode) -> Denoiser:
        how = (self.scale, self.through, self.cutouts, self.distance, self.limit)
        return TextGuided(denoiser, decode, self.matcher, self.goals, *how)


def _same(told: Condition, null: Condition) -> bool:
    return torch.equal(told.vector[PROMPT], null.vector[PROMPT])


def clip(
    by: Opened | Matcher,
    prompt: str | Sequence[str] | None = None,
    scale: float | Tensor = USUAL,
    through: Through | None = None,
    cutouts: Cutouts | int | None = None,
    distance: Distance = "cosine",
    limit: float | None = None,
    weights: Sequence[float] | None = None,
) -> ByText:
    """Guidance towards a text by an image-text model, such as a run of `shapes-clip-noisy`.

    by: its run as `fn.load` opens it. prompt: a text, or several that are all followed, with
    `weights` (1 each), below 0 to move away from one; None takes the prompt that `sample` is given.
    scale: 0 is none, 1 is Bayes' rule as far as the model is right, above it more of the text; or
    one for each sample (B,).
    through: "x_t" shows it the noisy picture, which a model of noisy pictures can read; "x0" the
    belief about the clean one, whose gradient goes back through the network and the codec. By
    default what the model was trained on.
    cutouts: with "x0", how many random cut-outs it judges, or `Cutouts`; the whole by default.
    distance: "cosine" or "spherical", half the angle's square. limit: the most that a belief may be
    moved, in standard deviations (see `guidance.base.moved`).
    Raises UsageError for a model of another kind, an empty prompt, a scale or limit that cannot
    be, noisy pictures for a model of clean ones, and cut-outs of noisy pictures.

    Reference: Nichol et al. 2021 (GLIDE), section 2.4; cut-outs, Crowson 2021.
    """
    matcher = by if isinstance(by, Matcher) else Matcher.of(by)
    if limit is not None and not limit > 0:
        raise UsageError(f"a limit of {limit} leaves no guidance; use one above 0, or none")
    scale = finite_scale(scale, "the scale of a text,")
    cut = Cutouts(cutouts) if isinstance(cutouts, int) else cutouts or WHOLE
    shown: Through = through or ("x_t" if matcher.net.noisy and cut == WHOLE else "x0")
    if shown == "x_t" and not matcher.net.noisy:
        raise UsageError(CLEAN)
    if shown == "x_t" and cut.count:
        raise UsageError('cut-outs are made of the belief; use through="x0" with them')
    goals = None if prompt is None else _goals(matcher, prompt, weights)
    return ByText(matcher, goals, scale, shown, cut, distance, limit)


def _goals(
    matcher: Matcher, prompt: str | Sequence[str], weights: Sequence[float] | None
) -> tuple[Tensor, Tensor]:
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts or not all(text.strip() for text in prompts):
        raise UsageError("the text to go to is empty; say what the picture shall show")
    shares = [1.0] * len(prompts) if weights is None else list(weights)
    if len(shares) != len(prompts) or not all(math.isfinite(share) for share in shares):
        raise UsageError(f"weights {shares} of {len(prompts)} texts; give a finite one for each")
    with torch.no_grad():
        return matcher.texts(prompts)[None], torch.tensor(shares)


@register("clip:RUN:TEXT")
def _to_text(values: Sequence[str], scale: float | None, load: Load) -> Guide:
    return clip(load(values[0]), values[1], USUAL if scale is None else scale)


@register("clip-prompt:RUN")
def _to_prompt(values: Sequence[str], scale: float | None, load: Load) -> Guide:
    return clip(load(values[0]), None, USUAL if scale is None else scale)
