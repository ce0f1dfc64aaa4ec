"""The bound that trains a learned variance."""

import math

import pytest
import torch
from torch import Tensor

from fromnoise import schedules
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.data import Batch
from fromnoise.denoisers import NetworkDenoiser, Prediction
from fromnoise.encoders import Conditioning
from fromnoise.evaluate.variances import VARIANCES
from fromnoise.evaluate.vlb import variational_bound
from fromnoise.nets import NETS
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.processes import Gaussian
from fromnoise.training import (
    TIME_SAMPLINGS,
    WEIGHTINGS,
    Denoising,
    Draws,
    ObjectiveSettings,
)
from fromnoise.training.denoising import Bound, denoising
from fromnoise.training.variance import variance_bound

SCHEDULE = schedules.linear(1000, 1e-4, 0.02)
PROCESS = Gaussian(SCHEDULE)


def _prediction(x0: Tensor, index: int, fraction: float | Tensor, belief: Tensor) -> Prediction:
    t = SCHEDULE.index_time(torch.full((len(x0),), index))
    x = PROCESS.corrupt(x0, t, torch.zeros_like(x0))
    learned = torch.as_tensor(fraction).expand(x0.shape).to(x0)
    return Prediction(belief, x, t, PROCESS, var_fraction=learned)


def _data(count: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("index", [1, 10, 500, 999])
def test_it_is_the_kl_of_the_published_chain(index: int) -> None:
    """KL of two Gaussians, with DDPM's posterior mean and both variances of the published chain."""
    x0, belief = _data(), _data() * 0.7 + 0.1
    fraction = 0.3
    betas, products = SCHEDULE.betas, SCHEDULE.alphas_cumprod
    beta, product, before = betas[index], products[index], products[index - 1]
    small = beta * (1 - before) / (1 - product)
    mean_gap = before.sqrt() * beta / (1 - product) * (x0 - belief)
    log_var = fraction * beta.log() + (1 - fraction) * small.log()
    q = torch.distributions.Normal(mean_gap, small.sqrt().expand_as(x0))
    p = torch.distributions.Normal(torch.zeros_like(x0), (0.5 * log_var).exp().expand_as(x0))
    expected = 1000 * torch.distributions.kl_divergence(q, p).mean()
    found = variance_bound(_prediction(x0, index, fraction, belief), x0).mean()
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=0)


def test_the_first_step_is_a_likelihood() -> None:
    x0, belief = _data(), _data() + 0.01
    betas, products = SCHEDULE.betas, SCHEDULE.alphas_cumprod
    small = betas[1] * (1 - products[0]) / (1 - products[1])
    log_var = 0.4 * betas[0].log() + 0.6 * small.log()
    p = torch.distributions.Normal(belief, (0.5 * log_var).exp())
    expected = -1000 * p.log_prob(x0).mean()
    found = variance_bound(_prediction(x0, 0, 0.4, belief), x0).mean()
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=0)


