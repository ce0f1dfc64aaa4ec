"""Reads a whole collection of pictures before anything is trained on it, and says what it found.

A picture is either good, perhaps with a remark on what reading it changed, or bad, with the
reason; nothing is repaired or moved.
"""

import contextlib
import hashlib
import io
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageFile, UnidentifiedImageError

from fromnoise.core.errors import FileError
from fromnoise.core.images import FORMATS, MAX_PIXELS, read_image
from fromnoise.core.tensorheader import unreadable
from fromnoise.data.captions import BESIDE, TABLES, Captions, collect
from fromnoise.data.folder import SUFFIXES, pictures_in
from fromnoise.data.shards import samples_in, shards_at

HUGE = 2**24
TINY = 16
LONG = 4.0
_ORIENTATION = 0x0112

FAULTS: dict[str, str] = {
    "empty": "no bytes at all",
    "no picture": "not PNG, JPEG, WebP, BMP, GIF or TIFF, whatever its name says",
    "cut short": "the file ends before the picture does",
    "damaged": "the file cannot be decoded",
    "bomb": f"more than {MAX_PIXELS} pixels, refused before decoding",
    "floating point": "numbers of unknown range",
    "link": "a link that leaves the folder, or to a folder",
    "unreadable": "the system does not let it be read",
}
"""Why a picture is bad, and what that means."""

REMARKS: dict[str, str] = {
    "16-bit": "scaled to 8 bits",
    "CMYK": "converted to RGB; colours may shift a little",
    "alpha": "transparent pixels will show white",
    "palette": "converted to RGB",
    "rotated": "turned upright as its EXIF tag says",
    "animated": "only the first frame is read",
    "grey": "a single channel",
    "one bit": "black and white only",
    "other mode": "converted to RGB",
    "huge": f"more than {HUGE} pixels; slow to read, make it smaller once",
    "tiny": f"a side under {TINY} pixels; will be enlarged",
    "long": f"one side more than {LONG:g} times the other; much will be cropped",
    "wrong name": "the content is another format than the name says",
    "no caption": "others have one",
}
"""What may be said of a good picture, and what happens to it."""

_NAMES = {"JPG": "JPEG", "TIF": "TIFF"}


@dataclass(frozen=True)
class Finding:
    """What is known of one picture. fault: its kind and the reason in words, or None if good.

    size: (width, height) as stored; mode: as the decoder calls it; digest: SHA-256 of size and
    pixels after reading, so that two files of equal pixels are found whatever their names.
    """

    name: str
    fault: tuple[str, str] | None = None
    size: tuple[int, int] | None = None
    format: str = ""
    mode: str = ""
    remarks: tuple[str, ...] = ()
    digest: str = ""
    caption: str | None = None


