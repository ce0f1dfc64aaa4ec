"""Labels mixed with those of other classes, so that weights mean chances."""

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.data.base import DATA, Dataset
from fromnoise.data.order import Indices, bits

_MIXED = 11


@DATA.register("mixed_labels")
class MixedLabels(Dataset):
    """The same samples, some of them told with a second class, each class with a weight.

    A sample of class y is told a·y + (1 − a)·z with another class z, all alike, and a = √u, u
    uniform. By Bayes' rule a sample told weights (a, 1 − a) is then of class y with chance a, so a
    model told so learns p(x | weights) = Σ weight_y·p(x | y): one or the other, as often as the
    weights say.

    whole: data with classes. share: of the samples that are told two. seed: of what is drawn, once
    for each sample. Labels stay as they are; the weights are given as "label".
    Raises UsageError for data with fewer than two classes or of several sizes, and for a share
    outside [0, 1].
    """

    def __init__(self, whole: Dataset, share: float = 0.5, seed: int = 0) -> None:
        classes = len(whole.classes)
        if whole.labels is None or classes < 2:
            raise UsageError(f"mixing labels needs two classes or more; {whole.name} has {classes}")
        if not 0.0 <= share <= 1.0:
            raise UsageError(f"a share {share} of mixed labels must be within [0, 1]")
        self.whole = whole
        self.name, self.shape, self.levels = whole.name, whole.shape, whole.levels
        self.classes, self.labels, self.skipped = whole.classes, whole.labels, whole.skipped
        self.weights = _weights(whole.labels, classes, share, seed)

    def __len__(self) -> int:
        return len(self.whole)

    def samples(self, indices: Indices) -> Tensor:
        return self.whole.samples(indices)

    def captions(self, indices: Indices) -> list[str] | None:
        return self.whole.captions(indices)

    def given(self, indices: Indices) -> dict[str, Tensor]:
        return {**self.whole.given(indices), "label": self.weights[torch.from_numpy(indices)]}

    def groups(self) -> Indices | None:
        return self.whole.groups()

    def families(self) -> Indices | None:
        return self.whole.families()


def _weights(labels: Tensor, classes: int, share: float, seed: int) -> Tensor:
    """The weights (N, classes) that each sample is told."""
    count = len(labels)
    drawn = (bits(3 * count, seed, _MIXED) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    mixed, other, own = (torch.from_numpy(part) for part in drawn.reshape(3, count))
    # One of the other classes: the numbers from the label's own on are one further.
    second = (other * (classes - 1)).long()
    second = second + (second >= labels).long()
    weight = torch.where(mixed < share, own.sqrt(), 1.0)
    told = torch.zeros(count, classes, dtype=torch.float64)
    rows = torch.arange(count)
    told[rows, labels] = weight
    told[rows, second] += 1.0 - weight
    return told.float()
