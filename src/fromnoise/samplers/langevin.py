"""Langevin dynamics: wander at a noise level, pulled uphill by the score."""

import math
from dataclasses import dataclass

from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import Bound, Prediction
from fromnoise.samplers.ancestral import to_belief
from fromnoise.samplers.arithmetic import add, ask, belief_of, scaled
from fromnoise.samplers.base import Sampler, State
from fromnoise.samplers.coefficients import ends, time_of


def langevin_step(x: Tensor, score: Tensor, size: float, noise: Noise) -> Tensor:
    """x + (ε/2)·score + √ε·z."""
    moved = add(x.clone(), 0.5 * size, score.to(x.dtype))
    return add(moved, math.sqrt(size), noise.normal(x))


@dataclass(frozen=True)
class Langevin(Sampler):
    """Plain Langevin dynamics at one noise level: the grid only counts the steps.

    x ← x + (ε/2)·score + √ε·z, `repeats` times a step, at the level where σ/α = `ratio` and with
    ε = `size`·σ². It mixes slowly between separate modes, so their weights come out wrong: which is
    why the level is lowered step by step instead (`AnnealedLangevin`). The step to σ = 0 returns
    the belief about x0.
    size: of each move, relative to the level's variance; N(0, v) is left with the variance
    v/(1 − ε/(4v)).
    """

    ratio: float = 0.1
    size: float = 0.2
    repeats: int = 10

    order = 0.0
    stochastic = True

    def __post_init__(self) -> None:
        _check(self.size, self.repeats)
        if self.ratio <= 0:
            raise UsageError(f"ratio {self.ratio} is no noise level; use a σ/α above 0")
        object.__setattr__(self, "evaluations", self.repeats)

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, State, Prediction]:
        process = bound.process
        level = time_of(process, -math.log(self.ratio))
        size = self.size * process.schedule.at(level)[1] ** 2
        prediction = ask(bound, x, level)
        for index in range(self.repeats):
            if index:
                prediction = ask(bound, x, level)
            x = langevin_step(x, prediction.score, size, noise)
        if ends(None, process, (t, s)).to_data:
            prediction = ask(bound, x, level)
            x = belief_of(prediction, x)
        return x, state, prediction


@dataclass(frozen=True)
class AnnealedLangevin(Sampler):
    """Langevin dynamics at each level of the grid in turn (Song & Ermon 2019, algorithm 1).

    `repeats` times x ← x + (ε/2)·score + √ε·z with ε = `size`·σ_t², then x_s = (α_s/α_t)·x_t.
    size: the paper's ε/σ_L², 0.2 with its constants. repeats: its T, 100 there with ten levels; a
    grid of more levels needs fewer. The step to σ = 0 returns the belief about x0, and one from
    α = 0 is the ancestral one.
    """

    size: float = 0.2
    repeats: int = 10

    order = 0.0
    stochastic = True

    def __post_init__(self) -> None:
        _check(self.size, self.repeats)
        object.__setattr__(self, "evaluations", self.repeats)

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, State, Prediction]:
        process = bound.process
        special = ends(None, process, (t, s))
        prediction = ask(bound, x, t)
        if special.from_noise:
            return to_belief(process, prediction, x, (t, s), noise), state, prediction
        alpha, sigma = process.schedule.at(t)
        for index in range(self.repeats):
            if index:
                prediction = ask(bound, x, t)
            x = langevin_step(x, prediction.score, self.size * sigma**2, noise)
        if special.to_data:
            prediction = ask(bound, x, t)
            return belief_of(prediction, x), state, prediction
        return scaled(process.schedule.at(s)[0] / alpha, x), state, prediction


def _check(size: float, repeats: int) -> None:
    if not 0 < size < 4 or repeats < 1:
        raise UsageError(f"size {size} must lie between 0 and 4 and repeats {repeats} be 1 or more")
