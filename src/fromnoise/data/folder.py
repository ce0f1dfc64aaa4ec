"""A folder of pictures, with classes and captions as its layout says."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.errors import FileError
from fromnoise.data.base import DATA, Dataset
from fromnoise.data.buckets import Sizes, sizes_of
from fromnoise.data.captions import collect
from fromnoise.data.pictures import InFile, Pictures

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
Layout = Literal["classes", "flat", "kohya"]
_REPEATED = re.compile(r"(\d{1,4})_(.+)")


@DATA.register("folder")
class Folder(Dataset):
    """Pictures under a folder, each scaled with Lanczos and cropped at its centre to `size`.

    Every picture is read once at the start; those that cannot be are left out and listed in
    `skipped` with the reason, and so are links that leave the folder.

    Captions come from `metadata.jsonl` or `.csv` (rows with `file_name` and `caption`'s column),
    or from `.txt` or `.caption` files beside the pictures; a picture without has "".
    layout: what sub-folders mean. "classes": each is a class, in the order of names. "flat":
    nothing. "kohya": `<repeats>_<token> <class>`, the pictures read so often, and "token class" the
    caption of those without their own; a split keeps the repeats of a picture together. By default
    flat where there is a metadata file, as Hugging Face's imagefolder has it, else classes.
    size: (height, width), one number for both, or `Buckets`. mode: RGB, or grey ("L"). max_bad: the
    largest share of pictures that may be left out. keep_bytes: pixels up to so many bytes stay in
    memory, beyond it pictures are read again when needed.
    Raises FileError when the folder is missing, holds no pictures, or too many that are bad, and
    for captions or a layout that cannot be understood.
    """

    def __init__(
        self,
        path: str,
        size: int | tuple[int, int] | Sizes,
        mode: Literal["RGB", "L"] = "RGB",
        max_bad: float = 0.01,
        keep_bytes: int = 2**31,
        layout: Layout | None = None,
        caption: str = "text",
    ) -> None:
        root, sizes = Path(path), sizes_of(size)
        found = list(pictures_in(root))
        texts = collect(root, found, caption)
        chosen = layout or ("flat" if texts.tabled else "classes")
        sources = [InFile(file, root) for file in found]
        self._pictures = Pictures(
            sources, len(sources), sizes, mode, max_bad, keep_bytes, str(root)
        )
        if not len(self._pictures):
            raise FileError(f"{root} holds no pictures; they end in {', '.join(sorted(SUFFIXES))}")
        files = [found[place] for place in self._pictures.good]
        self.skipped = tuple((str(s), reason) for s, reason in self._pictures.skipped)
        self.name, self.levels, self.shape = root.name or "folder", 256, self._pictures.shape
        self.classes, labels = _classes(files, root) if chosen == "classes" else ((), None)
        told = (
            [_token(file, root) for file in files] if chosen == "kohya" else [(1, "")] * len(files)
        )
        repeats = [count for count, _ in told]
        # Picture by picture, its repeats one after the other.
        self._places = np.repeat(np.arange(len(files), dtype=np.int64), repeats)
        self._repeated = max(repeats) > 1
        self.labels = None if labels is None else labels[torch.from_numpy(self._places)]
        own = [texts.texts.get(file, token) for file, (_, token) in zip(files, told, strict=True)]
        self._captions = own if any(own) else None

    def __len__(self) -> int:
        return len(self._places)

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        return self._pictures.at(self._places[indices])

    def captions(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> list[str] | None:
        if self._captions is None:
            return None
        return [self._captions[place] for place in self._places[indices]]

    def groups(self) -> "np.ndarray[Any, np.dtype[np.int64]] | None":
        groups = self._pictures.groups()
        return None if groups is None else groups[self._places]

    def families(self) -> "np.ndarray[Any, np.dtype[np.int64]] | None":
        return self._places if self._repeated else None


def pictures_in(root: Path) -> Iterator[Path]:
    """All files that look like pictures and all linked folders, in the order of their names.

    Raises FileError when `root` is no folder.
    """
    if not root.is_dir():
        raise FileError(f"{root} is not a folder; give the folder that holds the pictures")
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in folders if Path(place, name).is_symlink())
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield Path(place, name)


def _classes(files: Sequence[Path], root: Path) -> tuple[tuple[str, ...], Tensor | None]:
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


def _token(file: Path, root: Path) -> tuple[int, str]:
    """(repeats, "token class") from the name of the folder a picture is in."""
    parts = file.relative_to(root).parts
    match = _REPEATED.fullmatch(parts[0]) if len(parts) > 1 else None
    if match is None or int(match[1]) < 1:
        raise FileError(
            f"{file} is not in a folder named <repeats>_<token> <class>, such as '10_sks dog'; "
            "rename the folder, or use another layout"
        )
    return int(match[1]), " ".join(match[2].split())
