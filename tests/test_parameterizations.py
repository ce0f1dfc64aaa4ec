"""Six readings of one output: each inverts its target, on every schedule, to the ends of time."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fromnoise import schedules
from fromnoise.core.config import plain
from fromnoise.core.tensors import expand
from fromnoise.denoisers import Prediction
from fromnoise.parameterizations import EDM, PARAMETERIZATIONS, V
from fromnoise.processes import Gaussian
from fromnoise.schedules import Scales, Schedule

SCHEDULES: dict[str, Schedule] = {
    "linear": schedules.linear(),
    "course": schedules.linear(500),
    "cosine": schedules.cosine(),
    "zero": schedules.zero_terminal_snr(schedules.linear()),
    "vp": schedules.vp(),
    "sub_vp": schedules.sub_vp(),
    "ve": schedules.ve(),
    "edm": schedules.edm(),
    "flow": schedules.flow(),
    "shifted flow": schedules.flow(3.0),
}
# That of masked tokens reads no noise: tests/training/test_masked.py.
NAMES = sorted(set(PARAMETERIZATIONS) - {"tokens"})
ACROSS = pytest.mark.parametrize("kind", NAMES)
ON = pytest.mark.parametrize("schedule", SCHEDULES)
# A network that says ε says nothing of x0 where no signal is left.
DEFINED_WITHOUT_SIGNAL = ["x0", "v", "flow", "edm"]
TIMES = torch.tensor(
    [0.0, 1e-6, 1e-3, 0.01, 0.2, 0.5, 0.8, 0.99, 0.999999, 1.0], dtype=torch.float64
)


def pair(batch: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x0, noise = torch.randn(2, batch, 3, 4, 4, generator=generator, dtype=torch.float64)
    return x0, noise


@ACROSS
@ON
def test_reading_the_target_gives_x0(kind: str, schedule: str) -> None:
    parameterization, t = PARAMETERIZATIONS[kind](), TIMES
    scales = SCHEDULES[schedule](t)
    if kind not in DEFINED_WITHOUT_SIGNAL:
        t = t[scales.alpha > 0]
        scales = SCHEDULES[schedule](t)
    x0, noise = pair(len(t))
    x = expand(scales.alpha, x0) * x0 + expand(scales.sigma, x0) * noise
    target = parameterization.regression_target(x0, noise, scales)
    read = parameterization.read(target, x, scales)
    # What rounding in x costs: ε and score divide by α, and where α + σ > 1 others lose as much.
    worst = 1 + scales.sigma / scales.alpha if kind in ("eps", "score") else 1 + scales.sigma
    error = (read - x0).abs().flatten(1).amax(1)
    assert bool((error <= 4e-15 * worst).all())


@ACROSS
@ON
def test_targets_follow_from_skip_and_out(kind: str, schedule: str) -> None:
    """a = (1 − skip·α)/out and b = −skip·σ/out, away from where they are 0/0."""
    parameterization = PARAMETERIZATIONS[kind]()
    scales = SCHEDULES[schedule](TIMES[3:-2])
    skip, out, _ = parameterization.coefficients(scales)
    a, b = parameterization.target(scales)
    ratio = (scales.sigma / scales.alpha).clamp(min=1)
    slack = 1e-13 * (1 + (1 / out).abs()) * ratio
    assert bool(((a - (1 - skip * scales.alpha) / out).abs() <= slack).all())
    assert bool(((b + skip * scales.sigma / out).abs() <= slack).all())


@ACROSS
def test_targets_are_finite_at_both_ends(kind: str) -> None:
    for schedule in SCHEDULES.values():
        a, b = PARAMETERIZATIONS[kind]().target(schedule(torch.tensor([0.0, 1.0])))
        assert bool((a.isfinite() & b.isfinite()).all())


@pytest.mark.parametrize("kind", DEFINED_WITHOUT_SIGNAL)
def test_without_signal_the_belief_is_still_finite(kind: str) -> None:
    scales = SCHEDULES["flow"](torch.ones(2, dtype=torch.float64))
    assert bool((scales.alpha == 0).all())
    x, output = pair(2)
    assert bool(PARAMETERIZATIONS[kind]().read(output, x, scales).isfinite().all())
    # The control: an ε prediction is not.
    assert not bool(PARAMETERIZATIONS["eps"]().read(output, x, scales).isfinite().any())


@given(t=st.floats(0.001, 0.999), on=st.sampled_from(["linear", "vp", "flow", "ve", "sub_vp"]))
def test_conversions(t: float, on: str) -> None:
    """ε, x0, v, u and the score as views of one belief, round trip to 1e-12."""
    schedule = SCHEDULES[on]
    when = torch.full((2,), t, dtype=torch.float64)
    alpha, sigma = (c.reshape(-1, 1, 1, 1) for c in schedule(when))
    x0, noise = pair(2)
    x = alpha * x0 + sigma * noise
    view = Prediction(x0, x, when, Gaussian(schedule))
    near = {"rtol": 1e-12, "atol": 1e-12 * (1 + (alpha / sigma).max().item())}
    np.testing.assert_allclose(view.eps, noise, **near)
    np.testing.assert_allclose(view.v, alpha * noise - sigma * x0, **near)
    np.testing.assert_allclose(view.flow, noise - x0, **near)
    np.testing.assert_allclose(view.score * sigma, -noise, **near)
    np.testing.assert_allclose((x - sigma * view.eps) / alpha, x0, rtol=1e-12, atol=1e-12)
    back = (alpha * x - sigma * view.v) / (alpha**2 + sigma**2)
    np.testing.assert_allclose(back, x0, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose((x - sigma * view.flow) / (alpha + sigma), x0, rtol=0, atol=1e-12)
    # Where variance is preserved, ε = σ·x + α·v.
    if on in ("linear", "vp"):
        np.testing.assert_allclose(sigma * x + alpha * view.v, noise, **near)


@ACROSS
def test_the_views_of_a_prediction_are_what_networks_are_trained_on(kind: str) -> None:
    """The target of each parameterization is the view of the same name (the score's times σ)."""
    schedule = SCHEDULES["linear"]
    when = torch.tensor([0.1, 0.6], dtype=torch.float64)
    x0, noise = pair(2)
    process = Gaussian(schedule)
    view = Prediction(x0, process.corrupt(x0, when, noise), when, process)
    sigma = expand(schedule(when).sigma, x0)
    views = {"eps": view.eps, "x0": view.x0, "v": view.v, "flow": view.flow}
    views["score"] = sigma * view.score
    if kind in views:
        target = PARAMETERIZATIONS[kind]().regression_target(x0, noise, schedule(when))
        np.testing.assert_allclose(target, views[kind], rtol=1e-11, atol=1e-11)


def test_published_edm_preconditioning() -> None:
    """Karras et al. 2022, table 1, at σ_data = 0.5."""
    sigma = torch.tensor([0.002, 0.5, 2.0, 80.0], dtype=torch.float64)
    scales, edm = Scales(torch.ones_like(sigma), sigma), EDM()
    skip, out, inside = edm.coefficients(scales)
    np.testing.assert_allclose(skip, [0.999984, 0.5, 0.05882353, 3.9060974e-05], rtol=5e-8)
    published = [0.00199998400, 0.35355339, 0.48507125, 0.49999023]
    np.testing.assert_allclose(out, published, rtol=2e-8)
    published = [1.99998400, 1.41421356, 0.48507125, 0.01249976]
    np.testing.assert_allclose(inside, published, rtol=4e-7)
    published = [-1.55365202, -0.17328680, 0.17328680, 1.09550662]
    np.testing.assert_allclose(edm.time(torch.zeros(4), scales), published, rtol=5e-8)
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    np.testing.assert_allclose(weight * out**2, torch.ones(4), rtol=1e-14)
    np.testing.assert_allclose(inside**2 * (sigma**2 + 0.25), torch.ones(4), rtol=1e-14)


@ON
@pytest.mark.parametrize("spread", [0.25, 0.5, 1.0])
def test_edm_inputs_and_targets_have_unit_variance(schedule: str, spread: float) -> None:
    """For data of standard deviation σ_d: Var(in·x) = Var(target) = 1 at every level."""
    scales, edm = SCHEDULES[schedule](TIMES), EDM(sigma_data=spread)
    inside = edm.coefficients(scales).inside
    a, b = edm.target(scales)
    variance = inside**2 * ((scales.alpha * spread) ** 2 + scales.sigma**2)
    np.testing.assert_allclose(variance, torch.ones_like(variance), rtol=1e-14)
    np.testing.assert_allclose((a * spread) ** 2 + b**2, torch.ones_like(a), rtol=1e-14)


def test_edm_with_unit_data_on_a_preserving_schedule_is_minus_v() -> None:
    scales = SCHEDULES["linear"](TIMES[1:-1])
    for ours, theirs, sign in zip(
        EDM(sigma_data=1.0).coefficients(scales), V().coefficients(scales), (1, -1, 1), strict=True
    ):
        np.testing.assert_allclose(ours, sign * theirs, rtol=1e-13)


@pytest.mark.parametrize("kind", ["eps", "x0", "v", "score"])
def test_inputs_keep_unit_variance(kind: str) -> None:
    for name, schedule in SCHEDULES.items():
        scales = schedule(TIMES)
        inside = PARAMETERIZATIONS[kind]().coefficients(scales).inside
        np.testing.assert_allclose(
            inside**2 * (scales.alpha**2 + scales.sigma**2), np.ones(len(TIMES)), rtol=1e-14
        )
        if name in ("linear", "vp", "zero"):
            np.testing.assert_allclose(inside, np.ones(len(TIMES)), rtol=1e-14)


def test_what_the_network_is_told_of_the_time() -> None:
    schedule = schedules.linear(1000)
    t = schedule.index_time(torch.tensor([0, 250, 999]))
    scales = schedule(t)
    told = PARAMETERIZATIONS["eps"]().time(t, scales)
    np.testing.assert_allclose(told, [0, 250, 999], atol=1e-10)
    course = schedules.linear(500)
    told = PARAMETERIZATIONS["eps"](clock_scale=500.0).time(
        course.index_time(torch.tensor([0, 499])), scales
    )
    np.testing.assert_allclose(told, [0, 499], atol=1e-10)
    told = PARAMETERIZATIONS["flow"]().time(t, scales)
    np.testing.assert_allclose(told, t * 1000, rtol=1e-15)
    told = PARAMETERIZATIONS["x0"](clock="sigma", clock_scale=2.0).time(t, scales)
    np.testing.assert_allclose(told, 2 * scales.sigma, rtol=1e-15)
    told = PARAMETERIZATIONS["score"]().time(t, scales)
    np.testing.assert_allclose(told, torch.log(scales.sigma / scales.alpha), rtol=1e-12)


@ACROSS
def test_configuration_makes_the_same_again(kind: str) -> None:
    made = PARAMETERIZATIONS[kind](clock="sigma", clock_scale=3.0)
    again = PARAMETERIZATIONS.build(json.loads(json.dumps(plain(made))))
    assert again == made
    assert again.config == made.config
    assert again.config["kind"] == kind


@ACROSS
def test_the_output_keeps_the_type_of_x(kind: str) -> None:
    scales = SCHEDULES["linear"](torch.tensor([0.3, 0.5]))
    x0, noise = (part.float() for part in pair(2))
    made = PARAMETERIZATIONS[kind]()
    assert made.read(noise.bfloat16(), x0, scales).dtype == torch.float32
    assert made.regression_target(x0, noise, scales).dtype == torch.float32


def test_minimum_snr_weights_agree_across_parameterizations() -> None:
    """ε-error = SNR·x0-error and v-error = (SNR + 1)·x0-error: 1/out² turns one into the other."""
    scales = SCHEDULES["linear"](TIMES[2:-1])
    snr = (scales.alpha / scales.sigma) ** 2
    for kind, factor in (("x0", torch.ones_like(snr)), ("eps", snr), ("v", snr + 1)):
        out = PARAMETERIZATIONS[kind]().coefficients(scales).out
        np.testing.assert_allclose(1 / out**2, factor, rtol=1e-10)
    assert math.isclose(snr[0].item(), (1 - 1e-4) / 1e-4, rel_tol=1e-9)
