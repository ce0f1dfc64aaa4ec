"""Every data set keeps the contract; each one is what it says it is."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from fromnoise import data
from fromnoise.core.errors import FileError, FromNoiseError, UsageError
from fromnoise.core.images import to_uint8
from fromnoise.data.points import SHAPES

RNG = np.random.Generator(np.random.PCG64(3))


def _npz(folder: Path) -> dict[str, Any]:
    path = folder / "some.npz"
    np.savez(
        path, images=RNG.integers(0, 256, (30, 6, 5, 3), dtype=np.uint8), labels=[0, 1, 2] * 10
    )
    return {"kind": "arrays", "path": str(path)}


def _pictures(folder: Path, count: int = 10) -> dict[str, Any]:
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = RNG.integers(0, 256, (9 + i, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return {"kind": "folder", "path": str(folder), "size": 8}


KINDS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "digits": lambda _: {"kind": "digits"},
    "points": lambda _: {"kind": "points", "count": 60},
    "checkerboard": lambda _: {"kind": "points", "shape": "checkerboard", "count": 60},
    "arrays": _npz,
    "folder": lambda folder: _pictures(folder / "pets"),
    "flat": lambda folder: {**_pictures(folder / "pets"), "layout": "flat", "mode": "L"},
    "photos": lambda _: {"kind": "photos", "size": 12, "count": 30, "mode": "L"},
    "glyphs": lambda _: {"kind": "glyphs", "size": 12, "characters": "abc", "variants": 2},
    "shapes": lambda _: {"kind": "shapes", "size": 32, "count": 30, "without": ["red star"]},
    "split": lambda _: {"kind": "split", "whole": {"kind": "digits"}, "part": "held_out"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_data_set_keeps_the_contract(tmp_path: Path, kind: str) -> None:
    made = data.load(KINDS[kind](tmp_path))
    chosen = [len(made) - 1, 0, 3, 0]
    batch = made.batch(chosen)
    assert batch.x.dtype == torch.float32 and batch.x.shape == (4, *made.shape)
    assert batch.index.tolist() == chosen
    assert torch.equal(batch.x[1], batch.x[3])
    whole = torch.cat([b.x for b in made.batches(7)])
    assert torch.equal(whole[chosen], batch.x)
    if len(made.shape) == 3:
        assert float(whole.min()) >= -1 and float(whole.max()) <= 1
    if made.levels is not None:
        level = (whole + 1) * (made.levels - 1) / 2
        assert torch.allclose(level, level.round(), atol=1e-4)
    assert (batch.label is None) == (made.classes == ())
    if batch.label is not None:
        assert batch.label.dtype == torch.int64
        assert made.labels is not None and torch.equal(made.labels[chosen], batch.label)
        assert int(made.labels.max()) < len(made.classes)
    assert torch.equal(torch.cat([b.x for b in data.load(made.config).batches(100)]), whole)
    batch.x.zero_()
    assert torch.equal(made.batch(chosen).x, whole[chosen])
    for index in (-1, len(made)):
        with pytest.raises(UsageError, match=f"sample {index} is out of range"):
            made.batch([0, index])


def test_rows_of_a_batch() -> None:
    batch = data.load("digits").batch(range(10))
    part = batch.rows(slice(2, 5)).to("cpu")
    assert len(part) == 3 and torch.equal(part.x, batch.x[2:5])
    assert part.label is not None and part.index.tolist() == [2, 3, 4]


def test_the_digits_are_the_scans_of_scikit_learn() -> None:
    raw = load_digits()
    batch = data.load("digits").batch(range(1797))
    assert np.array_equal((batch.x[:, 0].numpy() + 1) * 8, raw.images)
    assert np.array_equal(batch.label, raw.target)


@given(share=st.floats(0.01, 0.99), seed=st.integers(0, 1000), count=st.integers(40, 200))
def test_a_split_is_disjoint_complete_and_stratified(share: float, seed: int, count: int) -> None:
    whole = data.Points("rings", count)
    if not 0 < round(share * count) < count:
        return
    train, rest = whole.split(share, seed)
    assert sorted([*train.indices, *rest.indices]) == list(range(count))
    assert len(rest) == round(share * count)
    sizes, held = (torch.bincount(s.labels, minlength=3) for s in (whole, rest))
    assert bool(((held - share * sizes).abs() < 1.0 + 0.5).all())
    again = whole.split(share, seed)[1]
    assert np.array_equal(again.indices, rest.indices)
    assert torch.equal(rest.batch(range(len(rest))).x, whole.batch(rest.indices).x)


def test_a_split_differs_by_seed_is_mixed_and_is_rebuilt_from_its_configuration() -> None:
    whole = data.load("digits")
    train, rest = whole.split(0.2, 1)
    assert not np.array_equal(rest.indices, whole.split(0.2, 2)[1].indices)
    assert np.array_equal(data.load(train.config).indices, train.indices)
    assert np.array_equal(data.load(rest.config).indices, rest.indices)
    assert rest.labels is not None and len(rest.labels[:60].unique()) == 10
    once_more = rest.split(0.5)[0]
    assert set(once_more.indices) <= set(range(len(rest)))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan"), 1e-9, 1 - 1e-9])
def test_a_split_that_leaves_a_side_empty_is_refused(share: float) -> None:
    with pytest.raises(UsageError, match="share"):
        data.load("digits").split(share)


def test_a_subset_refuses_what_the_whole_does_not_have() -> None:
    whole = data.load("digits")
    with pytest.raises(UsageError, match="1797 is out of range"):
        data.Subset(whole, [0, 1797])
    assert whole.batch([]).x.shape == (0, 1, 8, 8)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digit", "unknown data set 'digit'; did you mean digits"),
        ({"kind": "points", "shape": "moon"}, "did you mean moons"),
        ({"kind": "points", "count": "many"}, "count"),
        ({"kind": "points", "count": 0}, "count is 0"),
        ({"kind": "points", "seed": -1}, "seed -1"),
        ({"kind": "digits", "size": 8}, "unknown key 'size'"),
        ({"kind": "folder", "path": "x"}, "'size' is missing"),
        (3, "not 3"),
    ],
)
def test_a_wrong_configuration_is_refused(source: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        data.load(source)


@pytest.mark.parametrize("shape", SHAPES)
def test_points_fill_about_the_unit_square_and_depend_on_the_seed(shape: str) -> None:
    x = data.Points(shape, 4000).batch(range(4000)).x
    assert 0.9 > float(x.square().sum(1).mean().sqrt()) > 0.3
    assert 0.6 < float(x.abs().max()) < 1.25
    assert float(x.mean(0).abs().max()) < 0.05
    assert torch.equal(data.Points(shape, 4000).batch(range(4000)).x, x)
    assert not torch.equal(data.Points(shape, 4000, seed=1).batch(range(4000)).x, x)


@pytest.mark.parametrize("shape", ["two-gaussians", "eight-gaussians"])
def test_gaussian_points_have_their_exact_moments_and_density(shape: str) -> None:
    points = data.Points(shape, 40_000)
    weights, means, stds = points.mixture()
    batch = points.batch(range(len(points)))
    assert torch.allclose(weights.sum(), torch.tensor(1.0, dtype=torch.float64))
    for k in range(len(weights)):
        own = batch.x[batch.label == k].double()
        error = stds[k] / len(own) ** 0.5
        assert bool(((own.mean(0) - means[k]).abs() < 5 * error).all())
        assert bool(((own.std(0) / stds[k] - 1).abs() < 5 / (2 * len(own)) ** 0.5).all())
    side = torch.linspace(-1.6, 1.6, 400, dtype=torch.float64)
    plane = torch.cartesian_prod(side, side)
    mass = points.log_density(plane).exp().sum() * (side[1] - side[0]) ** 2
    assert float(mass) == pytest.approx(1.0, abs=1e-9)


def test_checkerboard_points_lie_on_dark_squares_and_moons_know_no_density() -> None:
    x = data.Points("checkerboard", 2000).batch(range(2000)).x
    square = ((x + 1) * 2).floor().long()
    assert bool(((square.sum(1) % 2) == 0).all())
    with pytest.raises(UsageError, match="no mixture"):
        data.Points("moons").mixture()


IMAGES = RNG.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize("layout", ["hwc", "chw", "grey", "one channel", "npy"])
def test_arrays_read_every_layout_exactly(tmp_path: Path, layout: str) -> None:
    stored = {
        "chw": IMAGES.transpose(0, 3, 1, 2),
        "grey": IMAGES[..., 0],
        "one channel": IMAGES[..., :1],
    }.get(layout, IMAGES)
    path = tmp_path / ("x.npy" if layout == "npy" else "x.npz")
    if layout == "npy":
        np.save(path, stored)
    else:
        np.savez_compressed(path, images=stored)
    made = data.Arrays(str(path))
    wanted = IMAGES[..., :1] if layout in ("grey", "one channel") else IMAGES
    assert np.array_equal(to_uint8(made.batch(range(4)).x), wanted)
    assert made.levels == 256 and made.labels is None and made.name == "x"


def test_arrays_of_other_types_need_their_range_stated(tmp_path: Path) -> None:
    path = str(tmp_path / "x.npy")
    unit = RNG.random((5, 4, 4), dtype=np.float32)
    np.save(path, unit)
    with pytest.raises(UsageError, match="say what is black and white"):
        data.Arrays(path)
    made = data.Arrays(path, low=0, high=1)
    assert np.allclose(made.batch(range(5)).x[:, 0], 2 * unit - 1, atol=1e-6)
    assert made.levels is None
    with pytest.raises(FileError, match="beyond low=0 and high=0.5"):
        data.Arrays(path, low=0, high=0.5)
    with pytest.raises(UsageError, match="low must be the smaller"):
        data.Arrays(path, low=1, high=0)
    with pytest.raises(UsageError, match="together"):
        data.Arrays(path, low=1)
    np.save(path, 2 * unit - 1)
    assert np.allclose(data.Arrays(path).batch(range(5)).x[:, 0], 2 * unit - 1)
    vectors = RNG.standard_normal((6, 7))
    np.save(path, np.clip(vectors, -1, 1))
    assert data.Arrays(path).shape == (7,)


def _save(path: Path, **arrays: Any) -> None:
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": IMAGES}, "no array named images; it holds pictures"),
        ({"images": IMAGES, "labels": np.zeros(3, int)}, r"labels have shape \(3,\) for 4"),
        ({"images": IMAGES, "labels": np.full(4, -1)}, "whole numbers from 0"),
        ({"images": IMAGES, "labels": np.zeros(4)}, "whole numbers from 0"),
        ({"images": IMAGES[:0]}, "images have shape"),
        ({"images": np.zeros((2, 5, 5, 5, 3), np.uint8)}, "images have shape"),
        ({"images": np.zeros((2, 5, 5, 7), np.uint8)}, "1, 3 or 4 channels"),
        ({"images": np.full((2, 5, 5), np.nan)}, "not finite"),
        ({"images": np.array(["a"])}, "not numbers"),
        ({"images": np.array([{}], dtype=object)}, "pickled objects.*never loaded"),
    ],
)
def test_a_wrong_array_file_is_refused(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    _save(tmp_path / "x.npz", **arrays)
    with pytest.raises(FileError, match=message) as caught:
        data.Arrays(str(tmp_path / "x.npz"))
    assert "x.npz" in str(caught.value)


def test_class_names_must_cover_the_labels(tmp_path: Path) -> None:
    path = str(tmp_path / "x.npz")
    np.savez(path, images=IMAGES, labels=[0, 1, 2, 1])
    assert data.Arrays(path).classes == ("0", "1", "2")
    assert data.Arrays(path, ["a", "b", "c"]).classes == ("a", "b", "c")
    with pytest.raises(UsageError, match="too few"):
        data.Arrays(path, ["a", "b"])
    np.savez(path, images=IMAGES)
    with pytest.raises(UsageError, match="no labels"):
        data.Arrays(path, ["a"])


def test_pickles_and_damaged_arrays_are_refused_and_nothing_runs(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (canary,))

    path = tmp_path / "x.npy"
    np.save(path, np.array([Payload()], dtype=object), allow_pickle=True)
    with pytest.raises(FileError, match="never loaded"):
        data.Arrays(str(path))
    path.write_bytes(path.read_bytes()[128:])
    with pytest.raises(FileError, match="never loaded"):
        data.Arrays(str(path))
    assert not canary.exists()
    np.save(path, IMAGES)
    whole = path.read_bytes()
    for cut in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileError, match=r"x\.npy"):
            data.Arrays(str(path))
    _save(tmp_path / "y.npz", images=IMAGES)
    whole = (tmp_path / "y.npz").read_bytes()
    for cut in (3, 100, len(whole) - 30):
        (tmp_path / "y.npz").write_bytes(whole[:cut])
        with pytest.raises(FileError, match=r"y\.npz"):
            data.Arrays(str(tmp_path / "y.npz"))
    with pytest.raises(FileError, match="does not exist"):
        data.Arrays(str(tmp_path / "none.npz"))


def test_an_archive_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "x.npz")
    np.savez_compressed(path, images=np.zeros((50, 64, 64), np.uint8))
    data.Arrays(path)
    monkeypatch.setattr("fromnoise.data.arrays.MAX_BYTES", 100_000)
    with pytest.raises(FileError, match="unpacks to"):
        data.Arrays(path)


def test_a_folder_scales_crops_and_labels(tmp_path: Path) -> None:
    config = _pictures(tmp_path / "pets")
    half = np.zeros((20, 40, 3), np.uint8)
    half[:, 20:] = 255
    Image.fromarray(half).save(tmp_path / "pets" / "dog" / "half.JPG", quality=100)
    (tmp_path / "pets" / "dog" / "notes.txt").write_text("x")
    (tmp_path / "pets" / ".hidden.png").write_text("x")
    made = data.load(config)
    assert made.classes == ("cat", "dog") and made.shape == (3, 8, 8) and len(made) == 21
    assert made.labels is not None and torch.bincount(made.labels).tolist() == [10, 11]
    # Of 20×40 the middle 20×20 is kept, its left half black and its right half white.
    x = made.batch([20]).x[0]
    assert float(x[:, :, :3].max()) < -0.9 and float(x[:, :, 5:].min()) > 0.9
    again = data.load({**config, "keep_bytes": 0})
    assert torch.equal(again.batch(range(21)).x, made.batch(range(21)).x)
    grey = data.load({**config, "mode": "L", "size": [4, 6]})
    assert grey.shape == (1, 4, 6) and grey.batch([0]).x.shape == (1, 1, 4, 6)


def _spoilt(folder: Path) -> dict[str, Any]:
    """Forty good pictures and one of each bad kind."""
    config = _pictures(folder, 20)
    good = (folder / "cat" / "0.png").read_bytes()
    bad = {
        "empty.png": b"",
        "text.jpg": b"hello",
        "cut.png": good[: len(good) // 2],
        "drawing.png": b"<svg/>",
        "checksum.png": good[:-20] + bytes([good[-20] ^ 1]) + good[-19:],
    }
    for name, content in bad.items():
        (folder / "dog" / name).write_bytes(content)
    (folder.parent / "outside.png").write_bytes(good)
    os.symlink(folder.parent / "outside.png", folder / "dog" / "link.png")
    os.symlink(folder.parent, folder / "dog" / "loop")
    os.symlink(folder / "cat" / "0.png", folder / "dog" / "inside.png")
    return config


def test_bad_pictures_are_left_out_and_listed(tmp_path: Path) -> None:
    config = _spoilt(tmp_path / "pets")
    made = data.load({**config, "max_bad": 0.2})
    names = {Path(path).name for path, _ in made.skipped}
    assert names == {
        "empty.png", "text.jpg", "cut.png", "drawing.png", "checksum.png", "link.png", "loop",
    }  # fmt: skip
    assert all(path in reason for path, reason in made.skipped)
    assert len(made) == 41
    made.batch(range(41))


def test_too_many_bad_pictures_stop_with_the_first_of_them(tmp_path: Path) -> None:
    config = _spoilt(tmp_path / "pets")
    with pytest.raises(FileError, match=r"more than 1\.00% of the 48 pictures .*loop .*max_bad"):
        data.load(config)
    with pytest.raises(FileError, match=r"more than 10\.00% .*loop .*checksum\.png .*cut\.png"):
        data.load({**config, "max_bad": 0.1})


def test_a_picture_that_vanishes_later_is_named(tmp_path: Path) -> None:
    made = data.load({**_pictures(tmp_path / "pets"), "keep_bytes": 0})
    (tmp_path / "pets" / "cat" / "0.png").unlink()
    with pytest.raises(FileError, match=r"0\.png"):
        made.batch([0])


def test_a_folder_that_is_none_or_mixed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="not a folder"):
        data.Folder(str(tmp_path / "none"), 8)
    with pytest.raises(FileError, match="holds no pictures"):
        data.Folder(str(tmp_path), 8)
    config = _pictures(tmp_path / "pets")
    Image.new("L", (4, 4)).save(tmp_path / "pets" / "beside.png")
    with pytest.raises(FileError, match=r"beside\.png lies beside class folders"):
        data.load(config)
    flat = tmp_path / "pets" / "cat"
    assert data.Folder(str(flat), 8).classes == ()
    for size in (0, (8, -1)):
        with pytest.raises(FromNoiseError, match="size is"):
            data.Folder(str(flat), size)
