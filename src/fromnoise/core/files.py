"""Files that are whole or absent: written aside, flushed, renamed; checked when they are read.

A process killed at any moment leaves either the old content or the new, and at most a temporary
that `sweep` removes. Weights are safetensors, configuration is JSON; pickles are never opened.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fromnoise.core import strictjson
from fromnoise.core.atomic import (
    ACTIVE,
    disk_errors,
    flush,
    make_folder,
    replacing,
    require_room,
    sweep,
    temporary_beside,
    write_bytes,
)
from fromnoise.core.errors import DiskError, FileError, UsageError
from fromnoise.core.tensorheader import (
    TensorHeader,
    read_header,
    refuse_pickle,
    sort_metadata,
    unreadable,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "TensorHeader",
    "atomic_folder",
    "check_file",
    "check_folder",
    "load_tensors",
    "lock",
    "read_header",
    "read_json",
    "refuse_pickle",
    "replacing",
    "require_room",
    "save_tensors",
    "sha256",
    "size_of",
    "sweep",
    "verify_folder",
    "versioned_header",
    "write_bytes",
    "write_json",
    "write_text",
]

FORMAT = 1
MANIFEST = "MANIFEST.json"
MAX_JSON = 64 * 2**20
_VERSION_KEY = "fromnoise_format"
OURS = {_VERSION_KEY: str(FORMAT)}
"""What the metadata of every file of tensors that is written here says."""
_LOCK = ".lock"
_HELD: set[int] = set()
"""Handles of the folders this process has locked."""


def check_folder(path: str | Path) -> Path:
    """A folder that can be written into, there or yet to be made; FileError when a file is.

    Raises DiskError for a name that the system does not take.
    """
    target = Path(path)
    with disk_errors(target):
        for place in (target, *target.parents):
            if place.is_dir():
                break
            if place.exists():
                raise FileError(f"{place} is a file, so nothing can be written into {target}")
    return target


def check_file(path: str | Path) -> Path:
    """A file that can be written, there or yet to be made; FileError when a folder is."""
    target = Path(path)
    with disk_errors(target):
        if target.is_dir():
            raise FileError(f"{target} is a folder; name a file to write")
    check_folder(target.parent)
    return target


def check_own_file(path: str | Path) -> Path:
    """As `check_file`, and FileError for a file that is there and was not written here."""
    target = check_file(path)
    if target.exists() and not _written_here(target):
        raise FileError(f"{target} exists and was not written by fromnoise; choose another name")
    return target


def _written_here(path: Path) -> bool:
    """Whether a file is of tensors and says our format."""
    try:
        return _VERSION_KEY in versioned_header(path).metadata
    except FileError:
        return False


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as indented JSON, as `write_bytes` does.

    Raises UsageError for a value that JSON does not have: NaN, an infinity, an object.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        data = f"{text}\n".encode()
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path} cannot hold this value: {error}") from None
    write_bytes(path, data)


def read_json(path: str | Path, max_bytes: int = MAX_JSON, finite: bool = True) -> Any:
    """The value of a JSON file.

    finite: whether a number that is not is refused; other programs write them.
    Raises FileError naming path and line: missing, larger than `max_bytes`, not JSON, a key given
    twice, nested deeper than 64 levels, a number that is not finite.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise unreadable(path, error) from None
    if len(data) > max_bytes:
        raise FileError(f"{path} is larger than {max_bytes} bytes, the most that is read")
    return strictjson.loads(data, str(path), finite=finite)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; on leaving it becomes `path`, with a manifest.

    The manifest is written last: format version, and size and SHA-256 of every file. A folder that
    is there already is replaced only if it is empty or has a manifest itself.
    Raises DiskError when it cannot be written and FileError when another folder is in the way.
    """
    path = Path(path)
    if path.exists() and not (path / MANIFEST).is_file() and not _is_empty(path):
        raise FileError(f"{path} exists and was not written by fromnoise; choose another name")
    with disk_errors(path):
        make_folder(path.parent)
        with temporary_beside(path, "") as temporary:
            temporary.mkdir()
            yield temporary
            _seal(temporary)
            if path.exists():
                _swap(temporary, path)
            else:
                os.rename(temporary, path)
            flush(path.parent)


def verify_folder(path: str | Path) -> dict[str, Any]:
    """The manifest of a folder, after comparing every file with it.

    Raises FileError naming the first file that is missing, cut, changed or extra.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileError(f"{path} is not a folder; check the path")
    manifest = read_json(path / MANIFEST)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not all(isinstance(e, dict) for e in files.values()):
        raise FileError(f"{path / MANIFEST} is not a manifest; the folder is damaged")
    _check_version(path / MANIFEST, manifest.get("format"))
    there = {name for name in _files(path) if name != MANIFEST}
    for name, entry in files.items():
        if name not in there:
            raise FileError(f"{path / name} is missing; the folder is damaged")
        found = _fingerprint(path / name)
        if found["size"] != entry.get("size"):
            raise FileError(
                f"{path / name} has {found['size']} bytes where {entry.get('size')} were written; "
                "the folder is damaged"
            )
        if found != entry:
            raise FileError(f"{path / name} has changed since it was written")
    for name in sorted(there - files.keys()):
        raise FileError(f"{path / name} is extra: it is not in the manifest")
    return dict(manifest)


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits.

    Raises FileError when it cannot be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from None


