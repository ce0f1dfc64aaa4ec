"""Levels and bits: sums to 1, published numbers, closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.evaluate.likelihood import (
    bits_per_dim,
    cell,
    dequantise,
    discretised_log_likelihood,
    normal_kl,
    published_log_mass,
)


def level_values(levels: int) -> torch.Tensor:
    return torch.linspace(-1, 1, levels, dtype=torch.float64)


@given(st.floats(-3, 3), st.floats(-7, 3), st.sampled_from([2, 3, 17, 256]))
def test_the_probabilities_of_all_levels_sum_to_one(mean: float, log_std: float, levels: int):
    x = level_values(levels)
    found = discretised_log_likelihood(
        x, torch.full_like(x, mean), torch.full_like(x, log_std), levels
    )
    assert torch.logsumexp(found, 0).item() == pytest.approx(0.0, abs=1e-9)
    assert bool((found <= 0).all())


def test_float32_levels_reach_the_same_cells():
    x = level_values(256).float()
    zero = torch.zeros(256, dtype=torch.float64)
    found = discretised_log_likelihood(x.double(), zero, zero - 1, 256)
    assert torch.logsumexp(found, 0).item() == pytest.approx(0.0, abs=1e-5)


def test_the_mass_is_exact_where_it_underflows():
    x = torch.tensor([-0.5, 0.5, 0.0], dtype=torch.float64)
    zero = torch.zeros(3, dtype=torch.float64)
    found = discretised_log_likelihood(x, zero, zero + math.log(0.005), 256)
    half = 1 / 255
    lower, upper = ((x.abs() - half) / 0.005).numpy(), ((x.abs() + half) / 0.005).numpy()
    top, bottom = norm.logsf(lower), norm.logsf(upper)
    truth = torch.tensor(top + np.log1p(-np.exp(bottom - top)))
    torch.testing.assert_close(found, truth, rtol=1e-10, atol=0)
    assert found[0] < -4800


def test_published_numbers():
    x = torch.tensor([-1.0, -0.5, 1 / 255, 1.0], dtype=torch.float64)
    mean, log_std = torch.zeros_like(x), torch.full_like(x, -2.0)
    theirs = discretised_log_likelihood(x, mean, log_std, 256, published_log_mass)
    assert theirs.tolist() == pytest.approx([-27.6310, -10.8319, -3.76762, -27.6310], rel=2e-5)
    # Where the mass is not in a tail, the approximation is good to four digits.
    exact = discretised_log_likelihood(x, mean, log_std, 256)
    assert exact[2].item() == pytest.approx(-3.76762, abs=5e-4)
    assert normal_kl(0, 0, 1, -1).item() == pytest.approx(1.71828175, abs=1e-6)


@given(st.floats(-2, 2), st.floats(-4, 4), st.floats(-2, 2), st.floats(-4, 4))
def test_normal_kl_is_torchs(m: float, u: float, n: float, v: float):
    a, b = (
        torch.distributions.Normal(torch.tensor(c, dtype=torch.float64), math.exp(d / 2))
        for c, d in ((m, u), (n, v))
    )
    theirs = torch.distributions.kl_divergence(a, b).item()
    assert normal_kl(m, u, n, v).item() == pytest.approx(theirs, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_evenly_likely_levels_take_log2_of_their_number(levels: int):
    density = 1 / (levels * cell(levels))
    found = bits_per_dim(torch.full((1,), 5 * math.log(density)), 5, levels)
    assert found.item() == pytest.approx(math.log2(levels), abs=1e-6)


def test_dequantised_data_stays_in_its_cell_and_fills_it():
    x = level_values(17)[torch.arange(4000) % 17].reshape(-1, 1)
    spread = dequantise(x, 17, Noise(0, 4000))
    assert torch.equal(torch.round((spread + 1) * 8), torch.round((x + 1) * 8))
    assert (spread - x).std().item() == pytest.approx(cell(17) / math.sqrt(12), rel=0.03)
    with pytest.raises(UsageError, match="1 levels"):
        cell(1)
