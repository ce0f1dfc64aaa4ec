"""A learned uncertainty: where it starts, what it learns, and what it must not touch."""

import pytest
import torch
from torch import Tensor
from training import toy

from fromnoise.core.errors import UsageError
from fromnoise.training import Denoising, Draws, ObjectiveSettings
from fromnoise.training.uncertainty import Uncertainty


def test_it_learns_the_log_of_the_mean_loss_at_each_time() -> None:
    """The least of E[L·e^(−u) + u] is at u = log E[L]."""
    made = Uncertainty(12)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        t = torch.rand(256, generator=generator)
        mean = torch.exp(2.0 * torch.cos(torch.pi * t) - 1.0)
        losses = mean * -torch.log1p(-torch.rand(256, generator=generator))
        optimizer.zero_grad()
        made.evened(losses, t).mean().backward()
        optimizer.step()
    t = torch.linspace(0.02, 0.98, 30)
    assert (made(t) - (2.0 * torch.cos(torch.pi * t) - 1.0)).abs().max() < 0.25


def test_it_starts_as_the_plain_loss_and_does_not_count_outside_training() -> None:

    def loss(objective: Denoising) -> Tensor:
        return objective.loss(toy.Points(8).batch(range(8)), Draws.of_step(0, 1, range(8), 8))

    plain = toy.objective(dropout=0.0)
    learned = toy.objective(ObjectiveSettings(condition_dropout=0.2, uncertainty=8), dropout=0.0)
    assert torch.equal(loss(learned), loss(plain))
    with torch.no_grad():
        learned.uncertainty.weight += 1.0
    assert not torch.equal(loss(learned), loss(plain))
    plain.eval()
    learned.eval()
    assert torch.equal(loss(learned), loss(plain))


def test_every_time_then_counts_the_same() -> None:
    """With the best u the gradient of a loss, times the loss, is 1 whatever its size."""
    made = Uncertainty(2)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([0.0, -1.5]))
    t = torch.tensor([0.0, 1.0])
    losses = torch.exp(made(t)).detach().requires_grad_()
    made.evened(losses, t).sum().backward()
    torch.testing.assert_close(losses.grad * losses, torch.ones(2))


def test_no_features_are_refused() -> None:
    with pytest.raises(UsageError, match="1 or more"):
        Uncertainty(0)
