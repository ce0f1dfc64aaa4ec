"""The seed contract: the noise of a sample depends on its seed and on nothing else."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import FixedNoise, Noise, ZeroNoise, seeds_for

SHAPE = (3, 4, 4)


def draws(seed: int | Sequence[int], batch: int, times: int = 3) -> torch.Tensor:
    """`times` draws of each sample, (batch, times, *SHAPE), with a uniform one in between."""
    source, like = Noise(seed, batch), torch.empty(batch, *SHAPE)
    made = []
    for _ in range(times):
        made.append(source.normal(like))
        made.append(source.uniform(like))
    return torch.stack(made, dim=1)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_noise_is_the_same_in_any_batch(batch: int) -> None:
    together = draws(100, 64)
    for start in range(0, 64, batch):
        part = draws(100 + start, min(batch, 64 - start))
        assert torch.equal(part, together[start : start + batch])


@given(order=st.permutations(range(6)))
def test_noise_is_the_same_at_any_place(order: list[int]) -> None:
    straight = draws(0, 6)
    assert torch.equal(draws(order, 6), straight[order])


def test_equal_seeds_draw_equal_noise_and_others_do_not() -> None:
    made = draws([5, 5, 6], 3)
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize(("low", "high"), [(0, 2**32), (7, 2**32 + 7), (3, 3 + 2**40)])
def test_seeds_far_apart_are_different_seeds(low: int, high: int) -> None:
    """torch's own generator looks at 32 bits of a seed: the control draws the same twice."""
    bare = [torch.randn(8, generator=torch.Generator().manual_seed(seed)) for seed in (low, high)]
    assert torch.equal(*bare)
    assert not torch.equal(draws(low, 1), draws(high, 1))


def test_a_small_seed_is_torchs_own() -> None:
    for seed in (0, 1, 12345, 2**32 - 1):
        bare = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(Noise(seed).normal(torch.empty(1, *SHAPE))[0], bare)


def test_the_largest_seeds_do_not_run_into_each_other() -> None:
    made = draws([2**63 - 1 - i for i in range(50)], 50, times=1)
    gram = made[:, 0].flatten(1)
    assert len({tuple(row[:3].tolist()) for row in gram}) == 50


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_noise_is_drawn_in_single_precision_then_cast(dtype: torch.dtype) -> None:
    like = torch.empty(2, *SHAPE)
    cast = Noise(3, 2).normal(like.to(dtype))
    assert cast.dtype == dtype
    assert torch.equal(cast, Noise(3, 2).normal(like).to(dtype))


def test_neither_the_global_generator_nor_threads_matter() -> None:
    before = draws(0, 4)
    state = torch.get_rng_state()
    torch.manual_seed(999)
    used = torch.get_rng_state()
    assert torch.equal(draws(0, 4), before)
    assert torch.equal(torch.get_rng_state(), used)
    torch.set_rng_state(state)


def test_moments() -> None:
    """Over seeds, not over one stream: neighbouring seeds are not correlated."""
    made = Noise(0, 4000).normal(torch.empty(4000, 20))
    assert abs(made.mean().item()) < 5 / 80_000**0.5
    assert abs(made.var().item() - 1) < 5 * (2 / 80_000) ** 0.5
    neighbours = (made[1:] * made[:-1]).mean().item()
    assert abs(neighbours) < 5 / 80_000**0.5
    flat = Noise(0, 4000).uniform(torch.empty(4000, 20))
    assert abs(flat.mean().item() - 0.5) < 5 * (1 / 12 / 80_000) ** 0.5
    assert flat.min() >= 0
    assert flat.max() < 1


def test_seeds() -> None:
    assert seeds_for(5, 3) == (5, 6, 7)
    assert seeds_for([9, 2], 2) == (9, 2)
    assert len(Noise([4, 8, 1])) == 3
    assert len(Noise(4)) == 1
    for wrong, count in ((-1, 1), (2**63, 1), (2**63 - 1, 2), ([1, -2], 2), ([1, 2], 3)):
        with pytest.raises(UsageError):
            seeds_for(wrong, count)  # type: ignore[arg-type]


def test_a_source_is_for_its_number_of_samples() -> None:
    with pytest.raises(UsageError, match="2 samples asked for 3"):
        Noise(0, 2).normal(torch.empty(3, 1))


def test_zero_noise_is_zero() -> None:
    like = torch.empty(2, *SHAPE, dtype=torch.float64)
    assert torch.equal(ZeroNoise(0, 2).normal(like), torch.zeros_like(like))


def test_fixed_noise_is_handed_out_in_order() -> None:
    first, second = torch.randn(2, 2, *SHAPE)
    source = FixedNoise([first, second])
    like = torch.empty(2, *SHAPE, dtype=torch.float64)
    assert torch.equal(source.normal(like), first.double())
    assert torch.equal(source.normal(like), second.double())
    with pytest.raises(UsageError, match="used up"):
        source.normal(like)
