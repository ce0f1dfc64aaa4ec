"""Processes: `move` with the true x0 is q(x_s | x0), the frequency basis, the cold identities."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fromnoise import schedules
from fromnoise.core.config import plain
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import times
from fromnoise.operators import Blur, Fading, LearnableBlur, Masking, dct, frequencies
from fromnoise.processes import PROCESSES, Cold, Gaussian, Process, Spectral, as_process
from fromnoise.schedules import Schedule

SCHEDULES: dict[str, Schedule] = {
    "linear": schedules.linear(),
    "zero": schedules.zero_terminal_snr(schedules.linear(100)),
    "sub_vp": schedules.sub_vp(),
    "ve": schedules.ve(),
    "flow": schedules.flow(),
}
NOISY: dict[str, Process] = {
    **{name: Gaussian(schedule) for name, schedule in SCHEDULES.items()},
    "blur and white noise": Spectral(schedules.cosine(), 6, 4, blur=3.0),
    "coloured noise": Spectral(schedules.vp(), 6, 4, tilt=1.5),
    "blur and coloured noise": Spectral(schedules.flow(), 6, 4, blur=2.0, tilt=0.7),
}
CASE = pytest.mark.parametrize("name", NOISY)
# (t, s) in both directions, with both ends, and no move at all.
PAIRS = [(0.7, 0.4), (0.4, 0.7), (1.0, 0.3), (0.3, 1.0), (0.6, 0.0), (0.0, 0.6), (0.5, 0.5), (1, 1)]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def at(value: float, batch: int) -> torch.Tensor:
    return times(value, batch)


@CASE
@pytest.mark.parametrize(("t", "s"), PAIRS)
def test_a_move_with_the_true_x0_is_distributed_as_x_s_given_x0(
    name: str, t: float, s: float
) -> None:
    """Exactly: x_s = α_s·x0 + p·ε + q·z, so the variance is p² + q² = σ_s² at each frequency."""
    process, x0 = NOISY[name], normal(2, 1, 6, 4)
    zero = torch.zeros_like(x0)

    def moved(noise: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
        x = process.corrupt(x0, at(t, 2), noise)
        return process.analyse(process.move(x, x0, at(t, 2), at(s, 2), fresh))

    alpha, sigma = process.scales(at(s, 2), x0)
    mean = moved(zero, zero)
    np.testing.assert_allclose(mean, alpha * process.analyse(x0), rtol=1e-11, atol=1e-11)
    one = process.synthesise(torch.ones_like(x0))
    old, new = moved(one, zero) - mean, moved(zero, one) - mean
    wanted = (sigma**2).expand_as(old)
    np.testing.assert_allclose(old**2 + new**2, wanted, rtol=1e-9, atol=1e-12)


@CASE
@pytest.mark.parametrize(("t", "s"), [p for p in PAIRS if p[0] > 0])
def test_a_move_without_noise_keeps_the_noise(name: str, t: float, s: float) -> None:
    process, x0, noise = NOISY[name], normal(2, 1, 6, 4), normal(2, 1, 6, 4, seed=1)
    x = process.corrupt(x0, at(t, 2), noise)
    moved = process.move(x, x0, at(t, 2), at(s, 2))
    np.testing.assert_allclose(moved, process.corrupt(x0, at(s, 2), noise), rtol=0, atol=1e-10)


def test_moments_of_a_move_by_sampling() -> None:
    """The same by 40,000 samples with a schedule seen nowhere else, to 5 standard errors."""
    process, count = Gaussian(schedules.scaled_linear(50)), 40_000
    x0 = torch.full((count, 1, 1, 1), 0.7, dtype=torch.float64)
    for t, s in ((0.8, 0.3), (0.3, 0.8)):
        noise = torch.randn(2, count, 1, 1, 1, generator=torch.Generator().manual_seed(3)).double()
        x = process.corrupt(x0, at(t, count), noise[0])
        moved = process.move(x, x0, at(t, count), at(s, count), noise[1])
        alpha, sigma = process.schedule.at(s)
        assert abs(moved.mean().item() - alpha * 0.7) < 5 * sigma / math.sqrt(count)
        assert abs(moved.var().item() / sigma**2 - 1) < 5 * math.sqrt(2 / count)


def test_the_added_variance_is_that_of_the_posterior() -> None:
    """Towards data β̃ = (1 − ᾱ_s)/(1 − ᾱ_t)·β; away from it β of q(x_t | x_s)."""
    process = Gaussian(schedules.linear())
    one, zero = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.zeros(1, 1, 1, 1).double()
    bar = schedules.linear().alphas_cumprod
    late, early = 499, 498
    beta = 1 - bar[late] / bar[early]
    t, s = (at((k + 1) / 1000, 1) for k in (late, early))
    added = process.move(zero, zero, t, s, one)
    np.testing.assert_allclose(added**2, beta * (1 - bar[early]) / (1 - bar[late]), rtol=1e-9)
    added = process.move(zero, zero, s, t, one)
    np.testing.assert_allclose(added**2, beta, rtol=1e-9)


@CASE
def test_each_sample_moves_at_its_own_time(name: str) -> None:
    process, x0, noise = NOISY[name], normal(3, 1, 6, 4), normal(3, 1, 6, 4, seed=1)
    t = torch.tensor([0.9, 0.2, 0.5], dtype=torch.float64)
    s = torch.tensor([0.1, 0.6, 0.0], dtype=torch.float64)
    together = process.move(process.corrupt(x0, t, noise), x0, t, s, noise)
    for i in range(3):
        part = slice(i, i + 1)
        x = process.corrupt(x0[part], t[part], noise[part])
        alone = process.move(x, x0[part], t[part], s[part], noise[part])
        np.testing.assert_allclose(together[part], alone, rtol=0, atol=1e-13)


@CASE
def test_types_are_kept(name: str) -> None:
    process = NOISY[name]
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = normal(2, 1, 6, 4).to(dtype)
        assert process.corrupt(x, at(0.5, 2), x).dtype == dtype
        assert process.move(x, x, at(0.5, 2), at(0.2, 2), x).dtype == dtype
        assert process.prior(Noise(0, 2), x).dtype == dtype


@CASE
def test_levels_are_the_scales_as_numbers(name: str) -> None:
    process, x = NOISY[name], normal(1, 1, 6, 4)
    for t in (0.0, 0.3, 1.0):
        for level, scale in zip(process.levels(t), process.scales(at(t, 1), x), strict=True):
            np.testing.assert_allclose(np.broadcast_to(level, (1, 1, 6, 4)), scale.expand_as(x))


@CASE
def test_the_prior_has_the_variance_of_noised_unit_data(name: str) -> None:
    process = NOISY[name]
    like = torch.zeros(4000, 1, 6, 4, dtype=torch.float64)
    for t in (1.0, 0.6):
        start = process.analyse(process.prior(Noise(0, 4000), like, t))
        alpha, sigma = process.scales(at(t, 1), like[:1])
        wanted = (alpha**2 + sigma**2).expand(1, 1, 6, 4)[0, 0]
        spread = start[:, 0].var(0) / wanted
        assert (spread - 1).abs().max() < 5 * math.sqrt(2 / 4000)
        assert (start[:, 0].mean(0) / wanted.sqrt()).abs().max() < 5 / math.sqrt(4000)


def test_spectral_without_blur_or_tilt_is_gaussian() -> None:
    plain_, spectral = Gaussian(schedules.vp()), Spectral(schedules.vp(), 6, 4)
    x0, noise = normal(3, 2, 6, 4), normal(3, 2, 6, 4, seed=1)
    t, s = at(0.8, 3), at(0.3, 3)
    x = plain_.corrupt(x0, t, noise)
    np.testing.assert_allclose(spectral.corrupt(x0, t, noise), x, atol=1e-13)
    for fresh in (None, noise):
        np.testing.assert_allclose(
            spectral.move(x, x0, t, s, fresh), plain_.move(x, x0, t, s, fresh), atol=1e-12
        )
    prior = plain_.prior(Noise(5, 3), x0)
    np.testing.assert_allclose(spectral.prior(Noise(5, 3), x0), prior, atol=1e-13)


def test_spectral_scales_for_each_frequency() -> None:
    """α_k = α·((1 − d)·exp(−λ_k·b²/2) + d), σ_k ∝ (1 + λ_k/λ_c)^(−tilt/2) of mean square 1."""
    schedule = schedules.cosine()
    process = Spectral(schedule, 5, 7, blur=4.0, tilt=2.0, d_min=0.01)
    t = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    alpha, sigma = process.scales(t, normal(3, 1, 5, 7))
    i, j = torch.meshgrid(torch.arange(5), torch.arange(7), indexing="ij")
    lam = math.pi**2 * ((i / 5) ** 2 + (j / 7) ** 2).double()
    np.testing.assert_allclose(frequencies(5, 7), lam, rtol=1e-6)
    width = 4.0 * torch.sin(t * math.pi / 2) ** 2
    plain_alpha, plain_sigma = schedule(t)
    for b in range(3):
        decay = 0.99 * torch.exp(-lam * width[b] ** 2 / 2) + 0.01
        np.testing.assert_allclose(alpha[b, 0], plain_alpha[b] * decay, rtol=1e-6)
    colour = 1 / (1 + lam / (math.pi**2 / 16))
    colour = colour / (colour**2).mean().sqrt()
    np.testing.assert_allclose(sigma[1, 0], plain_sigma[1] * colour, rtol=1e-6)
    assert bool((sigma[1, 0] ** 2).mean().isclose(plain_sigma[1] ** 2))


def test_coloured_noise_is_shared_by_neighbours() -> None:
    noise = normal(3000, 1, 8, 8)
    zero, t = torch.zeros_like(noise), at(1.0, 3000)

    def correlation(process: Process) -> float:
        x = process.corrupt(zero, t, noise)[:, 0]
        return float((x[:, :, :-1] * x[:, :, 1:]).mean() / (x**2).mean())

    schedule = schedules.flow()
    assert abs(correlation(Spectral(schedule, 8, 8))) < 0.02
    assert correlation(Spectral(schedule, 8, 8, tilt=2.0)) > 0.5


def test_blur_keeps_the_mean_and_takes_detail() -> None:
    process, x0 = Spectral(schedules.ve(), 8, 8, blur=6.0), normal(2, 1, 8, 8)
    zero = torch.zeros_like(x0)
    half, full = (process.corrupt(x0, at(t, 2), zero) for t in (0.4, 1.0))
    np.testing.assert_allclose(full.mean((2, 3)), x0.mean((2, 3)), atol=1e-12)
    spreads = [part.var().item() for part in (x0, half, full)]
    assert spreads[0] > 2 * spreads[1] > 2 * spreads[2]


def test_the_basis_is_orthonormal() -> None:
    process, x = NOISY["coloured noise"], normal(2, 1, 6, 4)
    np.testing.assert_allclose(process.synthesise(process.analyse(x)), x, atol=1e-13)
    np.testing.assert_allclose((process.analyse(x) ** 2).sum(), (x**2).sum(), rtol=1e-13)
    assert torch.equal(process.analyse(x), dct(x))


def test_spectral_refuses() -> None:
    process = Spectral(schedules.vp(), 6, 4)
    with pytest.raises(ShapeError, match=r"\(6, 4\)"):
        process.corrupt(normal(2, 1, 4, 6), at(0.5, 2), normal(2, 1, 4, 6))
    for wrong in ({"blur": -1.0}, {"d_min": 0.0}, {"d_min": 1.0}):
        with pytest.raises(UsageError):
            Spectral(schedules.vp(), 6, 4, **wrong)


def degraded(process: Cold, x0: torch.Tensor, t: float) -> torch.Tensor:
    return process.corrupt(x0, at(t, len(x0)), torch.zeros_like(x0))


@pytest.mark.parametrize("family", [Blur(), Fading(), Masking(spread=1.0), LearnableBlur(4)])
def test_a_cold_move_with_the_true_x0_is_exact(family: object) -> None:
    x0 = normal(3, 1, 8, 8)
    process = Cold(family).begin(Noise(0, 3), x0)  # type: ignore[arg-type]
    assert isinstance(process, Cold)
    with torch.no_grad():
        for t, s in ((1.0, 0.4), (0.4, 0.9), (0.7, 0.0)):
            x = degraded(process, x0, t)
            moved = process.move(x, x0, at(t, 3), at(s, 3))
            np.testing.assert_allclose(moved, degraded(process, x0, s), atol=1e-12)


@given(belief=st.floats(-5, 5), t=st.floats(0.01, 1.0), s=st.floats(0.0, 1.0))
def test_a_cold_move_is_exact_for_any_belief_where_degradation_is_a_straight_line(
    belief: float, t: float, s: float
) -> None:
    """D(x, t) = x + t·e with e constant: the second algorithm forgives every belief.

    The first one, x_s = D(belief, s), does not (Bansal et al. 2022, section 3.3).
    """
    # A fade with an error that does not depend on x: only the colour's share moves.
    e = 0.5

    class Straight(Fading):
        def _degrade(
            self, x0: torch.Tensor, t: torch.Tensor, draw: torch.Tensor | None
        ) -> torch.Tensor:
            return x0 + t.reshape(-1, 1, 1, 1) * e

    process, x0 = Cold(Straight()), normal(1, 1, 2, 2)
    guess = torch.full_like(x0, belief)
    moved = process.move(degraded(process, x0, t), guess, at(t, 1), at(s, 1))
    np.testing.assert_allclose(moved, degraded(process, x0, s), rtol=0, atol=1e-12)
    assert not torch.allclose(degraded(process, guess, s), degraded(process, x0, s))


def test_a_cold_walk_ends_at_the_belief() -> None:
    """From t = 1 to 0 in any number of steps with one fixed belief R: x_1 − D(R, 1) + R."""
    process, x0, belief = Cold(Blur()), normal(2, 1, 8, 8), normal(2, 1, 8, 8, seed=4)
    x = degraded(process, x0, 1.0)
    wanted = x - degraded(process, belief, 1.0) + belief
    for k in range(10, 0, -1):
        x = process.move(x, belief, at(k / 10, 2), at((k - 1) / 10, 2))
    np.testing.assert_allclose(x, wanted, atol=1e-12)


def test_what_is_random_is_drawn_once_for_a_run() -> None:
    process, x0 = Cold(Masking(spread=1.0)), torch.ones(4, 1, 8, 8)
    run = process.begin(Noise(7, 4), x0)
    again = process.begin(Noise(7, 4), x0)
    assert isinstance(run, Cold)
    assert isinstance(again, Cold)
    assert torch.equal(degraded(run, x0, 0.5), degraded(again, x0, 0.5))
    other = process.begin(Noise(8, 4), x0)
    assert isinstance(other, Cold)
    # Sample 0 of seed 8 is sample 1 of seed 7.
    assert torch.equal(degraded(other, x0, 0.5)[:3], degraded(run, x0, 0.5)[1:])
    assert not torch.equal(degraded(other, x0, 0.5), degraded(run, x0, 0.5))
    assert process.draw is None


def test_the_cold_prior_has_the_moments_of_degraded_data() -> None:
    data = torch.randn(300, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    data = 0.3 + 0.5 * data.cumsum(2)
    process = Cold(Fading(colour=(0.25,)), rank=16)
    halfway = Cold(Blur(4, 0.3, 0.5), rank=16)
    for made in (process, halfway):
        made.fit(data, Noise(0, 300))
        full = degraded(made, data, 1.0).flatten(1)
        start = made.prior(Noise(0, 5000), torch.zeros(5000, 1, 4, 4)).flatten(1).double()
        near = 5 * full.std(0).max().item() / math.sqrt(5000)
        assert (start.mean(0) - full.mean(0)).abs().max() <= near + 1e-6
        size = full.var(0).max().item()
        assert (start.T.cov() - full.T.cov()).abs().max() <= 10 * size / math.sqrt(5000) + 1e-6
    assert process.prior(Noise(0, 1), torch.zeros(1, 1, 4, 4)).sub(0.25).abs().max() < 1e-6


def test_the_cold_prior_is_saved_with_the_weights() -> None:
    made, x0 = Cold(LearnableBlur(3), rank=5), normal(20, 1, 4, 4)
    made.fit(x0, Noise(0, 20))
    fresh = Cold(LearnableBlur(3), rank=5)
    fresh.load_state_dict(made.state_dict())
    assert torch.equal(fresh.prior(Noise(0, 2), x0[:2]), made.prior(Noise(0, 2), x0[:2]))
    assert [name for name, _ in made.named_parameters()] == ["learned.raw"]


def test_cold_has_no_noise() -> None:
    process, x = Cold(Blur()), normal(1, 1, 4, 4)
    refused = (
        lambda: process.scales(at(0.5, 1), x),
        lambda: process.levels(0.5),
        lambda: process.schedule,
        lambda: process.prior(Noise(0, 1), x),
    )
    for view in refused:
        with pytest.raises(UsageError):
            view()
    # A network's output is read as if nothing had been scaled.
    alpha, sigma = process.reading(at(0.5, 1), x)
    assert (alpha.item(), sigma.item()) == (1.0, 0.0)


def test_a_schedule_means_gaussian_noise_on_it() -> None:
    schedule = schedules.vp()
    made = as_process(schedule)
    assert isinstance(made, Gaussian)
    assert made.schedule is schedule
    assert as_process(made) is made


MADE: list[Process] = [
    Gaussian(schedules.linear(20)),
    Spectral(schedules.zero_terminal_snr(schedules.vp()), 6, 4, blur=2.0, tilt=0.5),
    Cold(Masking(steps=3), rank=7),
]


@pytest.mark.parametrize("process", MADE)
def test_configuration_makes_the_same_again(process: Process) -> None:
    again = PROCESSES.build(json.loads(json.dumps(plain(process))))
    assert again.config == process.config
    x0 = normal(2, 1, 6, 4)
    draw = [p.begin(Noise(0, 2), x0).corrupt(x0, at(0.5, 2), x0) for p in (process, again)]
    assert torch.equal(*draw)


def test_every_kind_is_tested() -> None:
    # Masked tokens are no pictures: tests/test_absorbing.py.
    assert {p.config["kind"] for p in MADE} == set(PROCESSES) - {"absorbing"}
