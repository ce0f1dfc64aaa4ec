"""Loss weights: one belief has one loss, in whichever space it is written."""

import math

import pytest
import torch
from torch import Tensor

from fromnoise import schedules
from fromnoise.core.errors import UsageError
from fromnoise.parameterizations import PARAMETERIZATIONS, Parameterization
from fromnoise.schedules import Schedule
from fromnoise.training import WEIGHTINGS, Level

T = torch.tensor([0.001, 0.1, 0.25, 0.5, 0.75, 0.999, 1.0], dtype=torch.float64)


def level(schedule: Schedule, reading: Parameterization, t: Tensor = T) -> Level:
    return Level(t, schedule, reading.coefficients(schedule(t)).out)


def space_weight(kind: str, weighting: dict[str, object], schedule: Schedule) -> Tensor:
    """What multiplies the squared error of the network's output."""
    at = level(schedule, PARAMETERIZATIONS.build({"kind": kind}))
    return WEIGHTINGS.build(weighting)(at) * at.out**2


def test_min_snr_has_its_published_form_in_three_spaces() -> None:
    schedule = schedules.scaled_linear(1000, 0.00085, 0.012)
    t = schedule.index_time(torch.tensor([0, 100, 250, 500, 999]))
    snr = torch.exp(schedule.log_snr(t))
    ones = torch.ones_like(snr)
    forms = {"eps": torch.minimum(5 / snr, ones), "v": snr.clamp(max=5) / (snr + 1)}
    forms["x0"] = snr.clamp(max=5)
    for kind, form in forms.items():
        at = level(schedule, PARAMETERIZATIONS.build({"kind": kind}), t)
        found = WEIGHTINGS.build({"kind": "min_snr", "gamma": 5.0})(at) * at.out**2
        torch.testing.assert_close(found, form, rtol=1e-10, atol=0)
    published = [0.0042536156, 0.5914434426, 1.0, 1.0, 1.0]
    assert forms["eps"].tolist() == pytest.approx(published, rel=1e-7)
    assert forms["v"][1].item() == pytest.approx(0.5288826121, rel=1e-8)


@pytest.mark.parametrize("name", ["snr", "min_snr", "p2", "edm", "elbo"])
def test_one_belief_has_one_loss_in_every_space(name: str) -> None:
    schedule = schedules.cosine(1000)
    generator = torch.Generator().manual_seed(0)
    t = T[:-1]
    x0, noise, belief = torch.randn(3, len(t), dtype=torch.float64, generator=generator)
    alpha, sigma = schedule(t)
    x = alpha * x0 + sigma * noise
    losses = []
    # Tokens have no noise to weigh.
    for kind in sorted(set(PARAMETERIZATIONS) - {"tokens"}):
        reading = PARAMETERIZATIONS.build({"kind": kind})
        skip, out, _ = reading.coefficients(schedule(t))
        output = (belief - skip * x) / out
        error = output - reading.regression_target(x0, noise, schedule(t))
        at = level(schedule, reading, t)
        losses.append(WEIGHTINGS.build({"kind": name})(at) * at.out**2 * error**2)
    assert len(losses) == 6
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0], rtol=1e-8, atol=0)


def test_p2_is_the_squared_error_of_eps_over_one_plus_snr() -> None:
    schedule = schedules.linear(1000, 1e-4, 0.02)
    form = 1 / (1 + torch.exp(schedule.log_snr(T)))
    torch.testing.assert_close(space_weight("eps", {"kind": "p2"}, schedule), form)
    torch.testing.assert_close(form, schedule(T).sigma ** 2)
    plain = space_weight("eps", {"kind": "p2", "gamma": 0.0}, schedule)
    torch.testing.assert_close(plain, torch.ones_like(plain))


def test_snr_is_the_plain_error_of_eps_and_simple_that_of_the_output() -> None:
    schedule = schedules.linear(1000, 1e-4, 0.02)
    one = torch.ones_like(T)
    torch.testing.assert_close(space_weight("eps", {"kind": "snr"}, schedule), one)
    for kind in PARAMETERIZATIONS:
        torch.testing.assert_close(space_weight(kind, {"kind": "simple"}, schedule), one)


@pytest.mark.parametrize("sigma_data", [0.5, 0.75])
def test_edm_weight_times_its_output_coefficient_squared_is_one(sigma_data: float) -> None:
    schedule = schedules.edm()
    sigmas = torch.tensor([0.002, 0.5, 2.0, 80.0], dtype=torch.float64)
    t = schedule.time(-2 * sigmas.log())
    reading = PARAMETERIZATIONS.build({"kind": "edm", "sigma_data": sigma_data})
    at = level(schedule, reading, t)
    weight = WEIGHTINGS.build({"kind": "edm", "sigma_data": sigma_data})(at)
    torch.testing.assert_close(
        weight, (sigmas**2 + sigma_data**2) / (sigmas * sigma_data) ** 2, rtol=1e-9, atol=0
    )
    torch.testing.assert_close(weight * at.out**2, torch.ones_like(t), rtol=1e-9, atol=0)


