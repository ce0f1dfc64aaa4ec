"""Exact denoisers against autograd of log p_t, against each other, and against their limits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fromnoise import schedules
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.tensors import times
from fromnoise.denoisers import EmpiricalDenoiser, GaussianDenoiser, MixtureDenoiser, Prediction
from fromnoise.layers.condition import Condition
from fromnoise.operators import Blur
from fromnoise.processes import Cold, Gaussian, Spectral
from fromnoise.schedules import Schedule

SCHEDULES: dict[str, Schedule] = {
    "linear": schedules.linear(),
    "sub_vp": schedules.sub_vp(),
    "ve": schedules.ve(),
    "flow": schedules.flow(),
}
ON = pytest.mark.parametrize("name", SCHEDULES)
TIMES = torch.tensor([0.02, 0.1, 0.3, 0.5, 0.8, 1.0], dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def mixture(process: Schedule, labels: torch.Tensor | None = None) -> MixtureDenoiser:
    means = torch.tensor([[-1.0, 0.2, 0.0], [0.6, -0.4, 1.0], [1.5, 1.5, -1.0]])
    weights, stds = torch.tensor([0.3, 0.5, 0.2]), torch.tensor([0.3, 0.2, 0.6])
    return MixtureDenoiser(weights, means, stds, process, labels)


def observed(schedule: Schedule, *shape: int) -> torch.Tensor:
    """Plausible x at TIMES: unit data and its noise."""
    alpha, sigma = (c.reshape(-1, *[1] * len(shape)) for c in schedule(TIMES))
    return alpha * normal(len(TIMES), *shape) + sigma * normal(len(TIMES), *shape, seed=1)


@ON
def test_the_score_of_a_mixture_is_the_gradient_of_its_log_density(name: str) -> None:
    denoiser = mixture(SCHEDULES[name])
    x = observed(SCHEDULES[name], 3).requires_grad_()
    (wanted,) = torch.autograd.grad(denoiser.log_prob(x, TIMES).sum(), x)
    score = denoiser(x.detach(), TIMES).score
    np.testing.assert_allclose(score, wanted, rtol=1e-10, atol=1e-10)


@ON
def test_the_score_of_a_gaussian_is_the_gradient_of_its_log_density(name: str) -> None:
    std = 0.1 + normal(2, 3, 3).abs()
    denoiser = GaussianDenoiser(normal(2, 3, 3, seed=5), std, SCHEDULES[name])
    x = observed(SCHEDULES[name], 2, 3, 3).requires_grad_()
    (wanted,) = torch.autograd.grad(denoiser.log_prob(x, TIMES).sum(), x)
    np.testing.assert_allclose(denoiser(x.detach(), TIMES).score, wanted, rtol=1e-10, atol=1e-10)


def test_the_score_in_the_frequency_basis_is_the_gradient_too() -> None:
    process = Spectral(schedules.vp(), 4, 3, blur=2.0, tilt=1.0)
    denoiser = GaussianDenoiser(normal(1, 4, 3), 0.2 + normal(1, 4, 3, seed=2).abs(), process)
    x = normal(len(TIMES), 1, 4, 3, seed=1).requires_grad_()
    (wanted,) = torch.autograd.grad(denoiser.log_prob(x, TIMES).sum(), x)
    np.testing.assert_allclose(denoiser(x.detach(), TIMES).score, wanted, rtol=1e-9, atol=1e-9)


def variance_by_tweedie(
    denoiser: MixtureDenoiser | GaussianDenoiser, schedule: Schedule, x: torch.Tensor
) -> torch.Tensor:
    """Var[x0 | x] = σ²/α²·(1 + σ²·∂²log p/∂x²), element by element."""
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(denoiser.log_prob(x, TIMES).sum(), x, create_graph=True)
    flat, second = slope.flatten(1), torch.zeros_like(x).flatten(1)
    for i in range(flat.shape[1]):
        (row,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=True)
        second[:, i] = row.flatten(1)[:, i]
    alpha, sigma = (c.reshape(-1, *[1] * (x.ndim - 1)) for c in schedule(TIMES))
    return (sigma / alpha) ** 2 * (1 + sigma**2 * second.reshape(x.shape))


@pytest.mark.parametrize("name", ["linear", "ve", "sub_vp"])
def test_the_variance_follows_from_the_second_derivative(name: str) -> None:
    schedule = SCHEDULES[name]
    x = observed(schedule, 3)
    for denoiser in (mixture(schedule), GaussianDenoiser(0.3, 0.7, schedule)):
        var = denoiser(x, TIMES).var
        assert var is not None
        wanted = variance_by_tweedie(denoiser, schedule, x)
        # Late in time the second derivative is close to −1/σ²: the sum loses σ²/α² digits.
        alpha, sigma = schedule(TIMES)
        slack = 1e-13 * (1 + (sigma / alpha) ** 2).reshape(-1, 1) * (1 + sigma.reshape(-1, 1) ** 2)
        assert bool(((var - wanted).abs() <= 1e-9 * wanted.abs() + slack).all())


@ON
def test_a_mixture_of_one_is_a_gaussian(name: str) -> None:
    schedule = SCHEDULES[name]
    mean, x = normal(3, seed=9), observed(schedule, 3)
    one = MixtureDenoiser(torch.ones(1), mean[None], torch.tensor([0.4]), schedule)
    gaussian = GaussianDenoiser(mean, torch.tensor(0.4), schedule)
    first, second = one(x, TIMES), gaussian(x, TIMES)
    np.testing.assert_allclose(first.x0, second.x0, rtol=1e-6, atol=1e-12)
    assert first.var is not None
    assert second.var is not None
    np.testing.assert_allclose(first.var.expand(6, 3), second.var.expand(6, 3), rtol=1e-6)
    np.testing.assert_allclose(one.log_prob(x, TIMES), gaussian.log_prob(x, TIMES), rtol=1e-6)


@ON
def test_the_data_set_is_a_mixture_of_points(name: str) -> None:
    schedule, data = SCHEDULES[name], normal(7, 3)
    points = MixtureDenoiser(torch.ones(7), data, torch.full((7,), 1e-9), schedule)
    empirical, x = EmpiricalDenoiser(data, schedule), observed(schedule, 3)
    first, second = points(x, TIMES), empirical(x, TIMES)
    np.testing.assert_allclose(first.x0, second.x0, rtol=0, atol=1e-9)
    assert first.var is not None
    assert second.var is not None
    np.testing.assert_allclose(first.var, second.var, rtol=0, atol=1e-9)


def test_the_data_set_in_the_frequency_basis() -> None:
    """Bayes' rule written out: softmax of −Σ_k (z_k − α_k·p_k)²/2σ_k²."""
    process, data = Spectral(schedules.vp(), 4, 4, blur=2.0, tilt=1.0), normal(5, 1, 4, 4)
    t = times(0.4, 3)
    x = process.corrupt(data[:3], t, normal(3, 1, 4, 4, seed=3))
    alpha, sigma = process.scales(t, x)
    gap = process.analyse(x)[:, None] - alpha[:, None] * process.analyse(data)
    share = torch.softmax(-0.5 * (gap / sigma[:, None]).square().flatten(2).sum(2), dim=1)
    wanted = (share @ data.flatten(1)).reshape(x.shape)
    np.testing.assert_allclose(EmpiricalDenoiser(data, process)(x, t).x0, wanted, atol=1e-10)


