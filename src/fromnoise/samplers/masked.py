"""Samplers of masked tokens: which of them are shown at a step, and what they turn out to be.

x (B, K, ...) is one-hot over K codes and zero where a token is masked; a belief about x0 holds the
logits of each token. A token that is shown stays as it is.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import times
from fromnoise.denoisers import Bound, Prediction
from fromnoise.processes import hidden, one_hot
from fromnoise.samplers.arithmetic import ask, belief_of
from fromnoise.samplers.base import Sampler, State

_TINY = 1e-30


@dataclass(frozen=True)
class Unmask(Sampler):
    """The process backwards: x0 is drawn from the belief, and x_s from q(x_s | x_t, x0).

    Every masked token is shown with probability (m_t − m_s)/m_t by itself, so two that are shown in
    the same step know nothing of each other: exact as steps become many (Sahoo et al. 2024, "MDLM",
    eq. 6 and 7).
    """

    order = 0.0
    stochastic = True

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, State, Prediction]:
        here, there = (times(v, len(x), x.device) for v in (t, s))
        bound.process.share(here)
        prediction = ask(bound, x, t)
        tokens, _ = drawn(belief_of(prediction, x), x, noise)
        moved = bound.process.move(x, tokens, here, there, noise.normal(x[:, :1]))
        return moved, state, prediction


@dataclass(frozen=True)
class UnmaskInOrder(Sampler):
    """As many are shown at a step as the process shows on average, the most certain ones first.

    Of n tokens ⌊n·m(s)⌋ stay masked, and at least one is shown. Each draw from the belief has the
    score log p + `temperature`·s·g with g from the Gumbel distribution, and the lowest stay masked
    (Chang et al. 2022, "MaskGIT", section 3.2 and their code). A temperature of infinity leaves
    only g: tokens in random order, and with as many steps as tokens one at a time, which is exact
    for an exact belief (Uria et al. 2014, "A Deep and Tractable Density Estimator").

    The state is how many were masked to begin with over m of that time, (B,).
    """

    order = 0.0
    stochastic = True
    temperature: float = 4.5

    def with_eta(self, eta: float) -> "UnmaskInOrder":
        """Eta is the temperature: 0 shows the most certain ones."""
        if math.isinf(self.temperature):
            raise UsageError(f"tokens come in random order, so eta {eta} changes nothing; leave it")
        if not eta >= 0:
            raise UsageError(f"a temperature of {eta} is below 0")
        return replace(self, temperature=eta)

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, State, Prediction]:
        here, there = bound.process.share(torch.tensor([t, s], dtype=torch.float64)).tolist()
        masked = hidden(x).flatten(1)
        left = masked.sum(1)
        # In float64: 1 of 49 times 49 is less than 1 in float32, and two would be shown at once.
        whole = left.double() / here if state is None else state
        prediction = ask(bound, x, t)
        tokens, certainty = drawn(belief_of(prediction, x), x, noise)
        score = self._score(certainty, s, noise).flatten(1)
        # Rounding must not lose a token: a third of three is one.
        stay = torch.minimum(torch.floor(whole * there + 1e-9).long(), (left - 1).clamp(min=0))
        place = score.where(masked, math.inf).argsort(1).argsort(1)
        shown = (masked & (place >= stay[:, None])).reshape(certainty.shape)
        return torch.where(shown, tokens, x), whole, prediction

    def _score(self, certainty: Tensor, s: float, noise: Noise) -> Tensor:
        uniform = noise.uniform(certainty).clamp(_TINY, 1 - 2**-24)
        gumbel = -torch.log(-torch.log(uniform))
        if math.isinf(self.temperature):
            return gumbel
        return certainty + self.temperature * s * gumbel


def drawn(belief: Tensor, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """Tokens (B, K, ...) drawn from the logits `belief` (B, K, ...), and log p of each (B, 1, ...).

    One uniform number decides each token: the first code whose cumulated probability exceeds it.
    """
    logs = belief.double().log_softmax(1)
    uniform = noise.uniform(x[:, :1]).double()
    codes = (logs.exp().cumsum(1) <= uniform).sum(1, keepdim=True).clamp(max=x.shape[1] - 1)
    return one_hot(codes[:, 0], x), logs.gather(1, codes).to(x.dtype)