@pytest.mark.parametrize("schedule", [schedules.vp(), schedules.cosine(100), schedules.edm()])
def test_the_slope_of_log_snr_is_the_schedules_own_rate(schedule: Schedule) -> None:
    at = Level(T, schedule, torch.ones_like(T))
    torch.testing.assert_close(at.slope, -2 * schedule.path.rate(T), rtol=1e-10, atol=0)


def test_the_bound_depends_on_the_schedule_only_through_its_ends() -> None:
    """½∫ mmse dSNR = ½ log((1 + SNR_max·s²)/(1 + SNR_min·s²)) for Gaussian data of variance s²."""
    variance = 0.25
    for schedule in (schedules.vp(), schedules.ve(0.01, 50.0)):
        t = torch.linspace(0.05, 1.0, 200_001, dtype=torch.float64)
        at = Level(t, schedule, torch.ones_like(t))
        mmse = variance / (1 + variance * at.snr)
        total = torch.trapezoid(WEIGHTINGS.build({"kind": "elbo"})(at) * mmse, t)
        first, last = at.snr[0] * variance, at.snr[-1] * variance
        expected = 0.5 * math.log((1 + first) / (1 + last))
        assert total.item() == pytest.approx(expected, rel=1e-6)


def test_the_discrete_bound_is_the_vlb_of_the_chain() -> None:
    """Its weights telescope to the difference of the ends; the first step stands apart."""
    schedule, steps = schedules.linear(200, 1e-4, 0.05), 200
    t = schedule.index_time(torch.arange(steps))
    at = Level(t, schedule, torch.ones_like(t))
    weight = WEIGHTINGS.build({"kind": "elbo", "steps": steps})(at)
    assert (weight > 0).all()
    total = weight[1:].sum() / steps
    assert total.item() == pytest.approx(0.5 * (at.snr[0] - at.snr[-1]).item(), rel=1e-10)
    assert weight[0].item() == pytest.approx(0.5 * steps * at.snr[0].item(), rel=1e-12)


@pytest.mark.parametrize(
    "config",
    [
        {"kind": "min_snr", "gamma": 0.0},
        {"kind": "p2", "k": 0.0},
        {"kind": "edm", "sigma_data": 0},
        {"kind": "elbo", "steps": 0},
        {"kind": "snrr"},
        {"kind": "sigmoid", "bias": float("inf")},
    ],
)
def test_impossible_weights_are_refused(config: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        WEIGHTINGS.build(config)


BIASES = (-3.0, 0.0, 2.0)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("schedule", [schedules.cosine(100), schedules.vp(), schedules.edm()])
def test_sigmoid_is_the_bound_times_a_sigmoid(bias: float, schedule: Schedule) -> None:
    """On the error of ε, ½·(−dλ/dt)·sigmoid(bias − λ): Kingma & Gao 2023 write the loss so."""
    at = Level(T, schedule, torch.ones_like(T))
    weight = WEIGHTINGS.build({"kind": "sigmoid", "bias": bias})(at)
    bound = WEIGHTINGS.build({"kind": "elbo"})(at)
    torch.testing.assert_close(weight, bound * torch.sigmoid(bias - at.log_snr))
    of_eps = weight / at.snr
    torch.testing.assert_close(of_eps, -0.5 * at.slope * torch.sigmoid(bias - at.log_snr))
    # Half of the bound's at λ = bias, all of it where there is only noise.
    level_out = Level(schedule.time(torch.tensor([bias]).double()), schedule, torch.ones(1))
    half = WEIGHTINGS.build({"kind": "sigmoid", "bias": bias})(level_out)
    torch.testing.assert_close(half, 0.5 * WEIGHTINGS.build({"kind": "elbo"})(level_out))


@pytest.mark.parametrize("bias", BIASES)
def test_sigmoid_without_the_slope_is_p2(bias: float) -> None:
    at = Level(T, schedules.vp(), torch.ones_like(T))
    weight = WEIGHTINGS.build({"kind": "sigmoid", "bias": bias})(at) / (-0.5 * at.slope)
    p2 = WEIGHTINGS.build({"kind": "p2", "k": math.exp(bias), "gamma": 1.0})(at)
    torch.testing.assert_close(weight, math.exp(bias) * p2)


def test_the_sigmoid_loss_is_the_same_on_every_schedule() -> None:
    """∫ w(t)·mmse dt depends on the ends alone, as the integral over λ does."""
    low, high, variance = -6.0, 6.0, 0.25
    found = []
    for schedule in (schedules.vp(), schedules.edm()):
        ends = schedule.time(torch.tensor([high, low]).double())
        t = torch.linspace(float(ends[0]), float(ends[1]), 100_001, dtype=torch.float64)
        at = Level(t, schedule, torch.ones_like(t))
        mmse = variance / (1 + variance * at.snr)
        found.append(torch.trapezoid(WEIGHTINGS.build({"kind": "sigmoid"})(at) * mmse, t).item())
    assert found[0] == pytest.approx(found[1], rel=1e-4)
