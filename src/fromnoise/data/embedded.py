"""What a network makes of each sample of a data set: vectors, alone or beside the samples."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fromnoise.core import strictjson
from fromnoise.core.errors import FileError
from fromnoise.core.files import load_tensors, save_tensors
from fromnoise.data.base import DATA, Dataset

EMBEDDING = "embedding"
"""The name under which a network is told the vector of a sample."""

_VECTORS, _CONFIG = "vectors", "data"


@DATA.register("embedded")
class Embedded(Dataset):
    """The vectors of a data set in a file that `fromnoise data embed` wrote.

    part: `vectors` takes them as the samples (D,), captions and labels as they were; `pictures`
    gives the samples as they were, and beside each its vector as the input "embedding".
    The data itself is not in the file, which says how it is made or where it lies.
    Raises FileError for a file that is missing, damaged, or of other data than it was made of.
    """

    def __init__(self, path: str, part: Literal["vectors", "pictures"] = "vectors") -> None:
        self._vectors, self.whole = _read(Path(path))
        self._part = part
        whole = self.whole
        self.name = f"{whole.name}-{_VECTORS}" if part == _VECTORS else whole.name
        vectors = part == _VECTORS
        self.shape = tuple(self._vectors.shape[1:]) if vectors else whole.shape
        self.levels = None if vectors else whole.levels
        self.classes, self.labels, self.skipped = whole.classes, whole.labels, whole.skipped

    def __len__(self) -> int:
        return len(self._vectors)

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        return self._of(indices) if self._part == _VECTORS else self.whole.samples(indices)

    def captions(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> list[str] | None:
        return self.whole.captions(indices)

    def given(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> dict[str, Tensor]:
        if self._part == _VECTORS:
            return {}
        return {**self.whole.given(indices), EMBEDDING: self._of(indices)}

    def families(self) -> "np.ndarray[Any, np.dtype[np.int64]] | None":
        return self.whole.families()

    def _of(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        return self._vectors[torch.from_numpy(indices.copy())]


def write_embedded(path: Path, vectors: Tensor, whole: Dataset, by: str) -> None:
    """Write the vectors (N, D) of a data set, in its order. by: what made them, in words."""
    config = json.dumps(whole.config)
    save_tensors(path, {_VECTORS: vectors.float().contiguous()}, {_CONFIG: config, "by": by})


def _read(path: Path) -> tuple[Tensor, Dataset]:
    if not path.is_file():
        raise FileError(
            f"{path} does not exist; make it with `fromnoise data embed RUN --out {path}`, RUN "
            "being of the recipe shapes-clip, say"
        )
    tensors, metadata = load_tensors(path)
    if _VECTORS not in tensors or _CONFIG not in metadata or tensors[_VECTORS].ndim != 2:
        raise FileError(f"{path} holds no vectors of a data set; `fromnoise data embed` makes them")
    vectors = tensors[_VECTORS]
    if not bool(torch.isfinite(vectors).all()):
        raise FileError(f"{path} holds vectors that are not finite")
    config = strictjson.loads(metadata[_CONFIG].encode(), str(path))
    whole: Dataset = DATA.build(config)
    if len(whole) != len(vectors):
        raise FileError(
            f"{path} has {len(vectors)} vectors, and its data has {len(whole)} samples now; "
            "make it anew with `fromnoise data embed`"
        )
    return vectors, whole
