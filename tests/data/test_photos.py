"""Crops of the photographs: the stretch of the file they say, the same for ever."""

import base64
import hashlib
import importlib.metadata
import importlib.util
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fromnoise import data
from fromnoise.core.errors import UsageError
from fromnoise.core.images import to_uint8
from fromnoise.data.photos import PHOTOGRAPHS, _folder


def test_every_photograph_is_inside_the_package_and_nothing_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    shipped = {
        Path(str(file)).name: file.hash.value
        for file in importlib.metadata.files("scikit-image") or ()
        if file.parent.name == "data" and file.hash is not None
    }
    for name, (file, _) in PHOTOGRAPHS.items():
        # The wheel lists the hash of what it carries: the file is the package's own.
        content = (_folder() / file).read_bytes()
        digest = hashlib.sha256(content).digest()
        stored = np.frombuffer(_decoded(shipped[file]), np.uint8)
        assert np.array_equal(np.frombuffer(digest, np.uint8), stored), name
    assert data.Photos(16, 20).classes == tuple(PHOTOGRAPHS)


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_a_crop_is_the_stretch_of_the_photograph_it_says() -> None:
    photos = data.Photos(24, 200, seed=3)
    sides, whole = [], {}
    for name in photos.classes:
        with Image.open(_folder() / PHOTOGRAPHS[name][0]) as file:
            whole[name] = file.convert("RGB")
    for index in range(200):
        image = whole[photos.classes[index % len(photos.classes)]]
        left, top, side = photos.crop(index)
        sides.append(side)
        assert 24 <= side <= min(image.size)
        assert 0 <= left <= image.width - side and 0 <= top <= image.height - side
        if index % 8:
            continue
        cut = image.crop((left, top, left + side, top + side))
        plain = np.asarray(cut.resize((24, 24), Image.Resampling.LANCZOS), np.float64)
        drawn = to_uint8(photos.batch([index]).x)[0].astype(np.float64)
        # Halves are read where the photograph is much finer: the same but for a little.
        assert np.abs(drawn - plain).mean() < 1.5
        moved = image.resize((24, 24), Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(moved, np.float64) - plain).mean() > 1.5
    assert max(sides) > 1.8 * min(sides)


def test_crops_depend_on_seed_and_index_and_labels_name_the_photograph() -> None:
    photos = data.Photos(16, 100)
    batch = photos.batch([0, 13, 4])
    assert torch.equal(batch.x, data.load(photos.config).batch([0, 13, 4]).x)
    assert not torch.equal(batch.x[0], data.Photos(16, 100, seed=1).batch([0]).x[0])
    assert batch.caption == [
        "a photograph of an astronaut",
        "a photograph of an astronaut",
        "a photograph of a cup of coffee",
    ]
    assert batch.label is not None and batch.label.tolist() == [0, 0, 4]
    two = data.Photos(16, 10, names=["cat", "coffee"], mode="L")
    assert two.classes == ("cat", "coffee") and two.shape == (1, 16, 16)
    assert torch.equal(
        data.Photos(64, 8).batch([3]).x,
        data.load({"kind": "photos", "size": 64, "count": 4}).batch([3]).x,
    )


def test_nothing_is_enlarged_and_the_impossible_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = data.Photos(500, 4)
    assert "cat" not in large.classes and "retina" in large.classes
    with pytest.raises(UsageError, match="cat is smaller than 500"):
        data.Photos(500, names=["cat"])
    with pytest.raises(UsageError, match="smaller than 4000"):
        data.Photos(4000)
    with pytest.raises(UsageError, match="did you mean cat"):
        data.Photos(names=["cats"])
    for wrong in ({"size": 0}, {"count": 0}, {"least": 0.0}, {"least": 1.1}):
        with pytest.raises(UsageError, match="size is"):
            data.Photos(**wrong)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"fromnoise\[data\]"):
        data.Photos()