def test_its_best_variance_is_the_true_one() -> None:
    """For unit Gaussian data with the exact mean, β is the variance of the true reverse step."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(200_000, 1, dtype=torch.float64, generator=generator)
    noise = torch.randn(200_000, 1, dtype=torch.float64, generator=generator)
    t = SCHEDULE.index_time(torch.full((len(x0),), 20))
    x = PROCESS.corrupt(x0, t, noise)
    belief = SCHEDULE(t).alpha[:, None] * x
    bounds = {
        f: variance_bound(Prediction(belief, x, t, PROCESS, var_fraction=torch.full_like(x, f)), x0)
        .mean()
        .item()
        for f in (0.0, 0.5, 0.8, 1.0, 1.2, 1.5)
    }
    assert min(bounds, key=bounds.__getitem__) == 1.0
    assert math.isfinite(bounds[0.0])


def test_only_the_variance_is_trained_by_it() -> None:
    x0 = _data()
    belief = (x0 * 0.5).requires_grad_()
    fraction = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    variance_bound(_prediction(x0, 100, fraction, belief), x0).sum().backward()
    assert belief.grad is None
    assert fraction.grad is not None and fraction.grad.abs() > 0


def test_a_variance_that_is_not_learned_is_refused() -> None:
    x0 = _data()
    t = torch.full((len(x0),), 0.5, dtype=torch.float64)
    with pytest.raises(UsageError, match="does not learn a variance"):
        variance_bound(Prediction(x0, x0, t, PROCESS), x0)


def _chain(steps: int = 12) -> tuple[NetworkDenoiser, Tensor]:
    """A network with a learned variance, all its layers filled, and some pictures of 9 levels."""
    net = NETS.build(
        {"kind": "mlp", "in_channels": 3, "out_channels": 6, "width": 16, "depth": 1, "features": 8}
    ).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    schedule = schedules.linear(steps, 1e-2, 0.3)
    reading = PARAMETERIZATIONS.build({"kind": "eps"})
    x0 = torch.randint(0, 9, (40, 3), generator=generator).double() / 4 - 1
    return NetworkDenoiser(net, schedule, reading, learned_variance=True), x0


@pytest.mark.parametrize("levels", [None, 9])
def test_over_all_times_it_is_the_bound_that_is_measured(levels: int | None) -> None:
    """Σ over the chain equals evaluation's own bound on the same noise, without its prior term."""
    denoiser, x0 = _chain()
    steps = denoiser.process.schedule.steps or 0
    grid = torch.arange(steps, -1, -1, dtype=torch.float64) / steps
    measured = variational_bound(
        denoiser, x0, grid, VARIANCES["learned"](), Noise(0, len(x0)), levels=levels
    )
    noise, total = Noise(0, len(x0)), torch.zeros(len(x0), dtype=torch.float64)
    for k in range(steps - 1, -1, -1):
        t = denoiser.process.schedule.index_time(torch.full((len(x0),), k))
        x = denoiser.process.corrupt(x0, t, noise.normal(x0))
        total += variance_bound(denoiser(x, t), x0, "all", levels).detach() / steps
    torch.testing.assert_close(3 * total, measured.steps + measured.decoder, rtol=1e-9, atol=1e-9)


def _gradients(bound: Bound) -> dict[str, Tensor]:
    denoiser, x0 = _chain()
    objective = Denoising(
        denoiser, Conditioning({}), WEIGHTINGS.build({"kind": "simple"}),
        TIME_SAMPLINGS.build({"kind": "index"}), 0.0, 0.0, bound,
    )  # fmt: skip
    batch = Batch(x0, None, torch.arange(len(x0)))
    objective.loss(batch, Draws.of_step(0, 1, range(len(x0)), len(x0))).backward()
    leave = denoiser.net.leave.weight.grad
    assert leave is not None
    return {"mean": leave[:3], "variance": leave[3:]}


@pytest.mark.parametrize("levels", [None, 9])
def test_the_hybrid_loss_leaves_the_gradient_of_the_mean_as_it_is(levels: int | None) -> None:
    plain, hybrid = (_gradients(Bound("hybrid", levels, w)) for w in (0.0, 0.5))
    assert torch.equal(plain["mean"], hybrid["mean"])
    assert plain["variance"].abs().max() == 0 < hybrid["variance"].abs().max()
    bound = _gradients(Bound("vlb", levels, 0.5))
    assert not torch.allclose(bound["mean"], plain["mean"], rtol=0.1)
    assert all(torch.isfinite(g).all() and g.abs().max() > 0 for g in bound.values())


def test_the_bound_alone_needs_a_variance() -> None:
    denoiser, _ = _chain()
    denoiser.learned_variance = False
    with pytest.raises(UsageError, match="learn a variance"):
        denoising(denoiser, Conditioning({}), ObjectiveSettings(loss="vlb"))