def test_the_data_set_remembers_itself_near_data() -> None:
    data = normal(50, 1, 4, 4)
    denoiser = EmpiricalDenoiser(data, schedules.linear())
    for t in (0.0, 1e-6, 1e-3):
        when = times(t, 50)
        x = denoiser.process.corrupt(data, when, normal(50, 1, 4, 4, seed=1))
        np.testing.assert_allclose(denoiser(x, when).x0, data, rtol=0, atol=1e-9)


def test_without_signal_the_belief_is_the_mean_of_the_data() -> None:
    when, x = times(1.0, 2), normal(2, 3)
    flow, data = schedules.flow(), normal(9, 3)
    np.testing.assert_allclose(
        EmpiricalDenoiser(data, flow)(x, when).x0, data.mean(0).expand(2, 3), atol=1e-12
    )
    made = mixture(flow)
    mean = (made.weights[:, None] * made.means).sum(0)
    np.testing.assert_allclose(made(x, when).x0, mean.expand(2, 3), atol=1e-12)
    both = GaussianDenoiser(0.3, 0.5, flow)(x, when)
    np.testing.assert_allclose(both.x0, torch.full((2, 3), 0.3), rtol=1e-7)
    assert both.var is not None
    np.testing.assert_allclose(both.var, torch.full((2, 1), 0.25), rtol=1e-7)


def test_at_time_zero_the_belief_is_x() -> None:
    x, zero = normal(2, 3), times(0.0, 2)
    for denoiser in (mixture(schedules.vp()), GaussianDenoiser(0.3, 0.5, schedules.vp())):
        made = denoiser(x, zero)
        np.testing.assert_allclose(made.x0, x, rtol=1e-12)
        assert made.var is not None
        np.testing.assert_allclose(made.var, torch.zeros_like(made.var), atol=1e-15)


def label(*classes: int | None) -> Condition:
    rows = torch.zeros(len(classes), 2)
    for row, value in enumerate(classes):
        if value is not None:
            rows[row, value] = 1.0
    return Condition(vector={"label": rows})


