"""Guidance by any function of the picture: exact where that can be known, and safe elsewhere."""

import pytest
import torch
from model.tiny import tiny
from torch import Tensor

from fromnoise import grids, processes, schedules
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.denoisers import Denoiser, GaussianDenoiser, Prediction
from fromnoise.guidance import LossGuided, SelfConditioning, loss, moved
from fromnoise.layers.condition import Condition
from fromnoise.samplers import get, last, sample

SCHEDULE = schedules.ve(0.002, 80.0)
COVARIANCE = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
SEEN, SPREAD = 1.5, 0.1


def same(x: Tensor) -> Tensor:
    return x


def times(count: int, t: float = 0.5) -> Tensor:
    return torch.full((count,), t, dtype=torch.float64)


class Correlated(Denoiser):
    """x0 ~ N(0, C) with C not diagonal: E[x0 | x_t] = α·C·(α²·C + σ²)⁻¹·x_t. Counts calls."""

    def __init__(self, schedule: schedules.Schedule = SCHEDULE) -> None:
        self.process = processes.Gaussian(schedule)
        self.calls = 0

    def gain(self, t: float) -> Tensor:
        alpha, sigma = self.process.schedule.at(t)
        eye = torch.eye(2, dtype=torch.float64)
        return alpha * COVARIANCE @ torch.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * eye)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        self.calls += 1
        x0 = torch.stack([self.gain(float(s)) @ row for row, s in zip(x, t, strict=True)])
        return Prediction(x0, x, t, self.process)


def covariance(alpha: Tensor, sigma: Tensor) -> Tensor:
    """Cov[x0 | x_t] (B, 2, 2)."""
    level = (alpha / sigma) ** 2
    return torch.linalg.inv(
        torch.linalg.inv(COVARIANCE) + level[:, None, None] * torch.eye(2, dtype=torch.float64)
    )


def exact(alpha: Tensor, sigma: Tensor) -> Tensor:
    """1/(σ_y² + Var[A·x0 | x_t])."""
    return 1.0 / (SPREAD**2 + covariance(alpha, sigma)[:, 0, 0])


def measured(x0: Tensor) -> Tensor:
    return 0.5 * (x0[:, 0] - SEEN) ** 2


@pytest.mark.parametrize("schedule", [SCHEDULE, schedules.cosine(), schedules.flow()])
@pytest.mark.parametrize("t", [0.05, 0.3, 0.6, 0.9])
def test_the_belief_is_the_posterior_mean_of_a_linear_gaussian_measurement(
    schedule: schedules.Schedule, t: float
) -> None:
    denoiser = Correlated(schedule)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    guided = loss(measured, scale=exact)(denoiser, same)(x, times(5, t)).x0
    # Kalman's update of N(E[x0|x_t], Cov[x0|x_t]) by y.
    plain = denoiser(x, times(5, t)).x0
    cov = covariance(*schedule(times(5, t)))
    gain = cov[:, :, 0] / (cov[:, 0, 0] + SPREAD**2)[:, None]
    expected = plain + gain * (SEEN - plain[:, :1])
    torch.testing.assert_close(guided, expected, rtol=1e-10, atol=1e-10)
    # The control: a scale that passes over the spread of x0 is another belief.
    blind = loss(measured, scale=1 / SPREAD**2)(denoiser, same)(x, times(5, t)).x0
    if covariance(*schedule(times(1, t)))[0, 0, 0] > 1e-3:
        assert (blind - expected).abs().max() > 1e-3


def test_sampling_draws_from_the_posterior() -> None:
    """Mean and covariance of x0 given y, through the linear map that the sampler then is."""
    guided = loss(measured, scale=exact)(Correlated(), same)
    start = torch.tensor([[0.0, 0.0], [80.0, 0.0], [0.0, 80.0]], dtype=torch.float64)
    end = last(sample(guided, get("heun"), grids.karras(SCHEDULE, 100), start))
    mean, columns = end[0], (end[1:] - end[0]).T
    cov = columns @ columns.T
    torch.testing.assert_close(
        mean, torch.tensor([1.485149, 1.336634]).double(), rtol=5e-3, atol=5e-3
    )
    wanted = torch.tensor([[0.009901, 0.008911], [0.008911, 0.198020]]).double()
    torch.testing.assert_close(cov, wanted, rtol=0.03, atol=1e-3)


