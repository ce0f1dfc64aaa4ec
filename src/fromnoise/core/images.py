"""Pictures in and out: read from a short list of formats, checked; written whole, with texts.

What goes wrong with pictures is mostly silent: 16-bit scans that saturate, transparent pixels
that turn solid, half a file that decodes to grey rows. Each is handled here, or refused.
"""

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile, PngInfo

from fromnoise.core.errors import FileError, FromNoiseError, ShapeError, UsageError
from fromnoise.core.files import write_bytes
from fromnoise.core.tensorheader import unreadable

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""Formats that are opened. Others (EPS, SVG, PDF, …) are refused: some run programs."""

MAX_PIXELS = 2**26
"""Pictures of more pixels are refused before they are decoded."""

MAX_BYTES = 2**28
_CAPTION = 12

Mode = Literal["RGB", "L"]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def read_image(
    source: str | Path | bytes,
    mode: Mode = "RGB",
    max_pixels: int = MAX_PIXELS,
    background: tuple[int, int, int] = (255, 255, 255),
    name: str | None = None,
) -> Image.Image:
    """Read a picture as 8-bit RGB or grey ("L"), upright.

    source: a path, or the file's bytes (then `name` names it in errors). background: what shows
    through transparent pixels. Of an animation the first frame is read; rotation tags are applied,
    16-bit grey is scaled by 1/257, CMYK is converted; colour profiles are not applied.
    Raises FileError naming the file: missing, not PNG, JPEG, WebP, BMP, GIF or TIFF, damaged, cut
    short, more than `max_pixels` (checked before decoding), or floating-point values.
    """
    named = name or ("picture" if isinstance(source, bytes) else str(source))
    data = source if isinstance(source, bytes) else _content(Path(source))
    if not data:
        raise FileError(f"{named} is empty")
    with _decoding(named):
        image = _opened(data, named, max_pixels)
        if image.format == "PNG":
            # Decoding passes over the checksums of pixel data; this looks at all of them.
            _opened(data, named, max_pixels).verify()
        image.load()
        return _eight_bit(ImageOps.exif_transpose(image), background, named).convert(mode)


def to_tensor(image: "Image.Image | Pixels") -> "Tensor":
    """A picture as float32 (C, H, W) in [−1, 1]: x = v/127.5 − 1.

    image: PIL, or uint8 of shape (H, W) or (H, W, C). Raises ShapeError for anything else.
    """
    import torch

    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise ShapeError(
            f"a picture is uint8 of shape (H, W) or (H, W, C), not {pixels.dtype} {pixels.shape}"
        )
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(planes.astype(np.float32)) / 127.5 - 1.0


def at_edge(value: object) -> bool:
    """Whether this is one picture as people give it: a path, PIL, or uint8 (H, W) or (H, W, C)."""
    if isinstance(value, np.ndarray):
        return value.dtype == np.uint8 and (
            value.ndim == 2 or (value.ndim == 3 and value.shape[2] in (1, 3, 4))
        )
    return isinstance(value, str | Path | Image.Image)


def read_picture(value: Any, channels: int) -> "Tensor":
    """A picture as people give it as float32 (channels, H, W) in [−1, 1], grey or colour.

    Raises FileError as `read_image` does, UsageError for other than 1 or 3 channels.
    """
    if channels not in (1, 3):
        raise UsageError(f"a picture has 1 or 3 channels, not {channels}; give a tensor instead")
    return to_tensor(_given(value).convert("L" if channels == 1 else "RGB"))


def read_depth(value: Any) -> "Tensor":
    """A grey picture of 8 or 16 bits as float32 (H, W) in [0, 1], black 0 and white 1.

    Raises FileError as `read_image` does, and for a picture in colour.
    """
    import torch

    image, name = _as_stored(value)
    if image.mode not in ("L", "1") and not image.mode.startswith("I"):
        raise FileError(f"{name} is a picture in {image.mode}; a depth is grey, 8 or 16 bits")
    most = 65535.0 if image.mode.startswith("I") else 255.0
    return torch.from_numpy(np.asarray(image.convert("I"), dtype=np.float32) / most)


def read_labels(value: Any) -> "Tensor":
    """A label map as int64 (H, W): the values of a grey picture, the places in a palette.

    Raises FileError as `read_image` does, and for a picture in colour without a palette.
    """
    import torch

    image, name = _as_stored(value)
    if image.mode not in ("L", "P", "1") and not image.mode.startswith("I"):
        raise FileError(
            f"{name} is a picture in {image.mode}; a label map holds one class number for each "
            "place: a grey picture, or one with a palette"
        )
    return torch.from_numpy(np.array(image).astype(np.int64))


def to_uint8(x: "Tensor") -> Pixels:
    """Pictures (B, C, H, W) in [−1, 1] as uint8 (B, H, W, C), rounded, values beyond it clipped.

    Raises FromNoiseError when a value is not finite: it would turn black and look like a picture.
    """
    import torch

    if x.ndim != 4:
        raise ShapeError(f"pictures have shape (B, C, H, W), not {tuple(x.shape)}")
    x = x.detach().float().cpu()
    if not bool(torch.isfinite(x).all()):
        broken = int((~torch.isfinite(x)).flatten(1).any(dim=1).sum())
        raise FromNoiseError(
            f"{broken} of {len(x)} pictures hold values that are not finite; the model or its "
            "settings are broken (try float32, or a lower guidance)"
        )
    levels = ((x + 1.0) * 127.5).round().clamp(0.0, 255.0).to(torch.uint8)
    pixels: Pixels = levels.permute(0, 2, 3, 1).contiguous().numpy()
    return pixels


def to_pil(x: "Tensor") -> Image.Image:
    """A picture (C, H, W) in [−1, 1] with 1 channel (grey) or 3 (RGB) as PIL.

    Raises ShapeError for another number of channels, FromNoiseError for values not finite.
    """
    if x.ndim != 3 or x.shape[0] not in (1, 3):
        raise ShapeError(f"a picture has shape (1 or 3, H, W), not {tuple(x.shape)}")
    pixels = to_uint8(x[None])[0]
    return Image.fromarray(pixels[..., 0] if x.shape[0] == 1 else pixels)


def grid_image(
    images: Sequence[Image.Image],
    columns: int,
    scale: int = 1,
    labels: Sequence[str] | None = None,
    gap: int = 2,
) -> Image.Image:
    """A contact sheet: pictures in rows of `columns`, each pixel enlarged to scale × scale.

    labels: a small caption under each. gap: pixels between pictures and around the sheet.
    Pictures smaller than the largest are centred. Raises UsageError when there is none to show.
    """
    if not images:
        raise UsageError("there are no pictures to show on a sheet")
    if columns < 1 or scale < 1:
        raise UsageError(f"a sheet needs columns and scale of 1 or more, not {columns} and {scale}")
    if labels is not None and len(labels) != len(images):
        raise UsageError(f"{len(labels)} labels given for {len(images)} pictures; give one each")
    mode = "L" if all(image.mode == "L" for image in images) else "RGB"
    width = scale * max(image.width for image in images)
    height = scale * max(image.height for image in images)
    across, down = width + gap, height + gap + (_CAPTION if labels else 0)
    rows = math.ceil(len(images) / columns)
    columns = min(columns, len(images))
    sheet = Image.new(mode, (columns * across + gap, rows * down + gap), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_CAPTION - 3)
    for index, image in enumerate(images):
        left, top = gap + index % columns * across, gap + index // columns * down
        larger = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
        inset = (left + (width - larger.width) // 2, top + (height - larger.height) // 2)
        sheet.paste(larger.convert(mode), inset)
        if labels is not None:
            draw.text((left, top + height), _fitting(labels[index], width, font), "black", font)
    return sheet


def write_png(
    path: str | Path, image: "Image.Image | Pixels", text: Mapping[str, str] | None = None
) -> None:
    """Write a PNG whole or not at all, with texts by key (1 to 79 plain characters).

    Raises DiskError when it cannot be written, UsageError for a key or text PNG cannot hold.
    """
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    info = PngInfo()
    for key, value in (text or {}).items():
        if not (1 <= len(key) <= 79 and key.isascii() and key.isprintable() and key == key.strip()):
            raise UsageError(f"{key!r} cannot be a key in a PNG; use 1 to 79 plain characters")
        if "\0" in value:
            raise UsageError(f"the text {key!r} holds a zero character, which PNG cannot")
        info.add_text(key, value)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=info)
    write_bytes(path, buffer.getvalue())


def png_bytes(image: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file, without texts."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def read_png_text(path: str | Path) -> dict[str, str]:
    """The texts a PNG carries, by key. Raises FileError as `read_image` does."""
    data = _content(Path(path))
    with _decoding(str(path)):
        image = _opened(data, str(path), MAX_PIXELS, ("PNG",))
        # Texts may follow the pixels.
        image.load()
        return {k: str(v) for k, v in cast(PngImageFile, image).text.items()}


def _given(value: Any) -> Image.Image:
    """A picture as people give it, 8 bits a channel and nothing transparent."""
    if isinstance(value, str | Path):
        return read_image(value)
    if isinstance(value, Image.Image):
        return _eight_bit(value, (255, 255, 255), "picture")
    pixels = np.asarray(value)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def _as_stored(value: Any) -> tuple[Image.Image, str]:
    """A picture with the very numbers it holds, and its name for errors."""
    if not isinstance(value, str | Path):
        image = value if isinstance(value, Image.Image) else Image.fromarray(np.squeeze(value))
        return image, "picture"
    data = _content(Path(value))
    if not data:
        raise FileError(f"{value} is empty")
    with _decoding(str(value)):
        image = _opened(data, str(value), MAX_PIXELS)
        image.load()
    return image, str(value)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError as error:
        raise FileError(f"{str(path)!r} cannot be the name of a file: {error}") from None
    if len(data) > MAX_BYTES:
        raise FileError(f"{path} is larger than {MAX_BYTES} bytes, the most that is read")
    return data


@contextlib.contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises into one FileError, and keep its warnings to ourselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except FileError:
            raise
        except Exception as error:
            # A decoder meets hostile bytes with any exception it likes.
            raise FileError(f"{name} is damaged: {error}") from None


def _opened(
    data: bytes, name: str, max_pixels: int, formats: tuple[str, ...] = FORMATS
) -> Image.Image:
    """The picture, its header read and its pixels not yet."""
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FileError(f"{name} has too many pixels: {error}") from None
    except UnidentifiedImageError:
        raise FileError(f"{name} is not a picture in {', '.join(formats)}") from None
    if image.width * image.height > max_pixels:
        raise FileError(
            f"{name} has {image.width}×{image.height} pixels; at most {max_pixels} are read"
        )
    return image


def _eight_bit(image: Image.Image, background: tuple[int, int, int], name: str) -> Image.Image:
    """The picture with 8 bits a channel and nothing transparent."""
    if image.mode == "F":
        raise FileError(f"{name} holds floating-point values of unknown range; save it as 8 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise FileError(f"{name} holds numbers beyond 16 bits; save it as 8 or 16 bits")
        return Image.fromarray(np.round(values / 257.0).astype(np.uint8))
    if image.has_transparency_data:
        top = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", top.size, (*background, 255)), top)
    return image


def _fitting(text: str, width: int, font: Any) -> str:
    """As much of a caption as fits."""
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text
