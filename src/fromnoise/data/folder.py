"""A folder of pictures, its sub-folders being classes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.images import read_image, to_tensor
from fromnoise.data.base import DATA, Dataset

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@DATA.register("folder")
class Folder(Dataset):
    """Pictures under a folder, each scaled with Lanczos and cropped at its centre to `size`.

    Sub-folders are classes, in the order of their names. Every picture is read once at the start;
    those that cannot be are left out and listed in `skipped` with the reason, and so are links
    that leave the folder.

    size: (height, width), or one number for both. mode: RGB, or grey ("L"). max_bad: the largest
    share of pictures that may be left out. keep_bytes: pixels up to so many bytes stay in memory,
    beyond it pictures are read again when needed.
    Raises FileError when the folder is missing, holds no pictures, or too many that are bad.
    """

    def __init__(
        self,
        path: str,
        size: int | tuple[int, int],
        mode: Literal["RGB", "L"] = "RGB",
        max_bad: float = 0.01,
        keep_bytes: int = 2**31,
    ) -> None:
        height, width = (size, size) if isinstance(size, int) else size
        if height < 1 or width < 1 or not 0.0 <= max_bad <= 1.0:
            raise UsageError(f"size is {size} and max_bad {max_bad}; use 1 or more, and 0 to 1")
        root = Path(path)
        self.name, self.levels = root.name or "folder", 256
        self.shape = (3 if mode == "RGB" else 1, height, width)
        self._mode = mode
        found = list(_pictures(root))
        keep = len(found) * self.shape[0] * height * width <= keep_bytes
        kept: list[Pixels] = []
        self._files: list[Path] = []
        skipped: list[tuple[Path, str]] = []
        for file in found:
            try:
                pixels = self._read(_inside(file, root))
            except FileError as error:
                skipped.append((file, str(error)))
                _check_share(skipped, len(found), max_bad, root)
                continue
            self._files.append(file)
            kept += [pixels] if keep else []
        if not self._files:
            raise FileError(f"{root} holds no pictures; they end in {', '.join(sorted(SUFFIXES))}")
        self.skipped = tuple(skipped)
        self._kept = kept
        self.classes, self.labels = _classes(self._files, root)

    def __len__(self) -> int:
        return len(self._files)

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        if self._kept:
            return torch.stack([to_tensor(self._kept[i]) for i in indices])
        return torch.stack([to_tensor(self._read(self._files[i])) for i in indices])

    def _read(self, file: Path) -> Pixels:
        image = read_image(file, self._mode)
        size = (self.shape[2], self.shape[1])
        return np.asarray(ImageOps.fit(image, size, Image.Resampling.LANCZOS))


def _pictures(root: Path) -> Iterator[Path]:
    """All files that look like pictures and all linked folders, in the order of their names."""
    if not root.is_dir():
        raise FileError(f"{root} is not a folder; give the folder that holds the pictures")
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in folders if Path(place, name).is_symlink())
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(place, name)


def _inside(file: Path, root: Path) -> Path:
    if file.is_dir():
        raise FileError(f"{file} is a link to a folder; links to folders are not followed")
    if not file.resolve().is_relative_to(root.resolve()):
        raise FileError(f"{file} is a link that leaves the folder; copy the picture into it")
    return file


def _check_share(skipped: list[tuple[Path, str]], count: int, max_bad: float, root: Path) -> None:
    if len(skipped) > max_bad * count:
        first = "; ".join(reason for _, reason in skipped[:3])
        raise FileError(
            f"more than {max_bad:.2%} of the {count} pictures in {root} cannot be used: {first}. "
            "Repair or remove them, or allow more with max_bad"
        )


def _classes(files: list[Path], root: Path) -> tuple[tuple[str, ...], Tensor | None]:
    """The classes, and the class of each file; none when no picture is in a sub-folder."""
    parts = [file.relative_to(root).parts for file in files]
    within = [part[0] for part in parts if len(part) > 1]
    if not within:
        return (), None
    if len(within) < len(parts):
        beside = next(file for file, part in zip(files, parts, strict=True) if len(part) == 1)
        raise FileError(f"{beside} lies beside class folders; move it into one of them")
    names = tuple(sorted(set(within)))
    number = {name: i for i, name in enumerate(names)}
    return names, torch.tensor([number[name] for name in within])
