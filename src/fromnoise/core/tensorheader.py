"""The header of a safetensors file, checked by ourselves before any library opens the file.

Layout: 8 bytes little-endian header length, the JSON header, then the tensors' bytes without gaps.
The library accepts duplicate keys, huge headers and millions of empty tensors; we do not.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fromnoise.core import strictjson
from fromnoise.core.errors import FileError

MAX_HEADER = 8 * 2**20
MAX_TENSORS = 100_000
_MAX_ELEMENTS = 2**40
_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class TensorHeader:
    """What a safetensors file says it holds: shape and element type by name, and its metadata.

    starts: at which byte of the file each tensor begins.
    """

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    metadata: dict[str, str]
    starts: dict[str, int]


def read_header(path: str | Path) -> TensorHeader:
    """Read and check the header of a safetensors file without reading its tensors.

    Raises FileError when the file is missing, cut short, a pickle, or its header is larger than
    8 MiB, names more than 100,000 tensors or one twice, or does not match the file's size.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(9)
            length = int.from_bytes(start[:8], "little")
            _check_start(path, start, length, size)
            header = start[8:] + file.read(length - 1)
    except OSError as error:
        raise unreadable(path, error) from None
    # Counted before it is parsed: as objects a header takes twenty times its own size.
    _check_count(path, header.count(b'"data_offsets"'))
    return _checked(path, strictjson.loads(header, f"{path} (header)", 4), 8 + length, size)


def refuse_pickle(path: str | Path) -> None:
    """Raise FileError when a file is a pickle, or an archive as PyTorch wraps them in."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(262)
    except OSError as error:
        raise unreadable(path, error) from None
    # A safetensors header of 640 bytes begins 0x80 0x02 as well, but then `{` follows at byte 8.
    pickled = start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5")
    archived = start[:4] == b"PK\x03\x04" or start[257:] == b"ustar"
    if archived or (pickled and start[8:9] != b"{"):
        raise FileError(
            f"{path} is a pickle (a .pt, .ckpt or .bin file); it can run code when opened and is "
            "never loaded. Ask its author for a safetensors file, or take the weights out: "
            "`fromnoise convert --from-pickle FILE OUT.safetensors`"
        )


def unreadable(path: Path, error: OSError) -> FileError:
    """The error for a file that cannot be opened or read."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return FileError(f"{path} does not exist; check the path")
    if isinstance(error, IsADirectoryError):
        return FileError(f"{path} is a folder; give a file")
    return FileError(f"{path} cannot be read: {error.strerror or error}")


def _check_start(path: Path, start: bytes, length: int, size: int) -> None:
    if len(start) == 9 and start[8:] == b"{" and length <= MAX_HEADER:
        if 8 + length > size:
            raise FileError(f"{path} is cut short: its header should end at byte {8 + length}")
        return
    refuse_pickle(path)
    if len(start) < 9:
        raise FileError(f"{path} is cut short: {size} bytes are too few for a safetensors file")
    if start[8:] == b"{":
        raise FileError(
            f"{path} has a header of {length} bytes; at most {MAX_HEADER} are read. "
            "It is not a safetensors file, or it is damaged"
        )
    raise FileError(f"{path} is not a safetensors file, or its beginning is damaged")


def _check_count(path: Path, count: int) -> None:
    if count > MAX_TENSORS:
        raise FileError(f"{path} names {count} tensors; at most {MAX_TENSORS} are read")


def _checked(path: Path, header: Any, first: int, size: int) -> TensorHeader:
    """The header, compared with the size of its file, whose tensors begin at byte `first`."""
    if not isinstance(header, dict):
        raise FileError(f"{path}: its header is not a JSON object; the file is damaged")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FileError(f"{path}: its metadata are not texts by name; the file is damaged")
    _check_count(path, len(header))
    spans = [(*_span(path, name, entry), name) for name, entry in header.items()]
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise _damaged(path, name, f"starts at byte {begin} where {position} is next")
        position = end
    if position != size - first:
        raise FileError(
            f"{path} is {'cut short' if position > size - first else 'too long'}: it should hold "
            f"{position} bytes of tensors and holds {size - first}"
        )
    return TensorHeader(
        {name: tuple(entry["shape"]) for name, entry in header.items()},
        {name: entry["dtype"] for name, entry in header.items()},
        metadata,
        {name: first + begin for begin, _, name in spans},
    )


def _span(path: Path, name: str, entry: Any) -> tuple[int, int]:
    """Where the bytes of a tensor begin and end, after checking that its entry is consistent."""
    if any(ord(c) < 32 for c in name):
        raise _damaged(path, name, "has a control character in its name")
    if ".." in name.replace("\\", "/").split("/"):
        raise _damaged(path, name, "has a path that leads up for its name")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, name, "does not have exactly dtype, shape and data_offsets")
    shape, offsets, dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
    if not (_counts(shape) and _counts(offsets) and len(offsets) == 2 and len(shape) <= 64):
        raise _damaged(path, name, f"has shape {shape!r} and offsets {offsets!r}")
    if not isinstance(dtype, str) or dtype not in _BYTES:
        raise _damaged(path, name, f"has the unknown element type {dtype!r}")
    # Empty tensors are bounded too: their other sides could still overflow the reader.
    if math.prod(side for side in shape if side) > _MAX_ELEMENTS:
        raise _damaged(path, name, f"has the impossible shape {shape}")
    wanted = math.prod(shape) * _BYTES[dtype]
    if offsets[1] - offsets[0] != wanted:
        raise _damaged(path, name, f"needs {wanted} bytes and has {offsets[1] - offsets[0]}")
    return offsets[0], offsets[1]


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and v >= 0 for v in value)


def _damaged(path: Path, name: str, fault: str) -> FileError:
    return FileError(f"{path}: tensor {name[:200]!r} {fault}; the file is damaged")


def sort_metadata(path: Path) -> None:
    """Put the texts of a safetensors file in the order of their names.

    The library writes them in another order in each process.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(size))
