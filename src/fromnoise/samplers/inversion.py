"""From data to noise: deterministic DDIM on an increasing grid, and the first step off the data."""

from dataclasses import dataclass

from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import Bound, Prediction
from fromnoise.samplers.arithmetic import add, ask, belief_of, combine, implied_noise, scaled
from fromnoise.samplers.base import Sampler, State
from fromnoise.samplers.coefficients import Rule, ends, first_order, transition

FLOW = Rule("eps", "linear")


def leave_data(bound: Bound, x: Tensor, s: float) -> tuple[Tensor, Prediction]:
    """x_s = α_s·x + σ_s·ε with ε believed at (α_s·x, s): at σ = 0 no noise can be read from x."""
    process = bound.process
    alpha, sigma = process.levels(s)
    z = scaled(alpha, process.analyse(x))
    prediction = ask(bound, process.synthesise(z), s)
    eps = implied_noise(process, z, process.analyse(belief_of(prediction, x)), s)
    return process.synthesise(add(z, sigma, eps)), prediction


@dataclass(frozen=True)
class DDIMInverse(Sampler):
    """Deterministic DDIM from data to noise: the noise that DDIM would turn into this picture.

    x_s = (α_s/α_t)·x_t + α_s·(r_s − r_t)·ε with ε believed at (x_t, t), which is wrong by the step
    (Song et al. 2021, section 4.3). With `iterations` n, ε is believed n times more at (x_s, s),
    which solves the DDIM step from s back to t: in the limit the round trip is exact.
    """

    iterations: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 0:
            raise UsageError(f"iterations {self.iterations} must not be negative")
        object.__setattr__(self, "evaluations", 1 + self.iterations)

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, State, Prediction]:
        if s < t:
            raise UsageError("ddim_inverse walks from data to noise; reverse the grid")
        process = bound.process
        special = ends(None, process, (t, s))
        if special.from_data:
            moved, prediction = leave_data(bound, x, s)
        else:
            prediction = ask(bound, x, t)
            belief = process.analyse(belief_of(prediction, x))
            numbers = first_order(FLOW, process, (t, s))
            moved = process.synthesise(combine(numbers, process.analyse(x), (belief,)))
        if special.to_noise:
            return moved, state, prediction
        numbers = transition(FLOW, process, (t, s, s))
        for _ in range(self.iterations):
            z = process.analyse(moved)
            belief = process.analyse(belief_of(ask(bound, moved, s), x))
            eps = implied_noise(process, z, belief, s)
            moved = process.synthesise(combine(numbers, process.analyse(x), (eps,)))
        return moved, state, prediction
