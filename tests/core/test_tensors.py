"""Small helpers with one meaning each."""

import torch

from fromnoise.core.tensors import expand, flat_mean, flat_sum, times


def test_expand() -> None:
    like = torch.empty(2, 3, 4, 5)
    coefficient = torch.tensor([1.0, 2.0], dtype=torch.float64)
    made = expand(coefficient, like)
    assert made.shape == (2, 1, 1, 1)
    assert made.dtype == torch.float32
    per_frequency = torch.ones(2, 1, 4, 5, dtype=torch.float64)
    assert torch.equal(expand(per_frequency, like), per_frequency.float())


def test_times() -> None:
    assert times(0.1, 3).tolist() == [0.1, 0.1, 0.1]
    assert times(0.1, 3).dtype == torch.float64
    given = torch.tensor([0.1, 0.2])
    assert torch.equal(times(given, 2), given.double())


def test_flat() -> None:
    x = torch.arange(24.0).reshape(2, 3, 4)
    assert flat_sum(x).tolist() == [66.0, 210.0]
    assert flat_mean(x).tolist() == [5.5, 17.5]
