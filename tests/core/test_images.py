"""Pictures are read right or refused by name; what is not finite never becomes a picture."""

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fromnoise.core import images
from fromnoise.core.errors import DiskError, FileError, FromNoiseError, ShapeError, UsageError

RNG = np.random.Generator(np.random.PCG64(0))
NOISE = RNG.integers(0, 256, (48, 40, 3), dtype=np.uint8)
SMOOTH = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)).resize((40, 48), 2)
)


def _bytes(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})],
)
def test_lossless_formats_read_exactly(tmp_path: Path, kind: str, options: dict[str, bool]) -> None:
    path = tmp_path / "bild\nÄ.bin"
    path.write_bytes(_bytes(Image.fromarray(NOISE), kind, **options))
    assert np.array_equal(np.asarray(images.read_image(path)), NOISE)
    assert np.array_equal(np.asarray(images.read_image(path.read_bytes())), NOISE)


def test_jpeg_and_cmyk_jpeg_read_closely() -> None:
    for picture in (Image.fromarray(SMOOTH), Image.fromarray(SMOOTH).convert("CMYK")):
        read = images.read_image(_bytes(picture, "JPEG", quality=95, subsampling=0))
        assert abs(np.asarray(read).astype(float) - SMOOTH).mean() < 2.0


def test_sixteen_bit_grey_is_scaled_where_plain_conversion_saturates() -> None:
    ramp = np.linspace(0, 65535, 256 * 16).reshape(64, 64).round().astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        data = _bytes(Image.fromarray(ramp), kind)
        pixels = np.asarray(images.read_image(data, "L")).astype(float)
        assert abs(pixels.mean() - 127.5) <= 1
        assert np.abs(pixels - ramp / 257).max() <= 0.5
    wide = _bytes(Image.fromarray(np.full((2, 2), 70000, np.int32)), "TIFF")
    with pytest.raises(FileError, match="beyond 16 bits"):
        images.read_image(wide)
    with pytest.raises(FileError, match="floating-point"):
        images.read_image(_bytes(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"))


def _transparent() -> dict[str, bytes]:
    red = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    red.putpixel((1, 0), (0, 0, 255, 255))
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    rgb = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8))
    return {
        "RGBA": _bytes(red),
        "WebP": _bytes(red, "WEBP", lossless=True, exact=True),
        "P": _bytes(palette, transparency=0),
        "GIF": _bytes(palette, "GIF", transparency=0),
        "RGB with a clear colour": _bytes(rgb, transparency=(255, 0, 0)),
    }


@pytest.mark.parametrize("kind", _transparent())
def test_a_transparent_red_pixel_does_not_become_red(kind: str) -> None:
    data = _transparent()[kind]
    for background in ((255, 255, 255), (10, 20, 30)):
        pixels = images.read_image(data, background=background)
        assert pixels.getpixel((0, 0)) == background
        assert pixels.getpixel((1, 0)) == (0, 0, 255)
    if kind in ("RGBA", "WebP"):
        assert Image.open(io.BytesIO(data)).convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_half_transparent_grey_is_blended() -> None:
    data = _bytes(Image.new("LA", (1, 1), (0, 128)))
    assert images.read_image(data, "L").getpixel((0, 0)) == pytest.approx(127, abs=1)


def test_every_exif_orientation_comes_out_upright() -> None:
    # What a camera stores for each tag: the inverse of what the tag asks a viewer to do.
    stored: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda a: np.rot90(a, -1),
    }
    for tag, turn in stored.items():
        exif = Image.Exif()
        exif[0x0112] = tag
        data = _bytes(Image.fromarray(np.ascontiguousarray(turn(NOISE))), exif=exif)
        assert np.array_equal(np.asarray(images.read_image(data)), NOISE), tag


def test_the_first_frame_of_an_animation_is_read() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    for kind, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        data = _bytes(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert images.read_image(data).getpixel((1, 1)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_picture_cut_short_is_refused(kind: str) -> None:
    data = _bytes(Image.fromarray(NOISE), kind)
    images.read_image(data)
    for share in (0.01, 0.3, 0.6, 0.9):
        with pytest.raises(FileError, match="picture"):
            images.read_image(data[: int(share * len(data))])


def test_a_wrong_checksum_in_a_png_is_refused_where_decoding_passes_it_over() -> None:
    data = bytearray(_bytes(Image.fromarray(NOISE)))
    end = data.index(b"IEND") - 8
    data[end] ^= 1
    Image.open(io.BytesIO(data)).load()
    with pytest.raises(FileError, match="damaged"):
        images.read_image(bytes(data))


def _bomb(side: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)

    header = side.to_bytes(4) * 2 + bytes([1, 0, 0, 0, 0])
    rows = zlib.compressobj(9)
    body = b"".join(rows.compress(bytes(1 + (side + 7) // 8)) for _ in range(side)) + rows.flush()
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body)
    return png + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9000, 13_000, 20_000])
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded(self: object) -> None:
        raise AssertionError("decoded")

    data = _bomb(side)
    assert len(data) < 100_000
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", decoded)
    with pytest.raises(FileError, match="pixels"):
        images.read_image(data)
    with pytest.raises(AssertionError, match="decoded"):
        images.to_tensor(Image.open(io.BytesIO(_bomb(90))))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello", "is not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture"),
        (_bytes(Image.fromarray(NOISE), "PPM"), "is not a picture"),
        (_bytes(Image.fromarray(NOISE), "PDF"), "is not a picture"),
    ],
)
def test_what_is_not_an_allowed_picture_is_refused(
    tmp_path: Path, data: bytes, message: str
) -> None:
    path = tmp_path / "cat.jpg"
    path.write_bytes(data)
    with pytest.raises(FileError, match=rf"cat\.jpg {message}"):
        images.read_image(path)
    with pytest.raises(FileError, match=rf"upload {message}"):
        images.read_image(data, name="upload")


