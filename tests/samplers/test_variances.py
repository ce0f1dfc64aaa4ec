"""Samplers that add noise leave the right mean and variance on Gaussian data.

With a Gaussian denoiser most samplers are linear in x and in their noise, so the variance of what
they make is known exactly (`walks.variance`), without a random number.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor
from walks import Believing, Pooled, mixture, variance

from fromnoise import grids, schedules
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import FixedNoise, Noise
from fromnoise.denoisers import GaussianDenoiser, Prediction
from fromnoise.processes import Spectral
from fromnoise.samplers import (
    AncestralNoise,
    AnnealedLangevin,
    Langevin,
    PredictorCorrector,
    ReverseDiffusion,
    Sampler,
    get,
    last,
    sample,
)

LINEAR = schedules.linear()
ONE = torch.ones(1, 1, 1, 1, dtype=torch.float64)

PUBLISHED = {
    (1.0, "ddpm_large"): {10: 0.9999, 20: 0.9999, 50: 0.9999, 100: 0.9999, 1000: 0.9999},
    (1.0, "ddpm"): {10: 0.520785, 20: 0.700577, 50: 0.855057, 100: 0.920877, 1000: 0.991067},
    (1.0, "ddim"): {10: 0.663551, 20: 0.824823, 50: 0.928106, 100: 0.963686, 1000: 0.996252},
    (0.25, "ddpm_large"): {10: 0.358521, 20: 0.298455, 50: 0.267883, 100: 0.258652},
    (0.25, "ddpm"): {10: 0.104222, 20: 0.150507, 50: 0.196420, 100: 0.218981},
    (0.25, "ddim"): {10: 0.130763, 20: 0.185289, 50: 0.222704, 100: 0.236048},
}


def recursion(s2: float, name: str, indices: list[int]) -> float:
    """The variance after each step of Ho et al. 2020 (or DDIM) in the paper's own symbols."""
    bar = [LINEAR.alphas_cumprod[i].item() for i in indices] + [1.0]
    v = 1.0
    for ab, after in pairwise(bar):
        gain = math.sqrt(ab) * s2 / (ab * s2 + 1 - ab)
        beta = 1 - ab / after
        if name == "ddim":
            to_eps = (1 - math.sqrt(ab) * gain) / math.sqrt(1 - ab)
            v *= (math.sqrt(after) * gain + math.sqrt(1 - after) * to_eps) ** 2
            continue
        mean = math.sqrt(after) * beta / (1 - ab) * gain + math.sqrt(ab / after) * (1 - after) / (
            1 - ab
        )
        added = beta if name == "ddpm_large" else beta * (1 - after) / (1 - ab)
        v = mean**2 * v + (added if after < 1 else 0.0)
    return v


@pytest.mark.parametrize(("s2", "name"), PUBLISHED)
def test_ancestral_variances(s2: float, name: str) -> None:
    """Strided steps over indices 0 … 999: the recursion to 1e-10, the published table to 1e-6."""
    denoiser = GaussianDenoiser(0.0, math.sqrt(s2), LINEAR)
    for steps, published in PUBLISHED[s2, name].items():
        if steps == 1000:
            continue
        grid = grids.linspace(LINEAR, steps)
        indices = [round(t * 1000) - 1 for t in grid[:-1].tolist()]
        found = variance(denoiser, get(name), grid, ONE).item()
        assert found == pytest.approx(recursion(s2, name, indices), abs=1e-10)
        # Which way .5 is rounded moves the table's last digits.
        assert found == pytest.approx(published, rel=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddpm", "ddpm_large", "ddim"])
def test_ancestral_variances_of_every_index(name: str) -> None:
    denoiser = GaussianDenoiser(0.0, 1.0, LINEAR)
    found = variance(denoiser, get(name), grids.trailing(LINEAR, 1000), ONE).item()
    assert found == pytest.approx(PUBLISHED[1.0, name][1000], abs=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 3, 17])
