"""A PyTorch file as named runs of bytes: the zip archive checked, the pickle read as data.

Everything a tensor says of itself is compared with what the file holds before a byte of it is
read, so that no file can ask for more memory or disk than its own size.
"""

import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

from fromnoise.interop.pickle_data import ELEMENTS, RefusedError, TensorView, load

MAX_PICKLE = 16 * 2**20
MAX_DIRECTORY = 2 * 2**20
CHUNK = 2**20
_NAME = re.compile(r"[^\x00-\x1f\\:/]+(/[^\x00-\x1f\\:/]+)*")
_MOST_VALUES = 1_000_000
_LOCAL = struct.Struct("<4s22xHH")
_END = struct.Struct("<12xI")
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The pickle of the number that files of PyTorch before 1.6 begin with."""


@dataclass(frozen=True)
class Span:
    """Bytes in the file: where they begin and how many; their check sum, where the file has one."""

    start: int
    size: int
    crc: int | None = None


@dataclass(frozen=True)
class Archive:
    """The value a file holds, and its storages by key."""

    value: Any
    storages: dict[str, Span]
    size: int


def read(file: BinaryIO) -> Archive:
    """What a file of `torch.save` holds, no tensor of it read yet.

    Raises RefusedError for a file of another format, a compressed or overlapping archive, and
    anything in its pickle that is no plain data.
    """
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(len(_LEGACY))
    if start[:4] == b"PK\x03\x04":
        return _zipped(file, size)
    if start == _LEGACY:
        return _legacy(file, size)
    raise RefusedError(_other(file, start))


def _other(file: BinaryIO, start: bytes) -> str:
    file.seek(257)
    if file.read(5) == b"ustar":
        return "a tar archive, as PyTorch wrote before 0.1.10; save it again with a later one"
    if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "a bare pickle, not a file of torch.save"
    return "not a file of torch.save"


def _zipped(file: BinaryIO, size: int) -> Archive:
    _short_directory(file, size)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise RefusedError(f"a damaged zip archive ({error})") from None
    spans = _spans(file, entries, size)
    roots = {name.split("/")[0] for name in spans}
    if len(roots) != 1 or f"{(root := roots.pop())}/data.pkl" not in spans:
        raise RefusedError("a zip archive that is not one of torch.save: it has no data.pkl")
    order = spans.get(f"{root}/byteorder")
    if order is not None and _bytes(file, order, 16) != b"little":
        raise RefusedError("an archive with big-endian numbers; save it on a common machine")
    value, _ = load(_bytes(file, spans[f"{root}/data.pkl"], MAX_PICKLE))
    prefix = f"{root}/data/"
    data = {name.removeprefix(prefix): s for name, s in spans.items() if name.startswith(prefix)}
    return Archive(value, data, size)


def _short_directory(file: BinaryIO, size: int) -> None:
    """Bound the list of entries before the library makes an object of each."""
    file.seek(max(0, size - 2**16 - 22))
    tail = file.read()
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or place + _END.size > len(tail):
        raise RefusedError("a zip archive that is cut short")
    (length,) = _END.unpack_from(tail, place)
    long = tail.rfind(b"PK\x06\x06")
    if length == 0xFFFFFFFF and 0 <= long <= len(tail) - 48:
        (length,) = struct.unpack_from("<Q", tail, long + 40)
    if length > MAX_DIRECTORY:
        raise RefusedError(f"a zip archive with a directory of {length} bytes")


def _spans(file: BinaryIO, entries: list[zipfile.ZipInfo], size: int) -> dict[str, Span]:
    """Where each entry's bytes lie. They must be stored as they are, named safely, and apart."""
    spans: dict[str, Span] = {}
    if sum(entry.file_size for entry in entries) > size:
        raise RefusedError("a zip archive that says it holds more than its own size")
    for entry in entries:
        name = entry.orig_filename
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise RefusedError(f"a compressed zip archive ({name[:60]!r}); PyTorch writes none")
        if not _NAME.fullmatch(name) or ".." in name.split("/") or name in spans:
            raise RefusedError(f"a zip archive with the entry name {name[:60]!r}")
        if entry.flag_bits & 0x1:
            raise RefusedError("an encrypted zip archive")
        spans[name] = Span(_begin(file, entry, size), entry.file_size, entry.CRC)
    position = 0
    for span in sorted(spans.values(), key=lambda s: s.start):
        if span.size and span.start < position:
            raise RefusedError("a zip archive whose entries overlap")
        position = max(position, span.start + span.size)
    if position > size:
        raise RefusedError("a zip archive that is cut short")
    return spans


