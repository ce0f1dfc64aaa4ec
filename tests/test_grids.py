"""Grids: the published timesteps and noise levels, and what holds of every path of times."""

import diffusers
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fromnoise import grids, schedules
from fromnoise.core.errors import UsageError
from fromnoise.schedules import Schedule

KARRAS = {
    5: [80, 17.5278320, 2.51521898, 0.169752756, 0.002],
    10: [
        *(80, 42.4151893, 21.1086767, 9.72320136, 4.0661236),
        *(1.50174198, 0.469979058, 0.116638564, 0.0204353346, 0.002),
    ],
    18: [
        *(80, 57.5859847, 40.7855738, 28.3745846, 19.352453, 12.9100824),
        *(8.40093531, 5.31519452, 3.25682152, 1.92333984, 1.08817064, 0.585348123),
        *(0.296442284, 0.139516469, 0.0599473112, 0.0229345184, 0.00752801996, 0.002),
    ],
}
SCHEDULES: dict[str, Schedule] = {
    "linear": schedules.linear(),
    "linear of 1": schedules.linear(1),
    "linear of 2": schedules.linear(2),
    "course": schedules.linear(500),
    "cosine": schedules.cosine(100),
    "zero": schedules.zero_terminal_snr(schedules.linear()),
    "vp": schedules.vp(),
    "ve": schedules.ve(),
    "edm": schedules.edm(),
    "flow": schedules.flow(3.0),
}
LINEAR = SCHEDULES["linear"]


def levels(schedule: Schedule, grid: torch.Tensor) -> torch.Tensor:
    alpha, sigma = schedule(grid)
    return sigma / alpha


def indices(grid: torch.Tensor, count: int = 1000) -> list[float]:
    """The discrete indices of a grid's starts; 0 at its end is data."""
    assert grid[-1] == 0
    return [round(v, 9) for v in (grid[:-1] * count - 1).tolist()]


@pytest.mark.parametrize("steps", KARRAS)
def test_karras_levels(steps: int) -> None:
    schedule = schedules.edm()
    got = levels(schedule, grids.karras(schedule, steps))
    np.testing.assert_allclose(got, [*KARRAS[steps], 0.0], rtol=2e-8)


def test_karras_levels_of_stable_diffusion() -> None:
    schedule = schedules.scaled_linear()
    grid = grids.karras(schedule, 10)
    published = [14.614647, 9.102938, 5.478401, 3.168611, 1.749423]
    published += [0.914077, 0.446921, 0.201400, 0.081911, 0.029168, 0]
    np.testing.assert_allclose(levels(schedule, grid), published, rtol=5e-5)
    # The timesteps a network is told, fractional as interpolated in log σ.
    told = [999, 916.284, 815.045, 687.153, 523.199, 327.147, 145.939, 40.857, 6.732, 0]
    np.testing.assert_allclose(grid[:-1] * 1000 - 1, told, atol=2e-3)


def test_consistency_model_levels() -> None:
    """Of 40 Karras levels, the 1st, the 23rd from the end's side, and the last."""
    schedule = schedules.edm()
    ascending = levels(schedule, grids.karras(schedule, 40))[:-1].flip(0)
    np.testing.assert_allclose(ascending[[39, 17, 0]], [80, 1.38236797, 0.002], rtol=1e-7)


def test_published_timesteps() -> None:
    assert indices(grids.leading(LINEAR, 10)) == list(range(900, -1, -100))
    assert indices(grids.leading(LINEAR, 10, offset=1)) == list(range(901, 0, -100))
    assert indices(grids.trailing(LINEAR, 10)) == list(range(999, 0, -100))
    assert indices(grids.linspace(LINEAR, 10)) == list(range(999, -1, -111))
    # Space of DPM-Solver: N + 1 points of which the last is dropped.
    dpm = [999, 899, 799, 699, 599, 500, 400, 300, 200, 100]
    assert indices(grids.linspace(LINEAR, 11))[:-1] == dpm
    assert indices(grids.explicit(LINEAR, dpm)) == dpm


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 17, 50, 333, 600, 1000])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_equal_those_of_diffusers(spacing: str, steps: int) -> None:
    # Of its schedulers, this one rounds trailing steps correctly.
    theirs = diffusers.DDPMScheduler(timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    if (spacing, steps) == ("linspace", 1):
        # Theirs starts a single step at index 0, where the noise of pure noise is not.
        assert theirs.timesteps.tolist() == [0]
        assert indices(grids.linspace(LINEAR, 1)) == [999]
        return
    assert indices(grids.get(spacing)(LINEAR, steps)) == theirs.timesteps.tolist()


@pytest.mark.parametrize("steps", [2, 10, 20, 29])
def test_quadratic_timesteps(steps: int) -> None:
    sequence = np.linspace(0, np.sqrt(1000 * 0.8), steps) ** 2
    assert indices(grids.quadratic(LINEAR, steps)) == [int(s) for s in sequence][::-1]


def test_quadratic_timesteps_stay_fractional_where_two_would_fall_together() -> None:
    sequence = np.linspace(0, np.sqrt(1000 * 0.8), 50) ** 2
    assert len({int(s) for s in sequence}) < 50
    np.testing.assert_allclose(indices(grids.quadratic(LINEAR, 50)), sequence[::-1], atol=1e-8)


@pytest.mark.parametrize("name", sorted(grids.GRIDS))
@pytest.mark.parametrize("on", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 17, 100, 1000, 1300])
def test_every_grid_is_a_path_of_that_many_steps(name: str, on: str, steps: int) -> None:
    schedule = SCHEDULES[on]
    grid = grids.get(name)(schedule, steps)
    assert grid.dtype == torch.float64
    assert grid.shape == (steps + 1,)
    assert bool((grid.diff() < 0).all())
    assert grid[-1] == 0
    assert 0 < grid[0] <= 1
    assert bool(schedule(grid[:-1]).sigma.isfinite().all())


