"""Guidance by a worse copy: exact on Gaussians, free where it does not act."""

import pytest
import torch
from torch import Tensor

from fromnoise import grids, schedules
from fromnoise.core.errors import UsageError
from fromnoise.denoisers import GaussianDenoiser, Prediction
from fromnoise.guidance import AutoGuided, auto
from fromnoise.layers.condition import Condition
from fromnoise.samplers import get, last, sample

SCHEDULE = schedules.ve(0.002, 80.0)


class Counted(GaussianDenoiser):
    """A Gaussian that counts how often it is asked."""

    asked = 0

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        self.asked += 1
        return super().__call__(x, t, condition)


def copies(std: float = 2.0**0.5) -> tuple[Counted, Counted]:
    """N(0, 1), and a worse copy that spreads more."""
    good = Counted(0.0, 1.0, SCHEDULE)
    return good, Counted(0.0, std, good.process)


def same(x: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize(("scale", "variance"), [(1.0, 1.0), (2.0, 0.5), (3.0, 0.25)])
def test_the_variance_is_that_of_any_two_gaussians(scale: float, variance: float) -> None:
    """v = v_good^w · v_worse^(1−w), as of guidance without a classifier."""
    good, worse = copies()
    start = torch.full((1, 1), 80.0, dtype=torch.float64)
    grid = grids.log_snr(SCHEDULE, 200, end=SCHEDULE.time(torch.tensor(12.4)).item())
    end = last(sample(auto(worse, scale)(good, same), get("heun"), grid, start))
    assert end.item() ** 2 == pytest.approx(variance, abs=1e-3)


@pytest.mark.parametrize("view", ["x0", "eps", "v", "score", "flow"])
def test_it_is_the_same_line_in_every_space(view: str) -> None:
    good, worse = copies()
    x, t = torch.randn(4, 2).double(), torch.linspace(0.3, 0.9, 4).double()
    found = getattr(AutoGuided(good, worse, 2.5)(x, t), view)
    a, b = getattr(good(x, t), view), getattr(worse(x, t), view)
    torch.testing.assert_close(found, b + 2.5 * (a - b), rtol=1e-11, atol=1e-11)


def test_without_scale_or_outside_its_times_the_worse_one_is_not_asked() -> None:
    x = 80.0 * torch.randn(3, 1).double()
    grid = grids.karras(SCHEDULE, 8)
    good, worse = copies()
    plain = last(sample(good, get("ddim"), grid, x))
    for guide in (auto(worse, 1.0), auto(worse, 3.0, interval=(0.0, float(grid[-2]) / 2))):
        assert torch.equal(last(sample(guide(good, same), get("ddim"), grid, x)), plain)
    assert worse.asked == 0
    acting = auto(worse, 3.0, interval=(float(grid[3]), 1.0))(good, same)
    assert not torch.equal(last(sample(acting, get("ddim"), grid, x)), plain)
    assert worse.asked == 4


def test_a_copy_of_another_schedule_is_refused() -> None:
    good, _ = copies()
    other = GaussianDenoiser(0.0, 1.0, schedules.cosine())
    with pytest.raises(UsageError, match="another noise schedule"):
        auto(other, 2.0)(good, same)
    # The same schedule, made twice, is the same.
    auto(GaussianDenoiser(0.0, 1.0, schedules.ve(0.002, 80.0)), 2.0)(good, same)


def test_a_scale_is_finite() -> None:
    with pytest.raises(UsageError, match="not finite"):
        auto(copies()[1], float("inf"))
