"""The order of training samples as a function of seed and step: nothing to save, nothing to lose.

Sequences come straight from NumPy's PCG64 bits, whose stream NumPy promises to keep: the same
seed gives the same order with every version.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from fromnoise.core.errors import UsageError

Indices = np.ndarray[Any, np.dtype[np.int64]]
_ORDER = 0


def bits(count: int, *key: int) -> "np.ndarray[Any, np.dtype[np.uint64]]":
    """`count` random 64-bit numbers that depend on the key and nothing else.

    Raises UsageError for a negative number in the key.
    """
    if any(part < 0 for part in key):
        raise UsageError(f"seed {min(key)} is negative; use 0 or more")
    # Each part takes a fixed width, so no two keys make the same sequence of words.
    words = [part >> shift & 0xFFFFFFFF for part in key for shift in (0, 32)]
    generator = np.random.PCG64(np.random.SeedSequence(words))
    return np.asarray(generator.random_raw(count), dtype=np.uint64)


def shuffled(length: int, *key: int) -> Indices:
    """The numbers 0 to length − 1 in an order that depends on the key and nothing else."""
    return np.argsort(bits(length, *key), kind="stable").astype(np.int64)


@lru_cache(maxsize=4)
def order(seed: int, epoch: int, length: int) -> Indices:
    """The order in which epoch `epoch` (from 0) visits `length` samples; read-only."""
    permutation = shuffled(length, seed, _ORDER, epoch)
    permutation.flags.writeable = False
    return permutation


class Order:
    """Which samples each global step reads.

    The permutations of the epochs follow each other without a gap, and step k (from 0) reads
    places k·B to (k + 1)·B − 1 of them: every batch is full, none is dropped, and a batch may
    span two epochs, or more when the data set is smaller than a batch.
    """

    def __init__(self, length: int, batch_size: int, seed: int) -> None:
        if length < 1 or batch_size < 1:
            raise UsageError(
                f"{length} samples in batches of {batch_size} cannot be read; use 1 or more"
            )
        self.length, self.batch_size, self.seed = length, batch_size, seed

    def __call__(self, step: int) -> tuple[Indices, Indices]:
        """The samples of a step (B,), and the epoch each belongs to (B,)."""
        if step < 0:
            raise UsageError(f"step {step} is negative; use 0 or more")
        places = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
        epochs, within = np.divmod(places, self.length)
        indices = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            indices[here] = order(self.seed, int(epoch), self.length)[within[here]]
        return indices, epochs
