"""WebDataset shards: tar files whose members of one name are one sample, read where they lie."""

import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fromnoise.core import strictjson
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.tensorheader import unreadable
from fromnoise.data.base import DATA, Dataset
from fromnoise.data.buckets import Sizes, sizes_of
from fromnoise.data.captions import clean
from fromnoise.data.pictures import InArchive, Pictures

PICTURES = ("png", "jpg", "jpeg", "webp")
MAX_SHARDS, MAX_MEMBERS, MAX_TEXT = 100_000, 50_000_000, 2**16
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_BLOCK = 512


@dataclass
class Sample:
    """The members of one key, by extension."""

    key: str
    shard: Path
    parts: dict[str, InArchive] = field(default_factory=dict)

    @property
    def picture(self) -> InArchive | None:
        """Its picture: of several, the first of png, jpg, jpeg, webp."""
        return next((self.parts[kind] for kind in PICTURES if kind in self.parts), None)

    def caption(self) -> str | None:
        """The text of its .txt, or else `caption` or `text` of its .json; None without."""
        if "txt" in self.parts:
            return clean(_small(self.parts["txt"]), str(self.parts["txt"]))
        if "json" not in self.parts:
            return None
        told = strictjson.loads(_small(self.parts["json"]), str(self.parts["json"]))
        texts = [told.get(key) for key in ("caption", "text")] if isinstance(told, dict) else []
        return next((" ".join(text.split()) for text in texts if isinstance(text, str)), None)

    def label(self) -> int | None:
        """The whole number in its .cls; None without."""
        if "cls" not in self.parts:
            return None
        data = _small(self.parts["cls"]).strip()
        if not re.fullmatch(rb"\d{1,9}", data):
            raise FileError(f"{self.parts['cls']} holds {data[:20]!r}, not a class number")
        return int(data)