@contextlib.contextmanager
def lock(folder: str | Path) -> Iterator[None]:
    """Hold a folder for this process; it is released on leaving and when the process dies.

    Raises FileError naming the holder when it is held already.
    """
    import fcntl

    folder = Path(folder)
    with disk_errors(folder / _LOCK):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    _HELD.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 20).decode("ascii", "replace") or "another process"
            raise FileError(
                f"{folder} is in use by process {holder}; wait until it ends or stop it"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
        fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        if handle in _HELD:
            _HELD.discard(handle)
            os.close(handle)


def _let_go() -> None:
    """Close the locks of the process this one was forked from: they are not its own.

    A process that loads data would hold the folder after the one that trains was killed.
    """
    while _HELD:
        os.close(_HELD.pop())


if os.name == "posix":
    os.register_at_fork(after_in_child=_let_go)


def save_tensors(
    path: str | Path, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors and texts as one safetensors file, whole or not at all.

    Tensors that share memory are written each on its own. The same values are the same bytes.
    Raises DiskError when it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    texts = {**(metadata or {}), "format": "pt", **OURS}
    needed = size_of(tensors)
    # The library writes to a temporary of its own; in this folder, `sweep` finds that one too.
    with replacing(path, needed) as temporary, temporary_beside(path, ".") as room:
        try:
            room.mkdir()
            save_file(_separate(tensors), room / "tensors", texts)
            sort_metadata(room / "tensors")
            os.replace(room / "tensors", temporary)
        except SafetensorError as error:
            raise DiskError(
                f"cannot write {path} ({needed} bytes): {error}; free some space or choose another "
                "disk. What was there before is unchanged"
            ) from None


def load_tensors(
    path: str | Path, device: "str | torch.device" = "cpu"
) -> tuple[dict[str, "Tensor"], dict[str, str]]:
    """The tensors by name and the metadata of a safetensors file, its header checked first.

    A file without our format version is another program's, and is read too.
    Raises FileError for a file that is missing, cut short, damaged, a pickle, or of a later format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    metadata = versioned_header(path).metadata
    try:
        return load_file(path, device=str(device)), metadata
    except SafetensorError as error:
        raise FileError(f"{path} cannot be read: {error}; the file is damaged") from None
    except OSError as error:
        raise unreadable(path, error) from None


def versioned_header(path: str | Path) -> TensorHeader:
    """The header of a safetensors file that this version reads: `read_header`, and our format.

    A file without our format version is another program's. Raises FileError as `load_tensors`.
    """
    path = Path(path)
    header = read_header(path)
    if _VERSION_KEY in header.metadata:
        version = header.metadata[_VERSION_KEY]
        _check_version(path, int(version) if version.isdecimal() else version)
    return header


def size_of(tensors: Mapping[str, "Tensor"]) -> int:
    """The bytes of all tensors together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _separate(tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    seen: set[int] = set()
    apart: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        apart[name] = value.clone() if place in seen else value
        seen.add(place)
    return apart


def _check_version(path: Path, version: object) -> None:
    if version != FORMAT:
        raise FileError(
            f"{path} has file format {version!r} and this program reads {FORMAT}; "
            "use the version of fromnoise that wrote it, or a later one"
        )


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _files(folder: Path) -> list[str]:
    """The names of all files under a folder, with forward slashes, sorted."""
    found = [
        Path(place, name).relative_to(folder).as_posix()
        for place, _, names in os.walk(folder)
        for name in names
        if name != _LOCK
    ]
    for name in found:
        if not stat.S_ISREG((folder / name).lstat().st_mode):
            raise FileError(f"{folder / name} is not a plain file; remove it")
    return sorted(found)


def _fingerprint(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": sha256(path)}


def _seal(folder: Path) -> None:
    """Flush every file and folder, and write the manifest last."""
    entries = {name: _fingerprint(folder / name) for name in _files(folder)}
    for name in entries:
        flush(folder / name)
    for place, _, _ in os.walk(folder, topdown=False):
        flush(Path(place))
    write_json(folder / MANIFEST, {"format": FORMAT, "files": entries})


def _swap(new: Path, path: Path) -> None:
    """Put a new folder in the place of an old one; a kill between leaves one that `sweep` finds."""
    old = path.with_name(f"{path.name}.old-{os.getpid()}-{secrets.token_hex(4)}")
    ACTIVE.add(old.name)
    os.rename(path, old)
    try:
        os.rename(new, path)
    except OSError:
        os.rename(old, path)
        raise
    with contextlib.suppress(OSError):
        shutil.rmtree(old)
    ACTIVE.discard(old.name)