def test_one_number_for_all_is_asked_of_each_picture_by_itself() -> None:
    x = torch.randn(4, 2, dtype=torch.float64)
    one = loss(lambda x0: x0.square().mean(), scale=3.0)(Correlated(), same)
    each = loss(lambda x0: x0.square().mean(dim=1), scale=3.0)(Correlated(), same)
    together = one(x, times(4)).x0
    torch.testing.assert_close(together, each(x, times(4)).x0, rtol=1e-12, atol=1e-12)
    for i in range(4):
        alone = one(x[i : i + 1], times(1)).x0
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-12, atol=1e-12)


def test_without_weight_or_outside_its_times_it_is_bit_identical_to_none() -> None:
    x = torch.randn(3, 2, dtype=torch.float64)
    plain = Correlated()(x, times(3)).x0
    for guided in (
        loss(measured, scale=0.0)(Correlated(), same),
        loss(measured, scale=9.0, interval=(0.6, 1.0))(Correlated(), same),
    ):
        found = guided(x, times(3)).x0
        assert torch.equal(found, plain)
        assert not found.requires_grad
    acting = loss(measured, scale=9.0, interval=(0.4, 0.6))(Correlated(), same)
    assert not torch.equal(acting(x, times(3)).x0, plain)


def test_one_step_is_one_evaluation() -> None:
    denoiser = Correlated()
    grid = grids.karras(SCHEDULE, 5)
    start = 80.0 * torch.randn(3, 2, dtype=torch.float64)
    last(sample(loss(measured, 0.1)(denoiser, same), get("ddim"), grid, start))
    assert denoiser.calls == 5


def bent(x0: Tensor) -> Tensor:
    return x0[:, 0].pow(4).add(x0[:, 1].square())


def test_the_order_of_guides_matters_and_the_first_is_innermost() -> None:
    """b(a(D)): b looks at the belief that a has moved; its gradient goes through D alone."""
    denoiser, t = Correlated(), times(3)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    a, b = loss(bent, 0.3), loss(measured, 0.7)
    found = b(a(denoiser, same), same)(x, t).x0
    alpha, sigma = SCHEDULE(t)
    gain = (sigma**2 / alpha)[:, None]
    leaf = x.clone().requires_grad_()
    belief = denoiser(leaf, t).x0
    (first,) = torch.autograd.grad(0.3 * bent(belief).sum(), leaf, retain_graph=True)
    within = belief - gain * first
    (second,) = torch.autograd.grad(0.7 * measured(within).sum(), leaf)
    expected = (within - gain * second).detach()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    other = a(b(denoiser, same), same)(x, t).x0
    assert (found - other).abs().max() > 1e-2


def test_guides_by_linear_functions_commute() -> None:
    x = torch.randn(3, 2, dtype=torch.float64)
    a, b = loss(lambda x0: x0[:, 0], 0.3), loss(lambda x0: x0[:, 1], 0.7)
    one, other = (
        outer(inner(Correlated(), same), same)(x, times(3)).x0 for inner, outer in ((a, b), (b, a))
    )
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_it_looks_at_the_pictures_of_a_latent_and_goes_back_through_the_codec() -> None:
    x = torch.randn(3, 2, dtype=torch.float64)
    through = loss(measured, 0.5)(Correlated(), lambda z: 2.0 * z + 1.0)(x, times(3)).x0
    within = loss(lambda z: measured(2.0 * z + 1.0), 0.5)(Correlated(), same)(x, times(3)).x0
    assert torch.equal(through, within)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_network_made_fast_lets_the_same_gradient_through(dtype: torch.dtype) -> None:
    model = tiny()
    condition = model.condition(2, label=[0, 2])
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    guide = loss(lambda x0: x0.square().mean((1, 2, 3)), 30.0)
    fast = guide(model.prepared(dtype), same)(x, times(2), condition).x0
    plain = guide(model.denoiser, same)(x.float(), times(2), condition).x0
    torch.testing.assert_close(fast.float(), plain, rtol=1e-4, atol=1e-5)
    none = model.denoiser(x.float(), times(2), condition).x0
    assert (plain - none).abs().max() > 1e-2