@DATA.register("shards")
class Shards(Dataset):
    """Pictures in WebDataset shards, each scaled with Lanczos and cropped at its centre to `size`.

    A sample is the run of members whose names are the same up to the first dot of the last part:
    one picture (.png, .jpg, .jpeg, .webp), and a caption (.txt, or `caption` or `text` of .json)
    and a class number (.cls) if there are any. Samples come in the order of the shards and of the
    members in them. Nothing is unpacked: only plain files in plain tars are read, where they lie.
    Pictures that cannot be read, and samples without one, are listed in `skipped`.

    path: a tar, a folder of tars, or a pattern such as "train-{000..009}.tar"; or a list of them.
    size, mode, max_bad, keep_bytes: as for folders.
    Raises FileError for a shard that is missing, compressed, damaged or holds no samples, a member
    given twice, or too many bad pictures.
    """

    def __init__(
        self,
        path: str | list[str],
        size: int | tuple[int, int] | Sizes,
        mode: Literal["RGB", "L"] = "RGB",
        max_bad: float = 0.01,
        keep_bytes: int = 2**31,
    ) -> None:
        shards = shards_at(path)
        every = [sample for shard in shards for sample in samples_in(shard)]
        pairs = [(sample, sample.picture) for sample in every]
        complete = [(sample, picture) for sample, picture in pairs if picture is not None]
        where = f"{shards[0]}" + (f" and {len(shards) - 1} more" if len(shards) > 1 else "")
        if not complete:
            raise FileError(f"{where} holds no samples with a picture ({', '.join(PICTURES)})")
        sources = [picture for _, picture in complete]
        self._pictures = Pictures(
            sources, len(sources), sizes_of(size), mode, max_bad, keep_bytes, where
        )
        if not len(self._pictures):
            raise FileError(f"{where} holds no pictures that can be read")
        kept = [complete[place][0] for place in self._pictures.good]
        lacking = [(f"{s.shard}:{s.key}", "has no picture") for s, p in pairs if p is None]
        self.skipped = (*((str(s), why) for s, why in self._pictures.skipped), *lacking)
        self.name, self.levels = shards[0].stem, 256
        self.shape = self._pictures.shape
        self.keys = tuple(sample.key for sample in kept)
        texts = [sample.caption() for sample in kept]
        self._captions = [text or "" for text in texts] if any(texts) else None
        self.labels = _labels(kept)
        count = 0 if self.labels is None else int(self.labels.max()) + 1
        self.classes = tuple(str(i) for i in range(count))

    def __len__(self) -> int:
        return len(self._pictures)

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        return self._pictures.at(indices)

    def captions(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> list[str] | None:
        return None if self._captions is None else [self._captions[i] for i in indices]

    def groups(self) -> "np.ndarray[Any, np.dtype[np.int64]] | None":
        return self._pictures.groups()


def shards_at(path: str | Sequence[str]) -> list[Path]:
    """The tar files that a path, a folder, a {000..009} pattern, or a list of these means."""
    given = [path] if isinstance(path, str) else list(path)
    if not given:
        raise UsageError("no shards are named; give a tar, a folder of tars, or a pattern")
    shards: list[Path] = []
    for one in given:
        place = Path(one)
        if place.is_dir():
            found = sorted(place.glob("*.tar"))
            if not found:
                raise FileError(f"{place} holds no .tar files; give the folder of the shards")
            shards += found
        else:
            shards += [Path(name) for name in _expanded(one)]
    return shards


def _expanded(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    first, last = int(match[1]), int(match[2])
    if not first <= last < first + MAX_SHARDS:
        raise UsageError(f"{pattern} counts from {first} to {last}; use at most {MAX_SHARDS} up")
    for number in range(first, last + 1):
        name = f"{pattern[: match.start()]}{number:0{len(match[1])}d}{pattern[match.end() :]}"
        yield from _expanded(name)


def samples_in(shard: Path) -> Iterator[Sample]:
    """The samples of a tar file, in its order. Raises FileError for a tar that is not sound."""
    sample: Sample | None = None
    seen: set[str] = set()
    for member in _members(shard):
        folder, _, name = member.name.rpartition("/")
        stem, dot, kind = name.partition(".")
        if not dot or not stem:
            continue
        key = f"{folder}/{stem}" if folder else stem
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            if key in seen:
                raise FileError(f"{shard}: the members of {key!r} do not lie together; sort them")
            seen.add(key)
            sample = Sample(key, shard)
        kind = kind.lower()
        if kind in sample.parts:
            raise FileError(f"{shard}: the member {member.name!r} is there twice")
        sample.parts[kind] = InArchive(shard, member.name, member.offset_data, member.size)
    if sample is not None:
        yield sample


def _members(shard: Path) -> Iterator[tarfile.TarInfo]:
    """The plain files of an uncompressed tar, checked to lie within it, to its proper end."""
    try:
        length = shard.stat().st_size
        with tarfile.open(shard, "r:") as archive:
            for count, member in enumerate(archive):
                if count >= MAX_MEMBERS:
                    raise FileError(f"{shard} has more than {MAX_MEMBERS} members")
                if member.isreg() and not member.issparse():
                    if member.offset_data + member.size > length:
                        raise FileError(f"{shard} is cut short within {member.name!r}")
                    yield member
            _check_end(shard, archive.offset, length)
    except OSError as error:
        raise unreadable(shard, error) from None
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise FileError(f"{shard} is damaged or no plain tar file: {error}{_hint(shard)}") from None


def _check_end(shard: Path, offset: int, length: int) -> None:
    """A tar ends in a block of zeros; the library takes any block it cannot read for the end."""
    with shard.open("rb") as file:
        file.seek(offset)
        block = file.read(_BLOCK)
    if block.strip(b"\0") or (offset < length and len(block) < _BLOCK):
        raise FileError(f"{shard} is damaged: what is at byte {offset} is no member and no end")


def _hint(shard: Path) -> str:
    with shard.open("rb") as file:
        start = file.read(6)
    packed = start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"))
    return "; it is compressed: unpack it to a plain .tar, pictures gain nothing" if packed else ""


def _small(part: InArchive) -> bytes:
    if part.size > MAX_TEXT:
        raise FileError(f"{part} is larger than {MAX_TEXT} bytes, the most that is read of a text")
    return part.content()


def _labels(samples: Sequence[Sample]) -> Tensor | None:
    numbers = [sample.label() for sample in samples]
    known = [number for number in numbers if number is not None]
    if not known:
        return None
    if len(known) < len(numbers):
        lacking = samples[numbers.index(None)]
        raise FileError(f"{lacking.shard}: {lacking.key!r} has no .cls, though others have")
    if max(known) >= len(known) + 100_000:
        raise FileError(f"{samples[0].shard}: class number {max(known)} is beyond all reason")
    return torch.tensor(known)
