"""Data sets of the Hugging Face hub by name, streamed; needs the package `datasets`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.images import png_bytes, read_image
from fromnoise.data.base import DATA, Dataset
from fromnoise.data.buckets import Sizes, sizes_of
from fromnoise.data.pictures import Mode, Pictures, Source


@DATA.register("hub")
class Hub(Dataset):
    """The first `count` samples of a data set on the hub, streamed once and kept in memory.

    Only what is asked for is downloaded, and no code of the data set is ever run. Pictures are
    brought to `size` as in folders.

    repo: "owner/name". split, subset: as the data set calls them. image, caption, label: its
    columns; None for none. revision: a commit, so that the same call gives the same data later.
    Raises UsageError without the package `datasets`, or for a column that is not there; FileError
    when the data set cannot be read, or too many of its pictures.
    """

    def __init__(
        self,
        repo: str,
        size: int | tuple[int, int] | Sizes,
        split: str = "train",
        count: int = 10_000,
        image: str = "image",
        caption: str | None = None,
        label: str | None = None,
        subset: str | None = None,
        revision: str | None = None,
        mode: Literal["RGB", "L"] = "RGB",
    ) -> None:
        if count < 1:
            raise UsageError(f"count is {count}; use 1 or more")
        package = _package()
        stream = _stream(package, repo, subset, split, revision)
        columns = [column for column in (image, caption, label) if column]
        _check_columns(stream.features or columns, columns, repo)
        told: list[Mapping[str, Any]] = []

        def sources() -> Iterator[Source]:
            stored = stream.cast_column(image, package.Image(decode=False))
            for row in _rows(stored, count, repo):
                _check_columns(row, columns, repo)
                told.append({column: row[column] for column in columns if column != image})
                yield _Downloaded(row[image], f"{repo}[{len(told) - 1}]", package.Image())

        self._pictures = Pictures(sources(), count, sizes_of(size), mode, 0.01, 2**60, repo)
        if not len(self._pictures):
            raise FileError(f"{repo} holds no pictures in its split {split!r}")
        rows = [told[place] for place in self._pictures.good]
        self.skipped = tuple((str(s), why) for s, why in self._pictures.skipped)
        self.name, self.levels, self.shape = repo.rpartition("/")[2], 256, self._pictures.shape
        self._captions = None if caption is None else [str(row[caption] or "") for row in rows]
        self.labels = None if label is None else _numbers([row[label] for row in rows], label, repo)
        self.classes = () if self.labels is None else _names(stream, str(label), self.labels)

    def __len__(self) -> int:
        return len(self._pictures)

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        return self._pictures.at(indices)

    def captions(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> list[str] | None:
        return None if self._captions is None else [self._captions[i] for i in indices]

    def groups(self) -> "np.ndarray[Any, np.dtype[np.int64]] | None":
        return self._pictures.groups()


@dataclass(frozen=True)
class _Downloaded(Source):
    """A picture as the hub stores it: the bytes of its file, or where the file is."""

    stored: Any
    name: str
    feature: Any

    def image(self, mode: Mode) -> Image.Image:
        data = self.stored.get("bytes") if isinstance(self.stored, Mapping) else None
        return read_image(self._fetched() if data is None else data, mode, name=self.name)

    def _fetched(self) -> bytes:
        try:
            return png_bytes(self.feature.decode_example(self.stored))
        except Exception as error:
            # Fetching and decoding raise what the network and the decoders like.
            raise FileError(f"{self.name} cannot be read: {error}") from None

    def __str__(self) -> str:
        return self.name


def _package() -> Any:
    try:
        import datasets
    except ImportError:
        raise UsageError(
            "data sets of the hub are read with the package datasets; install it: "
            "pip install 'fromnoise[hub]'"
        ) from None
    return datasets


def _stream(package: Any, repo: str, subset: str | None, split: str, revision: str | None) -> Any:
    try:
        return package.load_dataset(
            repo, name=subset, split=split, revision=revision, streaming=True
        )
    except Exception as error:
        # The package raises its own errors, those of the network and of every file format.
        raise FileError(f"the data set {repo} cannot be opened: {error}") from None


def _rows(stream: Any, count: int, repo: str) -> Iterator[Mapping[str, Any]]:
    rows = iter(islice(stream, count))
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:
            raise FileError(f"the data set {repo} cannot be read on: {error}") from None
        yield row


def _check_columns(known: Iterable[str], wanted: Sequence[str], repo: str) -> None:
    there = list(known)
    for column in wanted:
        if column not in there:
            raise UsageError(f"{repo} has no column {column!r}; it has {', '.join(there)}")


def _numbers(values: Sequence[Any], label: str, repo: str) -> Tensor:
    for value in values:
        if not isinstance(value, int) or value < 0:
            raise UsageError(
                f"{repo}: the column {label!r} holds {value!r}, not class numbers from 0"
            )
    return torch.tensor(values)


def _names(stream: Any, label: str, labels: Tensor) -> tuple[str, ...]:
    """The names of the classes where the data set gives them, else their numbers."""
    features = getattr(stream, "features", None) or {}
    names = getattr(features.get(label), "names", None)
    count = int(labels.max()) + 1
    return tuple(names) if names and len(names) >= count else tuple(map(str, range(count)))
