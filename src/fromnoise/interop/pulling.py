"""Fetching a model of the hub into its cache: one commit, checked files, and on where it was cut.

The cache is that of huggingface_hub (blobs by their hash, links to them by commit), whose own
download begins a file anew when a process ends.
"""

import hashlib
import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import quote

from fromnoise.core.atomic import disk_errors, make_folder, require_room, write_bytes
from fromnoise.core.errors import FileError
from fromnoise.interop import hub
from fromnoise.interop.shelf import CARD, PARTIAL, reference

Seen = Callable[[int, str], None]
"""Told of the bytes that are there so far, and the file that is being fetched."""

_KINDS = (".json", ".safetensors", ".txt")
_VARIED = ("model", "diffusion_pytorch_model")
_PART = re.compile(r"-\d{5}-of-\d{5}")
_BLOCK = 2**20


@dataclass(frozen=True)
class Remote:
    """A file on the hub: its path there, its bytes, and the hash of its content.

    sha256: of large files; the others have git's hash of a blob.
    """

    path: str
    size: int
    blob: str
    sha256: bool


@dataclass(frozen=True)
class Plan:
    """What will be fetched. commit: of all files. pinned: the commit the branch was at before."""

    name: str
    revision: str
    commit: str
    files: tuple[Remote, ...]
    pinned: str | None = None

    @property
    def folder(self) -> Path:
        """The model's in the cache."""
        return hub.cache() / f"models--{self.name.replace('/', '--')}"

    @property
    def snapshot(self) -> Path:
        """The folder of the commit."""
        return self.folder / "snapshots" / self.commit

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> list[Remote]:
        """The files that are not there yet."""
        return [file for file in self.files if not self.blob(file).is_file()]

    @property
    def moved(self) -> bool:
        """Whether the branch was fetched before and is at another commit now."""
        return self.pinned is not None and self.pinned != self.commit

    def blob(self, file: Remote) -> Path:
        """Where a file's content lies."""
        return self.folder / "blobs" / file.blob


def plan(
    name: str,
    revision: str | None = None,
    variant: str | None = None,
    only: Sequence[str] = (),
) -> Plan:
    """What a model is made of at a revision, by its branch `main` if none is named.

    variant: weights of this kind (fp16) where there are some, in place of the plain ones. only:
    these files and no others. Of the rest, JSON, text and safetensors files are taken, and the
    model's card; in a pipeline no weights beside its parts' folders, which hold them once more.
    Raises FileError as `hub.asking` says, for a file that is not there, a variant there is none of,
    and a model without any safetensors.
    """
    from huggingface_hub import HfApi, constants

    asked = revision or "main"
    with hub.asking(name, revision):
        info = HfApi(endpoint=constants.ENDPOINT).model_info(
            name, revision=asked, files_metadata=True
        )
    commit = str(info.sha)
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise FileError(f"the hub says no commit of {name}@{asked}; nothing is fetched")
    listed = [_remote(one) for one in info.siblings or ()]
    chosen = _chosen(listed, name, variant, only)
    made = Plan(name, asked, commit, tuple(chosen))
    pinned = None if asked == commit else reference(made.folder, asked)
    return Plan(name, asked, commit, tuple(chosen), pinned)


def pull(wanted: Plan, seen: Seen | None = None) -> Path:
    """Fetch what is missing; returns the folder of the commit.

    A file that was cut short goes on where it ended, and each is compared with its hash before it
    counts. Last, the branch is noted to be at this commit. seen: told as it goes.
    Raises DiskError before anything is fetched where it does not fit, FileError where the hub
    cannot be reached or sends something else.
    """
    missing = wanted.missing
    held = sum(_partial(wanted, file).stat().st_size for file in _begun(wanted, missing))
    require_room(wanted.folder, sum(file.size for file in missing) - held)
    done = wanted.bytes - sum(file.size for file in missing)
    for file in missing:
        _fetch(wanted, file, done, seen)
        done += file.size
    for file in wanted.files:
        _link(wanted, file)
    if wanted.revision != wanted.commit:
        write_bytes(wanted.folder / "refs" / wanted.revision, wanted.commit.encode())
    return wanted.snapshot


def _remote(one: object) -> Remote:
    path = str(getattr(one, "rfilename", ""))
    lfs = getattr(one, "lfs", None)
    blob = str(lfs.sha256 if lfs is not None else getattr(one, "blob_id", ""))
    size = getattr(one, "size", None)
    # The name comes from a server: it must stay inside, wherever it is written.
    parts = PurePosixPath(path).parts
    strange = ".." in parts or "\\" in path or ":" in path or path != "/".join(parts)
    if strange or not parts or PureWindowsPath(path).is_absolute() or parts[0] == "/":
        raise FileError(
            f"the hub names a file {path!r}, which could lie elsewhere; nothing is done"
        )
    if not re.fullmatch(r"[0-9a-f]{64}" if lfs is not None else r"[0-9a-f]{40}", blob):
        raise FileError(f"the hub says no hash of {path}; nothing is fetched")
    if not isinstance(size, int) or size < 0:
        raise FileError(f"the hub says no size of {path}; nothing is fetched")
    return Remote(path, size, blob, lfs is not None)


