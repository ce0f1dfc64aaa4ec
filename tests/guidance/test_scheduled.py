"""A condition that changes while sampling: which step sees which, and what a run is made of."""

import pytest
import torch
from torch import Tensor

from fromnoise import schedules
from fromnoise.core.errors import UsageError
from fromnoise.denoisers import Denoiser, Prediction
from fromnoise.guidance import ClassifierFree, Scheduled
from fromnoise.layers.condition import Condition
from fromnoise.processes import Gaussian
from fromnoise.samplers import get, last, sample

GRID = torch.linspace(1.0, 0.0, 11, dtype=torch.float64)


class Told(Denoiser):
    """x0 is the number it is told; remembers (t, number) of each call."""

    def __init__(self) -> None:
        self.process = Gaussian(schedules.flow())
        self.seen: list[tuple[float, float]] = []

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        assert condition is not None
        number = condition.vector["n"].to(x)
        self.seen.append((float(t[0]), float(number[0, 0])))
        return Prediction(number.expand_as(x), x, t, self.process)


def saying(n: float, null: float | None = None) -> Condition:
    told = None if null is None else saying(null)
    return Condition(vector={"n": torch.full((2, 1), n)}, null=told)


X = torch.randn(2, 3, dtype=torch.float64)


def test_each_step_sees_the_condition_of_its_place() -> None:
    denoiser = Told()
    switching = Scheduled(denoiser, [(0.4, saying(1.0)), (0.7, saying(2.0)), (1.0, saying(3.0))])
    last(sample(switching, get("ddim"), GRID, X, saying(9.0)))
    assert [number for _, number in denoiser.seen] == [1.0] * 4 + [2.0] * 3 + [3.0] * 3


@pytest.mark.parametrize("steps", [7, 20])
def test_whole_numbers_of_steps_are_met_exactly(steps: int) -> None:
    grid = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    for until in range(1, steps):
        denoiser = Told()
        switching = Scheduled(denoiser, [(until / steps, saying(1.0)), (1.0, saying(2.0))])
        last(sample(switching, get("ddim"), grid, X))
        assert sum(number == 1.0 for _, number in denoiser.seen) == until


def test_within_a_step_the_condition_is_that_of_the_step() -> None:
    denoiser = Told()
    switching = Scheduled(denoiser, [(0.5, saying(1.0)), (1.0, saying(2.0))]).bind(None, GRID)
    for t, number in ((1.0, 1.0), (0.55, 1.0), (0.51, 1.0), (0.5, 2.0), (0.01, 2.0), (0.0, 2.0)):
        switching(X, torch.full((2,), t, dtype=torch.float64))
        assert denoiser.seen[-1][1] == number, t


def test_an_inversion_walks_it_the_way_its_grid_goes() -> None:
    denoiser = Told()
    switching = Scheduled(denoiser, [(0.3, saying(1.0)), (1.0, saying(2.0))])
    last(sample(switching, get("ddim"), GRID.flip(0)[1:-1], X))
    assert [number for _, number in denoiser.seen] == [1.0] * 2 + [2.0] * 6


def test_one_condition_is_the_run_without_it_bit_for_bit() -> None:
    plain = last(sample(Told(), get("ddim"), GRID, X, saying(1.0)))
    assert torch.equal(
        last(sample(Scheduled(Told(), [(1.0, saying(1.0))]), get("ddim"), GRID, X)), plain
    )
    halves = Scheduled(Told(), [(0.5, saying(1.0)), (1.0, saying(1.0))])
    assert torch.equal(last(sample(halves, get("ddim"), GRID, X)), plain)


def test_around_guidance_it_changes_what_is_moved_away_from_too() -> None:
    guided = ClassifierFree(Told(), 2.0)
    told = [(0.5, saying(1.0, null=0.0)), (1.0, saying(5.0, null=1.0))]
    steps = list(sample(Scheduled(guided, told), get("ddim"), GRID, X))
    assert [float(step.x0[0, 0]) for step in steps] == [2.0] * 5 + [9.0] * 5


def test_two_interleaved_runs_do_not_mix() -> None:
    switching = Scheduled(Told(), [(0.5, saying(1.0)), (1.0, saying(2.0))])
    runs = [sample(switching, get("ddim"), GRID, X) for _ in range(2)]
    both = zip(*runs, strict=True)
    assert all(torch.equal(a.x, b.x) for a, b in both)


@pytest.mark.parametrize("ends", [[], [0.5], [0.0, 1.0], [0.7, 0.5, 1.0], [0.5, 0.5, 1.0]])
def test_a_schedule_reaches_to_the_end(ends: list[float]) -> None:
    with pytest.raises(UsageError, match="ends at increasing shares"):
        Scheduled(Told(), [(end, saying(1.0)) for end in ends])
