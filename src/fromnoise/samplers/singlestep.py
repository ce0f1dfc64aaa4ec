"""Exponential Runge–Kutta methods: several calls within one step, nothing kept between steps."""

from dataclasses import dataclass

from torch import Tensor

from fromnoise.core.randomness import Noise
from fromnoise.denoisers import Bound, Prediction
from fromnoise.samplers.arithmetic import ask, belief_of, combine, implied_noise
from fromnoise.samplers.base import Sampler, State
from fromnoise.samplers.coefficients import Rule, Weighting, between, ends, first_order, transition
from fromnoise.samplers.inversion import leave_data
from fromnoise.samplers.multistep import output_at
from fromnoise.samplers.wrappers import Churn


@dataclass(frozen=True)
class Stage:
    """Where a stage lies, as a fraction of the step in λ, and the stages and rule that reach it."""

    fraction: float
    uses: tuple[int, ...] = (0,)
    weighting: Weighting = "exact"


@dataclass(frozen=True)
class SingleStep(Sampler):
    """x_s by intermediate beliefs at `stages`, stage 0 being t; the last stage is s itself.

    rule: the space of the outputs. Each stage is one `transition` from t with the outputs of the
    stages it uses. A step to σ = 0, or from α = 0, is the first-order one with a single call.
    """

    rule: Rule
    stages: tuple[Stage, ...]
    order: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "evaluations", len(self.stages))

    def with_churn(self, churn: float) -> Churn:
        return Churn(self, churn)

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: State, noise: Noise
    ) -> tuple[Tensor, State, Prediction]:
        process = bound.process
        special = ends(None, process, (t, s))
        if special.from_data:
            moved, prediction = leave_data(bound, x, s)
            return moved, state, prediction
        prediction = ask(bound, x, t)
        z, belief = process.analyse(x), process.analyse(belief_of(prediction, x))
        if special.from_noise or special.to_data or special.to_noise:
            numbers = first_order(self.rule, process, (t, s))
            return process.synthesise(combine(numbers, z, (belief,))), state, prediction
        space = self.rule.space
        outputs = [belief if space == "x0" else implied_noise(process, z, belief, t)]
        nodes = [t]
        moved = z
        for stage in self.stages:
            if len(outputs) < len(nodes):
                outputs.append(output_at(bound, moved, nodes[-1], space))
            end = between(process, t, s, stage.fraction)
            rule = Rule(space, stage.weighting)
            reached = tuple(nodes[i] for i in stage.uses)
            numbers = transition(rule, process, (t, end, *reached))
            moved = combine(numbers, z, [outputs[i] for i in stage.uses])
            nodes.append(end)
        return process.synthesise(moved), state, prediction
