"""Retrieval: ranks against a count by hand, ties, and chance."""

import pytest
import torch

from fromnoise import processes, schedules
from fromnoise.core.errors import ShapeError
from fromnoise.evaluate.retrieval import by_noise, ranks, retrieval


def test_ranks_count_what_is_nearer() -> None:
    near = torch.tensor([[3.0, 1.0, 2.0], [5.0, 4.0, 4.5], [0.0, 1.0, 2.0]])
    assert ranks(near).tolist() == [0, 2, 0]
    assert ranks(near.T).tolist() == [1, 0, 2]
    with pytest.raises(ShapeError):
        ranks(near[:2])


def test_one_direction_for_all_is_never_found() -> None:
    same = torch.ones(8, 4) / 2
    found = retrieval(same, same)
    assert all(share.value == 0 for share in found.values())


def test_right_directions_are_found_and_random_ones_as_often_as_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    right = torch.nn.functional.normalize(torch.randn(200, 16, generator=generator), dim=1)
    assert all(share.value == 1 for share in retrieval(right, right).values())
    other = torch.nn.functional.normalize(torch.randn(200, 16, generator=generator), dim=1)
    for name, share in retrieval(right, other).items():
        # Within four standard deviations of so many trials.
        chance = 5 / 200 if name.endswith("5") else 1 / 200
        assert abs(share.value - chance) <= 4 * (chance / 200) ** 0.5
    # The two ways are each other's, with the roles changed.
    one, two = retrieval(right, other), retrieval(other, right)
    assert one["text_top5"] == two["picture_top5"]


def test_more_noise_finds_less() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.nn.functional.normalize(torch.randn(100, 32, generator=generator), dim=1)
    process = processes.Gaussian(schedules.cosine())
    found = by_noise(lambda x, t: x, process, x, x, at=(0.0, 0.3, 0.9))
    shares = [one.shares["text_top1"].value for one in found]
    assert shares[0] == 1 and shares[0] > shares[1] > shares[2]
    assert found[0].as_json()["t"] == 0.0
