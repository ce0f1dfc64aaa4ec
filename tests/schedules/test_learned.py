"""The schedule that learns: monotone whatever its weights, never remembered, saved with a model."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fromnoise import schedules
from fromnoise.codecs import Identity
from fromnoise.core.errors import UsageError
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.model import Model, load_model
from fromnoise.nets import build
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.processes import Gaussian
from fromnoise.schedules import Schedule


def scrambled(schedule: Schedule, seed: int, spread: float = 2.0) -> Schedule:
    """The same schedule with random weights between its ends."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in schedule.path.interior:
            weight.add_(spread * torch.randn(weight.shape, generator=generator))
    return schedule


@given(st.integers(0, 2**31), st.floats(0, 4))
@settings(max_examples=8)
def test_it_only_grows_between_its_ends_whatever_its_weights(seed: int, spread: float) -> None:
    schedule = scrambled(schedules.learned(-9.0, 4.0, features=8), seed, spread)
    t = torch.linspace(1e-3, 1, 100, dtype=torch.float64)
    with torch.no_grad():
        gamma, rate = -schedule.log_snr(t), schedule.path.rate(t)
    assert gamma[0].item() == pytest.approx(-9.0, abs=1e-5)
    assert gamma[-1].item() == pytest.approx(4.0, abs=1e-5)
    assert bool((gamma.diff() > 0).all())
    assert bool((rate > 0).all())
    back = schedule.time(-gamma)
    torch.testing.assert_close(-schedule.log_snr(back).detach(), gamma, rtol=0, atol=1e-9)


def test_the_rate_is_the_derivative() -> None:
    schedule = scrambled(schedules.learned(), 3)
    t = (0.01 + 0.98 * torch.rand(100, dtype=torch.float64)).requires_grad_()
    (slope,) = torch.autograd.grad(schedule.path.log_ratio(t).sum(), t)
    torch.testing.assert_close(schedule.path.rate(t), slope, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (3,), (2, 1)])
def test_what_comes_out_has_the_shape_of_what_went_in(shape: tuple[int, ...]) -> None:
    schedule, t = schedules.learned(), torch.full(shape, 0.4, dtype=torch.float64)
    assert schedule(t).alpha.shape == schedule.path.rate(t).shape == shape
    assert schedule.time(schedule.log_snr(t)).shape == shape


def test_it_starts_almost_straight() -> None:
    schedule = schedules.learned(-8.0, 4.0)
    t = torch.linspace(1e-3, 1, 50, dtype=torch.float64)
    straight = -8.0 + 12.0 * (t - 1e-3) / (1 - 1e-3)
    assert (-schedule.log_snr(t).detach() - straight).abs().max() < 0.5


def test_samplers_see_what_it_has_learned_since() -> None:
    schedule = schedules.learned()
    before = schedule.at(0.5)
    scrambled(schedule, 0)
    assert schedule.at(0.5) != before
    # The control: a formula is remembered.
    fixed = schedules.cosine()
    assert fixed.at(0.5) is fixed.at(0.5)


def test_it_is_saved_with_the_model(tmp_path: Path) -> None:
    schedule = scrambled(schedules.learned(-7.0, 3.0, learn_ends=True), 1)
    with torch.no_grad():
        schedule.path.weights.get_parameter("ends").add_(0.5)
    net = build({"kind": "mlp", "in_channels": 2, "width": 4, "depth": 1})
    reading = PARAMETERIZATIONS.build({"kind": "eps"})
    model = Model(NetworkDenoiser(net, schedule, reading), (2,), Identity(), Conditioning({}))
    model.save(tmp_path / "model")
    again = load_model(tmp_path / "model").denoiser.process.schedule
    t = torch.linspace(0.01, 1, 20, dtype=torch.float64)
    assert torch.equal(again.log_snr(t), schedule.log_snr(t))
    assert not torch.allclose(again.log_snr(t), schedules.learned(-7.0, 3.0).log_snr(t))


def test_a_process_owns_what_its_schedule_learns() -> None:
    names = {n for n, _ in Gaussian(schedules.learned()).named_parameters()}
    assert "path.ends" in names and "path.interior.slopes" in names
    assert not list(Gaussian(schedules.cosine()).state_dict())
    fixed, free = schedules.learned(), schedules.learned(learn_ends=True)
    assert not fixed.path.weights.get_parameter("ends").requires_grad
    assert free.path.weights.get_parameter("ends").requires_grad


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="gamma_min < gamma_max"):
        schedules.learned(5.0, -5.0)
    with pytest.raises(UsageError, match="no fixed end"):
        schedules.zero_terminal_snr(schedules.learned())
