"""One house for densities: what the rooms above import is the same function."""

import torch

from fromnoise.core import densities
from fromnoise.evaluate import likelihood


def test_the_rooms_above_share_it() -> None:
    for name in ("cell", "discretised_log_likelihood", "normal_kl", "normal_log_density"):
        assert getattr(likelihood, name) is getattr(densities, name)


def test_the_gradient_of_a_level_is_finite_in_both_tails() -> None:
    """What an autoencoder trains on: no cell, however unlikely, gives NaN."""
    x = torch.tensor([-1.0, 0.0, 1.0, -1.0], dtype=torch.float64)
    mean = torch.tensor([9.0, 0.0, -9.0, -9.0], dtype=torch.float64, requires_grad=True)
    log_std = torch.full_like(mean, -3.0).detach().requires_grad_()
    densities.discretised_log_likelihood(x, mean, log_std, 17).sum().backward()
    assert mean.grad is not None and log_std.grad is not None
    assert bool(mean.grad.isfinite().all() and log_std.grad.isfinite().all())
    assert mean.grad[0] < 0 < mean.grad[2]
