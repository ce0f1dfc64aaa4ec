"""A learned degradation: what its gradient is, where it goes, and that its end does not move."""

import pytest
import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.data import Batch
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.nets import NETS
from fromnoise.operators import LearnableBlur
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.processes import Cold
from fromnoise.training import Draws, ObjectiveSettings
from fromnoise.training.denoising import Denoising, denoising
from fromnoise.training.steering import Steering

NET = {
    "kind": "unet", "in_channels": 1, "channels": 8, "multipliers": [1], "blocks": 1,
    "style": {"groups": 4},
}  # fmt: skip


def known(errors: Tensor) -> Steering:
    made = Steering(len(errors))
    made.errors.copy_(errors)
    made.known.fill_(True)
    return made


def test_the_picture_is_as_it_is_and_its_gradient_scaled_by_the_excess() -> None:
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    made = known(torch.linspace(0.05, 0.95, 10, dtype=torch.float64) ** 0.5)
    x = torch.randn(3, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    given = torch.randn(3, 1, 2, 2, dtype=torch.float64)
    out = made(x, t)
    assert torch.equal(out, x)
    out.backward(given)
    torch.testing.assert_close(x.grad, given * made.excess(t).reshape(3, 1, 1, 1))


def test_the_excess_is_the_distance_from_a_straight_line() -> None:
    bins = 40
    middles = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
    t = torch.linspace(0, 1, 60, dtype=torch.float64)
    assert known(3.0 * middles).excess(t).abs().max() < 1e-12
    bent = known(3.0 * middles**2).excess(t)
    assert (bent - (t**2 - t)).abs().max() < 0.01
    assert torch.equal(Steering(bins).excess(t), torch.zeros_like(t))


def test_errors_are_running_means_of_their_bins() -> None:
    made = Steering(2)
    made.observe(torch.tensor([0.1, 0.2, 1.0]), torch.tensor([1.0, 3.0, 5.0]))
    assert made.errors.tolist() == [2.0, 5.0] and made.known.all()
    made.observe(torch.tensor([0.4]), torch.tensor([12.0]))
    torch.testing.assert_close(made.errors, torch.tensor([3.0, 5.0]).double())


def test_steered_widths_make_the_error_of_a_known_restorer_rise_evenly() -> None:
    """One wave that a restorer leaves as it is: its error is (1 − e^(−λV/2))², for any V(t)."""
    family, plain = (LearnableBlur(10, 0.85, 0.85, end="held") for _ in range(2))
    x0 = torch.cos(torch.pi * (torch.arange(8) + 0.5) / 8).expand(1, 1, 8).repeat(32, 1, 1)

    def errors(t: Tensor, of: LearnableBlur, steering: Steering | None = None) -> Tensor:
        x = of.apply(x0, t, None)
        return ((x if steering is None else steering(x, t)) - x0).square().flatten(1).mean(1)

    def bend(of: LearnableBlur) -> float:
        t = torch.linspace(0, 1, 32, dtype=torch.float64)
        error = errors(t, of).detach()
        return float((error / error[-1] - t).abs().max())

    steering = Steering(10)
    optimizer = torch.optim.Adam(family.learned.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        t = (torch.rand(1, generator=generator) + torch.arange(32) / 32) % 1
        now = errors(t, family, steering)
        optimizer.zero_grad()
        now.mean().backward()
        optimizer.step()
        steering.observe(t, now.detach())
    assert bend(family) < 0.4 * bend(plain)
    ends = [float(of.variances().detach().sum()) for of in (family, plain)]
    assert ends[0] == pytest.approx(ends[1], rel=1e-6)


def test_descending_the_error_itself_would_take_the_blur_away() -> None:
    """The control: a free end and the plain gradient."""
    family, x0 = LearnableBlur(5, 0.6, 0.6), torch.randn(64, 1, 8, 8)
    optimizer = torch.optim.Adam(family.learned.parameters(), lr=0.05)
    before = float(family.variances().detach().sum())
    for _ in range(60):
        t = torch.rand(64, dtype=torch.float64)
        optimizer.zero_grad()
        (family.apply(x0, t, None) - x0).square().mean().backward()
        optimizer.step()
    assert float(family.variances().detach().sum()) < 0.2 * before


def _objective(end: str = "held") -> Denoising:
    process = Cold(LearnableBlur(4, end=end))
    reading = PARAMETERIZATIONS.build({"kind": "x0", "clock": "time"})
    net = NETS.build(NET)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=generator))
    return denoising(NetworkDenoiser(net, process, reading), Conditioning({}), ObjectiveSettings())


def test_the_network_learns_as_without_and_the_prior_stays_true() -> None:
    made, plain = _objective(), _objective()
    plain.steering = None
    x0 = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    made.prepare(x0, 0)
    batch = Batch(x0, None, torch.arange(16))
    for _ in range(8):
        t = torch.rand(64, dtype=torch.float64)
        made.observed(torch.arange(64), torch.stack([t, t**2], dim=1))
    for objective in (made, plain):
        objective.loss(batch, Draws.of_step(0, 1, range(16), 16)).backward()
    for (name, a), b in zip(made.named_parameters(), plain.parameters(), strict=True):
        same = torch.equal(a.grad, b.grad)
        assert same != name.startswith("denoiser.process"), name
    assert {"steering.errors", "steering.known"} <= made.state_dict().keys()

    process = made.denoiser.process
    mean = process.prior_mean.clone()
    with torch.no_grad():
        next(process.parameters()).add_(torch.randn(4))
    process.fit(x0, Noise(0, 16))
    torch.testing.assert_close(process.prior_mean, mean, rtol=1e-5, atol=1e-6)


def test_an_end_that_moves_is_refused() -> None:
    with pytest.raises(UsageError, match='end "held"'):
        _objective("free")
