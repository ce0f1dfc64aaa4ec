"""Label maps and the scenes they are of agree, by the scenes' own exact numbers."""

from collections import Counter

import numpy as np
import pytest
import torch

from fromnoise import data
from fromnoise.data.annotations import instances
from fromnoise.data.maps import MAP, NAMES, UNKNOWN, Maps, label_map, read_map
from fromnoise.data.scenes import Thing
from fromnoise.data.shapes import Scene, Shapes

SIDE = 32


@pytest.fixture(scope="module")
def maps() -> Maps:
    return Maps(SIDE, count=120, seed=3)


def test_pictures_are_those_of_the_same_shapes_and_maps_come_with_them(maps: Maps) -> None:
    batch = maps.batch([0, 7, 7, 119])
    same = Shapes(SIDE, count=120, seed=3).batch([0, 7, 7, 119])
    assert torch.equal(batch.x, same.x)
    assert batch.given[MAP].shape == (4, SIDE, SIDE) and batch.given[MAP].dtype == torch.int64
    assert torch.equal(batch.given[MAP][1], batch.given[MAP][2])
    again = data.load(maps.config)
    assert torch.equal(again.batch([7]).given[MAP], batch.given[MAP][1:2])


def test_every_thing_of_a_scene_is_one_piece_of_its_map_within_its_box(maps: Maps) -> None:
    for index in range(len(maps)):
        scene = maps.scene(index)
        found = instances(label_map(scene, SIDE).numpy())
        kinds = Counter(NAMES[thing.category] for thing in found)
        assert kinds == Counter(thing.kind for thing in scene.things)
        boxes = [tuple(box) for box in scene.boxes(SIDE).tolist()]
        for thing in found:
            left, top, width, height = thing.box
            # Half of the points counted in a pixel reach 5/8 of it beyond the shape, at most.
            assert any(
                box[0] - 0.626 <= left
                and left + width <= box[2] + 0.626
                and box[1] - 0.626 <= top
                and top + height <= box[3] + 0.626
                for box in boxes
            )


def test_the_area_of_a_thing_is_that_of_its_circle() -> None:
    """All kinds have the area of the circle of their radius; a map counts whole pixels."""
    for kind in NAMES[1:]:
        scene = Scene((Thing(kind, "red", 0.5, 0.5, 0.2),), "a shape")
        found = label_map(scene, 128) == NAMES.index(kind)
        assert abs(int(found.sum()) - np.pi * (0.2 * 128) ** 2) < 0.03 * np.pi * (0.2 * 128) ** 2


def test_a_map_read_from_a_picture_is_the_map_of_its_scene(maps: Maps) -> None:
    batch = maps.batch(list(range(60)))
    read = torch.stack([read_map(picture) for picture in batch.x])
    right = (read == batch.given[MAP]).double().mean()
    assert right > 0.99
    told = [Counter(t.category for t in instances(m.numpy())) for m in batch.given[MAP]]
    seen = [Counter(t.category for t in instances(m.numpy())) for m in read]
    assert sum(a == b for a, b in zip(told, seen, strict=True)) >= 59


def test_what_is_no_kind_is_unknown_and_not_background() -> None:
    """The control: a cross is read as something, and not left out."""
    picture = torch.ones(3, SIDE, SIDE)
    picture[1:, 14:17, 4:28] = picture[1:, 4:28, 14:17] = -1.0
    read = read_map(picture)
    assert set(read.unique().tolist()) == {0, UNKNOWN}
