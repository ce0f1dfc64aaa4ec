"""Variational diffusion: invariant to the path, a bound, its parts, and what trains on what."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from training import toy

from fromnoise import schedules
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import GaussianDenoiser, MixtureDenoiser, NetworkDenoiser
from fromnoise.encoders import Conditioning, Label
from fromnoise.operators import Blur
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.processes import Cold, Gaussian, Process
from fromnoise.schedules import Schedule
from fromnoise.training import Draws
from fromnoise.training.objective import MAIN
from fromnoise.training.settings import VdmSettings
from fromnoise.training.vdm import (
    SCHEDULE,
    VariationalDiffusion,
    decoder_loss,
    diffusion_loss,
    prior_loss,
    vdm,
)


def bent(seed: int, low: float = -13.3, high: float = 5.0) -> Schedule:
    """A learned schedule with random weights between its ends."""
    schedule = schedules.learned(low, high, features=16)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in schedule.path.interior:
            weight.add_(1.5 * torch.randn(weight.shape, generator=generator))
    schedule.path.weights.requires_grad_(False)
    return schedule


def expected(schedule: Schedule, std: float) -> float:
    """∫ E[½γ'·‖ε − ε̂‖²] dt for an exact denoiser, by quadrature over t."""
    nodes, weights = np.polynomial.legendre.leggauss(10)
    first, last = schedule.limits
    edges = torch.linspace(first, last, 201, dtype=torch.float64)
    width = edges[1] - edges[0]
    t = (edges[:-1, None] + width * torch.from_numpy(nodes + 1) / 2).flatten()
    share = (0.5 * width * torch.from_numpy(weights)).repeat(200)
    alpha, sigma = schedule(t)
    mmse = std**2 * sigma**2 / (alpha**2 * std**2 + sigma**2)
    rate = schedule.path.rate(t) * (alpha / sigma) ** 2 * mmse
    return float((rate * share).sum())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_path_between_the_ends_does_not_change_the_bound(seed: int) -> None:
    """½·∫ mmse d(SNR) = ½·ln((1 + s²·SNR_max)/(1 + s²·SNR_min)) (Guo et al. 2005)."""
    assert expected(bent(seed), 0.5) == pytest.approx(5.9560146336, abs=1e-5)
    closed = 0.5 * math.log((1 + 0.25 * math.exp(13.3)) / (1 + 0.25 * math.exp(-5.0)))
    assert closed == pytest.approx(5.9560146336, abs=1e-9)
    # The control: other ends do change it.
    assert expected(bent(seed, low=-12.0), 0.5) != pytest.approx(5.9560146336, abs=1e-3)


def sampled(schedule: Schedule, count: int = 20_000) -> Tensor:
    """Draws of the diffusion loss of Gaussian data by its exact denoiser."""
    generator = torch.Generator().manual_seed(0)
    x0 = 0.5 * torch.randn(count, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    first, last = schedule.limits
    t = first + (last - first) * (torch.arange(count).double() + 0.5) / count
    oracle = GaussianDenoiser(0.0, 0.5, schedule)
    return (last - first) * diffusion_loss(oracle, x0, t, noise)


def test_the_loss_is_that_integral_on_average() -> None:
    losses = sampled(bent(0))
    assert losses.mean().item() == pytest.approx(5.956, rel=0.02)


def test_a_mixture_costs_the_same_on_every_path() -> None:
    weights, means = torch.tensor([0.4, 0.6]), torch.tensor([[-1.0], [0.7]])
    costs = []
    for schedule in (bent(0, -8.0, 4.0), schedules.learned(-8.0, 4.0)):
        schedule.path.weights.requires_grad_(False)
        oracle = MixtureDenoiser(weights, means, torch.tensor([0.3, 0.2]), schedule)
        x0 = oracle.draw(20_000, seed=1)
        noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2)).double()
        first, last = schedule.limits
        t = first + (last - first) * (torch.randperm(len(x0)).double() + 0.5) / len(x0)
        costs.append((diffusion_loss(oracle, x0, t, noise) * (last - first)).mean().item())
    assert costs[0] == pytest.approx(costs[1], rel=0.04)


