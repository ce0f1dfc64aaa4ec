"""Writing aside and renaming: what a file is replaced by is whole, or is not there.

A process killed at any moment leaves either the old content or the new, and at most a temporary
that `sweep` removes.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from fromnoise.core.errors import DiskError

_STALE = re.compile(r"^(?P<name>.+)\.(?P<kind>tmp|old)-(?P<pid>\d+)-[0-9a-f]{8}$")
_ADVICE = {
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "free some of your quota or choose another disk",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "choose a folder you may write to",
    errno.ENOTDIR: "a part of the path is a file; choose another folder",
    errno.EEXIST: "a part of the path is a file; choose another folder",
    errno.EISDIR: "a folder has that name; choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
}
ACTIVE: set[str] = set()
"""Names of the temporaries this process is writing now."""


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all, making its folder if needed.

    Raises DiskError when it cannot be written; what was there before stays as it was.
    """
    with replacing(path, len(data)) as temporary, temporary.open("wb") as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: str | Path, needed: int | None = None) -> Iterator[Path]:
    """Yield a temporary name beside `path` to write to; on leaving it takes the place of `path`.

    It is flushed to disk, has the permissions of a new file, and its folder is flushed after the
    rename. When anything raises, the temporary is removed and `path` stays as it was.
    needed: bytes that will be written, where they are known, for the error that names them.
    """
    path = Path(path)
    with disk_errors(path, needed):
        make_folder(path.parent)
        with temporary_beside(path, ".") as temporary:
            temporary.touch(0o666, exist_ok=False)
            # A library may put a private file of mode 0600 in its place.
            mode = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            os.chmod(temporary, mode)
            flush(temporary)
            os.replace(temporary, path)
            flush(path.parent)


def sweep(folder: str | Path) -> list[Path]:
    """Remove what killed processes left under `folder`; return what was removed.

    A temporary whose process still runs is left alone; processes of other machines cannot be seen,
    so hold the folder's `lock` where a disk is shared. An old folder that was moved aside for a
    new one that never came is put back.
    """
    removed: list[Path] = []
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            match = _STALE.match(name)
            stale = Path(place, name)
            if match is None or _in_use(stale, int(match["pid"])):
                continue
            target = stale.with_name(match["name"])
            with disk_errors(stale):
                if match["kind"] == "old" and not target.exists():
                    os.rename(stale, target)
                    continue
                _remove(stale)
            removed.append(stale)
        folders[:] = [name for name in folders if not _STALE.match(name)]
    return removed


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, and wait until the disk itself has the new ones."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in new:
        flush(place.parent)


def try_writing(folder: Path) -> None:
    """Raise DiskError where a folder, there or yet to be made, takes no files: before long work.

    An empty file is written and removed, and so is what had to be made for it.
    """
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with temporary_beside(folder / "trial", ".") as trial:
                trial.touch()
        finally:
            for place in new:
                # What another process has put there since stays.
                with contextlib.suppress(OSError):
                    place.rmdir()


def require_room(path: str | Path, needed: int) -> None:
    """Raise DiskError, before anything is written, when the disk of `path` cannot hold it.

    needed: bytes that will be written. A fifth more must be free: tables and rounding take some.
    """
    path = Path(path)
    there = next((place for place in (path, *path.parents) if place.exists()), Path())
    room = shutil.disk_usage(there)
    # Some file systems do not tell their size.
    if room.total and room.free < needed + needed // 5:
        raise DiskError(
            f"cannot write {path}: it needs {needed} bytes and a fifth more, and only {room.free} "
            f"are free; {_ADVICE[errno.ENOSPC]}. What was there before is unchanged"
        )


@contextlib.contextmanager
def disk_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn what the system refuses while `path` is written into a DiskError with advice."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "check the disk and the path")
        size = "" if needed is None else f" ({needed} bytes)"
        raise DiskError(
            f"cannot write {path}{size}: {error.strerror or error}; {advice}. "
            "What was there before is unchanged"
        ) from error


@contextlib.contextmanager
def temporary_beside(path: Path, prefix: str) -> Iterator[Path]:
    """A fresh name beside `path`, known to belong to this process, gone on leaving."""
    # Names may have 255 bytes; the marks of a temporary need up to 30 of them.
    name = path.name.encode()[:220].decode("utf-8", "ignore")
    made = path.with_name(f"{prefix}{name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    ACTIVE.add(made.name)
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):
            _remove(made)
        ACTIVE.discard(made.name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _in_use(path: Path, pid: int) -> bool:
    if pid == os.getpid():
        # In a container the process that died often had the number that this one has.
        return path.name in ACTIVE
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