def _chosen(
    listed: Sequence[Remote], name: str, variant: str | None, only: Sequence[str]
) -> list[Remote]:
    by_path = {file.path: file for file in listed}
    if only:
        for path in only:
            if path not in by_path or not path.endswith(_KINDS):
                here = ", ".join(p for p in by_path if p.endswith(".safetensors")) or "none"
                raise FileError(f"{name} has no file {path!r} that is fetched; its weights: {here}")
        return [by_path[path] for path in only]
    files = [file for file in listed if file.path.endswith(_KINDS) or file.path == CARD]
    weights = [file for file in files if file.path.endswith(".safetensors")]
    if not weights:
        pickles = [p for p in by_path if p.endswith((".bin", ".ckpt", ".pt", ".pth"))]
        kind = (
            f"; {pickles[0]} is a pickle, which can run code and is never fetched"
            if pickles
            else ""
        )
        raise FileError(f"{name} has no safetensors{kind}; use a model that has")
    if "model_index.json" in by_path and any("/" in file.path for file in weights):
        files = [f for f in files if "/" in f.path or not f.path.endswith(".safetensors")]
    if variant is not None and not any(_variant(file.path) == variant for file in files):
        known = sorted({v for file in files if (v := _variant(file.path))}) or ["none"]
        raise FileError(f"{name} has no weights {variant!r}; there is {', '.join(known)}")
    return [file for file in files if _kept(file, files, variant)]


def _variant(path: str) -> str | None:
    """fp16 of `unet/diffusion_pytorch_model.fp16.safetensors`, and of the index beside it."""
    parts = _PART.sub("", path.rpartition("/")[2]).split(".")
    if parts[0] not in _VARIED or parts[-1] not in ("safetensors", "json"):
        return None
    between = [part for part in parts[1:-1] if part not in ("safetensors", "index")]
    return between[0] if between else None


def _kept(file: Remote, files: Sequence[Remote], variant: str | None) -> bool:
    """Of weights in several kinds beside each other, those of one."""
    folder, _, last = file.path.rpartition("/")
    if last.split(".")[0].split("-")[0] not in _VARIED or "safetensors" not in last:
        return True
    there = {
        _variant(other.path)
        for other in files
        if other.path.rpartition("/")[0] == folder
        and other.path.endswith(".safetensors")
        and other.path.rpartition("/")[2].split(".")[0].split("-")[0] in _VARIED
    }
    best = next((kind for kind in (variant, None) if kind in there), None)
    if best is None and None not in there:
        best = sorted(str(kind) for kind in there)[0]
    return _variant(file.path) == best


def _partial(wanted: Plan, file: Remote) -> Path:
    blob = wanted.blob(file)
    return blob.with_name(blob.name + PARTIAL)


def _begun(wanted: Plan, missing: Sequence[Remote]) -> list[Remote]:
    return [file for file in missing if _partial(wanted, file).is_file()]


class _Counted(io.FileIO):
    """A file that tells how long it has become."""

    def __init__(self, path: Path, tell: Callable[[int], None]) -> None:
        super().__init__(path, "ab")
        self._path, self._tell = path, tell

    def write(self, data: object) -> int:
        with disk_errors(self._path):
            count = super().write(data)  # type: ignore[arg-type]
        self._tell(self.tell())
        return count


def _fetch(wanted: Plan, file: Remote, done: int, seen: Seen | None) -> None:
    """One file, on from where it was cut; it takes its name when its hash is right."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        WeakFileLock,
        build_hf_headers,
        disable_progress_bars,
    )

    disable_progress_bars()
    url = f"{constants.ENDPOINT}/{wanted.name}/resolve/{wanted.commit}/{quote(file.path)}"
    partial = _partial(wanted, file)
    locks = hub.cache() / ".locks" / wanted.folder.name
    make_folder(partial.parent)
    make_folder(locks)

    def tell(there: int) -> None:
        if seen is not None:
            seen(done + there, file.path)

    with WeakFileLock(locks / f"{file.blob}.lock"):
        if wanted.blob(file).is_file():
            return
        with _Counted(partial, tell) as out, hub.asking(wanted.name, wanted.revision):
            there = out.tell()
            if there > file.size:
                out.truncate(0)
                there = 0
            if there < file.size or not file.size:
                http_get(
                    url,
                    out,
                    resume_size=there,
                    headers=build_hf_headers(),
                    expected_size=file.size,
                )
        if _hash(partial, file) != file.blob:
            partial.unlink()
            raise FileError(
                f"{file.path} of {wanted.name} came with another content than the hub says it has; "
                "it is thrown away. Pull again"
            )
        os.replace(partial, wanted.blob(file))


def _hash(path: Path, file: Remote) -> str:
    """SHA-256, or git's hash of a blob."""
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _link(wanted: Plan, file: Remote) -> None:
    """The file by its name in the folder of the commit: a link, or a copy where there are none."""
    place = wanted.snapshot / file.path
    if place.exists():
        return
    make_folder(place.parent)
    place.unlink(missing_ok=True)
    try:
        place.symlink_to(os.path.relpath(wanted.blob(file), place.parent))
    except OSError:
        write_bytes(place, wanted.blob(file).read_bytes())
