"""The order of the data is a function of seed and step, and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.core.errors import UsageError
from fromnoise.data import Order, order
from fromnoise.data.order import bits, shuffled


def test_the_order_of_a_seed_never_changes() -> None:
    # Recorded once; NumPy promises the PCG64 stream, so it holds on every machine.
    assert shuffled(8, 1, 2).tolist() == [2, 0, 7, 4, 6, 3, 5, 1]
    assert order(0, 0, 1000)[:4].tolist() == [78, 234, 949, 295]


@given(seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 10**6), length=st.integers(1, 300))
def test_an_epoch_visits_every_sample_once(seed: int, epoch: int, length: int) -> None:
    permutation = order(seed, epoch, length)
    assert sorted(permutation) == list(range(length))
    with pytest.raises(ValueError, match="read-only"):
        permutation[0] = 0


@given(
    length=st.integers(1, 50),
    batch=st.integers(1, 70),
    seed=st.integers(0, 2**32),
    start=st.integers(0, 1000),
)
def test_steps_read_the_epochs_one_after_another(
    length: int, batch: int, seed: int, start: int
) -> None:
    steps = Order(length, batch, seed)
    told = [steps(start + k) for k in range(5)]
    places = np.arange(start * batch, (start + 5) * batch)
    wanted = [order(seed, p // length, length)[p % length] for p in places.tolist()]
    assert np.concatenate([indices for indices, _ in told]).tolist() == wanted
    assert np.concatenate([epochs for _, epochs in told]).tolist() == (places // length).tolist()


def test_seeds_epochs_and_uses_have_orders_of_their_own() -> None:
    keys = [(s, tag, e) for s in (0, 1, 2**32, 2**33) for tag in (0, 1, 2) for e in (0, 1)]
    seen = {tuple(shuffled(40, *key)) for key in keys}
    assert len(seen) == len(keys)


def test_the_first_place_is_uniform() -> None:
    first = [int(shuffled(8, seed, 0, 0)[0]) for seed in range(4000)]
    counts = np.bincount(first, minlength=8)
    # χ² with 7 degrees of freedom exceeds 29.9 once in 10,000 times.
    assert ((counts - 500) ** 2 / 500).sum() < 29.9
    assert ((np.bincount([0, *first[1:4000:2], *[0] * 1999]) - 500) ** 2 / 500).sum() > 29.9


@pytest.mark.parametrize("key", [(-1, 0), (0, 0, -2)])
def test_negative_seeds_are_refused(key: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="negative"):
        bits(3, *key)


def test_impossible_orders_are_refused() -> None:
    with pytest.raises(UsageError, match="0 samples in batches of 4"):
        Order(0, 4, 0)
    with pytest.raises(UsageError, match="batches of 0"):
        Order(4, 0, 0)
    with pytest.raises(UsageError, match="step -1"):
        Order(4, 2, 0)(-1)
