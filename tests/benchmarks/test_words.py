"""Word-vector arithmetic: right where directions add up, as rare as chance where they do not."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from benchmarks.words import SUMS, accuracy
from fromnoise.data.scenes import COLOURS, KINDS

WORDS = [*COLOURS, *KINDS]


def adding(texts: Sequence[str]) -> Tensor:
    """A text is the sum of its words, each with a direction of its own."""
    return torch.stack(
        [
            sum((torch.eye(10)[WORDS.index(w)] for w in t.split() if w != "a"), torch.zeros(10))
            for t in texts
        ]
    )


def by_chance(texts: Sequence[str]) -> Tensor:
    """A text is a random direction, the same for the same text."""
    return torch.stack(
        [
            torch.randn(
                32, generator=torch.Generator().manual_seed(sum(map(ord, t)) + 1000 * len(t))
            )
            for t in texts
        ]
    )


@pytest.mark.parametrize("name", SUMS)
def test_where_words_add_up_every_sum_is_right(name: str) -> None:
    sums = list(SUMS[name]())
    assert len(sums) == len(set(sums))
    assert all(share.value == 1 for share in accuracy(adding, sums))


def test_there_are_as_many_sums_as_changes() -> None:
    counts = [len(list(made())) for made in SUMS.values()]
    assert counts == [4 * 6 * 5, 6 * 4 * 3, 4 * 3 * 6 * 5]


def test_random_directions_are_right_by_chance_alone() -> None:
    made: Callable[[], object] = SUMS["a red circle − red + blue"]
    without, among = accuracy(by_chance, list(made()))  # type: ignore[call-overload]
    # Nearest is a itself, which a sum of three random directions still holds.
    assert without.value < 0.3 and among.value < 0.1
