"""What every data set is: a fixed sequence of samples, read in batches by index."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.config import Kinds
from fromnoise.core.errors import UsageError
from fromnoise.data.buckets import SIZES
from fromnoise.data.order import shuffled

DATA = Kinds("data set", uses=(SIZES,))
"""Every data set a configuration file can name, by kind."""

_SPLIT = 1


@dataclass(frozen=True)
class Batch:
    """Some samples of a data set.

    x: float32 (B, *shape), pictures in [−1, 1]. label: class numbers (B,), int64, or None.
    index: their places in the data set (B,), int64. caption: a text for each, or None.
    augment: what was done to each (B, K), where the loader changes them; zeros for nothing.
    given: what else is known of each, (B, ...) by the name of the encoder that takes it.
    """

    x: Tensor
    label: Tensor | None
    index: Tensor
    caption: list[str] | None = None
    augment: Tensor | None = None
    given: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.x.shape[0]

    def rows(self, rows: slice) -> "Batch":
        """Some of its samples."""
        return Batch(
            self.x[rows],
            None if self.label is None else self.label[rows],
            self.index[rows],
            None if self.caption is None else self.caption[rows],
            None if self.augment is None else self.augment[rows],
            {name: value[rows] for name, value in self.given.items()},
        )

    def to(self, device: torch.device | str) -> "Batch":
        """The same samples on another device; indices and what is told of them stay."""
        label = None if self.label is None else self.label.to(device)
        return replace(self, x=self.x.to(device), label=label)


class Dataset(ABC):
    """A fixed sequence of samples: the same index always gives the same sample.

    name: of its kind. shape: of a sample, (C, H, W) or (D,). levels: the grey levels the data
    itself has, level k of L at 2k/(L − 1) − 1; None for continuous data. classes: their names.
    labels: the class number of every sample (N,), int64; None without classes. skipped: what of
    the source could not be read and is not in it, by name and reason. pictured: where samples are
    latents of pictures, the data set of those pictures.
    """

    config: dict[str, Any]
    name: str
    shape: tuple[int, ...]
    levels: int | None
    classes: tuple[str, ...]
    labels: Tensor | None
    skipped: tuple[tuple[str, str], ...] = ()
    pictured: "Dataset | None" = None

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @abstractmethod
    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        """The samples (B, *shape), float32, at indices that have been checked."""

    def captions(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> list[str] | None:
        """A text for each of the samples, or None for data without."""
        del indices
        return None

    def given(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> dict[str, Tensor]:
        """What else is known of the samples, (B, ...) by the name of the encoder that takes it.

        A label map or a depth, say, from which a network learns to draw the picture.
        """
        del indices
        return {}

    def groups(self) -> "np.ndarray[Any, np.dtype[np.int64]] | None":
        """The group of every sample (N,), where only samples of one group can share a batch.

        None where all have the shape `shape`; else that is only the most nearly square of them.
        """
        return None

    def families(self) -> "np.ndarray[Any, np.dtype[np.int64]] | None":
        """The family of every sample (N,), where a split keeps families whole; None without.

        The letters of a font are a family, and so are the repeats of a picture: half of one tells
        too much about the other half.
        """
        return None

    def batch(self, indices: Sequence[int]) -> Batch:
        """The samples at `indices`, which may repeat, and must be of one shape.

        Raises UsageError naming an index that is out of range.
        """
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        for index in chosen[(chosen < 0) | (chosen >= len(self))]:
            raise UsageError(
                f"sample {index} is out of range; {self.name} has 0 to {len(self) - 1}"
            )
        place = torch.from_numpy(chosen.copy())
        label = None if self.labels is None else self.labels[place]
        given = self.given(chosen)
        return Batch(self.samples(chosen), label, place, self.captions(chosen), given=given)

    def spread(self, most: int) -> list[int]:
        """At most so many indices for one batch, taken evenly from all.

        Where samples are of several groups, from the largest one.
        """
        groups = self.groups()
        places = np.arange(len(self))
        if groups is not None:
            places = np.flatnonzero(groups == np.bincount(groups).argmax())
        chosen = np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(np.int64)
        return [int(place) for place in places[chosen]]

    def batches(self, size: int, count: int | None = None) -> Iterator[Batch]:
        """The first `count` samples once (all by default), in order, group after group.

        The last batch of each group may be shorter.
        """
        groups = self.groups()
        chosen = np.zeros(len(self), np.int64) if groups is None else groups
        chosen = chosen[:count]
        for group in np.unique(chosen):
            places = np.flatnonzero(chosen == group)
            for first in range(0, len(places), size):
                yield self.batch(places[first : first + size].tolist())

    def split(self, held_out: float, seed: int = 0) -> "tuple[Subset, Subset]":
        """(train, held_out): disjoint, together everything, each shuffled.

        held_out: its share of the samples, in (0, 1), kept in every class as nearly as whole
        samples allow; where the data has families, these stay whole, and the share is met as nearly
        as they allow. The same seed gives the same split on every machine.
        Raises UsageError when one of the two would be empty.
        """
        return split(self, held_out, seed, "train"), split(self, held_out, seed, "held_out")


def _taken(
    labels: Tensor | None, mixed: "np.ndarray[Any, np.dtype[np.int64]]", count: int
) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Which places of `mixed` to hold out: `count` of them, the same share of every class.

    Whole samples go by largest remainder.
    """
    groups = np.zeros(len(mixed), np.int64) if labels is None else labels.numpy()[mixed]
    sizes = np.bincount(groups)
    quota = sizes * (count / max(len(mixed), 1))
    take = np.floor(quota).astype(np.int64)
    extra = np.argsort(take - quota, kind="stable")[: count - int(take.sum())]
    take[extra] += 1
    taken = np.zeros(len(mixed), np.bool_)
    for group, number in enumerate(take):
        taken[np.flatnonzero(groups == group)[:number]] = True
    return taken


