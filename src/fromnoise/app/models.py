"""The models at hand: listed, looked at, fetched and removed. Only fetching reaches the network."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fromnoise.app.reporting import Reporter
from fromnoise.app.requests import (
    ModelsInfoRequest,
    ModelsListRequest,
    ModelsPullRequest,
    ModelsRemoveRequest,
)
from fromnoise.core.atomic import disk_errors
from fromnoise.core.errors import FileError, nearest
from fromnoise.core.files import read_header, sha256
from fromnoise.core.texts import size as told
from fromnoise.interop import builtin, hub, shelf
from fromnoise.interop.shelf import Shelved

_PIECE = 2**20
_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
"""Ends of names that are meant as files, whatever else they look like."""


def models_list(request: ModelsListRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise models list`."""
    found = shelf.shelf()
    if request.as_json:
        reporter.say(json.dumps([_row(one) for one in found], indent=2, ensure_ascii=False))
        return 0
    if not found:
        reporter.say("no models are at hand; `fromnoise train digits` makes one")
    for line in _table([_cells(one) for one in found]):
        reporter.say(line)
    return 0


def models_info(request: ModelsInfoRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise models info MODEL`."""
    one = _found(request.model)
    if one.path is None:
        raise FileError(
            f"{request.model}: nothing of it is whole yet; "
            + ("`fromnoise models pull` goes on with it" if one.where == "cache" else "train on")
        )
    from fromnoise.app.running import running

    # First, so that what is no model is said and nothing else.
    run = running(request)
    about = {**_row(one), "path": str(one.path), "files": list(_files(one.path))}
    if request.as_json:
        about["run"] = run.plain()
        reporter.say(json.dumps(about, indent=2, ensure_ascii=False))
        return 0
    for line in (*_described(about), *run.lines()):
        reporter.say(line)
    return 0


def models_pull(request: ModelsPullRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise models pull owner/name`."""
    from fromnoise.interop import pulling

    name, revision = hub.parted(request.model)
    wanted = pulling.plan(name, revision, request.variant, request.file)
    if wanted.moved and not request.update:
        reporter.warn(
            f"{name}: {wanted.revision} was {wanted.pinned} when it was pulled and is "
            f"{wanted.commit} now; it stays at the first (--update takes the other)"
        )
        wanted = pulling.plan(name, wanted.pinned, request.variant, request.file)
    missing = sum(file.size for file in wanted.missing)
    if missing:
        total = -(-wanted.bytes // _PIECE)
        with reporter.progress(f"fetching {name}, MiB", total) as progress:
            pulling.pull(wanted, lambda there, path: progress.advance(there // _PIECE, path))
    else:
        pulling.pull(wanted)
    path = wanted.snapshot
    how = f"{told(missing)} fetched" if missing else "all of it was here"
    licence = shelf.licence(path) or "none named"
    reporter.say(
        f"{name}@{wanted.commit}: {len(wanted.files)} files, {told(wanted.bytes)} ({how}); "
        f"licence: {licence}"
    )
    reporter.say(f"open it by the name {name}; it is in {path}")
    return 0


def models_remove(request: ModelsRemoveRequest, reporter: Reporter) -> int:
    """Carry out `fromnoise models remove owner/name`."""
    name = request.model
    if builtin.is_builtin(name):
        raise FileError(
            f"{name} comes with fromnoise and stays; only models of the cache are removed"
        )
    if not hub.is_id(name) or "@" in name:
        raise FileError(
            f"{name!r} is no model of the cache: owner/name, all revisions together. Runs and "
            "folders are yours to delete"
        )
    folder = hub.cache() / f"models--{name.replace('/', '--')}"
    there = {one.name for one in shelf.cached()}
    if name not in there:
        near = nearest(name, there)
        hint = f"; did you mean {' or '.join(near)}?" if near else f"; there is {_few(there)}"
        raise FileError(f"{name} is not in the cache {hub.cache()}{hint}")
    size = shelf.size_of(folder)
    gone = folder.with_name(f"{folder.name}.removed-{os.getpid()}")
    with disk_errors(folder):
        # Renamed first: what is half removed is not found as a model.
        os.rename(folder, gone)
        shutil.rmtree(gone)
    reporter.say(f"{name} is removed from {hub.cache()}: {told(size)} ({size} bytes) are free")
    return 0


def _found(name: str) -> Shelved:
    """The model of that name or path. FileError with the nearest where there is none."""
    path = Path(name)
    if path.is_dir():
        if (path / "checkpoints").is_dir():
            return Shelved(name, "run", shelf.newest(path), path)
        return Shelved(name, "folder", path, path)
    if path.is_file():
        return Shelved(name, "file", path, path)
    if path.suffix in _FILES:
        raise FileError(f"{name}: no such file")
    there = {one.name: one for one in shelf.shelf()}
    bare, _, revision = name.partition("@")
    if bare in there and not revision:
        return there[bare]
    if bare in there and there[bare].where == "cache":
        folder = there[bare].root
        commit = shelf.reference(folder, revision) or revision
        if re.fullmatch(r"[0-9a-f]{40}", commit) and (folder / "snapshots" / commit).is_dir():
            return Shelved(name, "cache", folder / "snapshots" / commit, folder, commit)
        raise FileError(f"{bare} is here, but not its revision {revision}; pull it")
    near = nearest(name, there)
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; there is {_few(there)}"
    way = f". `fromnoise models pull {name}` fetches it" if hub.is_id(name) else ""
    raise FileError(f"{name} is not at hand{hint}{way}")


def _few(names: Any) -> str:
    return ", ".join(sorted(names)[:12]) or "none"


def _row(one: Shelved) -> dict[str, Any]:
    return {
        "name": one.name,
        "where": one.where,
        "family": one.family,
        "bytes": one.bytes,
        "licence": one.licence or _own(one),
        "revision": one.revision,
        "partial": one.partial,
    }


def _own(one: Shelved) -> str | None:
    """The licence of what has no card: the package's own models."""
    return "Apache-2.0" if one.where == "package" else None


def _cells(one: Shelved) -> list[str]:
    row = _row(one)
    revision = (row["revision"] or "")[:12]
    partial = "a pull was cut short" if one.partial else ""
    where = {"cache": "cache", "package": "comes along", "run": "run", "folder": "folder"}[
        one.where
    ]
    return [
        one.name,
        told(row["bytes"]),
        row["family"],
        row["licence"] or "no licence named",
        where,
        revision or partial,
    ]


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _files(path: Path) -> Iterator[dict[str, Any]]:
    """Every file of a model with its size; of weights also the hash and how many numbers."""
    root, files = (path.parent, [path]) if path.is_file() else (path, sorted(path.rglob("*")))
    for file in (p for p in files if p.is_file()):
        row: dict[str, Any] = {"name": str(file.relative_to(root)), "bytes": file.stat().st_size}
        if file.suffix == ".safetensors":
            row["sha256"] = sha256(file)
            row["parameters"] = sum(_count(s) for s in read_header(file).shapes.values())
            blob = file.resolve().name
            if file.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", blob):
                row["whole"] = blob == row["sha256"]
        yield row


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def _described(about: Mapping[str, Any]) -> Iterator[str]:
    yield f"{about['name']}: {about['family']}, {told(about['bytes'])}"
    yield f"licence: {about['licence'] or 'none named'}"
    if about["revision"]:
        yield f"revision: {about['revision']}"
    yield f"{'file' if about['where'] == 'file' else 'folder'}: {about['path']}"
    rows = []
    for file in about["files"]:
        weights = f"{file['parameters']:,} numbers" if "parameters" in file else ""
        mark = f"sha256 {file['sha256']}" if "sha256" in file else ""
        if file.get("whole") is False:
            mark += "  DAMAGED: the hub says another; remove the model and pull it again"
        rows.append([file["name"], told(file["bytes"]), weights, mark])
    yield from _table(rows)
