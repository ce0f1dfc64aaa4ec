"""What holds of every schedule: inverses, derivatives, knots, limits, refusals."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fromnoise import schedules
from fromnoise.core.config import plain
from fromnoise.core.errors import UsageError
from fromnoise.schedules import SCHEDULES, DiscreteSchedule, Schedule


def _frozen(schedule: Schedule) -> Schedule:
    schedule.path.weights.requires_grad_(False)
    return schedule


EVERY: dict[str, Schedule] = {
    "linear": schedules.linear(),
    "linear of 1": schedules.linear(1),
    "linear of 2": schedules.linear(2),
    "course": schedules.linear(500, 1e-4, 0.02),
    "scaled_linear": schedules.scaled_linear(),
    "cosine": schedules.cosine(),
    "cosine of 1": schedules.cosine(1),
    "sigmoid": schedules.sigmoid(37),
    "betas": schedules.listed([0.1, 0.2, 0.4]),
    "vp": schedules.vp(),
    "sub_vp": schedules.sub_vp(),
    "ve": schedules.ve(),
    "edm": schedules.edm(),
    "flow": schedules.flow(),
    "learned": _frozen(schedules.learned()),
    "shifted flow": schedules.flow(3.0),
    "zero linear": schedules.zero_terminal_snr(schedules.linear()),
    "zero linear of 2": schedules.zero_terminal_snr(schedules.linear(2)),
    "zero cosine": schedules.zero_terminal_snr(schedules.cosine(100)),
    "zero vp": schedules.zero_terminal_snr(schedules.vp()),
    "zero flow": schedules.zero_terminal_snr(schedules.flow(2.0)),
}
CASE = pytest.mark.parametrize("name", EVERY)
DISCRETE = [name for name, s in EVERY.items() if isinstance(s, DiscreteSchedule)]


def inner_times(schedule: Schedule) -> torch.Tensor:
    """Times away from the knots, where the derivative jumps, down to 1e-4 and up to 1 − 1e-4."""
    generator = torch.Generator().manual_seed(0)
    t = torch.rand(200, generator=generator, dtype=torch.float64)
    t = torch.cat([t, 10 ** (-4 * t), 1 - 10 ** (-4 * t)])
    count = schedule.steps or 1000
    place = (t * count) % 1
    return t[(place > 0.01) & (place < 0.99) & (t < 1)]


def test_every_kind_is_tested() -> None:
    assert {s.config["kind"] for s in EVERY.values()} == set(SCHEDULES)


@CASE
def test_time_inverts_log_snr(name: str) -> None:
    schedule = EVERY[name]
    t = torch.cat([torch.tensor([0.0, 1e-7, 1e-3, 1.0]).double(), inner_times(schedule)])
    back = schedule.time(schedule.log_snr(t))
    np.testing.assert_allclose(back, t, rtol=2e-12, atol=2e-12)


@pytest.mark.parametrize("name", ["linear", "vp", "sub_vp", "ve", "flow", "zero vp", "cosine"])
@given(t=st.floats(0, 1))
def test_time_inverts_log_snr_anywhere(name: str, t: float) -> None:
    schedule = EVERY[name]
    back = schedule.time(schedule.log_snr(torch.tensor(t))).item()
    assert math.isclose(back, float(torch.tensor(t).double()), rel_tol=3e-12, abs_tol=3e-12)


@CASE
def test_noise_only_grows(name: str) -> None:
    t = torch.linspace(0, 1, 1237, dtype=torch.float64)
    schedule = EVERY[name]
    assert bool((schedule.log_snr(t).diff() < 0).all())
    assert bool((schedule(t).sigma.diff() > -1e-15).all())
    assert bool((schedule(t).alpha.diff() <= 0).all())


@CASE
def test_time_zero_is_data(name: str) -> None:
    alpha, sigma = EVERY[name](torch.zeros(1, dtype=torch.float64))
    assert alpha.item() == 1.0
    assert sigma.item() == 0.0
    assert EVERY[name].log_snr(torch.zeros(1)).item() == math.inf


@CASE
def test_drift_and_diffusion_are_the_derivatives_of_the_scales(name: str) -> None:
    schedule = EVERY[name]
    t = inner_times(schedule).requires_grad_()
    alpha, sigma = schedule(t)
    if alpha.requires_grad:
        (slope,) = torch.autograd.grad(torch.log(alpha).sum(), t, retain_graph=True)
    else:
        slope = torch.zeros_like(t)
    (growth,) = torch.autograd.grad((sigma**2).sum(), t)
    t = t.detach()
    drift, diffusion2 = schedule.drift(t), schedule.diffusion2(t)
    # Autograd forms 1 − α in the derivative of a sigmoid: its own rounding, times the rate.
    rounding = 1e-15 * schedule.path.rate(t)
    assert bool(((drift - slope).abs() <= 2e-12 * slope.abs() + rounding).all())
    # dσ²/dt − 2fσ²; the two terms cancel in part, so the tolerance is on their size.
    wanted = growth - 2 * slope * sigma.detach() ** 2
    size = growth.abs() + 2 * (slope * sigma.detach() ** 2).abs()
    assert bool(((diffusion2 - wanted).abs() <= 2e-12 * size + rounding * sigma.detach()).all())
    assert bool((diffusion2 > 0).all())


@CASE
def test_drift_and_diffusion_have_their_limits_at_data(name: str) -> None:
    schedule = EVERY[name]
    zero, near = (torch.tensor([v], dtype=torch.float64) for v in (0.0, 1e-12))
    for rate in (schedule.drift, schedule.diffusion2):
        assert rate(zero).isfinite().all()
        np.testing.assert_allclose(rate(zero), rate(near), rtol=1e-6, atol=1e-5)


def test_limits_of_the_sde_at_data() -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    assert schedules.vp().drift(zero).item() == pytest.approx(-0.05, rel=1e-12)
    assert schedules.vp().diffusion2(zero).item() == pytest.approx(0.1, rel=1e-12)
    assert schedules.flow().drift(zero).item() == pytest.approx(-1.0, rel=1e-12)


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_equals_continuous_at_the_knots(name: str) -> None:
    schedule = EVERY[name]
    assert isinstance(schedule, DiscreteSchedule)
    index = torch.arange(schedule.steps)
    alpha, sigma = schedule(schedule.index_time(index))
    bar = schedule.alphas_cumprod
    np.testing.assert_allclose(alpha**2, bar, rtol=1e-11, atol=1e-25)
    np.testing.assert_allclose(sigma**2, 1 - bar, rtol=1e-11)
    np.testing.assert_allclose(torch.cumprod(1 - schedule.betas, 0), bar, rtol=1e-10, atol=1e-25)


@pytest.mark.parametrize("name", DISCRETE)
def test_log_ratio_is_linear_between_knots(name: str) -> None:
    schedule = EVERY[name]
    steps = schedule.steps
    assert steps is not None
    # The last interval of a schedule that ends at α = 0 is linear in α/σ instead.
    index = torch.arange(max(steps - 2, 0))
    ends = [schedule(schedule.index_time(index + place)).log_ratio for place in (0, 0.25, 1)]
    np.testing.assert_allclose(ends[1], 0.75 * ends[0] + 0.25 * ends[2], rtol=1e-10, atol=1e-12)
    first = schedule(torch.tensor([0.25 / steps, 0.5 / steps, 1 / steps], dtype=torch.float64))
    ratio = first.sigma / first.alpha
    np.testing.assert_allclose(ratio / ratio[-1], [0.25, 0.5, 1.0], rtol=1e-12)


def test_the_last_interval_to_zero_signal_is_linear_in_the_signal_ratio() -> None:
    schedule = schedules.zero_terminal_snr(schedules.linear(10))
    alpha, sigma = schedule(torch.tensor([0.9, 0.925, 0.95, 1.0], dtype=torch.float64))
    ratio = alpha / sigma
    np.testing.assert_allclose(ratio / ratio[0], [1, 0.75, 0.5, 0], rtol=1e-12, atol=1e-15)


@given(steps=st.integers(1, 600), low=st.floats(1e-5, 0.01), more=st.floats(0, 0.2))
def test_any_number_of_steps_and_any_betas(steps: int, low: float, more: float) -> None:
    made = schedules.linear(steps, low, low + more)
    betas = torch.linspace(low, low + more, steps, dtype=torch.float64)
    np.testing.assert_allclose(made.alphas_cumprod, torch.cumprod(1 - betas, 0), rtol=1e-9)
    assert made.steps == len(made.alphas_cumprod) == steps


@given(bar=st.lists(st.floats(1e-6, 0.999), min_size=1, max_size=30, unique=True))
def test_given_alphas_cumprod_are_kept(bar: list[float]) -> None:
    wanted = torch.tensor(sorted(bar, reverse=True), dtype=torch.float64)
    made = schedules.from_alphas_cumprod(wanted)
    alpha, _ = made(made.index_time(torch.arange(len(wanted))))
    np.testing.assert_allclose(alpha**2, wanted, rtol=1e-10)


def test_near_data_the_noise_keeps_its_digits() -> None:
    """1 − ᾱ_0 = β_0: where float32 tables lose three digits."""
    for beta in (1e-4, 1e-8, 1e-12):
        made = schedules.linear(10, beta, 0.02)
        sigma = made(torch.tensor(0.1, dtype=torch.float64)).sigma
        assert sigma.item() ** 2 == pytest.approx(beta, rel=1e-12)


@CASE
def test_configuration_makes_the_same_again(name: str) -> None:
    schedule = EVERY[name]
    again = SCHEDULES.build(json.loads(json.dumps(plain(schedule))))
    t = torch.linspace(0, 1, 33, dtype=torch.float64)
    assert again.config == schedule.config
    assert torch.equal(again(t).alpha, schedule(t).alpha)
    assert again.steps == schedule.steps


@CASE
def test_numbers_for_samplers_are_the_tensors_numbers(name: str) -> None:
    for t in (0.0, 0.25, 1.0):
        alpha, sigma = EVERY[name](torch.tensor(t, dtype=torch.float64))
        assert EVERY[name].at(t) == (alpha.item(), sigma.item())


def test_scales_are_float64_whatever_the_time_is() -> None:
    for t in (torch.tensor([0.5]), torch.tensor([0.5], dtype=torch.float64)):
        assert all(part.dtype == torch.float64 for part in schedules.linear()(t))


def test_a_schedule_that_ends_at_nothing_is_left_alone() -> None:
    once = schedules.zero_terminal_snr(schedules.linear(100))
    twice = schedules.zero_terminal_snr(once)
    assert isinstance(twice, DiscreteSchedule)
    assert torch.equal(twice.alphas_cumprod, once.alphas_cumprod)
    assert twice is not once
    assert once.config["schedule"]["kind"] == "linear"


def test_a_continuous_schedule_has_no_indices() -> None:
    with pytest.raises(UsageError, match="no indices"):
        schedules.vp().index_time(torch.tensor(3))


NAN = math.nan
REFUSED = {
    "no steps": lambda: schedules.linear(0),
    "negative steps": lambda: schedules.cosine(-3),
    "a negative beta": lambda: schedules.linear(10, -1e-4, 0.02),
    "a beta above one": lambda: schedules.linear(10, 1e-4, 1.02),
    "a beta that is not a number": lambda: schedules.linear(10, NAN, 0.02),
    "a root of a negative beta": lambda: schedules.scaled_linear(10, -1e-4, 0.02),
    "a sigmoid beyond one": lambda: schedules.sigmoid(10, 1e-4, 3.0),
    "an offset that is not a number": lambda: schedules.cosine(10, offset=NAN),
    "all signal gone before the end": lambda: schedules.from_betas(torch.tensor([0.5, 1.0, 0.5])),
    "all signal gone at once": lambda: schedules.from_betas(torch.tensor([1.0])),
    "no betas": lambda: schedules.from_betas(torch.zeros(0)),
    "betas in a square": lambda: schedules.from_betas(torch.full((2, 2), 0.1)),
    "growing signal": lambda: schedules.from_alphas_cumprod(torch.tensor([0.5, 0.6])),
    "signal above one": lambda: schedules.from_alphas_cumprod(torch.tensor([1.5, 0.6])),
    "signal that is not a number": lambda: schedules.from_alphas_cumprod(torch.tensor([NAN])),
    "no signal table": lambda: schedules.from_alphas_cumprod(torch.zeros(0)),
    "sigmas the wrong way round": lambda: schedules.ve(50, 0.01),
    "an endless sigma": lambda: schedules.ve(0.01, math.inf),
    "no noise": lambda: schedules.edm(0.0, 80.0),
    "betas the wrong way round": lambda: schedules.vp(20, 0.1),
    "a shift of nothing": lambda: schedules.flow(0.0),
    "a shift that is not a number": lambda: schedules.flow(NAN),
    "variance that explodes, to zero": lambda: schedules.zero_terminal_snr(schedules.ve()),
    "one step, to zero": lambda: schedules.zero_terminal_snr(schedules.linear(1)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    with pytest.raises(UsageError):
        REFUSED[case]()
