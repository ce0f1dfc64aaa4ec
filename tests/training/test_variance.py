"""The bound that trains a learned variance."""

import math

import pytest
import torch
from torch import Tensor

from fromnoise import schedules
from fromnoise.core.errors import UsageError
from fromnoise.denoisers import Prediction
from fromnoise.processes import Gaussian
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
    found = variance_bound(_prediction(x0, index, fraction, belief), x0)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=0)


def test_the_first_step_is_a_likelihood() -> None:
    x0, belief = _data(), _data() + 0.01
    betas, products = SCHEDULE.betas, SCHEDULE.alphas_cumprod
    small = betas[1] * (1 - products[0]) / (1 - products[1])
    log_var = 0.4 * betas[0].log() + 0.6 * small.log()
    p = torch.distributions.Normal(belief, (0.5 * log_var).exp())
    expected = -1000 * p.log_prob(x0).mean()
    found = variance_bound(_prediction(x0, 0, 0.4, belief), x0)
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
        f: variance_bound(
            Prediction(belief, x, t, PROCESS, var_fraction=torch.full_like(x, f)), x0
        ).item()
        for f in (0.0, 0.5, 0.8, 1.0, 1.2, 1.5)
    }
    assert min(bounds, key=bounds.__getitem__) == 1.0
    assert math.isfinite(bounds[0.0])


def test_only_the_variance_is_trained_by_it() -> None:
    x0 = _data()
    belief = (x0 * 0.5).requires_grad_()
    fraction = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    variance_bound(_prediction(x0, 100, fraction, belief), x0).backward()
    assert belief.grad is None
    assert fraction.grad is not None and fraction.grad.abs() > 0


def test_a_variance_that_is_not_learned_is_refused() -> None:
    x0 = _data()
    t = torch.full((len(x0),), 0.5, dtype=torch.float64)
    with pytest.raises(UsageError, match="does not learn a variance"):
        variance_bound(Prediction(x0, x0, t, PROCESS), x0)
