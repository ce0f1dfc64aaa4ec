"""Plain Langevin dynamics gets the weights of separate modes wrong; annealed gets them right."""

import pytest
import torch

from benchmarks.langevin import ANNEALED, MEANS, PLAIN, STDS, WEIGHTS, draw, share
from fromnoise.samplers import Sampler


def spread(x: torch.Tensor) -> float:
    """Root mean square distance of points to their own mode, per coordinate."""
    return torch.cdist(x.double(), MEANS).amin(1).square().mean().div(2).sqrt().item()


@pytest.fixture(scope="module")
def plain() -> torch.Tensor:
    return draw(PLAIN, points=200)


@pytest.mark.slow
def test_plain_keeps_the_shares_it_began_with(plain: torch.Tensor) -> None:
    """It starts evenly about the origin, and no point crosses between the modes."""
    found = share(plain)
    assert found.low is not None and found.high is not None
    assert found.low < 0.5 < found.high < WEIGHTS[1] - 0.15


@pytest.mark.slow
def test_annealed_finds_the_shares_of_the_data() -> None:
    found = share(draw(ANNEALED, points=200))
    assert found.low is not None and found.high is not None
    assert found.low < WEIGHTS[1] < found.high


@pytest.mark.slow
def test_within_a_mode_plain_is_right(plain: torch.Tensor) -> None:
    """The failure is between the modes: inside them the points lie as the data does."""
    assert spread(plain) == pytest.approx(STDS[0].item(), rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [PLAIN, ANNEALED])
def test_both_ask_for_the_score_equally_often(sampler: Sampler) -> None:
    assert sampler.evaluations == PLAIN.evaluations
