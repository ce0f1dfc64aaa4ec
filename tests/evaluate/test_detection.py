"""Average precision as COCO's own program has it, and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fromnoise.core.errors import ShapeError
from fromnoise.evaluate.detection import Boxes, average_precision, match, overlap

PYCOCOTOOLS = (0.28265795791401804, 0.4201292351457368, 0.3294250646387176, 0.3887050634705663)
"""COCOeval of pycocotools 2.0.11 at overlap 0.5, all areas, 100 boxes, of `scene(0)` to `(3)`."""


def scene(seed: int, pictures: int = 30, classes: int = 3) -> tuple[list[Boxes], list[Boxes]]:
    """Boxes found and true: some moved, some missed, some of nothing."""
    r = np.random.default_rng(seed)
    found, true = [], []
    for _ in range(pictures):
        n = r.integers(0, 5)
        xy, wh, k = r.uniform(0, 24, (n, 2)), r.uniform(3, 8, (n, 2)), r.integers(0, classes, n)
        true.append(boxes(xy, wh, k))
        hit, m = r.random(n) < 0.8, r.integers(0, 3)
        fx = np.r_[xy[hit] + r.normal(0, 0.8, (hit.sum(), 2)), r.uniform(0, 24, (m, 2))]
        fw = np.r_[wh[hit] * r.uniform(0.8, 1.2, (hit.sum(), 2)), r.uniform(3, 8, (m, 2))]
        fk = np.r_[k[hit], r.integers(0, classes, m)]
        found.append(boxes(fx, fw, fk, np.round(r.random(len(fk)), 3)))
    return found, true


def boxes(xy, wh, k, score=None) -> Boxes:
    corners = torch.tensor(np.c_[xy, xy + wh]).float().reshape(-1, 4)
    told = None if score is None else torch.tensor(score).double()
    return Boxes(corners, torch.tensor(k).long(), told)


def ones(count: int) -> Tensor:
    return torch.ones(count, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_pycocotools(seed: int) -> None:
    found, true = scene(seed)
    assert average_precision(match(found, true, 3), ones(30)) == pytest.approx(
        PYCOCOTOOLS[seed], abs=1e-12
    )


def test_half_the_things_found_surely_and_a_wrong_box_last() -> None:
    """Recall 1/2 at precision 1: 51 of 101 levels. A second box for the same thing is wrong."""
    thing = torch.tensor([[0.0, 0.0, 4.0, 4.0], [10.0, 10.0, 14.0, 14.0]])
    true = [Boxes(thing, torch.tensor([0, 0]))]
    twice = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.9]])
    found = [Boxes(twice, torch.tensor([0, 0]), torch.tensor([0.9, 0.8]))]
    assert average_precision(match(found, true, 1), ones(1)) == pytest.approx(51 / 101)
    other = [Boxes(twice, torch.tensor([1, 1]), torch.tensor([0.9, 0.8]))]
    assert average_precision(match(other, true, 2), ones(1)) == 0.0


@given(st.integers(0, 5), st.integers(0, 29))
def test_a_weight_counts_a_picture_so_often(seed: int, place: int) -> None:
    found, true = scene(seed % 2)
    weight = ones(30)
    weight[place] = 3
    again = [*range(30), place, place]
    thrice = match([found[i] for i in again], [true[i] for i in again], 3)
    weighed = average_precision(match(found, true, 3), weight)
    # Boxes of equal scores may come in another order.
    assert weighed == pytest.approx(average_precision(thrice, ones(32)), abs=0.02)


def test_overlaps_by_counting_pixels() -> None:
    a, b = torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[2.0, 1.0, 6.0, 3.0]])
    grid = torch.zeros(2, 8, 8, dtype=torch.bool)
    grid[0, 0:2, 0:4] = grid[1, 1:3, 2:6] = True
    counted = (grid[0] & grid[1]).sum() / (grid[0] | grid[1]).sum()
    assert overlap(a, b).item() == pytest.approx(counted.item())


def test_boxes_without_scores_are_refused() -> None:
    found, true = scene(0)
    with pytest.raises(ShapeError, match="scores"):
        match(true, true, 3)
    with pytest.raises(ShapeError, match="pictures"):
        match(found[:-1], true, 3)
