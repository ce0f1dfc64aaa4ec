"""Schedules against the numbers their papers and reference implementations give."""

import math

import diffusers
import numpy as np
import pytest
import torch

from fromnoise import schedules
from fromnoise.schedules import DiscreteSchedule, Schedule

# ᾱ at indices 0, 100, 250, 500, 750, 900, 999 of T = 1000, computed independently in float64.
AT = [0, 100, 250, 500, 750, 900, 999]
ALPHAS_CUMPROD = {
    "linear": (
        schedules.linear(),
        [
            *(0.9999, 0.895141590898, 0.521423030619, 0.077796658365),
            *(0.00330015836157, 0.000270244519558, 4.03582976538e-05),
        ],
    ),
    "scaled_linear": (
        schedules.scaled_linear(),
        [
            *(0.99915, 0.894223477587, 0.673792625233, 0.276332683823),
            *(0.0561698480029, 0.0141511419697, 0.00466009851308),
        ],
    ),
    "cosine": (
        schedules.cosine(),
        [
            *(0.999958715775, 0.971575681808, 0.845887986497, 0.492285172449),
            *(0.143178646426, 0.0236161087944, 2.42876690703e-09),
        ],
    ),
}
# The same from float32 tables: fewer digits.
ALPHAS_CUMPROD_SINGLE = {
    "latent diffusion": (
        schedules.scaled_linear(1000, 0.0015, 0.0195),
        [0.9985, 0.8231169, 0.50842422, 0.11492198, 0.00833413, 0.00087253, 0.00014230386],
    ),
    "x4 upscaler": (
        schedules.scaled_linear(1000, 0.0001, 0.02),
        [0.9999, 0.97117615, 0.82001013, 0.33127463, 0.03814965, 0.00453432, 0.00073341199],
    ),
    "sigmoid": (
        schedules.sigmoid(),
        [0.99985081, 0.98049194, 0.90279901, 0.29888758, 0.00562292, 0.00029047, 3.9681821e-05],
    ),
    "scaled_linear to zero": (
        schedules.zero_terminal_snr(schedules.scaled_linear()),
        [0.99914998, 0.88676107, 0.65245676, 0.24101864, 0.03279908, 0.00296039, 0.0],
    ),
    "linear to zero": (
        schedules.zero_terminal_snr(schedules.linear()),
        [0.99989998, 0.89449036, 0.51886052, 0.0752462, 0.00264411, 0.00010304, 0.0],
    ),
}


def at(schedule: Schedule, *t: float) -> schedules.Scales:
    return schedule(torch.tensor(t, dtype=torch.float64))


@pytest.mark.parametrize("name", ALPHAS_CUMPROD)
def test_alphas_cumprod(name: str) -> None:
    schedule, published = ALPHAS_CUMPROD[name]
    np.testing.assert_allclose(schedule.alphas_cumprod[AT], published, rtol=2e-11)


@pytest.mark.parametrize("name", ALPHAS_CUMPROD_SINGLE)
def test_alphas_cumprod_to_single_precision(name: str) -> None:
    schedule, published = ALPHAS_CUMPROD_SINGLE[name]
    assert isinstance(schedule, DiscreteSchedule)
    np.testing.assert_allclose(schedule.alphas_cumprod[AT], published, rtol=3e-6, atol=5e-9)


def test_cosine_betas() -> None:
    schedule = schedules.cosine()
    published = [4.128422482e-05, 3.155691442e-03, 0.7499993929, 0.999]
    np.testing.assert_allclose(schedule.betas[[0, 500, 998, 999]], published, rtol=1e-9)


def test_improved_ddpm_schedules_of_4000_steps() -> None:
    places = [1000, 2000, 3000, 3999]
    cosine = [0.8467314331, 0.4934539797, 0.143998414, 1.51798e-10]
    linear = [0.5231160605, 0.07874647522, 0.003405756923, 4.246652e-05]
    np.testing.assert_allclose(schedules.cosine(4000).alphas_cumprod[places], cosine, rtol=3e-6)
    made = schedules.linear(4000, 2.5e-5, 5e-3).alphas_cumprod[places]
    np.testing.assert_allclose(made, linear, rtol=3e-7)


@pytest.mark.parametrize(
    ("schedule", "first", "last"),
    [
        (schedules.scaled_linear(), 0.02916753, 14.614646),
        (schedules.linear(), 0.01000050, 157.4073),
        (schedules.cosine(), 0.006427, 20291.0),
    ],
)
def test_noise_to_signal_ratios(schedule: Schedule, first: float, last: float) -> None:
    alpha, sigma = at(schedule, 1 / 1000, 1.0)
    # The published ones come from float32 tables, whose 1 − ᾱ lost three digits near data.
    np.testing.assert_allclose(sigma / alpha, [first, last], rtol=3e-4)


def test_middle_ratios_of_stable_diffusion() -> None:
    schedule = schedules.scaled_linear()
    alpha, sigma = schedule(schedule.index_time(torch.tensor([250, 500])))
    np.testing.assert_allclose(sigma / alpha, [0.6957994, 1.6182799], rtol=1e-6)


