"""The shape of the claim of DDIM, where the denoiser is exact and nothing is trained."""

import functools

import pytest
import torch

from benchmarks.exact import MEANS, STDS, WEIGHTS, distance, quantiles
from benchmarks.output import NAMES

FEW = (5, 10, 20)


@functools.cache
def found(name: str, steps: int) -> float:
    return distance(name, steps, samples=4000)


def test_quantiles_have_the_moments_of_the_data() -> None:
    """Mean Σwμ = 0.12, variance Σw(s² + μ²) − mean²."""
    q = quantiles(20_000)
    mean = (WEIGHTS * MEANS).sum()
    variance = (WEIGHTS * (STDS**2 + MEANS**2)).sum() - mean**2
    assert torch.all(q.diff() > 0)
    torch.testing.assert_close(q.mean(), mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(q.var(), variance, atol=1e-3, rtol=0)


@pytest.mark.parametrize("steps", FEW)
def test_ddim_beats_ddpm_at_few_steps(steps: int) -> None:
    """Song, Meng & Ermon 2021, table 1: at few steps quality worsens with fresh noise."""
    assert found("ddim", steps) < 0.95 * found("ddpm", steps)


@pytest.mark.parametrize("steps", FEW)
def test_higher_orders_beat_ddim_at_few_steps(steps: int) -> None:
    for name in ("dpm++2m", "deis", "unipc"):
        assert found(name, steps) < 0.6 * found("ddim", steps), name


def test_more_steps_are_better_except_without_noise() -> None:
    for name in set(NAMES) - {"ddpm_no_noise"}:
        assert found(name, 20) < 0.6 * found(name, 10) < 0.6 * found(name, 5), name


@pytest.mark.parametrize("steps", [5, 20, 50])
def test_ddpm_without_its_noise_collapses_however_many_steps(steps: int) -> None:
    """What comes out is nearly as far from the data as its mean alone would be."""
    q = quantiles(4000)
    assert found("ddpm_no_noise", steps) > 0.8 * (q - q.mean()).abs().mean()
    assert found("ddpm_no_noise", steps) > 1.7 * found("ddpm", steps)
