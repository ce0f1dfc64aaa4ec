"""The probability-flow ODE by an adaptive Runge–Kutta method, each sample at its own pace."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fromnoise.core.errors import FromNoiseError, UsageError
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import expand, flat_mean
from fromnoise.denoisers import Bound, Prediction
from fromnoise.samplers.arithmetic import ask, belief_of, combine
from fromnoise.samplers.base import Sampler
from fromnoise.samplers.coefficients import Rule, ends, first_order
from fromnoise.samplers.inversion import leave_data

NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
TABLEAU: tuple[tuple[float, ...], ...] = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""Dormand & Prince 1980, RK5(4)7M; the last row of the tableau is the fifth-order solution."""

SMALLEST = 1e-6
"""Sub-steps (in the angle) below this are not retried."""

LIMIT = 10_000
"""Sub-steps of one step after which the search for an accurate one is given up."""

Slope = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class AdaptiveOde(Sampler):
    """dy/dφ = cos(φ)·ε − sin(φ)·x0 with y = x/√(α² + σ²) and tan φ = σ/α, by Dormand–Prince 5(4).

    The probability-flow ODE (Song et al. 2021, eq. 13) on the angle, where it is smooth from pure
    noise on. Within a step from t to s each sample takes its own sub-steps, none beyond s, so that
    its estimated error stays below atol + rtol·|y| (root mean square over the sample). Where s = 0
    the flow is followed to the schedule's least level and the belief there is returned.
    rtol, atol: tolerances. Raises UsageError for a process with a noise level for each frequency.
    """

    rtol: float = 1e-5
    atol: float = 1e-5

    order = 5.0
    evaluations = 6

    def __post_init__(self) -> None:
        if self.rtol <= 0 or self.atol <= 0:
            raise UsageError("rtol and atol must be above 0")

    def with_tolerance(self, tolerance: float) -> "AdaptiveOde":
        return AdaptiveOde(tolerance, tolerance)

    def step(
        self, bound: Bound, x: Tensor, t: float, s: float, state: Tensor | None, noise: Noise
    ) -> tuple[Tensor, Tensor | None, Prediction]:
        process = bound.process
        if not isinstance(process.levels(t)[0], float):
            raise UsageError("ode needs one noise level for all pixels; use heun or dpm++2m")
        special = ends(None, process, (t, s))
        if special.from_data:
            moved, prediction = leave_data(bound, x, s)
            return moved, state, prediction
        end = s
        if special.to_data:
            least = 1.0 / process.schedule.steps if process.schedule.steps else 1e-3
            end = min(least, t)
        if end != t:
            x, state = self._walk(bound, x, t, end, state)
        prediction = ask(bound, x, end)
        if special.to_data:
            numbers = first_order(Rule("x0"), process, (end, s))
            x = combine(numbers, x, (belief_of(prediction, x),))
        return x, state, prediction

    def _walk(
        self, bound: Bound, x: Tensor, t: float, s: float, size: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        schedule = bound.process.schedule
        (a, b), (c, d) = schedule.at(t), schedule.at(s)
        start, stop = math.atan2(b, a), math.atan2(d, c)
        slope = _slope(bound, (t, s), (start, stop))
        y, batch = x / math.hypot(a, b), x.shape[0]
        angle = torch.full((batch,), start, dtype=torch.float64, device=x.device)
        left = stop - start
        if size is None:
            size = torch.full_like(angle, 0.05 * abs(left))
        direction = math.copysign(1.0, left)
        first = slope(y, angle)
        for _ in range(LIMIT):
            remaining = (stop - angle).abs()
            if not bool((remaining > 0).any()):
                return y * math.hypot(c, d), size
            landing = size >= remaining
            taken = torch.minimum(size, remaining)
            reached, final, error = self._try(slope, y, angle, direction * taken, first)
            # A trial step that overflows is retried smaller; where even the smallest does, the
            # belief itself is not finite, and the walk ends in what it says.
            hopeless = ~torch.isfinite(error) & (taken <= SMALLEST)
            accepted = (error <= 1.0) | hopeless
            growth = (0.9 * error.clamp(min=1e-10) ** -0.2).nan_to_num(0.2).clamp(0.2, 5.0)
            moving = remaining > 0
            # A sub-step cut short to land on s says little about how long the next may be.
            wanted = taken * growth
            wanted = torch.where(landing & accepted, torch.maximum(size, wanted), wanted)
            size = torch.where(moving, wanted, size)
            move = accepted & moving
            y = torch.where(expand(move, y).bool(), reached, y)
            first = torch.where(expand(move, y).bool(), final, first)
            done = landing | hopeless
            angle = torch.where(move, torch.where(done, stop, angle + direction * taken), angle)
        raise FromNoiseError(f"the ODE took more than {LIMIT} sub-steps; use a larger tolerance")

    def _try(
        self, slope: Slope, y: Tensor, angle: Tensor, step: Tensor, first: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The fifth-order solution, the slope there, and the error relative to its bound (B,)."""
        width = expand(step, y)
        slopes, reached = [first], y
        for node, row in zip(NODES[1:], TABLEAU[1:], strict=True):
            move = torch.zeros_like(y)
            for weight, known in zip(row, slopes, strict=True):
                move.add_(known, alpha=weight)
            reached = y + width * move
            slopes.append(slope(reached, angle + node * step))
        wrong = torch.zeros_like(y)
        for weight, known in zip(ERROR, slopes, strict=True):
            wrong.add_(known, alpha=weight)
        bound = self.atol + self.rtol * torch.maximum(y.abs(), reached.abs())
        error = flat_mean((width * wrong / bound).double().square()).sqrt()
        return reached, slopes[-1], error


def _slope(bound: Bound, times: tuple[float, float], angles: tuple[float, float]) -> Slope:
    """dy/dφ at (y, φ (B,)); at the ends of the step the times are the given ones, bit for bit."""
    schedule = bound.process.schedule
    low, high = min(times), max(times)

    def slope(y: Tensor, angle: Tensor) -> Tensor:
        t = schedule.time(-2.0 * torch.log(torch.tan(angle))).clamp(low, high)
        for time, place in zip(times, angles, strict=True):
            t = torch.where(angle == place, time, t)
        alpha, sigma = schedule(t)
        norm = torch.hypot(alpha, sigma)
        x = expand(norm, y) * y
        belief = bound(x, t).x0.to(y.dtype)
        # cos(φ)·ε − sin(φ)·x0 with ε = (y − cos(φ)·x0)/sin(φ).
        return expand(alpha / sigma, y) * y - expand(norm / sigma, y) * belief

    return slope