@pytest.mark.parametrize("name", ["uniform", "trailing", "linspace"])
@pytest.mark.parametrize("on", SCHEDULES)
def test_grids_that_start_in_pure_noise(name: str, on: str) -> None:
    for steps in (1, 2, 3, 17, 1300):
        assert grids.get(name)(SCHEDULES[on], steps)[0] == 1.0


@pytest.mark.parametrize("on", SCHEDULES)
@pytest.mark.parametrize("name", ["karras", "log_snr"])
def test_level_grids_run_from_the_greatest_to_the_least(name: str, on: str) -> None:
    schedule = SCHEDULES[on]
    got = levels(schedule, grids.get(name)(schedule, 12))
    first = 1 / schedule.steps if schedule.steps and schedule.steps > 1 else 1e-3
    top = 1.0 if schedule.at(1.0)[0] > 0 else 0.999
    ends = levels(schedule, torch.tensor([top, first], dtype=torch.float64))
    np.testing.assert_allclose(got[[0, -2]], ends, rtol=1e-9)
    step = torch.log(got[:-1]) if name == "log_snr" else got[:-1] ** (1 / 7)
    np.testing.assert_allclose(step.diff(), np.full(11, step.diff().mean()), rtol=1e-6)


@given(low=st.floats(0.003, 1.0), high=st.floats(2.0, 70.0), rho=st.floats(1.0, 9.0))
def test_given_levels_are_met(low: float, high: float, rho: float) -> None:
    schedule = SCHEDULES["edm"]
    got = levels(schedule, grids.karras(schedule, 6, rho, low, high))
    np.testing.assert_allclose(got[[0, 5]], [high, low], rtol=1e-10)
    got = levels(schedule, grids.log_snr(schedule, 6, low, high))
    np.testing.assert_allclose(got[[0, 5]], [high, low], rtol=1e-10)


@pytest.mark.parametrize("name", sorted(grids.GRIDS))
def test_a_grid_may_end_before_data(name: str) -> None:
    grid = grids.get(name)(LINEAR, 10, end=0.15)
    assert grid[-1] == 0.15
    assert bool((grid.diff() < 0).all())


def test_an_offset_never_passes_the_last_index() -> None:
    assert indices(grids.leading(LINEAR, 1000, offset=1)) == list(range(999, -1, -1))
    assert indices(grids.leading(LINEAR, 500, offset=9)) == list(range(999, 0, -2))


REFUSED = {
    "no steps": lambda: grids.uniform(LINEAR, 0),
    "negative steps": lambda: grids.karras(LINEAR, -4),
    "half a step": lambda: grids.trailing(LINEAR, 2.5),  # type: ignore[arg-type]
    "true steps": lambda: grids.leading(LINEAR, True),
    "levels the wrong way round": lambda: grids.karras(LINEAR, 5, 7.0, 10.0, 1.0),
    "a level of nothing": lambda: grids.log_snr(LINEAR, 5, 0.0, 1.0),
    "no timesteps": lambda: grids.explicit(LINEAR, []),
    "growing timesteps": lambda: grids.explicit(LINEAR, [1, 2]),
    "a timestep twice": lambda: grids.explicit(LINEAR, [5, 5]),
    "a timestep past the end": lambda: grids.explicit(LINEAR, [1000, 5]),
    "a negative timestep": lambda: grids.explicit(LINEAR, [5, -1]),
    "an unknown name": lambda: grids.get("karas"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    with pytest.raises(UsageError):
        REFUSED[case]()


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean karras"):
        grids.get("karas")
