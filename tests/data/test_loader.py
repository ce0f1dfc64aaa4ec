"""The loader gives the same batches from any step, with any number of workers.

Workers that die or hang are in `tests/faults`.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from fromnoise import data
from fromnoise.core.errors import UsageError

AUGMENT = data.Both(data.Flip(), data.Shift(2))


def _same(first: list[data.Batch], second: list[data.Batch]) -> bool:
    return all(
        torch.equal(a.x, b.x) and torch.equal(a.index, b.index) and torch.equal(a.label, b.label)
        for a, b in zip(first, second, strict=True)
    )


def _take(batches: Iterator[data.Batch], count: int) -> list[data.Batch]:
    return list(islice(batches, count))


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_from_a_step_continues_exactly_with_any_workers(workers: int) -> None:
    digits = data.Subset(data.load("digits"), range(180))
    told = _take(iter(data.Loader(digits, 70, seed=5, augment=AUGMENT)), 6)
    for start in (0, 3):
        loader = data.Loader(digits, 70, seed=5, workers=workers, augment=AUGMENT)
        assert _same(_take(loader.start(start), 6 - start), told[start:])
    other = data.Loader(digits, 70, seed=6, workers=workers, augment=AUGMENT)
    assert not _same(_take(other.start(0), 2), told[:2])


def test_reading_uses_and_changes_no_global_randomness() -> None:
    loader = data.Loader(data.load("digits"), 64, seed=0, augment=AUGMENT)
    torch.manual_seed(1)
    np.random.seed(1)
    first = loader.at(0)
    drawn = torch.rand(1), np.random.rand()
    torch.manual_seed(1)
    np.random.seed(1)
    assert (torch.rand(1), np.random.rand()) == drawn
    assert _same([first], [loader.at(0)])


def test_a_sample_is_changed_anew_in_each_epoch_and_never_in_place() -> None:
    digits = data.load("digits")
    before = digits.batch(range(1797)).x
    loader = data.Loader(digits, 1797, seed=0, augment=AUGMENT)
    epochs = [loader.at(step) for step in range(3)]
    by_index = [b.x[b.index.argsort()] for b in epochs]
    for first, second in ((0, 1), (1, 2)):
        differ = (by_index[first] != by_index[second]).flatten(1).any(1).float().mean()
        assert float(differ) > 0.8
    assert torch.equal(digits.batch(range(1797)).x, before)


def test_augmentations_do_what_they_say() -> None:
    x = torch.arange(24.0).reshape(1, 4, 6)
    random = data.generator(0, 0, 0)
    assert torch.equal(data.Flip(1.0)(x, random).x, x.flip(-1))
    assert torch.equal(data.Flip(0.0)(x, random).x, x)
    assert torch.equal(data.Shift(0)(x, random).x, x)
    padded = torch.nn.functional.pad(x[None], (2, 2, 2, 2), mode="replicate")[0]
    windows = {(i, j): padded[:, i : i + 4, j : j + 6] for i in range(5) for j in range(5)}
    seen = set()
    for index in range(400):
        moved = data.Shift(2)(x, data.generator(0, 0, index)).x
        seen |= {place for place, window in windows.items() if torch.equal(window, moved)}
    assert seen == windows.keys()
    flips = sum(
        bool((data.Flip(0.3)(x, data.generator(7, 1, i)).x != x).any()) for i in range(2000)
    )
    assert abs(flips - 600) < 5 * (2000 * 0.3 * 0.7) ** 0.5
    built = data.AUGMENTATIONS.build(AUGMENT.config)
    assert torch.equal(built(x, data.generator(1, 2, 3)).x, AUGMENT(x, data.generator(1, 2, 3)).x)
    for wrong in ({"kind": "flip", "probability": 2}, {"kind": "shift", "pixels": -1}):
        with pytest.raises(UsageError, match="out of range"):
            data.AUGMENTATIONS.build(wrong)


def test_steps_of_an_epoch() -> None:
    loader = data.Loader(data.load("digits"), 100, seed=0)
    assert loader.steps(1) == 18 and loader.steps(0.5) == 9 and loader.steps(100) == 1797
    seen = torch.cat([b.index for b in _take(loader.start(0), 18)])
    assert len(seen[:1797].unique()) == 1797


def test_impossible_loaders_are_refused() -> None:
    digits = data.load("digits")
    for wrong in ({"workers": -1}, {"timeout": 0.0}, {"batch_size": 0}, {"seed": -1}):
        arguments = {"batch_size": 4, "seed": 0, **wrong}
        with pytest.raises(UsageError):
            data.Loader(digits, **arguments).at(0)


class _Mapped(data.Subset):
    """Digits that come with a map, and a size, of their own."""

    def given(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> dict[str, torch.Tensor]:
        x = self.samples(indices)
        return {"map": (x[:, 0] > 0).long(), "size": x.flatten(1).mean(1, keepdim=True)}


def test_what_the_data_gives_comes_with_its_samples_through_workers_subsets_and_rows() -> None:
    digits = _Mapped(data.load("digits"), range(100))
    half = data.Subset(digits, range(99, 0, -2))
    for workers in (0, 1):
        (batch,) = _take(iter(data.Loader(half, 20, seed=1, workers=workers)), 1)
        part = batch.rows(slice(5, 9)).to("cpu")
        for some in (batch, part):
            assert torch.equal(some.given["map"], (some.x[:, 0] > 0).long())
            assert torch.equal(some.given["size"][:, 0], some.x.flatten(1).mean(1))
    assert data.load("digits").batch([0]).given == {}


def test_a_map_beside_an_augmented_picture_is_refused() -> None:
    loader = data.Loader(_Mapped(data.load("digits"), range(50)), 10, seed=0, augment=data.Flip())
    with pytest.raises(
        UsageError, match="tells a map for each place .* leave out the augmentation"
    ):
        loader.at(0)