def _begin(file: BinaryIO, entry: zipfile.ZipInfo, size: int) -> int:
    if not 0 <= entry.header_offset <= size - _LOCAL.size:
        raise RefusedError("a zip archive that is cut short")
    file.seek(entry.header_offset)
    mark, name, extra = _LOCAL.unpack(file.read(_LOCAL.size))
    coding = "utf-8" if entry.flag_bits & 0x800 else "cp437"
    if mark != b"PK\x03\x04" or file.read(name) != entry.orig_filename.encode(coding):
        raise RefusedError("a zip archive whose entries do not match its directory")
    return entry.header_offset + _LOCAL.size + int(name) + int(extra)


def _legacy(file: BinaryIO, size: int) -> Archive:
    """The form before PyTorch 1.6: four pickles, the keys, then each storage with its count."""
    file.seek(0)
    head = file.read(MAX_PICKLE)
    place = len(_LEGACY)
    values: list[Any] = []
    # The protocol's number, the machine it was saved on, the object, and the storages' keys.
    for _ in range(4):
        value, length = load(head[place:])
        values.append(value)
        place += length
    _, machine, value, keys = values
    if type(machine) is not dict or machine.get("little_endian") is not True:
        raise RefusedError("an old PyTorch file with big-endian numbers")
    counts = {view.storage.key: view for view in views(value)}
    storages: dict[str, Span] = {}
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise RefusedError("an old PyTorch file without its list of storages")
    for key in keys:
        file.seek(place)
        (count,) = struct.unpack("<q", file.read(8).ljust(8, b"\xff"))
        if key not in counts:
            raise RefusedError("an old PyTorch file with a storage that no tensor uses")
        width = ELEMENTS[counts[key].dtype][1]
        if not 0 <= count * width <= size - place - 8:
            raise RefusedError("an old PyTorch file that is cut short")
        storages[key] = Span(place + 8, count * width)
        place += 8 + count * width
    return Archive(value, storages, size)


def views(value: Any) -> Iterator[TensorView]:
    """Every tensor in a value, wherever it is."""
    waiting = [value]
    for _ in range(_MOST_VALUES):
        if not waiting:
            return
        value = waiting.pop()
        if type(value) is TensorView:
            yield value
        elif type(value) is dict:
            waiting += value.values()
        elif type(value) in (list, tuple):
            waiting += value
    raise RefusedError("values that hold one another many times over")


def check(tensors: Iterable[tuple[str, TensorView]], archive: Archive) -> None:
    """Raise RefusedError unless every tensor lies within its storage, and apart in itself."""
    total = 0
    for name, view in tensors:
        span = archive.storages.get(view.storage.key)
        width = ELEMENTS[view.dtype][1]
        if span is None:
            raise RefusedError(f"tensor {name[:80]!r} without its storage")
        count = prod(view.shape)
        total += count * width
        if len(view.shape) > 64 or count * width > span.size or total > 2 * archive.size + CHUNK:
            raise RefusedError(
                f"tensor {name[:80]!r} of shape {view.shape}, which is more than the file holds"
            )
        reach = view.offset + sum(
            (n - 1) * s for n, s in zip(view.shape, view.strides, strict=True)
        )
        if count and (reach + 1) * width > span.size:
            raise RefusedError(f"tensor {name[:80]!r} that reaches beyond its storage")
        if count and _overlaps(view):
            raise RefusedError(f"tensor {name[:80]!r} whose elements overlap in memory")


def _overlaps(view: TensorView) -> bool:
    """Whether two places of a tensor may be one place in memory (a stride of 0, say)."""
    reach = 0
    for stride, side in sorted(zip(view.strides, view.shape, strict=True)):
        if side > 1:
            if stride <= reach:
                return True
            reach += (side - 1) * stride
    return False


def verify(file: BinaryIO, spans: Iterable[Span]) -> None:
    """Raise RefusedError where bytes differ from their check sum."""
    for span in spans:
        if span.crc is None:
            continue
        crc = 0
        for piece in pieces(file, span.start, span.size):
            crc = zlib.crc32(piece, crc)
        if crc != span.crc:
            raise RefusedError("a damaged file: the check sum of a tensor differs")


def pieces(file: BinaryIO, start: int, size: int) -> Iterator[bytes]:
    """So many bytes from a place on, a piece at a time."""
    file.seek(start)
    while size:
        piece = file.read(min(CHUNK, size))
        if not piece:
            raise RefusedError("a file that is cut short")
        size -= len(piece)
        yield piece


def _bytes(file: BinaryIO, span: Span, most: int) -> bytes:
    if span.size > most:
        raise RefusedError(f"an archive with {span.size} bytes where at most {most} are read")
    verify(file, [span])
    return b"".join(pieces(file, span.start, span.size))
