"""The denoising objective: its value, its gradient, its floors, and what it is told."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from training import toy

from fromnoise import schedules
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.data import Batch
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Augmentation, Conditioning, Label
from fromnoise.layers.condition import Condition
from fromnoise.nets.base import Accepts, Network
from fromnoise.operators.families import FAMILIES
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.processes import Cold, Spectral
from fromnoise.training import (
    TIME_SAMPLINGS,
    WEIGHTINGS,
    Denoising,
    Draws,
    ObjectiveSettings,
)
from fromnoise.training.denoising import Noising, denoising
from fromnoise.training.dropout import Dropout
from fromnoise.training.objective import condition_of

NOTHING = Conditioning({})


def draws(count: int, seed: int = 0, step: int = 1) -> Draws:
    return Draws.of_step(seed, step, range(count), count)


class Linear(Network):
    """F = a(t)·x with a polynomial a: enough to be exact on centred Gaussian data."""

    def __init__(self, shape: Sequence[int] = (), degree: int = 6) -> None:
        super().__init__()
        self.in_channels = self.out_channels = 1
        self.spatial_dims, self.divisor, self.accepts = len(shape), 1, Accepts()
        self.weight = nn.Parameter(torch.zeros(degree))

    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        basis = torch.stack([torch.cos(k * torch.pi * time) for k in range(len(self.weight))])
        gain = self.weight @ basis
        return gain.reshape([-1] + [1] * (x.ndim - 1)) * x


def points(count: int, spread: float = 1.0, seed: int = 0) -> Batch:
    x = spread * torch.randn(count, 1, generator=torch.Generator().manual_seed(seed))
    return Batch(x=x, label=None, index=torch.arange(count), caption=None)


_SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "reading", ["v", pytest.param("eps", marks=_SLOW), pytest.param("x0", marks=_SLOW)]
)
def test_a_trained_linear_network_reaches_the_floor_and_not_below(reading: str) -> None:
    spread = 0.5
    schedule = schedules.cosine(1000)
    told = PARAMETERIZATIONS.build({"kind": reading, "clock": "time", "clock_scale": 1.0})
    net = Linear()
    objective = Denoising(
        NetworkDenoiser(net, schedule, told), NOTHING,
        WEIGHTINGS.build({"kind": "simple"}), TIME_SAMPLINGS.build({"kind": "low_discrepancy"}),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for step in range(250):
        loss = objective.loss(points(256, spread, seed=step), draws(256, step=step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    t = torch.linspace(0.5 / 4096, 1 - 0.5 / 4096, 4096, dtype=torch.float64)
    alpha2, sigma2 = (s**2 for s in schedule(t))
    total = alpha2 * spread**2 + sigma2
    floors = {
        "eps": alpha2 * spread**2 / total,
        "x0": spread**2 * sigma2 / total,
        "v": spread**2 / total,
    }
    floor = floors[reading].mean().item()
    with torch.no_grad():
        batches = [points(4096, spread, seed=9000 + i) for i in range(5)]
        losses = [objective.loss(b, draws(4096, 9, i)).item() for i, b in enumerate(batches)]
    reached, error = torch.tensor(losses).mean().item(), torch.tensor(losses).std().item() / 5**0.5
    assert floor - 3 * error < reached < 1.1 * floor
    untrained = Denoising(
        NetworkDenoiser(Linear(), schedule, told), NOTHING, objective.weighting,
        objective.time_sampling,
    )  # fmt: skip
    assert untrained.loss(batches[0], draws(4096)).item() > 1.1 * floor


@pytest.mark.parametrize("reading", ["eps", "x0", "v", "flow", "edm", "score"])
@pytest.mark.parametrize("weighting", ["simple", "min_snr"])
def test_the_gradient_is_that_of_finite_differences(reading: str, weighting: str) -> None:
    objective = toy.objective(ObjectiveSettings(weighting=weighting), reading=reading, dropout=0.0)
    objective.double()
    batch = toy.Points(6).batch(range(6))
    batch = replace(batch, x=batch.x.double())
    objective.loss(batch, draws(6)).backward()
    for parameter in list(objective.parameters())[::3]:
        assert parameter.grad is not None
        flat, step = parameter.data.view(-1), 1e-6
        for place in (0, flat.numel() // 2):
            kept = flat[place].item()
            sides = []
            for sign in (1, -1):
                flat[place] = kept + sign * step
                sides.append(objective.loss(batch, draws(6)).item())
            flat[place] = kept
            slope = (sides[0] - sides[1]) / (2 * step)
            found = parameter.grad.view(-1)[place].item()
            assert found == pytest.approx(slope, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("weighting", list(WEIGHTINGS))
def test_the_loss_is_the_weighted_error_of_x0(weighting: str) -> None:
    """As the definition has it, through the belief itself, for every weighting."""
    objective = toy.objective(ObjectiveSettings(weighting=weighting), dropout=0.0).double().eval()
    batch = toy.Points(16).batch(range(16))
    batch = replace(batch, x=batch.x.double())
    source = draws(16)
    denoiser = objective.denoiser
    t = objective.time_sampling(source, denoiser.process.clock)
    source.noise.uniform(torch.empty(16, 2))
    x = denoiser.process.corrupt(batch.x, t, source.noise.normal(batch.x))
    condition = objective.conditioning({"label": batch.label}, 16)
    belief = denoiser(x, t, condition).x0
    from fromnoise.training import Level

    scales = denoiser.process.schedule(t)
    level = Level(t, denoiser.process.schedule, denoiser.parameterization.coefficients(scales).out)
    expected = (objective.weighting(level)[:, None] * (belief - batch.x) ** 2).mean()
    torch.testing.assert_close(objective.loss(batch, draws(16)), expected, rtol=1e-9, atol=0)


def test_at_no_signal_the_loss_is_finite_for_every_weighting() -> None:
    """Times right at 1 where α is 0: the flow schedule, and a discrete one without its last SNR."""
    batch = toy.Points(4).batch(range(4))
    for weighting in WEIGHTINGS:
        chosen = {"kind": "uniform", "start": 1 - 1e-12}
        settings = ObjectiveSettings(weighting=weighting, time_sampling=chosen)
        objective = toy.objective(settings, schedule="flow", reading="flow")
        assert torch.isfinite(objective.loss(batch, draws(4))), weighting


def test_neighbours_and_micro_steps_change_no_sample() -> None:
    objective = toy.objective(ObjectiveSettings(condition_dropout=0.5), dropout=0.0)
    batch = toy.Points(12).batch(range(12))
    whole = objective.loss(batch, draws(12))
    first = objective.loss(toy.Points(12).batch(range(5)), Draws.of_step(0, 1, range(5), 12))
    rest = objective.loss(toy.Points(12).batch(range(5, 12)), Draws.of_step(0, 1, range(5, 12), 12))
    torch.testing.assert_close((5 * first + 7 * rest) / 12, whole)


class Listening(Linear):
    """Keeps what it is told."""

    def __init__(self, accepts: Accepts) -> None:
        super().__init__()
        self.accepts = accepts
        self.in_channels = self.out_channels = 2
        self.told: list[Condition] = []

    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        self.told.append(condition)
        return self.weight[0] * x[:, :2] + 0.5


def _listening(settings: ObjectiveSettings) -> tuple[Denoising, Listening]:
    made = toy.objective(settings)
    net = Listening(made.denoiser.net.accepts)
    told = made.denoiser.parameterization
    return denoising(
        NetworkDenoiser(net, made.denoiser.process, told), made.conditioning, settings
    ), net


def test_the_condition_is_dropped_for_its_share_of_samples_only_in_training() -> None:
    objective, net = _listening(ObjectiveSettings(condition_dropout=0.25))
    count = 2000
    data = toy.Points(count)
    objective.loss(data.batch(range(count)), draws(count))
    told = net.told[-1].vector["label"]
    kept = told.sum(1) == 1
    assert 1 - kept.float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert torch.equal(told[kept].argmax(1), data.labels[kept])
    assert (told[~kept] == 0).all()
    objective.eval()
    objective.loss(data.batch(range(count)), draws(count))
    assert (net.told[-1].vector["label"].sum(1) == 1).all()


def test_self_conditioning_shows_the_belief_formed_without_it_detached() -> None:
    settings = ObjectiveSettings(self_conditioning=0.5)
    objective, net = _listening(settings)
    count = 400
    batch = toy.Points(count).batch(range(count))
    loss = objective.loss(batch, draws(count))
    first, second = net.told
    assert "self" not in first.channels
    shown = second.channels["self"]
    chosen = (shown != 0).any(1)
    assert chosen.float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert not shown.requires_grad
    source = draws(count)
    t = objective.time_sampling(source, objective.denoiser.process.clock)
    source.noise.uniform(torch.empty(count, 2))
    x = objective.denoiser.process.corrupt(batch.x, t, source.noise.normal(batch.x))
    belief = objective.denoiser(x, t, second).x0
    torch.testing.assert_close(shown[chosen], belief[chosen].detach())
    loss.backward()
    assert net.weight.grad is not None


def test_self_conditioning_needs_a_network_that_can_be_shown_it() -> None:
    settings = ObjectiveSettings(self_conditioning=0.5)
    with pytest.raises(UsageError, match='takes channels "self"'):
        denoising(toy.objective().denoiser, Conditioning({}), settings)


@dataclass(frozen=True)
class Pictures:
    x: Tensor
    label: None = None
    caption: None = None


def pictures(count: int, seed: int = 0) -> Pictures:
    generator = torch.Generator().manual_seed(seed)
    return Pictures(torch.rand(count, 1, 8, 8, generator=generator) * 2 - 1)


def _on(process: object, reading: str, weighting: str = "simple") -> Denoising:
    denoiser = NetworkDenoiser(
        Linear((8, 8)), process, PARAMETERIZATIONS.build({"kind": reading, "clock": "time"})
    )
    return denoising(denoiser, NOTHING, ObjectiveSettings(weighting=weighting))


def test_cold_processes_train_x0_and_fit_their_prior() -> None:
    cold = Cold(FAMILIES.build({"kind": "blur", "steps": 10}))
    objective = _on(cold, "x0")
    data = pictures(32)
    objective.prepare(data.x, 0)
    assert cold.prior_mean.shape == (64,)
    source = draws(32)
    t = objective.time_sampling(source, cold.clock)
    loss = objective.loss(data, draws(32))
    degraded = cold.corrupt(data.x, t, torch.zeros_like(data.x))
    expected = (objective.denoiser(degraded, t).x0 - data.x).square().mean()
    torch.testing.assert_close(loss, expected)
    with pytest.raises(UsageError, match="must predict x0"):
        _on(cold, "eps")
    with pytest.raises(UsageError, match="use `simple`"):
        _on(cold, "x0", "min_snr")


@pytest.mark.parametrize("weighting", ["simple", "snr", "elbo"])
def test_noise_of_its_own_level_at_each_frequency(weighting: str) -> None:
    process = Spectral(schedules.cosine(1000), 8, 8, blur=2.0, tilt=1.0)
    data = pictures(6)
    loss = _on(process, "eps", weighting).loss(data, draws(6))
    assert torch.isfinite(loss)
    if weighting == "elbo":
        return
    # F is 0 before training, so the plain error of ε is the mean square of the noise itself.
    source = draws(6)
    source.uniform()
    source.noise.uniform(torch.empty(6, 2))
    noise = source.noise.normal(data.x)
    torch.testing.assert_close(loss, noise.square().mean(), rtol=1e-5, atol=0)


def test_only_the_network_runs_in_bfloat16() -> None:
    process = Spectral(schedules.cosine(1000), 8, 8, blur=2.0)
    data = pictures(6)
    objective = _on(process, "v")
    exact = objective.loss(data, draws(6))
    with torch.autocast("cpu", torch.bfloat16):
        lower = objective.loss(data, draws(6))
    assert lower.dtype == torch.float32
    # The network only scales here, which autocast leaves in float32: any difference is the basis.
    assert torch.equal(lower, exact)


def test_drawing_costs_little() -> None:
    """Well below 5 % of the tens of milliseconds a step of the digits network takes."""
    import time

    like = torch.empty(128, 1, 8, 8)
    took = []
    for step in range(10):
        began = time.perf_counter()
        source = Draws.of_step(0, step, range(128), 128)
        source.uniform()
        source.noise.normal(like)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.004


def _noises(**settings: float) -> tuple[Tensor, Tensor]:
    """(ε, what the pictures are made with) of many samples of three channels."""
    like = torch.empty(300, 3, 8, 8, dtype=torch.float64)
    return Noising(**settings)(Noise(0, 300), like)


def test_input_perturbation_adds_noise_to_the_input_and_not_to_the_target() -> None:
    """x_t has noise of the variance 1 + γ², of which ε explains 1 (Ning et al. 2023, eq. 9)."""
    (plain, _), (eps, inside) = _noises(), _noises(input_perturbation=0.5)
    assert torch.equal(eps, plain)
    assert inside.var().item() == pytest.approx(1.25, rel=0.02)
    assert (inside * eps).mean().item() == pytest.approx(1.0, rel=0.02)


def test_an_offset_is_shared_by_the_pixels_of_a_channel_and_is_to_be_found() -> None:
    eps, inside = _noises(offset=0.5)
    assert torch.equal(eps, inside)
    assert eps.var().item() == pytest.approx(1.25, rel=0.03)
    means = eps.mean((2, 3))
    assert means.var().item() == pytest.approx(0.25 + 1 / 64, rel=0.15)
    assert torch.corrcoef(means.T).fill_diagonal_(0).abs().max() < 0.2
    assert Noising(offset=0.5)(Noise(0, 4), torch.empty(4, 2))[0].shape == (4, 2)


def test_neither_changes_anything_at_0_nor_outside_training() -> None:
    eps, inside = _noises()
    assert torch.equal(eps, inside) and torch.equal(eps, Noise(0, 300).normal(eps))
    batch = toy.Points(16).batch(range(16))
    plain = toy.objective(dropout=0.0)
    for name in ("input_perturbation", "noise_offset"):
        none, some = (
            toy.objective(ObjectiveSettings(condition_dropout=0.2, **{name: value}), dropout=0.0)
            for value in (0.0, 0.1)
        )
        expected = plain.loss(batch, draws(16))
        assert torch.equal(none.loss(batch, draws(16)), expected)
        assert not torch.equal(some.loss(batch, draws(16)), expected)
        quiet = plain.eval().loss(batch, draws(16))
        assert torch.equal(some.eval().loss(batch, draws(16)), quiet)
        plain.train()


@pytest.mark.parametrize("name", ["input_perturbation", "noise_offset"])
def test_noise_is_not_changed_where_there_is_none(name: str) -> None:
    cold = NetworkDenoiser(
        Linear((8, 8)), Cold(FAMILIES.build({"kind": "blur"})),
        PARAMETERIZATIONS.build({"kind": "x0", "clock": "time"}),
    )  # fmt: skip
    with pytest.raises(UsageError, match="leave both at 0"):
        denoising(cold, NOTHING, ObjectiveSettings(**{name: 0.1}))


def test_what_was_done_to_a_sample_is_told_whether_the_rest_is_dropped_or_not() -> None:
    conditioning = Conditioning({"label": Label(2), "augment": Augmentation(3)})
    batch = replace(toy.Points(200).batch(range(200)), augment=torch.randn(200, 3))
    chance, noise = torch.rand(200), Noise(0, 200)
    told = condition_of(conditioning, batch, chance, Dropout(0.5, conditioning), noise)
    assert told is not None
    assert torch.equal(told.vector["augment"], batch.augment)
    assert torch.equal(told.vector["label"].sum(1) == 0, chance < 0.5)
    nothing = condition_of(conditioning, replace(batch, augment=None), chance, None, noise)
    assert nothing is not None and not nothing.vector["augment"].any()