def test_a_run_that_remembers_its_belief_keeps_no_gradients_of_it() -> None:
    guided = loss(measured, 0.1)(SelfConditioning(Correlated()), same)
    grid = grids.karras(SCHEDULE, 4)
    steps = list(sample(guided, get("heun"), grid, torch.full((2, 2), 80.0, dtype=torch.float64)))
    assert not steps[-1].x.requires_grad
    assert bool(torch.isfinite(steps[-1].x).all())


@pytest.mark.parametrize("limit", [0.1, 1.0])
def test_a_limit_shortens_a_move_and_keeps_its_direction(limit: float) -> None:
    denoiser = GaussianDenoiser(0.0, 1.0, schedules.cosine())
    x, t = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0.1, 0.4, 0.7, 0.9]).double()
    plain = denoiser(x, t)
    gradient = torch.randn(4, 3, dtype=torch.float64) * 1e3
    far, near = moved(plain, gradient).x0 - plain.x0, moved(plain, gradient, limit).x0 - plain.x0
    alpha, sigma = schedules.cosine()(t)
    most = limit * sigma / torch.sqrt(alpha**2 + 4 * sigma**2)
    size = near.square().mean(1).sqrt()
    torch.testing.assert_close(size, torch.minimum(most, far.square().mean(1).sqrt()))
    torch.testing.assert_close(
        near / near.norm(dim=1, keepdim=True), far / far.norm(dim=1, keepdim=True)
    )
    small = gradient * 1e-9
    assert torch.equal(moved(plain, small, limit).x0, moved(plain, small).x0)


def test_where_x_says_nothing_of_x0_the_belief_is_left() -> None:
    denoiser = GaussianDenoiser(0.3, 1.0, schedules.flow())
    x = torch.randn(2, 3, dtype=torch.float64)
    guided = loss(lambda x0: x0.square().sum(1), 5.0)(denoiser, same)
    assert torch.equal(guided(x, times(2, 1.0)).x0, denoiser(x, times(2, 1.0)).x0)


def test_a_spectral_process_is_moved_in_its_own_basis() -> None:
    """The score of p(x | y) is that of p(x) plus the gradient, whatever the basis."""
    process = processes.Spectral(schedules.cosine(), height=4, width=4, blur=1.0)
    denoiser = GaussianDenoiser(0.0, 1.0, process)
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    guided = loss(lambda x0: x0.square().sum((1, 2, 3)), 0.2)(denoiser, same)
    found = guided(x, times(2, 0.4))
    leaf = x.clone().requires_grad_()
    total = 0.2 * denoiser(leaf, times(2, 0.4)).x0.square().sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    wanted = denoiser(x, times(2, 0.4)).score - gradient
    torch.testing.assert_close(found.score, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x0: x0[:1, 0], "one number, or one for each"),
        (lambda x0: 3.0, "one number, or one for each"),
        (lambda x0: x0.detach().sum(1), "gradients can follow"),
        (lambda x0: (0 * x0).sum(1).sqrt(), "not finite"),
    ],
)
def test_a_function_that_cannot_guide_is_refused(function, says: str) -> None:  # type: ignore[no-untyped-def]
    guided = LossGuided(Correlated(), same, function)
    with pytest.raises((ShapeError, UsageError), match=says):
        guided(torch.randn(3, 2, dtype=torch.float64), times(3))


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="limit"):
        loss(measured, limit=0.0)
    with pytest.raises(UsageError, match="not finite"):
        loss(measured, scale=float("nan"))
    with pytest.raises(UsageError, match="lower first"):
        loss(measured, interval=(0.8, 0.2))
    with pytest.raises(UsageError, match="no function"):
        loss(3.0)  # type: ignore[arg-type]
