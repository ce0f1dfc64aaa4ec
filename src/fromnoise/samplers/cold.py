"""Cold diffusion's two ways to sample, for any process."""

from dataclasses import dataclass

from torch import Tensor

from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import times
from fromnoise.denoisers import Bound, Prediction
from fromnoise.samplers.arithmetic import ask, belief_of
from fromnoise.samplers.base import Sampler, State


@dataclass(frozen=True)
class Cold1(Sampler):
    """x_s = D(x0, s): degrade the belief again (Bansal et al. 2022, "Cold Diffusion", algorithm 1).

    On a Gaussian process the noise is drawn anew at each step.
    """

    stochastic = True

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, State, Prediction]:
        prediction = ask(bound, x, t)
        when = times(s, x.shape[0], x.device)
        moved = bound.process.corrupt(belief_of(prediction, x), when, noise.normal(x))
        return moved, state, prediction


@dataclass(frozen=True)
class Cold2(Sampler):
    """x_s = x_t − D(x0, t) + D(x0, s) (Bansal et al. 2022, "Cold Diffusion", algorithm 2).

    On a Gaussian process, with the noise that x_t and x0 imply, this is DDIM.
    """

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, State, Prediction]:
        prediction = ask(bound, x, t)
        here, there = (times(v, x.shape[0], x.device) for v in (t, s))
        return bound.process.move(x, belief_of(prediction, x), here, there), state, prediction