@pytest.mark.parametrize("s2", [1.0, 0.25])
def test_optimal_variance_is_exact_at_any_number_of_steps(s2: float, steps: int) -> None:
    """From the true marginal at the start, to the last digit (Bao et al. 2022)."""
    for schedule in (LINEAR, schedules.flow(), schedules.ve()):
        denoiser = GaussianDenoiser(0.0, math.sqrt(s2), schedule)
        grid = grids.trailing(schedule, steps)
        alpha, sigma = schedule.at(float(grid[0]))
        start = ONE * math.sqrt(alpha**2 * s2 + sigma**2)
        found = variance(denoiser, get("ddpm_optimal"), grid, start).item()
        assert found == pytest.approx(s2, rel=1e-10)


def test_eta_one_is_ddpm_and_zero_draws_nothing() -> None:
    denoiser = mixture(LINEAR)
    grid = grids.trailing(LINEAR, 12)
    x = torch.randn(4, 1, generator=torch.Generator().manual_seed(0)).double()
    ddpm = last(sample(denoiser, get("ddpm"), grid, x, noise=Noise(7, 4)))
    ddim = last(sample(denoiser, get("ddim", eta=1.0), grid, x, noise=Noise(7, 4)))
    assert torch.equal(ddpm, ddim)
    source = FixedNoise([torch.zeros(4, 1)])
    last(sample(denoiser, get("ddim"), grid, x, noise=source))
    assert torch.equal(source.normal(x), torch.zeros(4, 1).double())


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_learned_variance_lies_between_in_logs(fraction: float) -> None:
    denoiser = Believing(LINEAR, lambda x, t: 0 * x)
    denoiser.var_fraction = fraction
    t, s = 0.5, 0.4
    zero = torch.zeros(1, 1, dtype=torch.float64)
    draw = FixedNoise([torch.ones(1, 1)])
    moved = last(
        sample(denoiser, get("ddpm_learned"), torch.tensor([t, s]).double(), zero, noise=draw)
    )
    (a, b), (c, d) = LINEAR.at(t), LINEAR.at(s)
    beta = b**2 - (a / c * d) ** 2
    small = beta * d**2 / b**2
    assert moved.item() ** 2 == pytest.approx(small ** (1 - fraction) * beta**fraction, rel=1e-6)


def test_what_a_denoiser_does_not_know_is_said() -> None:
    denoiser = Believing(LINEAR, lambda x, t: 0 * x)
    x = torch.zeros(1, 1)
    for name in ("ddpm_learned", "ddpm_optimal"):
        with pytest.raises(UsageError, match="ddpm"):
            last(sample(denoiser, get(name), grids.uniform(LINEAR, 3), x))


def test_without_noise_is_the_mean() -> None:
    """The average over many walks with noise, on Gaussian data, is the walk without."""
    denoiser = GaussianDenoiser(0.4, 0.5, LINEAR)
    grid = grids.trailing(LINEAR, 10)
    x = torch.full((1, 1, 200, 200), 0.7, dtype=torch.float64)
    noisy = last(sample(denoiser, get("ddpm"), grid, x))
    silent = last(sample(denoiser, get("ddpm_no_noise"), grid, x))
    assert silent.std() < 1e-12 < 0.05 < noisy.std()
    assert (noisy.mean() - silent.mean()).abs() < 5 * noisy.std() / 200


STOCHASTIC: dict[str, Sampler] = {
    "euler_a": get("euler_a"),
    "euler_a half": get("euler_a", eta=0.5),
    "dpm2_a": get("dpm2_a"),
    "dpm++2s_a": get("dpm++2s_a"),
    "dpm++2m_sde": get("dpm++2m_sde"),
    "dpm++2m_sde half": get("dpm++2m_sde", eta=0.5),
    "dpm++3m_sde": get("dpm++3m_sde"),
    "ddpm": get("ddpm"),
    "ddpm_large": get("ddpm_large"),
    "reverse_diffusion": get("reverse_diffusion"),
    "euler_maruyama": get("euler_maruyama"),
    "churned euler": get("euler", churn=20.0),
}