@pytest.mark.parametrize("levels", [None, 17])
def test_the_three_parts_bound_the_likelihood(levels: int | None) -> None:
    """For an exact denoiser the bound is −log p, in a cell as wide as the noise if x has levels."""
    schedule = schedules.learned(-9.0, 6.0)
    schedule.path.weights.requires_grad_(False)
    oracle = GaussianDenoiser(0.0, 0.5, schedule)
    x0 = 0.5 * torch.randn(4000, 1, generator=torch.Generator().manual_seed(0)).double()
    if levels:
        x0 = (x0.clamp(-1, 1) * 8).round() / 8
    noise = Noise(0, 4000)
    first, last = schedule.limits
    t = first + (last - first) * (torch.arange(4000).double() + 0.5) / 4000
    alpha, sigma = oracle.process.scales(torch.full((4000,), first).double(), x0)
    near = x0 + sigma / alpha * noise.normal(x0)
    walked = (last - first) * diffusion_loss(oracle, x0, t, noise.normal(x0))
    parts = walked + prior_loss(oracle, x0) + decoder_loss(x0, near, sigma / alpha, levels)
    density = torch.distributions.Normal(0.0, 0.5).log_prob(x0).mean()
    exact = -density.item()
    if levels:
        # A belief that knows no levels pays for where in its cell the last noise puts x.
        ratio = (sigma / alpha)[0].item()
        exact -= math.log(ratio * math.sqrt(2 * math.pi * math.e))
    assert parts.mean().item() > exact - 0.05
    assert parts.mean().item() == pytest.approx(exact, abs=0.1)


@pytest.mark.parametrize("ratio", [0.01, 0.1, 2.0])
def test_the_probabilities_of_all_levels_sum_to_one(ratio: float) -> None:
    values = torch.linspace(-1, 1, 17, dtype=torch.float64)[:, None]
    at = torch.full((17, 1), 0.3, dtype=torch.float64)
    losses = decoder_loss(values, at, torch.full((17, 1), ratio, dtype=torch.float64), 17)
    assert torch.exp(-losses).sum().item() == pytest.approx(1.0, abs=1e-12)
    assert losses.argmin().item() == 10


def objective(process: Process | None = None, **choices: object) -> VariationalDiffusion:
    torch.manual_seed(0)
    denoiser = NetworkDenoiser(
        toy.network(0.0),
        process or Gaussian(schedules.learned(-8.0, 4.0, learn_ends=True)),
        PARAMETERIZATIONS.build({"kind": "eps", "clock": "log_ratio", "clock_scale": 10.0}),
    )
    return vdm(denoiser, Conditioning({"label": Label(2)}), VdmSettings(**choices), None)


def test_the_ends_train_on_the_bound_and_the_path_on_its_square() -> None:
    made = objective()
    groups = {k: {n for n, _ in v} for k, v in made.groups().items()}
    assert "denoiser.process.path.ends" in groups[MAIN]
    assert {n.rsplit(".", 2)[1] for n in groups[SCHEDULE]} == {"interior"}
    names = [
        p.name for p in made.phases(toy.Points(8).batch(range(8)), Draws.of_step(0, 0, range(8), 8))
    ]
    assert names == ["loss", "second_moment"]
    assert set(objective(learn_schedule=False).groups()) == {MAIN}
    fixed = objective(Gaussian(schedules.vp()))
    assert set(fixed.groups()) == {MAIN}
    made.eval()
    assert (
        len(list(made.phases(toy.Points(8).batch(range(8)), Draws.of_step(0, 0, range(8), 8)))) == 1
    )


def test_training_the_path_makes_the_estimate_vary_less() -> None:
    """With an exact denoiser nothing else can change: the mean stays, the variance falls."""
    schedule = schedules.learned(-13.3, 5.0, features=16)
    before = sampled(schedule, 4000).detach()
    optimizer = torch.optim.Adam(schedule.path.interior, lr=0.1)
    for step in range(20):
        draw = torch.Generator().manual_seed(step)
        x0 = 0.5 * torch.randn(256, 1, generator=draw, dtype=torch.float64)
        noise = torch.randn(256, 1, generator=draw, dtype=torch.float64)
        t = 1e-3 + (1 - 1e-3) * (torch.arange(256).double() + 0.5) / 256
        loss = diffusion_loss(GaussianDenoiser(0.0, 0.5, schedule), x0, t, noise)
        optimizer.zero_grad()
        loss.square().mean().backward()
        optimizer.step()
    after = sampled(schedule, 4000).detach()
    assert after.mean().item() == pytest.approx(before.mean().item(), rel=0.05)
    assert after.var() < 0.9 * before.var()


def test_a_process_without_plain_noise_is_refused() -> None:
    with pytest.raises(UsageError, match="plain noise"):
        objective(Cold(Blur(steps=4)))