def test_missing_files_and_impossible_names_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        images.read_image(tmp_path / "none.png")
    with pytest.raises(FileError, match="is a folder"):
        images.read_image(tmp_path)
    with pytest.raises(FileError, match="cannot be the name"):
        images.read_image("a\0b")


def test_flipped_bits_never_raise_anything_else() -> None:
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        whole = _bytes(Image.fromarray(SMOOTH), kind)
        for _ in range(40):
            data = bytearray(whole)
            data[RNG.integers(len(data))] ^= 1 << RNG.integers(8)
            try:
                read = images.read_image(bytes(data))
            except FileError:
                continue
            assert read.mode == "RGB"


def test_all_levels_survive_the_way_to_a_tensor_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    picture = np.repeat(levels[0][..., None], 3, axis=2)
    x = images.to_tensor(picture)
    assert x.shape == (3, 16, 16) and x.dtype == torch.float32
    assert float(x.min()) == -1 and float(x.max()) == 1
    assert np.array_equal(images.to_uint8(x[None])[0], picture)
    grey = images.to_tensor(levels[0])
    assert grey.shape == (1, 16, 16)
    assert np.array_equal(np.asarray(images.to_pil(grey)), levels[0])
    assert np.array_equal(np.asarray(images.to_pil(x)), picture)


def test_values_are_rounded_and_clipped() -> None:
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]).reshape(1, 1, 1, 5)
    assert images.to_uint8(x).ravel().tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_never_becomes_a_picture(value: float) -> None:
    x = torch.zeros(3, 1, 4, 4)
    x[1, 0, 2, 2] = value
    with pytest.raises(FromNoiseError, match="1 of 3 pictures hold values that are not finite"):
        images.to_uint8(x)
    with pytest.raises(FromNoiseError, match="not finite"):
        images.to_pil(x[1])
    images.to_uint8(x[::2])


def test_wrong_shapes_are_refused() -> None:
    for wrong in (torch.zeros(3, 4, 4), torch.zeros(4, 4)):
        with pytest.raises(ShapeError):
            images.to_uint8(wrong)
    for wrong in (torch.zeros(1, 3, 4, 4), torch.zeros(2, 4, 4)):
        with pytest.raises(ShapeError):
            images.to_pil(wrong)
    with pytest.raises(ShapeError):
        images.to_tensor(np.zeros((4, 4), np.float32))


def test_a_sheet_shows_every_pixel_in_its_place() -> None:
    pictures = [Image.fromarray(NOISE[8 * i : 8 * i + 8, :8]) for i in range(5)]
    sheet = np.asarray(images.grid_image(pictures, columns=3, scale=2))
    for i, picture in enumerate(pictures):
        top, left = 2 + i // 3 * 18, 2 + i % 3 * 18
        shown = sheet[top : top + 16, left : left + 16]
        assert np.array_equal(shown[::2, ::2], np.asarray(picture))
        assert np.array_equal(shown[1::2, 1::2], np.asarray(picture))
    assert sheet.shape == (2 + 2 * 18, 2 + 3 * 18, 3)
    assert (sheet[20:, 38:] == 255).all()


def test_captions_are_drawn_below_and_stay_in_their_column() -> None:
    pictures = [Image.new("L", (24, 24), 0) for _ in range(2)]
    plain = np.asarray(images.grid_image(pictures, 2))
    told = np.asarray(images.grid_image(pictures, 2, labels=["seven €", ""]))
    assert np.array_equal(told[: len(plain) - 2], plain[:-2])
    assert (told[26:, 2:26] < 255).any() and (told[26:, 27:] == 255).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 1), "no pictures"),
        (([Image.new("L", (1, 1))], 0), "columns and scale"),
        (([Image.new("L", (1, 1))], 1, 0), "columns and scale"),
        (([Image.new("L", (1, 1))], 1, 1, ["a", "b"]), "2 labels given for 1"),
    ],
)
def test_an_impossible_sheet_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        images.grid_image(*arguments)


def test_a_png_carries_its_texts(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.png"
    texts = {"fromnoise": '{"seed": 1}', "parameters": "a cat – ×2\nSteps: 3, Größe: 日本"}
    images.write_png(path, NOISE, texts)
    assert images.read_png_text(path) == texts
    assert np.array_equal(np.asarray(images.read_image(path)), NOISE)
    first = path.read_bytes()
    images.write_png(path, Image.fromarray(NOISE), texts)
    assert path.read_bytes() == first
    images.write_png(path, Image.fromarray(NOISE))
    assert images.read_png_text(path) == {}
    assert [p.name for p in path.parent.iterdir()] == ["out.png"]


def test_texts_a_png_cannot_hold_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    for key, value in (("", "x"), ("k" * 80, "x"), (" k", "x"), ("ké", "x"), ("k", "a\0b")):
        with pytest.raises(UsageError):
            images.write_png(path, NOISE, {key: value})
    (tmp_path / "file").write_text("x")
    with pytest.raises(DiskError):
        images.write_png(tmp_path / "file" / "out.png", NOISE)
    assert not path.exists()


def test_texts_are_only_read_from_whole_png(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    images.write_png(path, NOISE, {"k": "v"})
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(FileError, match=r"out\.png is damaged"):
        images.read_png_text(path)
    path.write_bytes(_bytes(Image.fromarray(NOISE), "JPEG"))
    with pytest.raises(FileError, match="not a picture in PNG"):
        images.read_png_text(path)
