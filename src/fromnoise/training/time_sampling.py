"""How the times of training are drawn: t in [0, 1] from each sample's own numbers."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.core.config import Kinds
from fromnoise.core.errors import UsageError
from fromnoise.schedules import Schedule
from fromnoise.training.draws import Draws
from fromnoise.training.resampling import History

TIME_SAMPLINGS = Kinds("time sampling")


class TimeSampling(ABC):
    """A distribution of training times.

    adaptive: whether it learns from the losses it is shown (`observe`). One that does is a module:
    what it has learned is its state, and belongs to the objective's.
    """

    config: dict[str, Any]
    adaptive = False

    @abstractmethod
    def __call__(self, draws: Draws, schedule: Schedule) -> Tensor:
        """The time of each sample, (B,) float64 in [0, 1], for noise on `schedule`."""

    def importance(self, t: Tensor) -> Tensor | None:
        """What the loss of each sample counts so that its mean is the wanted one; None is 1."""
        del t
        return None

    def observe(self, t: Tensor, losses: Tensor) -> None:
        """See the losses (B,) of a whole step at their times t (B,), in the order of the batch."""
        del t, losses


def _between(uniform: Tensor, start: float, end: float) -> Tensor:
    # 1 − u is on (0, 1]: t = 0 has no noise and nothing to learn.
    return start + (end - start) * (1.0 - uniform)


def _check(start: float, end: float) -> None:
    if not 0 <= start < end <= 1:
        raise UsageError(f"times from {start} to {end} must be in order and within [0, 1]")


@TIME_SAMPLINGS.register("uniform")
class Uniform(TimeSampling):
    """t uniform on (start, end]."""

    def __init__(self, start: float = 0.0, end: float = 1.0) -> None:
        _check(start, end)
        self.start, self.end = start, end

    def __call__(self, draws: Draws, schedule: Schedule) -> Tensor:
        del schedule
        return _between(draws.uniform(), self.start, self.end)


@TIME_SAMPLINGS.register("low_discrepancy")
class LowDiscrepancy(TimeSampling):
    """t_i = (u + i/B) mod 1, one u for the batch: each t uniform, the batch evenly spread.

    Lowers the variance of the loss (Kingma et al. 2021, "Variational Diffusion Models",
    appendix I.1).
    """

    def __init__(self, start: float = 0.0, end: float = 1.0) -> None:
        _check(start, end)
        self.start, self.end = start, end

    def __call__(self, draws: Draws, schedule: Schedule) -> Tensor:
        del schedule
        return _between(draws.stratified(), self.start, self.end)


@TIME_SAMPLINGS.register("log_normal")
class LogNormal(TimeSampling):
    """log(σ/α) ~ N(mean, std²) (Karras et al. 2022, table 1: P_mean −1.2, P_std 1.2)."""

    def __init__(self, mean: float = -1.2, std: float = 1.2) -> None:
        if std <= 0:
            raise UsageError(f"std {std} must be above 0")
        self.mean, self.std = mean, std

    def __call__(self, draws: Draws, schedule: Schedule) -> Tensor:
        return schedule.time(-2.0 * (self.mean + self.std * draws.normal()))


@TIME_SAMPLINGS.register("logit_normal")
class LogitNormal(TimeSampling):
    """log(t/(1−t)) ~ N(mean, std²) (Esser et al. 2024, "Scaling Rectified Flow Transformers")."""

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        if std <= 0:
            raise UsageError(f"std {std} must be above 0")
        self.mean, self.std = mean, std

    def __call__(self, draws: Draws, schedule: Schedule) -> Tensor:
        del schedule
        return torch.sigmoid(self.mean + self.std * draws.normal())


@TIME_SAMPLINGS.register("index")
class Index(TimeSampling):
    """t = (k+1)/T with k uniform on 0 … T−1 (Ho et al. 2020, algorithm 1).

    steps: T; by default the schedule's own. Raises UsageError where there is none.
    """

    def __init__(self, steps: int | None = None) -> None:
        if steps is not None and steps < 1:
            raise UsageError(f"steps {steps} must be 1 or more")
        self.steps = steps

    def __call__(self, draws: Draws, schedule: Schedule) -> Tensor:
        steps = schedule.steps if self.steps is None else self.steps
        if steps is None:
            raise UsageError(
                "time sampling by index needs a discrete schedule, or `steps` of its own"
            )
        return (torch.floor(draws.uniform() * steps) + 1.0) / steps


@TIME_SAMPLINGS.register("loss_second_moment")
class LossSecondMoment(nn.Module, TimeSampling):
    """t = (k + 1)/T with p_k ∝ √E[L_k²], and the loss weighted with 1/(T·p_k): see `History`.

    The weighted loss has the mean of the one with uniform times, and less variance where losses
    differ much between times. In evaluation mode times are uniform and every weight is 1.

    steps: T; a discrete schedule must have as many. history: losses kept for each k.
    Raises UsageError for fewer than one of either, or a schedule of other steps.
    Reference: Nichol & Dhariwal 2021, "Improved Denoising Diffusion", section 3.3, eq. 18.
    """

    adaptive = True

    def __init__(self, steps: int = 1000, history: int = 10) -> None:
        super().__init__()
        self.steps = steps
        self.history = History(steps, history)

    def forward(self, draws: Draws, schedule: Schedule) -> Tensor:
        """The time of each sample, (B,) float64."""
        if schedule.steps not in (None, self.steps):
            raise UsageError(
                f"loss-aware times over {self.steps} steps on a schedule of {schedule.steps}; "
                f"give time_sampling the argument steps {schedule.steps}"
            )
        ends = self._probabilities().cumsum(0)
        # The last end is 1 up to rounding, and u may fall beyond it.
        index = torch.searchsorted(ends, draws.uniform(), right=True).clamp(max=self.steps - 1)
        return (index + 1.0) / self.steps

    def importance(self, t: Tensor) -> Tensor:
        return 1.0 / (self.steps * self._probabilities()[self._index(t)])

    def observe(self, t: Tensor, losses: Tensor) -> None:
        self.history.observe(self._index(t), losses)

    def _probabilities(self) -> Tensor:
        if self.training:
            return self.history.probabilities()
        return torch.full((self.steps,), 1.0 / self.steps, dtype=torch.float64)

    def _index(self, t: Tensor) -> Tensor:
        return (t.cpu() * self.steps).round().long() - 1