@pytest.mark.parametrize("name", STOCHASTIC)
@pytest.mark.parametrize("kind", ["vp", "ve"])
def test_variance_tends_to_the_datas(name: str, kind: str) -> None:
    """From the true marginal at the start, the error vanishes as the steps grow."""
    s2 = 0.25
    schedule = schedules.vp() if kind == "vp" else schedules.ve(0.02, 20.0)
    denoiser = GaussianDenoiser(0.0, math.sqrt(s2), schedule)
    gaps = []
    for steps in (40, 160):
        grid = grids.log_snr(schedule, steps, sigma_min=0.02, sigma_max=15.0, end=0.0)[:-1]
        alpha, sigma = schedule.at(float(grid[0]))
        start = ONE * math.sqrt(alpha**2 * s2 + sigma**2)
        alpha, sigma = schedule.at(float(grid[-1]))
        wanted = alpha**2 * s2 + sigma**2
        gaps.append(abs(variance(denoiser, STOCHASTIC[name], grid, start).item() / wanted - 1))
    assert gaps[1] < 0.7 * gaps[0] < 0.7 or gaps[1] < 1e-3
    assert gaps[1] < 0.2


@pytest.mark.parametrize("name", ["edm", "pc", "annealed_langevin", "dpm++2m_sde", "euler_a"])
def test_mean_and_variance_by_drawing(name: str) -> None:
    schedule = schedules.ve(0.02, 20.0)
    mean, std, n = 0.4, 0.5, 150
    denoiser = GaussianDenoiser(mean, std, schedule)
    grid = grids.log_snr(schedule, 100)
    x = 20.0 * Noise(3).normal(torch.zeros(1, 1, n, n, dtype=torch.float64))
    final = last(sample(denoiser, get(name), grid, x, noise=Noise(4)))
    assert (final.mean() - mean).abs() < 5 * std / n + 0.01
    assert (final.var() / std**2 - 1).abs() < 5 * math.sqrt(2) / n + 0.06


def test_langevin_leaves_its_known_variance() -> None:
    """v/(1 − ε/(4v)) for x ← x + (ε/2)·score + √ε·z on N(0, v); 1.0256, 1.1429, 1.3333 at v = 1."""
    schedule = schedules.ve(0.02, 20.0)
    std, ratio = 1.0, 0.5
    v = std**2 + ratio**2
    denoiser = GaussianDenoiser(0.0, std, schedule)
    grid = torch.linspace(1.0, 0.5, 9, dtype=torch.float64)
    for size in (0.4, 2.0, 3.5):
        sampler = Langevin(ratio, size, repeats=25)
        epsilon = size * ratio**2
        wanted = v / (1 - epsilon / (4 * v))
        x = math.sqrt(v) * Noise(1).normal(torch.zeros(1, 1, 200, 200, dtype=torch.float64))
        final = last(sample(denoiser, sampler, grid, x, noise=Noise(2)))
        assert (final.var() / wanted - 1).abs() < 5 * math.sqrt(2 / 200**2)


@pytest.mark.parametrize(("snr", "wanted"), [(0.05, 1.30325), (0.16, 1.33328), (0.3, 1.41700)])
def test_corrector_leaves_its_known_variance(snr: float, wanted: float) -> None:
    """v = (1 − ε/s²)²·v + 2ε with ε = 2·snr²·s⁴/v, in many dimensions."""
    s2 = 1.3
    schedule = schedules.ve(0.02, 20.0)
    t = schedule.time(torch.tensor(2 * math.log(1 / 0.02))).item()
    std = math.sqrt(s2 - 0.02**2)
    denoiser = GaussianDenoiser(0.0, std, schedule)
    corrector = PredictorCorrector(ReverseDiffusion(), 1, snr)
    v = s2
    for _ in range(3000):
        epsilon = 2 * snr**2 * s2**2 / v
        v = (1 - epsilon / s2) ** 2 * v + 2 * epsilon
    assert v == pytest.approx(wanted, rel=1e-4)
    x = math.sqrt(s2) * Noise(1).normal(torch.zeros(1, 1, 160, 160, dtype=torch.float64))
    noise, when = Noise(2), torch.tensor([t], dtype=torch.float64)
    for _ in range(int(3 / snr**2)):
        x = corrector._correct(x, denoiser(x, when).score, noise.normal(x), 1.0)
    assert (x.var() / wanted - 1).abs() < 5 * math.sqrt(2) / 160