@dataclass
class Survey:
    """All that was found, filled while it is read. lost: captions of pictures that are not there.

    ignored: files that are no pictures and no captions, by suffix.
    """

    path: str
    total: int
    findings: list[Finding] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    @property
    def bad(self) -> list[Finding]:
        return [f for f in self.findings if f.fault is not None]

    @property
    def share(self) -> float:
        """The share of pictures that are bad."""
        return len(self.bad) / max(len(self.findings), 1)

    def faults(self) -> dict[str, list[Finding]]:
        """The bad pictures by kind of fault."""
        grouped = defaultdict(list)
        for found in self.bad:
            grouped[found.fault[0] if found.fault else ""].append(found)
        return {kind: grouped[kind] for kind in FAULTS if kind in grouped}

    def remarks(self) -> dict[str, list[str]]:
        """The names of good pictures by remark."""
        captioned = any(f.caption for f in self.findings)
        grouped = defaultdict(list)
        for found in self.findings:
            if found.fault is None:
                missing = ["no caption"] if captioned and not found.caption else []
                for remark in [*found.remarks, *missing]:
                    grouped[remark].append(found.name)
        return {kind: grouped[kind] for kind in REMARKS if kind in grouped}

    def duplicates(self) -> list[list[str]]:
        """Groups of good pictures with the same pixels."""
        grouped = defaultdict(list)
        for found in self.findings:
            if found.digest:
                grouped[found.digest].append(found.name)
        return [names for names in grouped.values() if len(names) > 1]

    def plain(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        return {
            "path": self.path,
            "pictures": len(self.findings),
            "good": len(self.findings) - len(self.bad),
            "bad": {
                k: {f.name: f.fault[1] for f in v if f.fault} for k, v in self.faults().items()
            },
            "remarks": self.remarks(),
            "duplicates": self.duplicates(),
            "captions": sum(bool(f.caption) for f in self.findings),
            "captions without a picture": self.lost,
            "ignored": dict(self.ignored),
            "sizes": {f"{w}x{h}": n for (w, h), n in self.sizes().most_common()},
            "modes": dict(Counter(f.mode for f in self.findings if f.mode).most_common()),
            "formats": dict(Counter(f.format for f in self.findings if f.format).most_common()),
        }

    def sizes(self) -> "Counter[tuple[int, int]]":
        """How many pictures have each (width, height)."""
        return Counter(f.size for f in self.findings if f.size is not None)


def survey(path: str) -> Iterator[Survey]:
    """Read everything at a path: a folder of pictures, a tar, or a folder or pattern of tars.

    Gives the same survey again after each picture, so that a caller can show how far it is.
    Raises FileError when there are no pictures, or for captions or shards that are not sound.
    """
    place = Path(path)
    if place.is_dir() and not any(place.glob("*.tar")):
        yield from _of_folder(place)
        return
    if place.is_file() and place.suffix.lower() != ".tar":
        raise FileError(f"{path} is a single file; give the folder that holds the pictures")
    yield from _of_shards(path)


def _of_folder(root: Path) -> Iterator[Survey]:
    files = list(pictures_in(root))
    if not files:
        raise FileError(f"{root} holds no pictures; they end in {', '.join(sorted(SUFFIXES))}")
    texts = collect(root, files)
    told = Survey(str(root), len(files), lost=[*texts.lost, *_orphans(root, files)])
    told.ignored.update(_ignored(root))
    for file in files:
        told.findings.append(_in_file(file, root, texts))
        yield told


def _of_shards(path: str) -> Iterator[Survey]:
    samples = [sample for shard in shards_at(path) for sample in samples_in(shard)]
    pairs = [(sample, sample.picture) for sample in samples]
    with_picture = [(sample, picture) for sample, picture in pairs if picture is not None]
    if not with_picture:
        raise FileError(f"{path} holds no samples with a picture")
    told = Survey(path, len(with_picture))
    told.lost += [f"{s.shard}:{s.key} has no picture" for s in samples if s.picture is None]
    for sample, picture in with_picture:
        told.findings.append(examine(picture.content(), str(picture), sample.caption()))
        yield told


def _in_file(file: Path, root: Path, texts: Captions) -> Finding:
    name, caption = str(file.relative_to(root)), texts.texts.get(file)
    if file.is_dir() or not file.resolve().is_relative_to(root.resolve()):
        return Finding(name, ("link", "leaves the folder" if file.is_file() else "not followed"))
    try:
        data = file.read_bytes()
    except OSError as error:
        return Finding(name, ("unreadable", str(unreadable(file, error))))
    return examine(data, name, caption)


def examine(data: bytes, name: str, caption: str | None = None) -> Finding:
    """What is to be said of one picture, from the bytes of its file."""
    if not data:
        return Finding(name, ("empty", FAULTS["empty"]), caption=caption)
    header = _header(data)
    if isinstance(header, str):
        return Finding(name, (header, FAULTS[header]), caption=caption)
    size, kind, mode, remarks = header
    try:
        image = read_image(data, name=name)
    except FileError as error:
        fault = "floating point" if mode == "F" else _torn(data, kind, str(error))
        return Finding(name, (fault, str(error)), size, kind, mode, caption=caption)
    told = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
    remarks += _wrongly_named(name, kind)
    return Finding(name, None, size, kind, mode, tuple(remarks), told, caption)


Header = tuple[tuple[int, int], str, str, list[str]]


def _header(data: bytes) -> Header | str:
    """(size, format, mode, remarks) before any pixel is decoded, or the kind of fault."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return "bomb"
        except UnidentifiedImageError:
            return "no picture"
        except Exception:
            # A decoder meets hostile bytes with any exception it likes.
            return "damaged"
        if image.width * image.height > MAX_PIXELS:
            return "bomb"
        return image.size, str(image.format), image.mode, _remarks(image)


def _remarks(image: Image.Image) -> list[str]:
    long, short = max(image.size), max(1, min(image.size))
    # Reading the tags of a PNG decodes it, after which nothing tells its depth.
    deep = image.mode.startswith("I") or _is_deep(image)
    orientation: object = 1
    frames = 1
    with contextlib.suppress(Exception):
        # Damaged tags and frames are no reason to refuse a picture whose pixels can be read.
        orientation = image.getexif().get(_ORIENTATION, 1)
        frames = int(getattr(image, "n_frames", 1))
    told: Mapping[str, bool] = {
        "16-bit": deep,
        "CMYK": image.mode == "CMYK",
        "alpha": image.has_transparency_data,
        "palette": image.mode == "P",
        "rotated": orientation in range(2, 9),
        "animated": frames > 1 and image.format != "TIFF",
        "grey": image.mode in ("L", "LA"),
        "one bit": image.mode == "1",
        "other mode": image.mode in ("YCbCr", "LAB", "HSV", "RGBX", "La"),
        "huge": image.width * image.height > HUGE,
        "tiny": short < TINY,
        "long": long > LONG * short,
    }
    return [remark for remark, holds in told.items() if holds]


def _is_deep(image: Image.Image) -> bool:
    """Whether an RGB picture is stored with 16 bits a channel, of which the upper 8 are read."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    return any(";16" in str(tile[3]) for tile in tiles if len(tile) > 3)


def _torn(data: bytes, kind: str, reason: str) -> str:
    """Cut short, when the format's own end is missing or the decoder ran out of bytes."""
    ends = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82", "GIF": b"\x3b"}
    lacking = kind in ends and ends[kind] not in data[-64:]
    return "cut short" if lacking or "truncated" in reason else "damaged"


def _wrongly_named(name: str, kind: str) -> list[str]:
    suffix = name.rpartition(".")[2].upper()
    return ["wrong name"] if _NAMES.get(suffix, suffix) != kind else []


def _orphans(root: Path, files: list[Path]) -> list[str]:
    """Caption files whose picture is not there, in folders that hold pictures."""
    stems = {file.with_suffix("") for file in files}
    folders = {file.parent for file in files if not file.is_dir()}
    near = [p for folder in sorted(folders) for p in sorted(folder.iterdir())]
    return [
        f"{path.relative_to(root)} has no picture"
        for path in near
        if path.suffix == ".caption" and path.with_suffix("") not in stems
    ]


def _ignored(root: Path) -> Counter[str]:
    """How many other files there are, by suffix."""
    passed = {*SUFFIXES, *BESIDE}
    return Counter(
        path.suffix.lower() or path.name
        for path in root.rglob("*")
        if path.is_file() and path.name not in TABLES and path.suffix.lower() not in passed
    )


__all__ = ["FAULTS", "REMARKS", "Finding", "Survey", "examine", "survey"]