def test_signal_to_noise_of_stable_diffusion() -> None:
    schedule = schedules.scaled_linear()
    snr = schedule.log_snr(schedule.index_time(torch.tensor([0, 100, 250, 500, 999]))).exp()
    published = [1175.4706, 8.4538937, 2.0655346, 0.38185044, 0.0046819167]
    np.testing.assert_allclose(snr, published, rtol=5e-8)


def test_posterior_variance_of_ddpm() -> None:
    schedule = schedules.linear()
    bar, beta = schedule.alphas_cumprod, schedule.betas
    before = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
    posterior = beta * (1 - before) / (1 - bar)
    published = [0.0, 5.45318766e-05, 0.0100513358, 0.0199999835]
    np.testing.assert_allclose(posterior[[0, 1, 500, 999]], published, rtol=5e-9, atol=1e-18)


def test_geometric_noise_of_the_variance_exploding_sde() -> None:
    """The published table of 1000 levels is σ_i = σ_min·(σ_max/σ_min)^(i/999)."""
    schedule = schedules.ve(0.01, 50.0)
    # Ours puts σ_min at 1e-3 and σ_max at 1.
    fraction = torch.tensor([250, 500, 750], dtype=torch.float64) / 999
    alpha, sigma = schedule(1e-3 + (1 - 1e-3) * fraction)
    np.testing.assert_allclose(sigma, [0.084269064, 0.71012751, 5.9841781], rtol=5e-8)
    assert bool((alpha == 1).all())
    np.testing.assert_allclose(at(schedule, 1e-3, 1.0).sigma, [0.01, 50.0], rtol=1e-13)
    np.testing.assert_allclose(at(schedule, 0.0, 5e-4).sigma, [0.0, 0.005], rtol=1e-13)


def test_variance_preserving_sde() -> None:
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    exponent = -0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1
    alpha, sigma = schedules.vp()(t)
    np.testing.assert_allclose(alpha, exponent.exp(), rtol=1e-13)
    np.testing.assert_allclose(sigma, (1 - (2 * exponent).exp()).sqrt(), rtol=1e-10)
    alpha, sigma = schedules.sub_vp()(t)
    np.testing.assert_allclose(alpha, exponent.exp(), rtol=1e-13)
    np.testing.assert_allclose(sigma, 1 - (2 * exponent).exp(), rtol=1e-10)


def test_the_ddpm_betas_are_the_variance_preserving_sde() -> None:
    """β_i = β(i/N)/N: with 1000 steps of 1e-4 to 0.02 the SDE's 0.1 to 20, to first order."""
    discrete, continuous = schedules.linear(), schedules.vp()
    t = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    assert (discrete(t).alpha - continuous(t).alpha).abs().max() < 1.2e-3


@pytest.mark.parametrize(
    ("shift", "t", "sigma"),
    [(1.0, 0.3, 0.3), (3.0, 0.5, 0.75), (3.0, 0.25, 0.5), (3.0, 0.001, 0.0029940119760479)],
)
def test_flow_and_its_shift(shift: float, t: float, sigma: float) -> None:
    alpha, got = at(schedules.flow(shift), t)
    assert math.isclose(got.item(), sigma, rel_tol=1e-13)
    assert math.isclose(alpha.item(), 1 - sigma, rel_tol=1e-13)


def test_dynamic_shift_of_flow() -> None:
    """A shift of e^μ is the resolution-dependent rule e^μ/(e^μ + 1/t − 1) with μ = 1.15."""
    published = [1.0, 0.9619685, 0.9171355, 0.8634974, 0.7981777, 0.7168939]
    # The published list starts from times 1 to 0.001 in ten points.
    t = torch.linspace(1.0, 0.001, 10, dtype=torch.float64)[:6]
    np.testing.assert_allclose(schedules.flow(math.exp(1.15))(t).sigma, published, rtol=1e-6)


def test_zero_terminal_snr_keeps_the_first_and_ends_at_nothing() -> None:
    for made in (schedules.linear(), schedules.scaled_linear(50), schedules.cosine(2)):
        rescaled = schedules.zero_terminal_snr(made)
        assert isinstance(rescaled, DiscreteSchedule)
        assert rescaled.alphas_cumprod[0].item() == pytest.approx(
            made.alphas_cumprod[0].item(), rel=1e-14
        )
        assert rescaled.alphas_cumprod[-1].item() == 0.0
        assert at(rescaled, 1.0).alpha.item() == 0.0
        assert at(rescaled, 1.0).sigma.item() == 1.0


@pytest.mark.parametrize(
    ("ours", "name", "zero"),
    [
        (schedules.linear(1000), "linear", False),
        (schedules.linear(500), "linear", False),
        (schedules.scaled_linear(1000, 1e-4, 0.02), "scaled_linear", False),
        (schedules.cosine(300), "squaredcos_cap_v2", False),
        (schedules.zero_terminal_snr(schedules.linear(1000)), "linear", True),
    ],
)
def test_tables_equal_those_of_diffusers(ours: DiscreteSchedule, name: str, zero: bool) -> None:
    theirs = diffusers.DDIMScheduler(
        num_train_timesteps=ours.steps, beta_schedule=name, rescale_betas_zero_snr=zero
    )
    # Theirs is a float32 product of up to a thousand factors.
    np.testing.assert_allclose(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=2e-4, atol=1e-9)
