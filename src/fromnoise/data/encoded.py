"""The latents of a data set's pictures, computed once: training behind a codec reads only these."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fromnoise.data.base import DATA, Dataset
from fromnoise.data.stored import read_stored, write_stored

_LATENTS = "latents"


@DATA.register("encoded")
class Encoded(Dataset):
    """Latents (C, h, w) of a data set in a file that `fromnoise data encode` wrote.

    Labels, captions and what else is known of the samples are as they were. The pictures are not in
    the file, which says how they are made or where they lie: they are `pictured`. by: a fingerprint
    of the codec's weights. Latents in half precision are read as float32.
    Raises FileError for a file that is missing, damaged, or of other data than it was made of.
    """

    def __init__(self, path: str) -> None:
        self._latents, whole, told = read_stored(
            Path(path), _LATENTS, 4, "data encode", "an autoencoder, of the recipe photos-kl, say"
        )
        self.pictured = self.whole = whole
        self.codec = told.get("codec", "")
        self.name = f"{whole.name}-{_LATENTS}"
        self.shape, self.levels = tuple(self._latents.shape[1:]), None
        self.classes, self.labels, self.skipped = whole.classes, whole.labels, whole.skipped

    def __len__(self) -> int:
        return len(self._latents)

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        return self._latents[torch.from_numpy(indices.copy())].float()

    def captions(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> list[str] | None:
        return self.whole.captions(indices)

    def given(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> dict[str, Tensor]:
        return self.whole.given(indices)

    def families(self) -> "np.ndarray[Any, np.dtype[np.int64]] | None":
        return self.whole.families()


def write_encoded(path: Path, latents: Tensor, whole: Dataset, by: str, codec: str) -> None:
    """Write the latents (N, C, h, w) of a data set, in its order, in the type they have.

    by: what made them, in words; codec: the fingerprint of its weights.
    """
    write_stored(path, _LATENTS, latents, whole, {"by": by, "codec": codec})
