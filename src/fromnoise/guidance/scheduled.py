"""A condition that changes while sampling: what the model is told depends on the step."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.denoisers import Bound, Denoiser, Prediction
from fromnoise.encoders import Conditioning
from fromnoise.layers.condition import Condition

Told = Sequence[tuple[float, Condition | None]]
"""What a run is told: (until this share of the steps; condition), the last until 1."""

Tell = Callable[[Conditioning], Told]
"""What a model with these encoders is told of the samples that are being drawn."""


class Scheduled(Denoiser):
    """D(x, t, c_i) with c_i the condition of the step that t is in: c may vary with t.

    Step i of N sees the first condition with i < until·N. A time of the grid is of the step that
    begins there, any other of the step it lies in, so a method that looks ahead to the end of its
    step sees the next condition there. Outside a run it is told what the call is told.

    schedule: (until, condition), until increasing in (0, 1], the last one 1. It takes the place of
    the condition of the run. What runs remember is kept for each condition by itself.
    Raises UsageError for a schedule that does not reach to the end.
    Reference: AUTOMATIC1111, stable-diffusion-webui, "prompt editing".
    """

    def __init__(self, denoiser: Denoiser, schedule: Told) -> None:
        self.denoiser = denoiser
        self.process = denoiser.process
        ends = [until for until, _ in schedule]
        if not ends or ends != sorted(set(ends)) or ends[0] <= 0 or ends[-1] != 1:
            raise UsageError(
                f"a schedule ends at increasing shares of the steps, the last of them 1, not {ends}"
            )
        self.schedule = tuple(schedule)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        return self.denoiser(x, t, condition)

    def bind(self, condition: Condition | None, grid: Tensor) -> Bound:
        if len(self.schedule) == 1:
            return self.denoiser.bind(self.schedule[0][1], grid)
        return _Switching(self, grid)


class _Switching(Bound):
    def __init__(self, scheduled: Scheduled, grid: Tensor) -> None:
        self.process = scheduled.process
        self._scheduled = scheduled
        self._grid = grid.double()
        self._bound: dict[int, Bound] = {}

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        place = self._place(t)
        if place not in self._bound:
            scheduled = self._scheduled
            condition = scheduled.schedule[place][1]
            self._bound[place] = scheduled.denoiser.bind(condition, self._grid)
        return self._bound[place](x, t)

    def _place(self, t: Tensor) -> int:
        """Which condition holds at t (B,); the samples of a run are in the same step."""
        grid, time = self._grid, t.max().to(self._grid)
        # An inversion's grid increases.
        passed = grid >= time if bool(grid[0] > grid[-1]) else grid <= time
        steps = len(grid) - 1
        step = min(max(int(torch.count_nonzero(passed)) - 1, 0), steps - 1)
        # Half a step keeps rounding of until·N out of it.
        ends = [until * steps for until, _ in self._scheduled.schedule]
        return next((i for i, end in enumerate(ends) if step + 0.5 < end), len(ends) - 1)
