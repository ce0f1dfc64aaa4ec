"""Samplers of masked tokens, on a joint distribution whose exact denoiser is known."""

import math

import pytest
import torch
from scipy.stats import chi2
from tokens import Exact, Together
from torch import Tensor
from walks import mixture

from fromnoise import grids, schedules
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.denoisers import Denoiser, Prediction
from fromnoise.layers.condition import Condition
from fromnoise.processes import Absorbing, hidden
from fromnoise.samplers import SAMPLERS, Step, UnmaskInOrder, get, sample

MASKED = ("unmask", "unmask_even", "maskgit")
COUNT = 20_000


def walk(exact: Exact, name: str, steps: int, noise: Noise, eta: float | None = None) -> list[Step]:
    grid = grids.uniform(exact.process.clock, steps)
    start = torch.zeros(len(noise), exact.codes, exact.length, dtype=torch.float64)
    return list(sample(exact, get(name, eta=eta), grid, start, noise=noise))


def drawn(exact: Exact, name: str, steps: int) -> Tensor:
    return walk(exact, name, steps, Together(0, COUNT))[-1].x


def fits(exact: Exact, x: Tensor, chances: Tensor) -> bool:
    return exact.chi_square(x, chances) < chi2.ppf(0.999, len(chances) - 1)


def test_one_at_a_time_draws_the_distribution_itself() -> None:
    exact = Exact(3, 3)
    assert fits(exact, drawn(exact, "unmask_even", 3), exact.chances)
    # The control: all at once they know nothing of each other.
    at_once = drawn(exact, "unmask_even", 1)
    assert fits(exact, at_once, exact.independent())
    assert not fits(exact, at_once, exact.chances)


@pytest.mark.parametrize("mask", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_exact_process_errs_by_what_is_shown_together(mask: str, steps: int) -> None:
    """Two tokens fall into the same step with chance Σ (m_t − m_s)², and are then independent."""
    exact = Exact(4, 2, mask)
    times = grids.uniform(exact.process.clock, steps)
    together = float(exact.process.share(times).diff().square().sum())
    expected = (1 - together) * exact.chances + together * exact.independent()
    x = drawn(exact, "unmask", steps)
    assert fits(exact, x, expected)
    assert not fits(exact, x, exact.chances)


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("steps", [1, 2, 3, 17])
def test_every_token_is_shown_once_and_stays(name: str, steps: int) -> None:
    exact = Exact(3, 4, "cosine")
    before = torch.zeros(50, 3, 4, dtype=torch.float64)
    for step in walk(exact, name, steps, Noise(3, 50)):
        known = ~hidden(before).expand_as(before)
        assert torch.equal(step.x[known], before[known])
        assert bool(((step.x == 0) | (step.x == 1)).all()) and step.x.sum(1).max() <= 1
        before = step.x
    assert bool((before.sum(1) == 1).all())


@pytest.mark.parametrize("name", ["unmask_even", "maskgit"])
@pytest.mark.parametrize("length", [3, 5, 6])
def test_as_many_steps_as_tokens_show_one_at_a_time(name: str, length: int) -> None:
    exact = Exact(2, length)
    left = [hidden(step.x).sum((1, 2)) for step in walk(exact, name, length, Noise(0, 20))]
    assert [set(row.tolist()) for row in left] == [{length - 1 - i} for i in range(length)]


class Ignorant(Denoiser):
    """Every code is as likely as any other."""

    process = Absorbing()

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Prediction:
        return Prediction(torch.zeros_like(x), x, t, self.process)


@pytest.mark.parametrize("length", [22, 49, 64, 100])
def test_one_at_a_time_whatever_their_number(length: int) -> None:
    blank = Ignorant()
    grid = grids.uniform(blank.process.clock, length)
    walked = sample(blank, get("unmask_even"), grid, torch.zeros(1, 2, length))
    left = [int(hidden(step.x).sum()) for step in walked]
    assert left == list(range(length))[::-1]
    # The control: in float32 some of these counts come out one short.
    short = [
        n for n in (22, 49) if any(int(torch.tensor(float(n)) * (k / n)) < k for k in range(n))
    ]
    assert short == [22, 49]


def test_without_temperature_the_most_certain_draw_is_shown_first() -> None:
    """Draw c of token l is first with p_l(c)·Π P(the draws of other tokens are less certain)."""
    exact = Exact(3, 4, seed=5)
    start = torch.zeros(1, 3, 4, dtype=torch.float64)
    chance = exact(start, torch.ones(1)).x0[0].exp()
    less = torch.stack([((chance < p) * chance).sum(0) for p in chance.flatten()])
    own = torch.arange(12) % 4
    less[torch.arange(12), own] = 1.0
    expected = COUNT * chance.flatten() * less.prod(1)
    found = {}
    for eta in (0.0, 1e6):
        shown = walk(exact, "maskgit", 4, Together(0, COUNT), eta=eta)[0].x.sum(0).flatten()
        some = expected > 0
        off = ((shown - expected)[some] ** 2 / expected[some]).sum() + shown[~some].sum()
        found[eta] = float(off) < chi2.ppf(0.999, int(some.sum()) - 1)
    # The control: at a high temperature the order is random.
    assert found == {0.0: True, 1e6: False}


@pytest.mark.parametrize("name", MASKED)
def test_what_is_given_stays_and_the_rest_is_drawn_from_what_it_leaves(name: str) -> None:
    exact = Exact(3, 3)
    start = torch.zeros(4000, 3, 3, dtype=torch.float64)
    start[:, 2, 1] = 1.0
    grid = grids.uniform(schedules.flow(), 2)
    *_, end = sample(exact, get(name), grid, start, noise=Together(1, 4000))
    assert bool((end.x.argmax(1)[:, 1] == 2).all())
    if name == "unmask_even":
        given = exact.chances * (exact.words[:, 1] == 2)
        given = given / given.sum()
        place = (end.x.argmax(1) * torch.tensor([9, 3, 1])).sum(1)
        found = torch.bincount(place, minlength=27).double()[given > 0]
        expected = 4000 * given[given > 0]
        assert ((found - expected) ** 2 / expected).sum() < chi2.ppf(0.999, 8)


@pytest.mark.parametrize("name", MASKED)
def test_a_sample_is_that_of_its_seed(name: str) -> None:
    exact = Exact(3, 4)
    x = walk(exact, name, 3, Noise([4, 5, 6]))[-1].x
    swapped = walk(exact, name, 3, Noise([6, 9]))[-1].x
    assert torch.equal(x[2], swapped[0])
    assert not torch.equal(walk(exact, name, 3, Noise(7, 9))[-1].x[1:], x.expand(3, -1, -1)[:1])


def test_the_wrong_sampler_is_refused() -> None:
    exact = Exact(2, 2)
    for name in SAMPLERS:
        if name not in (*MASKED, "ddim_inverse", "cold1"):
            with pytest.raises(UsageError, match="masked tokens"):
                walk(exact, name, 3, Noise(0, 2))
    line = mixture(schedules.vp())
    for name in MASKED:
        with pytest.raises(UsageError, match="gaussian process masks no tokens"):
            list(sample(line, get(name), grids.uniform(schedules.vp(), 2), torch.zeros(2, 1)))


def test_the_temperature_is_the_eta() -> None:
    assert get("maskgit", eta=1.5) == UnmaskInOrder(1.5)
    assert get("unmask_even") == UnmaskInOrder(math.inf)
    for name, eta in (("unmask", 0.5), ("unmask_even", 0.5), ("maskgit", -1.0)):
        with pytest.raises(UsageError):
            get(name, eta=eta)
