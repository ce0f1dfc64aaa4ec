"""A belief kept in range: every view with it, or the data alone, as diffusers' DDIM does."""

import numpy as np
import pytest
import torch

from fromnoise import schedules
from fromnoise.core.errors import UsageError
from fromnoise.denoisers import GaussianDenoiser
from fromnoise.guidance import Clipped, Thresholded
from fromnoise.samplers import get, last, sample
from fromnoise.samplers.wrappers import ClippedData

SCHEDULE = schedules.linear()
FAR = GaussianDenoiser(3.0, 1.0, SCHEDULE)
GRID = torch.tensor([1.0, 0.6, 0.2, 0.0], dtype=torch.float64)
X = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_every_view_is_of_the_clipped_belief() -> None:
    t = torch.full((4,), 0.5, dtype=torch.float64)
    clipped = Clipped(FAR, 1.0)(X, t)
    alpha, sigma = SCHEDULE.at(0.5)
    assert clipped.x0.abs().max() <= 1.0 < FAR(X, t).x0.abs().max()
    torch.testing.assert_close(alpha * clipped.x0 + sigma * clipped.eps, X)


def test_within_range_nothing_changes() -> None:
    plain = last(sample(FAR, get("ddim"), GRID, X))
    assert torch.equal(last(sample(Clipped(FAR, 100.0), get("ddim"), GRID, X)), plain)
    assert torch.equal(last(sample(FAR, ClippedData(get("ddim"), 100.0), GRID, X)), plain)


def test_the_data_alone_is_clipped_and_the_noise_kept() -> None:
    t, s = 0.5, 0.3
    grid = torch.tensor([t, s], dtype=torch.float64)
    belief = FAR(X, torch.full((4,), t, dtype=torch.float64))
    alpha, sigma = SCHEDULE.at(s)
    expected = alpha * belief.x0.clamp(-1, 1) + sigma * belief.eps
    moved = last(sample(FAR, ClippedData(get("ddim"), 1.0), grid, X))
    torch.testing.assert_close(moved, expected)
    other = last(sample(Clipped(FAR, 1.0), get("ddim"), grid, X))
    assert (other - moved).abs().max() > 1e-2


@pytest.mark.parametrize("share", [0.5, 0.9, 0.995, 1.0])
def test_dynamic_thresholding_is_by_the_quantile_of_each_sample(share: float) -> None:
    """Saharia et al. 2022: s = max(1, quantile of |x0|), x0 = clip(x0, −s, s)/s."""
    x, t = 3.0 * torch.randn(3, 2, 5, 5, dtype=torch.float64), torch.full((3,), 0.5).double()
    x[1] *= 0.01
    wide = GaussianDenoiser(0.0, 1.0, SCHEDULE)
    plain = wide(x, t).x0
    found = Thresholded(wide, share)(x, t).x0
    for row, result in zip(plain.numpy(), found.numpy(), strict=True):
        size = max(1.0, np.percentile(np.abs(row), 100 * share))
        np.testing.assert_allclose(result, np.clip(row, -size, size) / size, rtol=1e-12)
    assert torch.equal(found[1], plain[1])
    assert found.abs().max() <= 1.0 < plain.abs().max()


@pytest.mark.parametrize("share", [0.0, 1.5, -1.0, float("nan")])
def test_a_threshold_is_a_share(share: float) -> None:
    with pytest.raises(UsageError, match="not a share"):
        Thresholded(FAR, share)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_a_limit_is_above_zero(limit: float) -> None:
    with pytest.raises(UsageError, match="limit above 0"):
        Clipped(FAR, limit)
    with pytest.raises(UsageError, match="limit above 0"):
        ClippedData(get("ddim"), limit)
