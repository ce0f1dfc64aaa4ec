"""Boxes, outlines and run lengths say the same pixels, by other ways to read them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Outline
from scipy import ndimage

from fromnoise.core.errors import FileError, ShapeError, UsageError
from fromnoise.data import annotations as a

NAMES = ("circle", "square", "triangle", "star")
MAPS = arrays(np.int64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 4))


def inside(polygon: list[float], shape: tuple[int, int]) -> np.ndarray:
    """Which pixel centres an outline holds, by matplotlib."""
    rows, columns = np.indices(shape) + 0.5
    points = np.stack([columns.ravel(), rows.ravel()], axis=1)
    corners = np.array(polygon).reshape(-1, 2)
    return Outline([*corners, corners[0]]).contains_points(points).reshape(shape)


def decoded(counts: list[int], size: list[int]) -> np.ndarray:
    """Run lengths read as COCO's own tools do: zeros first, down each column."""
    flat: list[int] = []
    for number, count in enumerate(counts):
        flat += [number % 2] * count
    return np.array(flat, bool).reshape(size[::-1]).T


@given(MAPS)
def test_the_things_of_a_map_are_its_pieces_and_all_of_it(ids: np.ndarray) -> None:
    things = a.instances(ids)
    again = np.zeros_like(ids)
    for thing in things:
        assert not again[thing.mask].any()
        again[thing.mask] = thing.category
        assert ndimage.label(thing.mask, np.ones((3, 3)))[1] == 1
    assert np.array_equal(again, ids)
    pieces = sum(ndimage.label(ids == k, np.ones((3, 3)))[1] for k in range(1, 5))
    assert len(things) == pieces


@given(MAPS)
def test_a_box_is_the_extent_of_its_mask(ids: np.ndarray) -> None:
    for thing in a.instances(ids):
        left, top, width, height = (int(value) for value in thing.box)
        within = thing.mask[top : top + height, left : left + width]
        assert within.sum() == thing.area
        assert all(edge.any() for edge in (within[0], within[-1], within[:, 0], within[:, -1]))
        assert thing.box == a.Instance(thing.category, thing.mask.copy()).box


@given(MAPS)
def test_outlines_hold_the_pixels_and_no_others(ids: np.ndarray) -> None:
    for thing in a.instances(ids):
        outlines = a.polygons(thing.mask)
        held = sum(inside(one, ids.shape).astype(int) for one in outlines)
        assert np.array_equal(held % 2 == 1, thing.mask)
        assert sum(map(a.signed_area, outlines)) == thing.area


@given(MAPS)
def test_run_lengths_say_the_mask(ids: np.ndarray) -> None:
    for thing in a.instances(ids):
        told = a.run_lengths(thing.mask)
        assert np.array_equal(decoded(told["counts"], told["size"]), thing.mask)


def test_a_hole_is_told_by_run_lengths_and_a_solid_thing_by_an_outline() -> None:
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    assert a.segmentation(ring) == {"counts": [0, 4, 1, 4], "size": [3, 3]}
    assert a.segmentation(np.ones((2, 3), bool)) == [[0.0, 0.0, 3.0, 0.0, 3.0, 2.0, 0.0, 2.0]]


@given(MAPS)
def test_yolo_is_read_back_to_a_millionth_of_a_pixel(ids: np.ndarray) -> None:
    things = a.instances(ids)
    big = np.kron(ids, np.ones((100, 100), np.int64)) if ids.size < 4 else ids
    for these, shape in ((things, ids.shape), (a.instances(big), big.shape)):
        read = a.read_yolo(a.yolo(these, NAMES, *shape), *shape)
        assert [number for number, _ in read] == [thing.category for thing in these]
        for (_, box), thing in zip(read, these, strict=True):
            assert np.abs(np.array(box) - np.array(thing.box)).max() < 1e-6


def test_six_digits_would_not_be_enough() -> None:
    """The control of the test above: what other writers round to is off by more."""
    mask = np.zeros((1000, 1999), bool)
    mask[1:8, 333:1000] = True
    line = a.yolo([a.Instance(1, mask)], NAMES, 1000, 1999)
    rounded = " ".join([line.split()[0], *(f"{float(v):.6f}" for v in line.split()[1:])])
    ((_, box),) = a.read_yolo(rounded, 1000, 1999)
    assert np.abs(np.array(box) - (333, 1, 667, 7)).max() > 1e-6


@pytest.mark.parametrize("line", ["1 2 3", "0 a b c d", "0 1.2 0.5 0.1 0.1", "-1 0.5 0.5 0.1 0.1"])
def test_a_bad_line_of_yolo_is_named(line: str) -> None:
    with pytest.raises(FileError, match="line 2"):
        a.read_yolo(f"0 0.5 0.5 0.1 0.1\n{line}", 8, 8)


def test_maps_that_are_none_are_refused() -> None:
    with pytest.raises(ShapeError, match="label map"):
        a.instances(np.zeros((1, 2, 3), int))
    for bad in (-1, 256):
        with pytest.raises(UsageError, match="0 to 255"):
            a.as_bytes(np.full((2, 2), bad))
    with pytest.raises(UsageError, match="no name"):
        a.yolo(a.instances(np.full((2, 2), 5)), NAMES, 2, 2)
