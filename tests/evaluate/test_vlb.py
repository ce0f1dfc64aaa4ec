"""The variational bound: tight on exact Gaussians, and the identities it rests on."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fromnoise import grids, schedules
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import FixedNoise, Noise
from fromnoise.denoisers import (
    Denoiser,
    EmpiricalDenoiser,
    GaussianDenoiser,
    MixtureDenoiser,
    Prediction,
)
from fromnoise.evaluate.calibration import calibrate
from fromnoise.evaluate.variances import variance
from fromnoise.evaluate.vlb import Bound, variational_bound
from fromnoise.layers.condition import Condition

ENTROPY = 0.5 * math.log(2 * math.pi * math.e)

SCHEDULES = {
    "linear": schedules.linear(),
    "vp": schedules.vp(),
    "ve": schedules.ve(1e-3, 50.0),
    "flow": schedules.flow(),
    "zero terminal": schedules.zero_terminal_snr(schedules.linear()),
}


def nodes() -> tuple[Tensor, Tensor, Tensor]:
    """Data, noise and weights that integrate polynomials of degree 9 in both exactly."""
    z, w = (torch.tensor(v) for v in np.polynomial.hermite_e.hermegauss(5))
    w = w / w.sum()
    data, noise = torch.meshgrid(z, z, indexing="ij")
    return data.reshape(-1, 1), noise.reshape(-1, 1), (w[:, None] * w).reshape(-1)


def expected(denoiser: Denoiser, grid: Tensor, name: str, mean: float, std: float) -> Bound:
    """The bound averaged over data N(mean, std²) and noise, without Monte Carlo."""
    z, eps, weights = nodes()
    noise = FixedNoise([eps] * len(grid))
    found = variational_bound(denoiser, mean + std * z, grid, variance(name), noise)
    return Bound(found.prior @ weights, found.steps @ weights, found.decoder @ weights)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_optimal_variance_makes_the_bound_the_entropy_on_any_grid(name: str, steps: int):
    schedule = SCHEDULES[name]
    found = expected(
        GaussianDenoiser(0.3, 0.6, schedule), grids.uniform(schedule, steps), "optimal", 0.3, 0.6
    )
    # Only the prior's mismatch is left: KL(N(α·m, α²s² + σ²) ‖ N(0, α² + σ²)) at the start.
    alpha, sigma = schedule.at(1.0)
    var, wide = (alpha * 0.6) ** 2 + sigma**2, alpha**2 + sigma**2
    mismatch = 0.5 * (var / wide - 1 - math.log(var / wide) + (alpha * 0.3) ** 2 / wide)
    truth = ENTROPY + math.log(0.6) + mismatch
    assert found.total.item() == pytest.approx(truth, abs=1e-9)
    assert mismatch < 1e-3


@pytest.mark.slow
def test_the_large_variance_is_right_for_unit_data_and_the_small_one_is_not():
    schedule = schedules.linear()
    denoiser, grid = GaussianDenoiser(0.0, 1.0, schedule), grids.trailing(schedule, 1000)
    large = expected(denoiser, grid, "large", 0.0, 1.0)
    assert large.total.item() == pytest.approx(1.4189385332, abs=1e-9)
    assert large.steps > 0.1
    grid = grids.trailing(schedule, 100)
    small = expected(denoiser, grid, "small", 0.0, 1.0)
    assert small.total > large.total + 0.1
    # And for other data the large one is not: 1e-3 nats is out of reach.
    narrow = expected(GaussianDenoiser(0.0, 0.1, schedule), grid, "large", 0.0, 0.1)
    assert narrow.total > ENTROPY + math.log(0.1) + 1e-2


class Fraction(Denoiser):
    """A denoiser whose learned variance is a constant place between the two fixed ones."""

    def __init__(self, inner: Denoiser, fraction: float) -> None:
        self.process, self.inner, self.fraction = inner.process, inner, fraction

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        found = self.inner(x, t, condition)
        return Prediction(
            found.x0, x, t, self.process, var_fraction=torch.full_like(x, self.fraction)
        )


@pytest.mark.parametrize(("fraction", "name"), [(0.0, "small"), (1.0, "large")])
def test_a_learned_variance_runs_between_the_fixed_ones(fraction: float, name: str):
    schedule = schedules.linear(50)
    inner, grid = GaussianDenoiser(0.0, 1.0, schedule), grids.trailing(schedule, 50)
    learned = expected(Fraction(inner, fraction), grid, "learned", 0.0, 1.0)
    fixed = expected(inner, grid, name, 0.0, 1.0)
    assert learned.total.item() == pytest.approx(fixed.total.item(), abs=1e-12)
    middle = expected(Fraction(inner, 0.5), grid, "learned", 0.0, 1.0)
    assert middle.total != fixed.total


def test_the_prior_term_is_the_published_one():
    denoiser = GaussianDenoiser(0.0, 1.0, schedules.linear())
    grid = grids.trailing(schedules.linear(), 10)
    one = torch.ones(1, 1, dtype=torch.float64)
    found = variational_bound(denoiser, one, grid, variance("large"), Noise(0))
    # The published number lacks the term ᾱ²/4, lost in the cancellation of its formula.
    assert found.prior.item() / math.log(2) == pytest.approx(2.91123561e-05, rel=3e-5)


@pytest.mark.parametrize("name", ["vp", "ve", "flow"])
def test_information_is_half_the_integral_of_the_error_over_snr(name: str):
    """½∫mmse dSNR = ½ ln((1 + SNR_max·s²)/(1 + SNR_min·s²)), whatever path leads there."""
    schedule = SCHEDULES[name]
    truth = 0.5 * math.log((1 + math.exp(13.3) / 4) / (1 + math.exp(-5) / 4))
    assert truth == pytest.approx(5.9560146336, abs=1e-9)
    denoiser = GaussianDenoiser(0.0, 0.5, schedule)

    def steps(count: int, kind: str) -> float:
        levels = torch.linspace(-5.0, 13.3, count, dtype=torch.float64)
        grid = torch.cat([schedule.time(levels), torch.zeros(1, dtype=torch.float64)])
        return expected(denoiser, grid, kind, 0.0, 0.5).steps.item()

    # With the small variance each step costs ½·mmse·ΔSNR: a Riemann sum of the integral.
    assert steps(1000, "small") == pytest.approx(truth, rel=1e-2)
    assert steps(6, "optimal") == pytest.approx(truth, abs=1e-8)


def test_some_of_the_terms_stand_for_all_of_them():
    schedule = schedules.vp()
    denoiser, grid = GaussianDenoiser(0.0, 0.5, schedule), grids.log_snr(schedule, 41)
    x = 0.5 * Noise(0, 400).normal(torch.zeros(400, 2, dtype=torch.float64))
    chosen = variance("optimal")
    every = variational_bound(denoiser, x, grid, chosen, Noise(0, 400))
    some = variational_bound(denoiser, x, grid, chosen, Noise(1, 400), terms=8)
    gap = (some.steps - every.steps).double()
    assert gap.mean().abs() < 4 * gap.std() / 20
    assert gap.std() > 0
    # 40 of 40 are all of them.
    eps = [Noise(9, 400).normal(x)] * 41
    full = variational_bound(denoiser, x, grid, chosen, FixedNoise(eps), terms=40)
    same = variational_bound(denoiser, x, grid, chosen, FixedNoise(eps))
    torch.testing.assert_close(full.steps, same.steps)


def test_the_bound_is_never_below_the_entropy_of_levels():
    levels = torch.linspace(-1, 1, 17, dtype=torch.float64)[:, None]
    schedule = schedules.ve(0.002, 80.0)
    denoiser = EmpiricalDenoiser(levels, schedule)
    x = levels.repeat(15, 1)
    grid = grids.log_snr(schedule, 200)
    fitted = calibrate(denoiser, x, grid, Noise(7, len(x)), levels=17)
    found = variational_bound(
        denoiser, x, fitted.grid, fitted.variance, Noise(0, len(x)), levels=17
    )
    bits = found.bits_per_dim(1)
    error = bits.std() / math.sqrt(len(bits))
    assert math.log2(17) - 3 * error < bits.mean() < math.log2(17) + 0.1 + 3 * error


def test_calibration_measures_the_variance_and_cuts_where_levels_are_not_known():
    # Two bunches of three levels each, 1/4, 1/2, 1/4: 2.5 bits.
    schedule = schedules.ve(0.002, 80.0)
    bunch = torch.tensor([[-0.125], [0.0], [0.0], [0.125]], dtype=torch.float64)
    x = torch.cat([bunch - 0.75, bunch + 0.75]).repeat(120, 1)
    # A belief that knows the bunches, and not that data has levels.
    denoiser = MixtureDenoiser(
        torch.ones(2) / 2, torch.tensor([[-0.75], [0.75]]), torch.full((2,), 0.09), schedule
    )
    grid = grids.log_snr(schedule, 60)
    fitted = calibrate(denoiser, x, grid, Noise(0, len(x)), levels=17)
    sigma = torch.exp(-0.5 * schedule.log_snr(fitted.variance.t))
    bunched = 0.09**2 * sigma**2 / (0.09**2 + sigma**2)
    # Where the bunches are told apart, what is left is the error within one.
    near = sigma < 0.15
    torch.testing.assert_close(fitted.variance.error[near], bunched[near], rtol=0.25, atol=0)
    assert 0.03 < schedule.at(fitted.last)[1] < 0.5

    def bits(path: Tensor) -> Tensor:
        noise = Noise(50, len(x))
        found = variational_bound(denoiser, x, path, fitted.variance, noise, levels=17)
        return found.bits_per_dim(1)

    short, full = bits(fitted.grid), bits(grid)
    error = 3 * short.std().item() / math.sqrt(len(x))
    assert full.mean() > short.mean() + 1
    assert 2.5 - error < short.mean() < 2.5 + 0.5 + error


def test_the_calibrated_bound_is_tight_on_gaussian_data():
    schedule = schedules.vp()
    denoiser, grid = GaussianDenoiser(0.0, 0.5, schedule), grids.log_snr(schedule, 20)
    x = 0.5 * Noise(0, 4000).normal(torch.zeros(4000, 1, dtype=torch.float64))
    fitted = calibrate(denoiser, x, grid, Noise(0, 4000))
    z, eps, weights = nodes()
    found = variational_bound(
        denoiser, 0.5 * z, fitted.grid, fitted.variance, FixedNoise([eps] * len(grid))
    )
    assert (found.total @ weights).item() == pytest.approx(ENTROPY + math.log(0.5), abs=1e-2)
    assert (found.total @ weights).item() > ENTROPY + math.log(0.5)


def test_what_a_denoiser_does_not_know_is_refused():
    schedule = schedules.linear(10)
    denoiser = GaussianDenoiser(0.0, 1.0, schedule)
    x, grid = torch.zeros(1, 1, dtype=torch.float64), grids.uniform(schedule, 4)
    with pytest.raises(UsageError, match="has not learned"):
        variational_bound(denoiser, x, grid, variance("learned"), Noise(0))
    with pytest.raises(UsageError, match="did you mean large"):
        variance("lage")
    with pytest.raises(UsageError, match="ends at 0"):
        variational_bound(denoiser, x, grid[:-1], variance("large"), Noise(0))
    with pytest.raises(UsageError, match="terms 0"):
        variational_bound(denoiser, x, grid, variance("large"), Noise(0), terms=0)
