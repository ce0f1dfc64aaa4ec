"""One exponential multistep integrator: DPM-Solver++, DEIS, UniPC, LMS, PNDM are rows of it."""

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import Bound, Prediction
from fromnoise.processes import Process
from fromnoise.samplers.arithmetic import ask, belief_of, combine, implied_noise, with_noise
from fromnoise.samplers.base import Sampler
from fromnoise.samplers.coefficients import (
    Ends,
    Rule,
    Space,
    between,
    ends,
    first_order,
    transition,
)
from fromnoise.samplers.inversion import leave_data
from fromnoise.samplers.wrappers import Churn

Start = Literal["euler", "midpoint", "heun", "runge_kutta"]

STARTS: dict[Start, int] = {"euler": 0, "midpoint": 1, "heun": 1, "runge_kutta": 3}
"""How many steps each start lasts."""


@dataclass(frozen=True)
class Memory:
    """What a multistep method remembers, newest first: times, outputs there, and where it was.

    origin: x (in the process's basis) the last step started from. steps: how many have been made
    since the history began. All of it starts anew after a step from pure noise.
    """

    times: tuple[float, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    origin: Tensor | None = None
    steps: int = 0


@dataclass(frozen=True)
class Multistep(Sampler):
    """x_s from a polynomial through the outputs of this and earlier steps (`transition`).

    rule: the space, the weighting and η. points: how many outputs the polynomial goes through.
    order: the order of convergence it is declared to have, 0 where noise is added.
    corrector: once the output at s is known, x_s is made again with it in the polynomial, at no
    further call (UniC, Zhao et al. 2023).
    start: how the first step is made. `euler`: with one output. `midpoint`: with a second call at
    the middle of the step in λ. `heun`: with a second call at s. `runge_kutta`: the first three
    steps with four calls each (Liu et al. 2022, "PNDM").
    A step to σ = 0 has order 1 wherever the integral over λ has no end there.
    """

    rule: Rule
    points: int
    order: float
    corrector: bool = False
    start: Start = "euler"

    def __post_init__(self) -> None:
        if self.rule.eta < 0:
            raise UsageError(f"eta {self.rule.eta} must not be negative")
        object.__setattr__(self, "stochastic", self.rule.eta > 0)

    def init(self, x: Tensor, t: float) -> Memory:
        return Memory()

    def with_eta(self, eta: float) -> "Multistep":
        """The same row with the SDE's noise (Lu et al. 2022, "DPM-Solver++", SDE-DPM-Solver++)."""
        if self.rule.space != "x0" or self.corrector:
            raise UsageError(
                "eta needs a method in x0 space without corrector, dpm++2m for example"
            )
        start: Start = "euler" if eta > 0 else self.start
        order = 0.0 if eta > 0 else self.order
        return replace(self, rule=replace(self.rule, eta=eta), order=order, start=start)

    def with_churn(self, churn: float) -> Sampler:
        forgetful = self._forgetful and self.rule.eta == 0
        return Churn(self, churn) if forgetful else super().with_churn(churn)

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: Memory, noise: Noise
    ) -> tuple[Tensor, Memory, Prediction]:
        process = bound.process
        special = ends(None, process, (t, s))
        if special.from_data:
            moved, prediction = leave_data(bound, x, s)
            return moved, Memory(), prediction
        prediction = ask(bound, x, t)
        z, belief = process.analyse(x), process.analyse(belief_of(prediction, x))
        if special.from_noise or self._forgetful:
            return self._one(process, z, belief, t, s, x, noise), Memory(), prediction
        output = belief if self.rule.space == "x0" else implied_noise(process, z, belief, t)
        if self.corrector and state.origin is not None:
            numbers = transition(self.rule, process, (state.times[0], t, *state.times, t))
            z = combine(numbers, state.origin, (*state.outputs, output))
        times = (t, *state.times)[: self.points]
        outputs = (output, *state.outputs)[: self.points]
        memory = Memory(times, outputs, z if self.corrector else None, state.steps + 1)
        if self._flat(special, state):
            return self._one(process, z, belief, t, s, x, noise), memory, prediction
        if self._starting(state):
            return process.synthesise(self._begin(bound, z, output, t, s)), memory, prediction
        numbers = transition(self.rule, process, (t, s, *times))
        moved = combine(numbers, z, outputs)
        moved = with_noise(process, moved, numbers.noise, x, noise)
        return process.synthesise(moved), memory, prediction

    def _one(
        self,
        process: Process,
        z: Tensor,
        belief: Tensor,
        t: float,
        s: float,
        x: Tensor,
        noise: Noise,
    ) -> Tensor:
        numbers = first_order(self.rule, process, (t, s))
        moved = combine(numbers, z, (belief,))
        return process.synthesise(with_noise(process, moved, numbers.noise, x, noise))

    @property
    def _forgetful(self) -> bool:
        """Whether each step is made from one belief."""
        return self.points == 1 and not self.corrector

    def _flat(self, special: Ends, state: Memory) -> bool:
        """Whether where a step ends leaves it order 1."""
        unbounded = special.to_data and (not self.rule.over_ratio or self._starting(state))
        return unbounded or special.to_noise

    def _starting(self, state: Memory) -> bool:
        return state.steps < STARTS[self.start]

    def _begin(self, bound: Bound, z: Tensor, first: Tensor, t: float, s: float) -> Tensor:
        """A step from z of higher order by further calls; `first` is the output at t."""
        process, rule = bound.process, self.rule

        def go(end: float, outputs: tuple[Tensor, ...], nodes: tuple[float, ...]) -> Tensor:
            return combine(transition(rule, process, (t, end, *nodes)), z, outputs)

        if self.start == "midpoint":
            middle = between(process, t, s, 0.5)
            half = go(middle, (first,), (t,))
            return go(s, (first, output_at(bound, half, middle, rule.space)), (t, middle))
        if self.start == "heun":
            end = go(s, (first,), (t,))
            mean = 0.5 * (first + output_at(bound, end, s, rule.space))
            return go(s, (mean,), (t,))
        middle = 0.5 * (t + s)
        second = output_at(bound, go(middle, (first,), (t,)), middle, rule.space)
        third = output_at(bound, go(middle, (second,), (t,)), middle, rule.space)
        fourth = output_at(bound, go(s, (third,), (t,)), s, rule.space)
        return go(s, ((first + 2 * second + 2 * third + fourth) / 6,), (t,))


def output_at(bound: Bound, z: Tensor, t: float, space: Space) -> Tensor:
    """The denoiser's output in a space, at z in the process's basis."""
    process = bound.process
    belief = process.analyse(belief_of(ask(bound, process.synthesise(z), t), z))
    return belief if space == "x0" else implied_noise(process, z, belief, t)
