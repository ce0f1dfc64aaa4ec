"""Tokens behind a mask: shares, moves, and what stays as it is."""

import json

import pytest
import torch
from torch import Tensor

from fromnoise.core.config import plain
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import times
from fromnoise.processes import PROCESSES, Absorbing, hidden

MASKS = ("linear", "cosine")
COUNT, PLACES = 400, 100


def tokens() -> Tensor:
    codes = torch.randint(4, (COUNT, PLACES), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.one_hot(codes, 4).double().movedim(-1, 1)


def noise(seed: int) -> Tensor:
    return torch.randn(COUNT, 1, PLACES, generator=torch.Generator().manual_seed(seed)).double()


def at(t: float) -> Tensor:
    return times(t, COUNT)


def near(x: Tensor, share: float) -> bool:
    """Whether this share of 40,000 tokens is hidden, to four standard errors."""
    error = (share * (1 - share) / (COUNT * PLACES)) ** 0.5
    return abs(float(hidden(x).double().mean()) - share) <= 4 * error


@pytest.mark.parametrize("mask", MASKS)
def test_a_share_of_the_tokens_is_hidden_and_the_others_are_as_they_were(mask: str) -> None:
    process, x0 = Absorbing(mask), tokens()  # type: ignore[arg-type]
    for t in (0.0, 0.2, 0.7, 1.0):
        x = process.corrupt(x0, at(t), noise(1))
        assert near(x, float(process.share(at(t))[0]))
        known = ~hidden(x).expand_as(x)
        assert torch.equal(x[known], x0[known])
    assert torch.equal(process.corrupt(x0, at(0.0), noise(1)), x0)
    assert torch.equal(process.corrupt(x0, at(1.0), noise(1)), process.prior(Noise(0, COUNT), x0))


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("t", "s"), [(0.8, 0.3), (1.0, 0.5), (0.5, 0.0), (0.3, 0.8), (0.0, 0.4)])
def test_moved_with_the_truth_it_is_as_if_corrupted(mask: str, t: float, s: float) -> None:
    """q(x_s | x0), also for half of the tokens alone: each is hidden by itself."""
    process, x0 = Absorbing(mask), tokens()  # type: ignore[arg-type]
    x = process.corrupt(x0, at(t), noise(1))
    moved = process.move(x, x0, at(t), at(s), noise(2))
    assert near(moved, float(process.share(at(s))[0]))
    fewer = hidden(moved) <= hidden(x) if s < t else hidden(moved) >= hidden(x)
    assert bool(fewer.all())
    known = ~hidden(moved).expand_as(moved)
    assert torch.equal(moved[known], x0[known])


def test_a_belief_counts_as_its_likeliest_tokens() -> None:
    process, x0 = Absorbing(), tokens()
    belief = (3 * x0).log_softmax(1)
    for t in (0.3, 0.6):
        assert torch.equal(
            process.corrupt(belief, at(t), noise(1)), process.corrupt(x0, at(t), noise(1))
        )


@pytest.mark.parametrize("mask", MASKS)
def test_configuration_makes_the_same_again(mask: str) -> None:
    process = Absorbing(mask)  # type: ignore[arg-type]
    again = PROCESSES.build(json.loads(json.dumps(plain(process))))
    assert again.config == process.config and again.mask == mask


def test_it_has_no_noise_and_no_way_without_chance() -> None:
    process, x0 = Absorbing(), tokens()
    for ask in (lambda: process.schedule, lambda: process.levels(0.5),
                lambda: process.scales(at(0.5), x0),
                lambda: process.move(x0, x0, at(0.5), at(0.2))):  # fmt: skip
        with pytest.raises(UsageError, match="unmask"):
            ask()
    with pytest.raises(UsageError, match="mask"):
        PROCESSES.build({"kind": "absorbing", "mask": "square"})
