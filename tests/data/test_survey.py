"""A survey names every picture that is bad or unusual, and only those."""

import io
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fromnoise import data
from fromnoise.core.errors import FileError
from fromnoise.data.survey import FAULTS, REMARKS, Survey, examine, survey

RANDOM = np.random.Generator(np.random.PCG64(0))
PIXELS = RANDOM.integers(0, 256, (24, 20, 3), dtype=np.uint8)


def _bytes(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def _raw_png(width: int, height: int, depth: int, colour: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(pixels)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _deep_rgb() -> bytes:
    row = b"\0" + b"".join(struct.pack(">HHH", 3000 * x, 0, 65535) for x in range(20))
    return _raw_png(20, 20, 16, 2, row * 20)


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _bytes(Image.fromarray(PIXELS), "JPEG", exif=exif)


def _animated() -> bytes:
    frames = [Image.fromarray(np.roll(PIXELS, i, 0)) for i in range(3)]
    return _bytes(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)


RGB = Image.fromarray(PIXELS)
GREY = Image.fromarray(PIXELS[..., 0])
GOOD = _bytes(RGB)
JPEG = _bytes(RGB, "JPEG", quality=95)

REMARKABLE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "deep.png": ("16-bit", lambda: _bytes(Image.fromarray(np.full((20, 20), 30000, np.uint16)))),
    "deep_rgb.png": ("16-bit", _deep_rgb),
    "ink.jpg": ("CMYK", lambda: _bytes(RGB.convert("CMYK"), "JPEG")),
    "clear.png": ("alpha", lambda: _bytes(RGB.convert("RGBA"))),
    "table.png": ("palette", lambda: _bytes(RGB.convert("P"))),
    "turned.jpg": ("rotated", _turned),
    "moving.webp": ("animated", _animated),
    "plain.png": ("grey", lambda: _bytes(GREY)),
    "line.png": ("one bit", lambda: _bytes(GREY.convert("1"))),
    "small.png": ("tiny", lambda: _bytes(RGB.resize((15, 30)))),
    "strip.png": ("long", lambda: _bytes(RGB.resize((100, 20)))),
    "large.png": ("huge", lambda: _bytes(Image.new("RGB", (4097, 4097)))),
    "really.png": ("wrong name", lambda: JPEG),
}
BAD: dict[str, tuple[str, bytes]] = {
    "empty.png": ("empty", b""),
    "text.jpg": ("no picture", b"hello, I am no picture"),
    "drawing.png": ("no picture", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "script.png": ("no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "cut.png": ("cut short", GOOD[: len(GOOD) // 2]),
    "cut.jpg": ("cut short", JPEG[: len(JPEG) * 99 // 100]),
    "flipped.png": ("damaged", GOOD[:200] + bytes([GOOD[200] ^ 4]) + GOOD[201:]),
    "bomb.png": ("bomb", _raw_png(13_000, 13_000, 1, 0, b"\0" * 1626 * 100)),
    "worse.png": ("bomb", _raw_png(20_000, 20_000, 1, 0, b"\0" * 100)),
    "real.tif": ("floating point", _bytes(Image.fromarray(np.ones((20, 20), np.float32)), "TIFF")),
}


def _told(path: Path) -> Survey:
    *_, last = survey(str(path))
    return last


@pytest.mark.parametrize("name", REMARKABLE)
def test_each_unusual_kind_is_remarked_on_and_good(name: str) -> None:
    kind, make = REMARKABLE[name]
    found = examine(make(), name)
    assert found.fault is None and kind in found.remarks
    assert len(found.digest) == 64
    # A plain picture draws no remark: the remarks mean something.
    assert examine(GOOD, "good.png").remarks == () == examine(JPEG, "good.jpeg").remarks


@pytest.mark.parametrize("name", BAD)
def test_each_bad_kind_is_found(name: str) -> None:
    kind, content = BAD[name]
    found = examine(content, name)
    assert found.fault is not None and found.fault[0] == kind
    assert found.digest == "" and kind in FAULTS


def test_a_jpeg_cut_anywhere_is_never_good() -> None:
    for cut in range(1, len(JPEG) - 2, 7):
        assert examine(JPEG[:cut], "x.jpg").fault is not None, cut
    for cut in range(1, len(GOOD) - 12, 11):
        assert examine(GOOD[:cut], "x.png").fault is not None, cut


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    folder = tmp_path / "mixed"
    (folder / "sub").mkdir(parents=True)
    for i in range(10):
        Image.fromarray(np.roll(PIXELS, i, 1)).save(folder / f"good{i}.png")
    for name, (_, content) in BAD.items():
        (folder / "sub" / name).write_bytes(content)
    for name, (_, make) in REMARKABLE.items():
        if name != "large.png":
            (folder / "sub" / name).write_bytes(make())
    (tmp_path / "outside.png").write_bytes(GOOD)
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    return folder


def test_a_folder_is_told_by_name(mixed: Path) -> None:
    told = _told(mixed)
    assert len(told.findings) == told.total == 10 + len(BAD) + len(REMARKABLE) - 1 + 1
    bad = {f.name: kind for kind, found in told.faults().items() for f in found}
    assert bad == {f"sub/{n}": kind for n, (kind, _) in BAD.items()} | {"link.png": "link"}
    assert told.share == len(bad) / told.total
    remarks = told.remarks()
    for name, (kind, _) in REMARKABLE.items():
        if name != "large.png":
            assert f"sub/{name}" in remarks[kind]
    assert not any("good" in name for names in remarks.values() for name in names)
    assert set(remarks) <= set(REMARKS)
    # What the survey calls bad is what reading for training leaves out.
    made = data.Folder(str(mixed), 8, max_bad=1.0, layout="flat")
    assert {str(Path(path).relative_to(mixed)) for path, _ in made.skipped} == set(bad)


def test_equal_pixels_are_found_whatever_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(GOOD)
    (tmp_path / "b.png").write_bytes(_bytes(RGB, compress_level=1))
    (tmp_path / "c.bmp").write_bytes(_bytes(RGB, "BMP"))
    almost = PIXELS.copy()
    almost[0, 0, 0] ^= 1
    Image.fromarray(almost).save(tmp_path / "d.png")
    # The same bytes in another shape are another picture.
    Image.fromarray(PIXELS.reshape(20, 24, 3)).save(tmp_path / "e.png")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
    assert _told(tmp_path).duplicates() == [["a.png", "b.png", "c.bmp"]]


def test_captions_missing_and_left_over_are_named(tmp_path: Path) -> None:
    for i in range(4):
        Image.fromarray(np.roll(PIXELS, i, 0)).save(tmp_path / f"{i}.png")
    assert "no caption" not in _told(tmp_path).remarks()
    (tmp_path / "0.txt").write_text("one")
    (tmp_path / "1.caption").write_text("two")
    (tmp_path / "9.caption").write_text("whose?")
    (tmp_path / "LICENSE").write_text("yours")
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "2.png", "text": "three"}\n{"file_name": "8.png", "text": "x"}'
    )
    told = _told(tmp_path)
    assert told.remarks()["no caption"] == ["3.png"]
    assert [line.split("metadata")[-1] for line in told.lost] == [
        ".jsonl, line 2 names '8.png', which is not among the pictures",
        "9.caption has no picture",
    ]
    assert told.ignored == {"LICENSE": 1}
    plain = told.plain()
    assert (
        plain["captions"] == 3 and plain["sizes"] == {"20x24": 4} and plain["modes"] == {"RGB": 4}
    )


def test_shards_are_surveyed_alike(tmp_path: Path) -> None:
    members = {"a.png": GOOD, "a.txt": b"one", "b.png": GOOD, "c.jpg": b"", "d.txt": b"alone"}
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    told = _told(tmp_path / "x.tar")
    assert [f.fault[0] if f.fault else "" for f in told.findings] == ["", "", "empty"]
    assert len(told.duplicates()) == 1 and len(told.lost) == 1
    assert len(told.remarks()["no caption"]) == 1
    assert _told(tmp_path).plain()["pictures"] == 3


def test_the_survey_is_told_as_it_grows(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(PIXELS).save(tmp_path / f"{i}.png")
    assert [len(told.findings) for told in survey(str(tmp_path))] == [1, 2, 3]
    for path, message in (
        (tmp_path / "none", "does not exist"),
        (tmp_path / "0.png", "single file"),
    ):
        with pytest.raises(FileError, match=message):
            _told(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="holds no pictures"):
        _told(tmp_path / "empty")
