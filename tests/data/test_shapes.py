"""Drawn scenes are what their captions say, and the reader reads them back."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fromnoise import data
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.images import to_tensor
from fromnoise.data import shapes_reader
from fromnoise.data.scenes import (
    COLOURS,
    KINDS,
    PLACES,
    Claim,
    Phrase,
    Thing,
    captions,
    parse,
    relation,
)
from fromnoise.data.shapes import EXTENT, box, coverage

SHAPES = data.Shapes(64, seed=11)


def _circle(x: float, y: float, radius: float = 0.09, colour: str = "red") -> Thing:
    return Thing("circle", colour, x, y, radius)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_the_area_centre_and_extent_it_says(kind: str) -> None:
    thing = Thing(kind, "red", 0.47, 0.53, 0.21)
    side = 400
    share = coverage(thing, side, side, side)
    rows, columns = np.indices(share.shape) + 0.5
    assert share.sum() / side**2 == pytest.approx(math.pi * 0.21**2, rel=2e-3)
    assert (share * columns).sum() / share.sum() / side == pytest.approx(0.47, abs=3e-4)
    assert (share * rows).sum() / share.sum() / side == pytest.approx(0.53, abs=3e-4)
    inked = np.nonzero(share > 0)
    left, top, right, bottom = box(thing, side)
    assert inked[1].min() == pytest.approx(left, abs=1.5)
    assert inked[0].min() == pytest.approx(top, abs=1.5)
    assert inked[1].max() + 1 == pytest.approx(right, abs=1.5)
    assert inked[0].max() + 1 == pytest.approx(bottom, abs=1.5)


def test_the_second_moments_are_the_published_ones() -> None:
    # I/A² about the centre of area: 1/2π for a disc, 1/6 for a square, 1/(3√3) for a triangle.
    wanted = {"circle": 1 / (2 * math.pi), "square": 1 / 6, "triangle": 1 / (3 * math.sqrt(3))}
    for kind, value in wanted.items():
        share = coverage(Thing(kind, "red", 0.5, 0.5, 0.2), 400, 400, 400)
        rows, columns = np.indices(share.shape) - 199.5
        inertia = (share * (rows**2 + columns**2)).sum() / share.sum() ** 2
        assert inertia == pytest.approx(value, rel=4e-3)


@given(index=st.integers(0, 49_999), seed=st.integers(0, 5))
def test_the_caption_mentions_all_there_is(index: int, seed: int) -> None:
    scene = data.Shapes(64, seed=seed).scene(index)
    claim = parse(scene.caption)
    assert str(claim) == scene.caption
    assert claim.covers(scene.things)
    assert scene.caption in set(captions(scene.things))
    assert not claim.covers(scene.things[:-1]) or len(scene.things) == 1
    assert not claim.covers((*scene.things, _circle(0.5, 0.5)))


@given(index=st.integers(0, 49_999))
def test_masks_and_boxes_are_of_the_picture(index: int) -> None:
    scene = SHAPES.scene(index)
    masks, boxes = scene.masks(64), scene.boxes(64)
    assert masks.shape == (len(scene.things), 64, 64) and boxes.shape == (len(scene.things), 4)
    # Nothing overlaps, so the picture is white with each colour where its mask is.
    assert float(masks.sum(0).max()) <= 1.0
    picture = np.full((64, 64, 3), 255.0)
    for mask, thing in zip(masks.numpy(), scene.things, strict=True):
        picture += mask[..., None] * (np.array(COLOURS[thing.colour]) - 255.0)
    assert np.abs(picture - scene.draw(64)).max() <= 0.51
    for mask, (left, top, right, bottom) in zip(masks, boxes.tolist(), strict=True):
        rows, columns = mask.nonzero(as_tuple=True)
        assert left - 1e-4 <= int(columns.min()) + 1 and int(columns.max()) <= right + 1e-4
        assert top - 1e-4 <= int(rows.min()) + 1 and int(rows.max()) <= bottom + 1e-4
        assert 0 <= left < right <= 64 and 0 <= top < bottom <= 64


def test_scenes_are_of_all_sorts_and_depend_on_seed_and_index() -> None:
    told = [SHAPES.scene(i) for i in range(2000)]
    assert [s.caption for s in told[:50]] == SHAPES.captions(np.arange(50))
    counts = np.bincount([len(scene.things) for scene in told], minlength=5)
    assert counts[0] == 0 and (counts[1:] > 150).all()
    seen = {(t.kind, t.colour, t.size) for scene in told for t in scene.things}
    assert len(seen) == len(KINDS) * len(COLOURS) * 2
    words = " ".join(scene.caption for scene in told)
    for word in (*PLACES, "above", "below", "to the left of", "to the right of", "four"):
        assert word in words
    assert data.Shapes(64, seed=12).scene(0) != told[0]
    assert data.Shapes(128, seed=11).scene(0) == told[0]


def test_left_out_pairs_never_appear() -> None:
    some = data.Shapes(64, seed=11, without=["red star", "blue circle"])
    pairs = {(t.colour, t.kind) for i in range(1500) for t in some.scene(i).things}
    assert len(pairs) == 22 and not pairs & {("red", "star"), ("blue", "circle")}


ABOVE = (_circle(0.5, 0.15), Thing("square", "blue", 0.52, 0.8, 0.14))
THREE = (_circle(0.2, 0.2), _circle(0.5, 0.5, 0.14), _circle(0.8, 0.8))


@pytest.mark.parametrize(
    ("caption", "things", "holds", "covers"),
    [
        ("a red circle above a blue square", ABOVE, True, True),
        ("a small red circle above a large blue square", ABOVE, True, True),
        ("a blue square below a red circle", ABOVE, True, True),
        ("a circle", ABOVE, True, False),
        ("two shapes", ABOVE, True, True),
        ("a red circle at the top", ABOVE, True, False),
        ("a red circle below a blue square", ABOVE, False, False),
        ("a red circle to the left of a blue square", ABOVE, False, False),
        ("a blue circle above a red square", ABOVE, False, False),
        ("a large red circle above a blue square", ABOVE, False, False),
        ("a red triangle", ABOVE, False, False),
        ("three red circles", THREE, True, True),
        ("two small red circles", THREE, True, False),
        ("a large red circle in the middle", THREE, True, False),
        ("two red circles", THREE, False, False),
        ("a red circle", THREE, False, False),
        ("a red circle", (), False, False),
    ],
)
def test_what_a_caption_means(
    caption: str, things: tuple[Thing, ...], holds: bool, covers: bool
) -> None:
    assert parse(caption).holds(things) is holds
    assert parse(caption).covers(things) is covers


def test_attributes_say_which_part_is_wrong() -> None:
    told = parse("a small red circle above a blue square").attributes(ABOVE)
    assert told == dict.fromkeys(("kind", "colour", "size", "count", "position"), True)
    swapped = parse("a blue circle above a red square").attributes(ABOVE)
    assert swapped["kind"] and not swapped["colour"]
    below = parse("a red circle below a blue square").attributes(ABOVE)
    assert [name for name, true in below.items() if not true] == ["position"]
    two = parse("two red circles").attributes(THREE)
    assert [name for name, true in two.items() if not true] == ["count"]
    large = parse("a large red circle").attributes((_circle(0.5, 0.5),))
    assert large == {"kind": True, "colour": True, "size": False, "count": False}


def test_relations_are_opposites_and_one_of_four() -> None:
    opposite = {"above": "below", "to the left of": "to the right of"}
    opposite |= {v: k for k, v in opposite.items()}
    random = np.random.Generator(np.random.PCG64(0)).random((200, 4))
    for x, y, u, v in random:
        a, b = _circle(x, y), _circle(u, v)
        assert relation(b, a) == opposite[relation(a, b)]
    assert relation(_circle(0.1, 0.5), _circle(0.9, 0.6)) == "to the left of"


@pytest.mark.parametrize(
    "wrong",
    ["", "a dog", "red circle", "a red", "two red circle", "a red circles", "a circle near a star",
     "a red circle above", "seven stars", "no stars", "a red blue circle"],
)  # fmt: skip
def test_what_is_not_the_language_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="caption"):
        parse(wrong)


def _noised(x: Tensor, amount: float) -> Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return (x + amount * noise).clamp(-1, 1)


@pytest.mark.parametrize(
    ("side", "count"), [(32, 120), pytest.param(64, 200, marks=pytest.mark.slow), (128, 20)]
)
@pytest.mark.parametrize("amount", [0.0, 0.1])
def test_the_reader_says_yes_to_true_captions_and_no_to_others(
    side: int, count: int, amount: float
) -> None:
    shapes = data.Shapes(side, seed=5)
    places = np.arange(count)
    told, x = shapes.captions(places), _noised(shapes.samples(places), amount)
    assert float(shapes_reader.score(x, told).float().mean()) >= 0.99
    # The control: each picture with the caption of another, right only by chance.
    other = np.roll(places, 1)
    truly = [
        parse(told[j]).covers(shapes.scene(i).things) for i, j in zip(places, other, strict=True)
    ]
    read = shapes_reader.score(x, [told[j] for j in other])
    assert sum(truly) < 0.05 * count
    assert float((read == torch.tensor(truly)).float().mean()) >= 0.99


def test_every_attribute_is_read_back() -> None:
    for index in range(150):
        scene = SHAPES.scene(index)
        read = shapes_reader.read(_noised(to_tensor(scene.draw(64)), 0.05))
        true = set(captions(scene.things))
        assert set(read.captions()) == true
        assert all(read.holds(caption) for caption in true)
        for a, b in zip(_sorted(read.things), _sorted(scene.things), strict=True):
            assert (a.kind, a.colour, a.size, a.place) == (b.kind, b.colour, b.size, b.place)
            assert math.hypot(a.x - b.x, a.y - b.y) < 0.01
            assert a.radius == pytest.approx(b.radius, rel=0.06)


def _sorted(things: tuple[Thing, ...]) -> list[Thing]:
    return sorted(things, key=lambda t: (round(t.x, 1), t.y))


@functools.cache
def _read(index: int) -> shapes_reader.Reading:
    """What the reader sees in a scene."""
    return shapes_reader.read(to_tensor(SHAPES.scene(index).draw(64)))


@pytest.mark.parametrize("change", ["count", "size", "colour", "kind", "position"])
def test_the_reader_says_no_when_one_thing_is_wrong(change: str) -> None:
    """Each caption is changed in one word; none that is false of the scene may pass."""
    checked = 0
    for index in range(220):
        scene = SHAPES.scene(index)
        wrong = _changed(parse(scene.caption), change, index)
        if wrong is None or wrong.covers(scene.things):
            continue
        assert _read(index).covers(scene.caption)
        assert not _read(index).covers(str(wrong)), (scene.caption, str(wrong))
        checked += 1
    assert checked > 40


def _changed(claim: Claim, what: str, index: int) -> Claim | None:
    first = claim.phrases[0]
    if what == "position":
        others = [p for p in PLACES if p != claim.position]
        if claim.position is None:
            return None
        if len(claim.phrases) == 1:
            return Claim(claim.phrases, others[index % len(others)])
        return Claim(claim.phrases[::-1], claim.position)
    old = getattr(first, what)
    options = {
        "count": [1, 2, 3, 4],
        "size": ["small", "large"],
        "colour": list(COLOURS),
        "kind": list(KINDS),
    }[what]
    if old is None or (what == "count" and claim.position is not None):
        return None
    new = [option for option in options if option != old]
    fields = {**first.__dict__, what: new[index % len(new)]}
    return Claim((Phrase(**fields), *claim.phrases[1:]), claim.position)


def test_pictures_of_something_else_are_not_read_as_shapes() -> None:
    assert shapes_reader.read(torch.ones(3, 64, 64)).things == ()
    noise = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    assert not shapes_reader.read(noise).captions()
    black = shapes_reader.read(-torch.ones(3, 64, 64))
    assert not any(thing.size == "small" for thing in black.things)
    # A bar is no square, and brown no colour of ours.
    bar = np.full((64, 64, 3), 255, np.uint8)
    bar[30:34, 10:54] = COLOURS["red"]
    assert [t.kind for t in shapes_reader.read(to_tensor(bar)).things] == ["something"]
    brown = np.full((64, 64, 3), 255, np.uint8)
    brown[20:32, 20:32] = (120, 90, 60)
    (thing,) = shapes_reader.read(to_tensor(brown)).things
    assert (thing.kind, thing.colour) == ("square", "other")


def test_impossible_scenes_and_pictures_are_refused() -> None:
    for wrong in ({"size": 31}, {"count": 0}, {"seed": -1}, {"without": ["pink star"]}):
        with pytest.raises(UsageError):
            data.Shapes(**wrong)
    every = [f"{colour} {kind}" for colour in COLOURS for kind in KINDS]
    with pytest.raises(UsageError, match="at least two"):
        data.Shapes(without=every[1:])
    assert data.Shapes(without=every[2:]).scene(0).things
    for shape in ((1, 64, 64), (3, 20, 64)):
        with pytest.raises((ShapeError, TypeError)):
            shapes_reader.read(torch.ones(shape))
    with pytest.raises(UsageError, match="not finite"):
        shapes_reader.read(torch.full((3, 64, 64), math.nan))
    with pytest.raises(UsageError, match="captions for"):
        shapes_reader.score(torch.ones(2, 3, 64, 64), ["a star"])
    assert set(EXTENT) == set(KINDS)