def test_a_label_keeps_its_components_only() -> None:
    schedule = schedules.linear()
    labelled = mixture(schedule, labels=torch.tensor([0, 1, 0]))
    x = observed(schedule, 3)
    keep = torch.tensor([0, 2])
    of_class = MixtureDenoiser(
        labelled.weights[keep], labelled.means[keep], labelled.stds[keep], schedule
    )
    told = labelled(x, TIMES, label(*[0] * 6))
    np.testing.assert_allclose(told.x0, of_class(x, TIMES).x0, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        labelled.log_prob(x, TIMES, label(*[0] * 6)),
        # Its weights are those of the class: 0.3 and 0.2 renormalised.
        of_class.log_prob(x, TIMES),
        rtol=1e-12,
    )
    alone = GaussianDenoiser(labelled.means[1], labelled.stds[1], schedule)(x, TIMES)
    np.testing.assert_allclose(labelled(x, TIMES, label(*[1] * 6)).x0, alone.x0, atol=1e-12)
    nothing = labelled(x, TIMES, label(*[None] * 6))
    np.testing.assert_allclose(nothing.x0, labelled(x, TIMES).x0, rtol=1e-14)
    assert not torch.allclose(nothing.x0, told.x0)


def test_each_row_has_its_own_label() -> None:
    schedule = schedules.linear()
    labelled, x = mixture(schedule, labels=torch.tensor([0, 1, 0])), observed(schedule, 3)
    mixed = labelled(x, TIMES, label(0, 1, None, 1, 0, None)).x0
    for row, value in enumerate((0, 1, None, 1, 0, None)):
        part = slice(row, row + 1)
        alone = labelled(x[part], TIMES[part], label(value)).x0
        np.testing.assert_allclose(mixed[part], alone, rtol=1e-12)


@given(a=st.floats(0.1, 0.9), w=st.floats(-2, 5))
def test_guidance_is_the_same_affine_map_in_every_view(a: float, w: float) -> None:
    schedule = schedules.vp()
    labelled = mixture(schedule, labels=torch.tensor([0, 1, 0]))
    when, x = times(a, 4), normal(4, 3)
    null, told = labelled(x, when), labelled(x, when, label(*[0] * 4))
    mixed = Prediction(null.x0 + w * (told.x0 - null.x0), x, when, labelled.process)
    for view in ("eps", "v", "score", "flow"):
        one, two = getattr(null, view), getattr(told, view)
        np.testing.assert_allclose(
            getattr(mixed, view), one + w * (two - one), rtol=1e-8, atol=1e-8
        )


def test_samples_of_a_mixture_have_its_moments() -> None:
    made, count = mixture(schedules.linear()), 40_000
    points = made.draw(count, seed=3)
    mean = (made.weights[:, None] * made.means).sum(0)
    second = (made.weights[:, None] * (made.stds[:, None] ** 2 + made.means**2)).sum(0)
    spread = (second - mean**2).sqrt()
    assert bool(((points.mean(0) - mean).abs() < 5 * spread / math.sqrt(count)).all())
    assert bool(((points.var(0) / spread**2 - 1).abs() < 5 * math.sqrt(3 / count)).all())
    assert torch.equal(points, made.draw(count, seed=3))


def test_densities_integrate_to_one() -> None:
    made = MixtureDenoiser(
        torch.tensor([3.0, 7.0]),
        torch.tensor([[-1.0], [0.6]]),
        torch.tensor([0.3, 0.2]),
        schedules.vp(),
    )
    x = torch.linspace(-12, 12, 20001, dtype=torch.float64)[:, None]
    for t in (0.0, 0.3, 1.0):
        total = torch.trapezoid(made.log_prob(x, times(t, len(x))).exp(), x[:, 0]).item()
        assert math.isclose(total, 1.0, rel_tol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_of_x_is_kept(dtype: torch.dtype) -> None:
    x, schedule = normal(6, 3).to(dtype), schedules.linear()
    for denoiser in (
        mixture(schedule),
        GaussianDenoiser(0.0, 1.0, schedule),
        EmpiricalDenoiser(normal(4, 3), schedule),
    ):
        made = denoiser(x, TIMES)
        assert made.var is not None
        assert made.x0.dtype == made.var.dtype == made.eps.dtype == dtype


def test_mixtures_of_mismatched_parts_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"weights \(K,\)"):
        MixtureDenoiser(torch.ones(2), torch.zeros(3, 1), torch.ones(3), schedules.vp())


def test_noise_views_of_a_cold_belief_raise() -> None:
    x = normal(1, 1, 4, 4)
    belief = Prediction(x, x, times(0.5, 1), Cold(Blur()))
    for view in ("eps", "v", "score", "flow"):
        with pytest.raises(UsageError, match="no noise"):
            getattr(belief, view)


def test_binding_fixes_the_condition() -> None:
    schedule = schedules.linear()
    labelled = mixture(schedule, labels=torch.tensor([0, 1, 0]))
    bound = labelled.bind(label(*[1] * 6), torch.tensor([1.0, 0.0]))
    x = observed(schedule, 3)
    assert torch.equal(bound(x, TIMES).x0, labelled(x, TIMES, label(*[1] * 6)).x0)
    assert isinstance(bound.process, Gaussian)
