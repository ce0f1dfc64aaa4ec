"""What a network makes of each sample of a data set: vectors, alone or beside the samples."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fromnoise.data.base import DATA, Dataset
from fromnoise.data.stored import read_stored, write_stored

EMBEDDING = "embedding"
"""The name under which a network is told the vector of a sample."""

_VECTORS = "vectors"


@DATA.register("embedded")
class Embedded(Dataset):
    """The vectors of a data set in a file that `fromnoise data embed` wrote.

    part: `vectors` takes them as the samples (D,), captions and labels as they were; `pictures`
    gives the samples as they were, and beside each its vector as the input "embedding".
    The data itself is not in the file, which says how it is made or where it lies.
    Raises FileError for a file that is missing, damaged, or of other data than it was made of.
    """

    def __init__(self, path: str, part: Literal["vectors", "pictures"] = "vectors") -> None:
        made_by = "of the recipe shapes-clip, say"
        self._vectors, self.whole, _ = read_stored(Path(path), _VECTORS, 2, "data embed", made_by)
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
    write_stored(path, _VECTORS, vectors.float(), whole, {"by": by})
