"""Many pictures from files of any kind, brought to size; what cannot be read is left out, by name.

What folders, shards and downloaded sets have in common.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.images import read_image, to_tensor
from fromnoise.core.tensorheader import unreadable
from fromnoise.data.buckets import Sizes

Mode = Literal["RGB", "L"]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Indices = np.ndarray[Any, np.dtype[np.int64]]


class Source(ABC):
    """Where one picture is."""

    @abstractmethod
    def image(self, mode: Mode) -> Image.Image:
        """The picture, upright, 8 bits. Raises FileError naming it."""


@dataclass(frozen=True)
class InFile(Source):
    """A picture that is a file. Raises FileError for a link that leaves the folder `root`."""

    path: Path
    root: Path

    def image(self, mode: Mode) -> Image.Image:
        if self.path.is_dir():
            raise FileError(f"{self.path} is a link to a folder; links to folders are not followed")
        if not self.path.resolve().is_relative_to(self.root.resolve()):
            raise FileError(
                f"{self.path} is a link that leaves the folder; copy the picture into it"
            )
        return read_image(self.path, mode)

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class InArchive(Source):
    """A picture that is a stretch of bytes in a larger file."""

    archive: Path
    name: str
    start: int
    size: int

    def content(self) -> bytes:
        """Its bytes. Raises FileError when the archive has become shorter, or cannot be read."""
        try:
            with self.archive.open("rb") as file:
                file.seek(self.start)
                data = file.read(self.size)
        except OSError as error:
            raise unreadable(self.archive, error) from None
        if len(data) < self.size:
            raise FileError(f"{self} is cut short: the archive ends before it does")
        return data

    def image(self, mode: Mode) -> Image.Image:
        return read_image(self.content(), mode, name=str(self))

    def __str__(self) -> str:
        return f"{self.archive}:{self.name}"


class Pictures:
    """Pictures scaled with Lanczos and cropped at their centre to the size that suits each.

    All are read once at the start. good: the places in `sources` of those that could be; skipped:
    the others, with the reason. sizes: what they are brought to. max_bad: the largest share that
    may be left out. keep_bytes: pixels up to so many bytes stay in memory; beyond it, pictures are
    read again when needed.
    Raises FileError when too many are bad, naming the first of them.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        count: int,
        sizes: Sizes,
        mode: Mode,
        max_bad: float,
        keep_bytes: int,
        where: str,
    ) -> None:
        if not 0.0 <= max_bad <= 1.0:
            raise UsageError(f"max_bad is {max_bad}; use 0 to 1")
        self._mode, self._sizes = mode, sizes
        height, width = sizes.nominal
        self.shape = (3 if mode == "RGB" else 1, height, width)
        keep = count * self.shape[0] * height * width <= keep_bytes
        good: list[int] = []
        groups: list[int] = []
        skipped: list[tuple[Source, str]] = []
        self._kept: list[Pixels] = []
        self._sources: list[Source] = []
        place = -1
        for place, source in enumerate(sources):
            try:
                pixels, group = self._read(source)
            except FileError as error:
                skipped.append((source, str(error)))
                _check_share(skipped, count, max_bad, where)
                continue
            good.append(place)
            groups.append(group)
            if keep:
                self._kept.append(pixels)
            else:
                self._sources.append(source)
        _check_share(skipped, place + 1, max_bad, where)
        self.good, self.skipped = tuple(good), tuple(skipped)
        self._groups = np.array(groups, np.int64)

    def __len__(self) -> int:
        return len(self.good)

    def groups(self) -> Indices | None:
        """The size of each, as its place in `sizes`; None when there is only one."""
        return self._groups if len(self._sizes.sizes) > 1 else None

    def at(self, places: Sequence[int] | Indices) -> Tensor:
        """Some of the good ones, (B, C, H, W) in [−1, 1]. Raises UsageError for mixed sizes."""
        if len(places) == 0:
            return torch.empty(0, *self.shape)
        if len(np.unique(self._groups[np.asarray(places)])) > 1:
            raise UsageError(
                "pictures of different sizes cannot share a batch; take those of one group"
            )
        if self._kept:
            return torch.stack([to_tensor(self._kept[place]) for place in places])
        return torch.stack([to_tensor(self._read(self._sources[place])[0]) for place in places])

    def _read(self, source: Source) -> tuple[Pixels, int]:
        image = source.image(self._mode)
        group = self._sizes.nearest(image.height, image.width)
        height, width = self._sizes.sizes[group]
        return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)), group


def _check_share(skipped: list[tuple[Source, str]], count: int, max_bad: float, where: str) -> None:
    if len(skipped) > max_bad * count:
        first = "; ".join(reason for _, reason in skipped[:3])
        raise FileError(
            f"more than {max_bad:.2%} of the {count} pictures in {where} cannot be used: {first}. "
            "Repair or remove them, or allow more with max_bad (--max-bad on the command line)"
        )