def _whole_families(
    families: "np.ndarray[Any, np.dtype[np.int64]]",
    mixed: "np.ndarray[Any, np.dtype[np.int64]]",
    count: int,
) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Which places of `mixed` to hold out: families in the order they come, as near to `count`.

    At least one and not all, as long as there are two.
    """
    names, first, sizes = np.unique(families[mixed], return_index=True, return_counts=True)
    turn = np.argsort(first)
    reached = np.cumsum(sizes[turn])
    number = 1 + int(np.abs(reached - count).argmin())
    taken = names[turn[: min(number, len(names) - 1)]]
    return np.isin(families[mixed], taken)


class Subset(Dataset):
    """Some samples of another data set, in the order given. `Batch.index` counts in the subset."""

    def __init__(self, whole: Dataset, indices: Sequence[int]) -> None:
        self.whole = whole
        self.indices = np.asarray(indices, dtype=np.int64).reshape(-1)
        for index in self.indices[(self.indices < 0) | (self.indices >= len(whole))]:
            raise UsageError(f"sample {index} is out of range; {whole.name} has {len(whole)}")
        self.name, self.shape = whole.name, whole.shape
        self.levels, self.classes, self.skipped = whole.levels, whole.classes, whole.skipped
        if whole.pictured is not None:
            self.pictured = Subset(whole.pictured, indices)
        labels = whole.labels
        self.labels = None if labels is None else labels[torch.from_numpy(self.indices)]

    def __len__(self) -> int:
        return len(self.indices)

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        return self.whole.samples(self.indices[indices])

    def captions(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> list[str] | None:
        return self.whole.captions(self.indices[indices])

    def given(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> dict[str, Tensor]:
        return self.whole.given(self.indices[indices])

    def groups(self) -> "np.ndarray[Any, np.dtype[np.int64]] | None":
        groups = self.whole.groups()
        return None if groups is None else groups[self.indices]

    def families(self) -> "np.ndarray[Any, np.dtype[np.int64]] | None":
        families = self.whole.families()
        return None if families is None else families[self.indices]


@DATA.register("split")
def split(
    whole: Dataset,
    held_out: float = 0.2,
    seed: int = 0,
    part: Literal["train", "held_out"] = "train",
) -> Subset:
    """One side of `whole.split(held_out, seed)`, as a data set that remembers how it was made."""
    if not 0.0 < held_out < 1.0:
        raise UsageError(f"the held-out share is {held_out}; use more than 0 and less than 1")
    mixed = shuffled(len(whole), seed, _SPLIT)
    families, count = whole.families(), round(held_out * len(whole))
    if families is None:
        taken = _taken(whole.labels, mixed, count)
    else:
        taken = _whole_families(families, mixed, count)
    if not 0 < taken.sum() < len(whole):
        raise UsageError(
            f"holding out {held_out} of {len(whole)} samples leaves one side empty; "
            "use another share or more data"
        )
    return Subset(whole, mixed[taken if part == "held_out" else ~taken].tolist())
