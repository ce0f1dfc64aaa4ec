"""Tar shards are read where they lie, sample by sample, and a damaged one is noticed."""

import contextlib
import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fromnoise import data
from fromnoise.core.errors import FileError, FromNoiseError, UsageError
from fromnoise.data.shards import samples_in, shards_at


def _png(level: int, size: tuple[int, int] = (10, 10)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (level,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def _tar(path: Path, members: Mapping[str, bytes], form: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def _sound(path: Path, count: int = 6, first: int = 0) -> Path:
    members: dict[str, bytes] = {}
    for i in range(first, first + count):
        members[f"set/{i:04d}.png"] = _png(10 * i)
        members[f"set/{i:04d}.txt"] = f"number  {i}\n".encode()
        members[f"set/{i:04d}.cls"] = str(i % 3).encode()
    return _tar(path, members)


def _levels(dataset: data.Dataset) -> list[float]:
    x = dataset.batch(range(len(dataset))).x
    levels: list[float] = ((x[:, 0, 0, 0] + 1) * 127.5).round().tolist()
    return levels


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_gives_the_same_samples(tmp_path: Path, form: int) -> None:
    key = "d" * 60 + "/" + "k" * 60
    members = {f"{key}.png": _png(40), f"{key}.json": json.dumps({"caption": "c"}).encode()}
    made = data.Shards(str(_tar(tmp_path / "x.tar", members, form)), 4)
    assert made.keys == (key,) and _levels(made) == [40] and made.batch([0]).caption == ["c"]


def test_samples_come_in_order_with_captions_and_classes(tmp_path: Path) -> None:
    for shard in range(3):
        _sound(tmp_path / f"train-{shard:03d}.tar", first=6 * shard)
    made = data.load({"kind": "shards", "path": str(tmp_path / "train-{000..002}.tar"), "size": 4})
    assert _levels(made) == [10 * i for i in range(18)]
    assert made.batch([17, 4]).caption == ["number 17", "number 4"]
    assert made.classes == ("0", "1", "2") and made.labels is not None
    assert made.labels.tolist() == [i % 3 for i in range(18)]
    assert made.keys[7] == "set/0007"
    folder = data.Shards(str(tmp_path), 4)
    listed = data.Shards([str(p) for p in sorted(tmp_path.glob("*.tar"))], 4, keep_bytes=0)
    for other in (folder, listed, data.load(made.config)):
        assert torch.equal(other.batch(range(18)).x, made.batch(range(18)).x)
    assert not torch.equal(data.Shards(str(tmp_path / "train-000.tar"), 4).batch([0]).x,
                           made.batch([6]).x)  # fmt: skip


def test_captions_of_json_and_keys_up_to_the_first_dot(tmp_path: Path) -> None:
    members = {
        "a.b.jpg": b"not looked at",
        "a.png": _png(50),
        "a.json": json.dumps({"caption": " from \n json", "text": "no"}).encode(),
        "c.png": _png(60),
        "c.json": json.dumps({"text": "other"}).encode(),
        "e.png": _png(70),
        "e.json": b"[]",
    }
    made = data.Shards(str(_tar(tmp_path / "x.tar", members)), 4)
    assert made.keys == ("a", "c", "e") and _levels(made) == [50, 60, 70]
    assert made.batch([0, 1, 2]).caption == ["from json", "other", ""]
    assert made.labels is None and made.classes == ()


def test_only_plain_files_count_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for kind, name in (
            (tarfile.SYMTYPE, "a.png"),
            (tarfile.LNKTYPE, "b.png"),
            (tarfile.CHRTYPE, "c.png"),
            (tarfile.FIFOTYPE, "d.png"),
            (tarfile.DIRTYPE, "e.png"),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        for name in ("../../escape.png", "/abs.png", "good.png", ".hidden", "noext"):
            entry = tarfile.TarInfo(name)
            entry.size = len(_png(90))
            archive.addfile(entry, io.BytesIO(_png(90)))
    before = sorted(tmp_path.rglob("*"))
    made = data.Shards(str(path), 4)
    # Names that climb are only names: their bytes are read where they lie.
    assert made.keys == ("../../escape", "abs", "good") and _levels(made) == [90] * 3
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent.parent / "escape.png").exists()


def test_bad_pictures_and_samples_without_one_are_listed(tmp_path: Path) -> None:
    members = {f"{i:02d}.png": _png(i) for i in range(20)}
    members |= {"30.png": _png(5)[:40], "31.txt": b"alone", "32.jpg": b"<svg/>"}
    path = str(_tar(tmp_path / "x.tar", members))
    made = data.Shards(path, 4, max_bad=0.2)
    assert len(made) == 20
    told = dict(made.skipped)
    assert {name.rpartition(":")[2] for name in told} == {"30.png", "31", "32.jpg"}
    with pytest.raises(FileError, match=r"more than 1\.00% of the 22 pictures .*30\.png"):
        data.Shards(path, 4)


def test_every_cut_of_a_shard_is_noticed(tmp_path: Path) -> None:
    whole = _sound(tmp_path / "x.tar", 3).read_bytes()
    used = len(whole.rstrip(b"\0"))
    for cut in (0, 100, 512, 700, 1100, 2000, used - 600, used - 1):
        path = tmp_path / "cut.tar"
        path.write_bytes(whole[:cut])
        with pytest.raises(FileError, match=r"cut\.tar"):
            data.Shards(str(path), 4)
    # Only the zeros at the end may be missing.
    path.write_bytes(whole[: -(-used // 512) * 512])
    assert len(data.Shards(str(path), 4)) == 3


def test_a_broken_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = _sound(tmp_path / "x.tar", 4)
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        place = archive.getmembers()[6].offset
    content[place + 5] ^= 0xFF
    path.write_bytes(bytes(content))
    # The library alone stops there without a word.
    with tarfile.open(path) as archive:
        assert len(archive.getmembers()) == 6
    with pytest.raises(FileError, match=rf"what is at byte {place} is no member and no end"):
        data.Shards(str(path), 4)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "holds no samples"),
        ({"a.txt": b"x"}, "holds no samples with a picture"),
        ({"a.png": _png(1), "b.png": _png(1), "a.txt": b"x"}, "'a' do not lie together"),
        ({"a.png": _png(1), "a.PNG": _png(1)}, "is there twice"),
        ({"a.png": _png(1), "a.cls": b"0", "b.png": _png(1)}, "'b' has no .cls"),
        ({"a.png": _png(1), "a.cls": b"dog"}, "not a class number"),
        ({"a.png": _png(1), "a.cls": b"999999999"}, "beyond all reason"),
        ({"a.png": _png(1), "a.txt": b"\xff"}, "not UTF-8"),
        ({"a.png": _png(1), "a.json": b"{"}, "not valid JSON"),
        ({"a.png": _png(1), "a.txt": b"x" * 70_000}, "larger than 65536"),
    ],
)
def test_shards_that_make_no_sense_are_refused(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    with pytest.raises(FileError, match=message):
        data.Shards(str(_tar(tmp_path / "x.tar", members)), 4)


def test_compressed_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    sound = _sound(tmp_path / "x.tar")
    (tmp_path / "y.tar").write_bytes(gzip.compress(sound.read_bytes()))
    with pytest.raises(FileError, match=r"y\.tar .*compressed: unpack it"):
        data.Shards(str(tmp_path / "y.tar"), 4)
    (tmp_path / "z.tar").write_bytes(b"hello" * 500)
    with pytest.raises(FileError, match=r"z\.tar is damaged"):
        data.Shards(str(tmp_path / "z.tar"), 4)
    with pytest.raises(FileError, match="does not exist"):
        data.Shards(str(tmp_path / "none-{0..1}.tar"), 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="holds no .tar files"):
        data.Shards(str(tmp_path / "empty"), 4)
    with pytest.raises(UsageError, match="no shards"):
        data.Shards([], 4)
    for pattern in ("x-{5..1}.tar", "x-{0..9999999}.tar"):
        with pytest.raises(UsageError, match="counts from"):
            shards_at(pattern)
    assert [p.name for p in shards_at("a{08..10}.tar")] == ["a08.tar", "a09.tar", "a10.tar"]


def test_a_shard_that_shrinks_later_is_named(tmp_path: Path) -> None:
    path = _sound(tmp_path / "x.tar")
    made = data.Shards(str(path), 4, keep_bytes=0)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(FromNoiseError, match=r"x\.tar.*cut short"):
        made.batch([5])


def test_random_bytes_never_give_samples(tmp_path: Path) -> None:
    random = np.random.Generator(np.random.PCG64(0))
    whole = _sound(tmp_path / "x.tar", 3).read_bytes()
    told = [s.key for s in samples_in(tmp_path / "x.tar")]
    path = tmp_path / "y.tar"
    for _ in range(150):
        content = bytearray(whole)
        for place in random.integers(0, len(content), 3):
            content[place] ^= 1 << int(random.integers(0, 8))
        path.write_bytes(bytes(content))
        with contextlib.suppress(FileError):
            assert [s.key for s in samples_in(path)] == told
