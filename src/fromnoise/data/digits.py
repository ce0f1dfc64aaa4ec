"""The scanned digits inside scikit-learn: real data that needs no download."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.data.base import DATA, Dataset


@DATA.register("digits")
class Digits(Dataset):
    """1,797 scans of handwritten digits, 8×8, 17 grey levels 0 to 16: x = v/8 − 1.

    The test set of Alpaydin & Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI.
    """

    def __init__(self) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise UsageError(
                "the digits come with scikit-learn; install it: pip install 'fromnoise[train]'"
            ) from None
        raw = load_digits()
        self.name, self.levels, self.shape = "digits", 17, (1, 8, 8)
        self.classes = tuple(str(i) for i in range(10))
        self.labels = torch.from_numpy(raw.target.astype(np.int64))
        self._x = torch.from_numpy(raw.images.astype(np.float32))[:, None] / 8.0 - 1.0

    def __len__(self) -> int:
        return self._x.shape[0]

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        return self._x[torch.from_numpy(indices)]
