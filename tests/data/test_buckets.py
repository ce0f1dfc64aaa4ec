"""Buckets have equal areas and even ratios; their order is a function of seed and step."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fromnoise import data
from fromnoise.core.errors import UsageError


@given(
    units=st.integers(1, 40),
    divisor=st.sampled_from([1, 8, 16, 64]),
    most=st.floats(1.0, 4.0),
    steps=st.integers(0, 8),
)
def test_areas_are_equal_and_sizes_come_in_pairs(
    units: int, divisor: int, most: float, steps: int
) -> None:
    side = units * divisor
    sizes = data.Buckets(side, divisor, most, steps).sizes
    assert (side, side) in sizes
    assert len(set(sizes)) == len(sizes) <= 2 * steps + 1
    for height, width in sizes:
        assert height % divisor == width % divisor == 0 < min(height, width)
        assert (width, height) in sizes
        if min(height, width) > divisor:
            assert abs(height * width / side**2 - 1) <= divisor / (2 * side) + 1e-12
    ratios = [width / height for height, width in sizes]
    assert ratios == sorted(ratios)


def test_ratios_are_spaced_evenly_in_their_logarithm() -> None:
    buckets = data.Buckets(1024, 1, most=4.0, steps=4)
    logs = np.log([width / height for height, width in buckets.sizes])
    assert np.allclose(logs, np.linspace(-math.log(4), math.log(4), 9), atol=2e-3)
    # Rounded to multiples of 64 they no longer are: the test can tell.
    coarse = np.log([width / height for height, width in data.Buckets(512, 64, 4.0, 4).sizes])
    assert len(coarse) != 9 or not np.allclose(coarse, logs, atol=2e-3)
    assert data.Buckets(512, 64).sizes == (
        (704, 384), (576, 448), (512, 512), (448, 576), (384, 704),
    )  # fmt: skip


@given(height=st.integers(1, 5000), width=st.integers(1, 5000))
def test_the_nearest_bucket_is_nearest_in_log_ratio(height: int, width: int) -> None:
    buckets = data.Buckets(64, 8, 3.0, 4)
    chosen = buckets.nearest(height, width)
    distance = [abs(math.log(w / h * height / width)) for h, w in buckets.sizes]
    assert distance[chosen] == pytest.approx(min(distance), abs=1e-12)
    assert buckets.nominal == (64, 64)


GROUPS = np.array([0] * 11 + [2] * 30 + [5] * 3 + [2] * 6)


@given(
    batch=st.integers(1, 20),
    seed=st.integers(0, 2**40),
    start=st.integers(0, 3000),
    groups=st.lists(st.integers(0, 4), min_size=1, max_size=40),
)
def test_a_step_is_of_one_group_and_depends_on_seed_and_step_alone(
    batch: int, seed: int, start: int, groups: list[int]
) -> None:
    members = np.array(groups)
    order = data.GroupedOrder(members, batch, seed)
    for step in (start, start + 1):
        indices, epochs = order(step)
        assert len(indices) == len(epochs) == batch
        assert len(set(members[indices].tolist())) == 1
        again = data.GroupedOrder(members, batch, seed)(step)
        assert np.array_equal(again[0], indices) and np.array_equal(again[1], epochs)


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_every_sample_is_read_equally_often_and_epochs_are_whole(batch: int) -> None:
    order = data.GroupedOrder(GROUPS, batch, seed=3)
    seen = np.zeros(len(GROUPS), np.int64)
    streams: dict[int, list[tuple[int, int]]] = {}
    steps = 40 * len(GROUPS) // batch
    for step in range(steps):
        indices, epochs = order(step)
        np.add.at(seen, indices, 1)
        stream = streams.setdefault(int(GROUPS[indices[0]]), [])
        stream += zip(epochs.tolist(), indices.tolist(), strict=True)
    assert streams.keys() == {0, 2, 5}
    for group, stream in streams.items():
        # A batch of the smallest group, of three, holds each of its samples several times.
        size = int((group == GROUPS).sum())
        per_group = seen[group == GROUPS]
        assert per_group.max() - per_group.min() <= 1
        assert abs(per_group.mean() - 40) <= 2 + batch / size
        for first in range(0, len(stream) - size + 1, size):
            part = stream[first : first + size]
            assert {epoch for epoch, _ in part} == {first // size}
            assert len({index for _, index in part}) == size


def test_seeds_rounds_and_groups_are_mixed_anew() -> None:
    def told(seed: int, first: int = 0) -> list[int]:
        order = data.GroupedOrder(GROUPS, 2, seed)
        return [int(GROUPS[order(first + k)[0][0]]) for k in range(25)]

    assert told(0) != told(1)
    assert told(0) != told(0, 25)
    assert told(0) != sorted(told(0))


def _pictures(folder: Path) -> Path:
    folder.mkdir()
    random = np.random.Generator(np.random.PCG64(0))
    for i in range(30):
        height, width = [(20, 41), (41, 20), (30, 30)][i % 3]
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


def test_a_bucketed_folder_stays_non_square_through_split_and_loader(tmp_path: Path) -> None:
    size = {"kind": "buckets", "side": 32, "divisor": 4, "most": 2.0, "steps": 2}
    config = {"kind": "folder", "path": str(_pictures(tmp_path / "x")), "size": size}
    whole = data.load(config)
    assert data.load(whole.config).config == whole.config
    assert whole.shape == (3, 32, 32)
    groups = whole.groups()
    assert groups is not None and len(np.unique(groups)) == 3
    with pytest.raises(UsageError, match="different sizes"):
        whole.batch(range(3))
    train, rest = whole.split(0.3)
    shapes = set()
    for step in range(12):
        batch = data.Loader(train, 4, seed=0).at(step)
        shapes.add(tuple(batch.x.shape[2:]))
        for row, index in enumerate(batch.index):
            assert torch.equal(batch.x[row], train.batch([int(index)]).x[0])
    assert shapes == {(24, 44), (44, 24), (32, 32)} == {s[2:] for s in _shapes(rest)}
    assert sum(shape[0] for shape in _shapes(rest)) == len(rest) == 9
    assert sum(len(batch) for batch in rest.batches(4, count=5)) == 5
    # What is taken evenly is of one size, that of most pictures.
    own = train.groups()
    assert own is not None
    for most in (1, 3, 100):
        chosen = train.spread(most)
        assert set(own[chosen]) == {np.bincount(own).argmax()} and len(set(chosen)) == len(chosen)
        assert len(chosen) == min(most, np.bincount(own).max())


def _shapes(dataset: data.Dataset) -> list[tuple[int, ...]]:
    return [tuple(batch.x.shape) for batch in dataset.batches(4)]


def test_impossible_buckets_are_refused() -> None:
    for wrong in ({"side": 30}, {"side": 0}, {"divisor": 0}, {"most": 0.5}, {"steps": -1}):
        with pytest.raises(UsageError, match="side|most"):
            data.Buckets(**{"side": 32, **wrong})
    with pytest.raises(UsageError, match="cannot be read"):
        data.GroupedOrder(np.array([], np.int64), 4, 0)
    with pytest.raises(UsageError, match="step -1"):
        data.GroupedOrder(GROUPS, 4, 0)(-1)
