"""Data sets of the hub, with a stand-in for the package that fetches them."""

import io
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from fromnoise import data
from fromnoise.core.errors import FileError, UsageError


def _png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 10), (level,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


class _Feature:
    def __init__(self, decode: bool = True) -> None:
        self.decode = decode

    def decode_example(self, stored: dict[str, Any]) -> Image.Image:
        if stored["path"] != "far/away.png":
            raise OSError("connection lost")
        return Image.new("RGB", (12, 10), (77, 77, 77))


class _Stream:
    """As `datasets` gives it with streaming: rows one after another, counted."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows, self.read, self.cast = rows, 0, ""
        self.features = {name: SimpleNamespace(names=None) for name in rows[0]}
        self.features["label"].names = ["cat", "dog"]

    def cast_column(self, name: str, feature: _Feature) -> "_Stream":
        assert not feature.decode
        self.cast = name
        return self

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            self.read += 1
            if row["text"] == "trouble":
                raise ConnectionError("reset by peer")
            yield row


def _rows(count: int) -> list[dict[str, Any]]:
    return [
        {"image": {"bytes": _png(i), "path": None}, "label": i % 2, "text": f"number {i}"}
        for i in range(count)
    ]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> _Stream:
    stream = _Stream(_rows(40))
    asked: dict[str, Any] = {}

    def load_dataset(path: str, **given: Any) -> _Stream:
        asked.update(given, path=path)
        if path != "some/pets":
            raise FileNotFoundError(f"{path} is not there")
        return stream

    stream.asked = asked  # type: ignore[attr-defined]
    fake = SimpleNamespace(load_dataset=load_dataset, Image=_Feature)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return stream


def test_only_the_first_samples_are_streamed(hub: _Stream) -> None:
    config = {"kind": "hub", "repo": "some/pets", "size": 4, "count": 9, "caption": "text"}
    made = data.load({**config, "label": "label", "revision": "abc"})
    assert len(made) == 9 and hub.read <= 10 and hub.cast == "image"
    batch = made.batch([8, 1])
    assert ((batch.x[:, 0, 0, 0] + 1) * 127.5).round().tolist() == [8, 1]
    assert batch.caption == ["number 8", "number 1"]
    assert batch.label is not None and batch.label.tolist() == [0, 1]
    assert made.classes == ("cat", "dog") and made.name == "pets"
    told = hub.asked  # type: ignore[attr-defined]
    assert told["streaming"] is True and told["revision"] == "abc" and told["split"] == "train"
    assert "trust_remote_code" not in told
    everything = data.Hub("some/pets", 4, count=1000)
    assert len(everything) == 40 and everything.batch([0]).caption is None
    assert torch.equal(everything.batch([8, 1]).x, batch.x)


def test_pictures_kept_elsewhere_are_fetched_and_bad_ones_left_out(hub: _Stream) -> None:
    hub.rows = _rows(200)
    hub.rows[3]["image"] = {"bytes": None, "path": "far/away.png"}
    hub.rows[5]["image"] = {"bytes": _png(5)[:30], "path": None}
    hub.rows[6]["image"] = None
    made = data.Hub("some/pets", 4, caption="text")
    assert len(made) == 198
    batch = made.batch([2, 3, 4, 5])
    assert ((batch.x[:, 0, 0, 0] + 1) * 127.5).round().tolist() == [2, 77, 4, 7]
    assert batch.caption == ["number 2", "number 3", "number 4", "number 7"]
    assert [name for name, _ in made.skipped] == ["some/pets[5]", "some/pets[6]"]
    hub.rows[8]["image"] = {"bytes": None, "path": "lost.png"}
    # Of 200 three are more than one in a hundred, whatever the count that was asked for.
    with pytest.raises(FileError, match=r"more than 1\.00% of the 200 .*pets\[5\]"):
        data.Hub("some/pets", 4)


def test_what_is_not_there_is_named(hub: _Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileError, match="other/pets cannot be opened: other/pets is not there"):
        data.Hub("other/pets", 4)
    for columns in ({"caption": "prompt"}, {"image": "picture"}, {"label": "class"}):
        with pytest.raises(UsageError, match="no column .* it has image, label, text"):
            data.Hub("some/pets", 4, **columns)
    with pytest.raises(UsageError, match="'number 0', not class numbers"):
        data.Hub("some/pets", 4, label="text")
    with pytest.raises(UsageError, match="count is 0"):
        data.Hub("some/pets", 4, count=0)
    hub.rows[7]["text"] = "trouble"
    assert len(data.Hub("some/pets", 4, count=7)) == 7
    with pytest.raises(FileError, match="cannot be read on: reset by peer"):
        data.Hub("some/pets", 4, count=8)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'fromnoise\[hub\]'"):
        data.Hub("some/pets", 4)