def test_plain_langevin_fails_between_modes_and_annealed_does_not() -> None:
    """Started on one side, the plain one never learns of the other; weights come out wrong."""
    schedule = schedules.ve(0.02, 20.0)
    denoiser = mixture(schedule)
    n = 400
    start = torch.full((n, 1), -1.0, dtype=torch.float64)
    grid = grids.log_snr(schedule, 25)
    noise = Pooled(0, n)
    plain = last(sample(denoiser, Langevin(0.02), grid, start, noise=noise))
    assert (plain < -0.2).double().mean() > 0.95
    wide = 20.0 * noise.normal(start)
    annealed = last(sample(denoiser, AnnealedLangevin(), grid, wide, noise=noise))
    assert (annealed < -0.2).double().mean() - 0.3 == pytest.approx(
        0.0, abs=5 * 0.46 / math.sqrt(n)
    )


def test_one_ancestral_step_from_pure_noise_forgets_it() -> None:
    """At α_t = 0 and η = 1, x_s is the belief and fresh noise alone."""
    schedule = schedules.flow()
    denoiser = Believing(schedule, lambda x, t: 0 * x + 2.0)
    grid = torch.tensor([1.0, 0.25], dtype=torch.float64)
    x = torch.full((1, 1), 123.0, dtype=torch.float64)
    for name in ("ddpm", "euler_a", "dpm++2m_sde", "dpm++3m_sde", "reverse_diffusion"):
        moved = last(sample(denoiser, get(name), grid, x, noise=FixedNoise([torch.ones(1, 1)])))
        assert moved.item() == pytest.approx(0.75 * 2.0 + 0.25, abs=1e-12), name


SPECTRA = {"blur": (2.0, 0.0), "colour": (0.0, 1.5), "both": (2.0, 1.5)}
FIRST, SECOND = ("ddim", "ddpm", "dpm++2m_sde", "euler_a"), ("dpm++2m", "unipc2", "heun")


def spectrum(name: str, kind: str, steps: int) -> float:
    """The largest relative error of a frequency's variance, each with noise levels of its own."""
    (blur, tilt), size = SPECTRA[kind], 5
    process = Spectral(schedules.vp(), size, size, blur=blur, tilt=tilt, d_min=0.05)
    std = torch.linspace(0.3, 1.2, size * size, dtype=torch.float64).reshape(1, 1, size, size)
    # To the schedule's least level: the belief at σ = 0 would add an error of its own.
    grid = grids.log_snr(process.schedule, steps + 1)[:-1]
    levels = (process.levels(float(t)) for t in grid[[0, -1]])
    start, end = (torch.sqrt(alpha**2 * std**2 + sigma**2) for alpha, sigma in levels)
    found = variance(GaussianDenoiser(0.0, std[0], process), get(name), grid, start)
    return float((found / end[0] ** 2 - 1).abs().max())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "both") for name in (*FIRST, *SECOND)),
        *((name, kind) for name in ("ddpm", "dpm++2m") for kind in ("blur", "colour")),
    ],
)
def test_each_frequency_tends_to_its_variance(name: str, kind: str) -> None:
    steps = 50 if name in FIRST else 30
    coarse, fine = spectrum(name, kind, steps), spectrum(name, kind, 2 * steps)
    assert fine < (0.6 if name in FIRST else 0.35) * coarse
    assert fine < (0.3 if name in FIRST else 0.12)


@pytest.mark.parametrize("kind", SPECTRA)
def test_each_frequency_has_its_variance_with_the_optimal_one(kind: str) -> None:
    for steps in (1, 2, 7):
        assert spectrum("ddpm_optimal", kind, steps) < 1e-10


def test_ancestral_noise_of_zero_is_the_inner_sampler() -> None:
    schedule = schedules.vp()
    denoiser = mixture(schedule)
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    grid = grids.log_snr(schedule, 8)
    for name in ("euler", "dpm2", "dpm++2s"):
        quiet = last(sample(denoiser, AncestralNoise(get(name), eta=0.0), grid, x))
        assert torch.equal(quiet, last(sample(denoiser, get(name), grid, x)))


def test_churn_never_passes_the_noisiest_time() -> None:
    seen: list[float] = []

    def believe(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t.max()))
        return 0 * x

    denoiser = Believing(schedules.vp(), believe)
    x = torch.zeros(1, 1, dtype=torch.float64)
    last(sample(denoiser, get("heun", churn=100.0), grids.uniform(schedules.vp(), 5), x))
    assert max(seen) == 1.0
    np.testing.assert_array_less(-1e-12, seen)
    assert isinstance(denoiser(x, torch.ones(1)), Prediction)
