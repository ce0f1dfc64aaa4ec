"""The adaptive ODE: as accurate as asked, each sample at its own pace."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from walks import Believing, flow_problem, mixture

from fromnoise import grids, schedules
from fromnoise.core.errors import FromNoiseError, UsageError
from fromnoise.denoisers import Prediction
from fromnoise.processes import Spectral
from fromnoise.samplers import AdaptiveOde, get, last, sample


class Counting(Believing):
    """The mixture, and how often it was asked."""

    def __init__(self) -> None:
        self.inner = flow_problem()[0]
        self.process = self.inner.process
        self.calls = 0
        self.seen: list[Tensor] = []

    def __call__(self, x: Tensor, t: Tensor, condition: object = None) -> Prediction:
        self.calls += 1
        self.seen.append(t)
        return self.inner(x, t)


def test_error_follows_the_tolerance() -> None:
    _, grid, start, truth = flow_problem()
    found = {}
    for tolerance in (1e-3, 1e-5, 1e-8):
        denoiser = Counting()
        final = last(sample(denoiser, AdaptiveOde(tolerance, tolerance), grid(1), start))
        found[tolerance] = ((final - truth).abs().mean().item(), denoiser.calls)
    assert all(error < 10 * tolerance for tolerance, (error, _) in found.items())
    assert found[1e-3][1] < found[1e-5][1] < found[1e-8][1] < 1500
    assert found[1e-5][1] < 300


def test_sub_steps_stay_within_the_step() -> None:
    _, grid, start, _ = flow_problem()
    denoiser, times = Counting(), grid(4).tolist()
    walk = sample(denoiser, get("ode"), grid(4), start)
    for high, low in pairwise(times):
        denoiser.seen.clear()
        next(walk)
        assert all(low <= t.min() and t.max() <= high for t in denoiser.seen)


def test_each_sample_has_its_own_steps() -> None:
    """A neighbour that needs many more sub-steps changes no bit of a sample."""
    denoiser, grid, _, _ = flow_problem()
    easy, hard = 30.0, 0.5
    pair = torch.tensor([[easy], [hard]], dtype=torch.float64)
    same = torch.tensor([[easy], [easy]], dtype=torch.float64)
    both = last(sample(denoiser, get("ode", tolerance=1e-6), grid(1), pair))
    alone = last(sample(denoiser, get("ode", tolerance=1e-6), grid(1), same))
    assert torch.equal(both[0], alone[0])


def test_from_pure_noise_to_data() -> None:
    """α = 0 at the start and σ = 0 at the end, in one step of the grid."""
    for schedule in (schedules.flow(), schedules.zero_terminal_snr(schedules.vp())):
        x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
        denoiser = mixture(schedule)
        coarse = last(sample(denoiser, get("ode"), grids.uniform(schedule, 1), x))
        fine = last(sample(denoiser, get("dpm++3m"), grids.log_snr(schedule, 500), x))
        assert (coarse - fine).abs().max() < 0.02


def test_not_for_a_level_for_each_frequency() -> None:
    process = Spectral(schedules.vp(), 4, 4, blur=2.0)
    denoiser = Believing(process, lambda x, t: 0 * x)
    with pytest.raises(UsageError, match="heun"):
        last(sample(denoiser, get("ode"), torch.tensor([1.0, 0.5]), torch.zeros(1, 1, 4, 4)))


def test_a_belief_that_is_not_a_number_ends_the_walk() -> None:
    denoiser = Believing(schedules.flow(), lambda x, t: x * float("nan"))
    final = last(sample(denoiser, get("ode"), torch.tensor([1.0, 0.1]), torch.zeros(1, 1)))
    assert torch.isnan(final).all()


def test_too_tight_a_tolerance_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """White noise as a belief is smooth at no step size."""
    monkeypatch.setattr("fromnoise.samplers.ode.LIMIT", 100)
    generator = torch.Generator().manual_seed(0)
    denoiser = Believing(
        schedules.flow(), lambda x, t: torch.randn(x.shape, generator=generator).double()
    )
    start = torch.zeros(1, 1, dtype=torch.float64)
    with pytest.raises(FromNoiseError, match="tolerance"):
        last(sample(denoiser, get("ode", tolerance=1e-9), torch.tensor([1.0, 0.1]), start))
    with pytest.raises(UsageError):
        AdaptiveOde(0.0)
