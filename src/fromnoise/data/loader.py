"""Batches of training data from any step on, read ahead by other processes if asked."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from fromnoise.core.errors import UsageError
from fromnoise.data.augment import Augment, generator
from fromnoise.data.base import Batch, Dataset
from fromnoise.data.buckets import GroupedOrder
from fromnoise.data.order import Order
from fromnoise.data.workers import ahead

_NAMED = 8


class Loader:
    """The batches of a training run, in the order of `Order`, or of `GroupedOrder` for groups.

    Step k gives the same batch whatever the number of workers and wherever reading began.
    workers: processes that read ahead; 0 reads in this one. timeout: seconds to wait for a
    worker's batch. augment: a change drawn anew for each sample in each epoch. It changes the
    picture alone, so data that is told something for each place of it is refused.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int,
        workers: int = 0,
        timeout: float = 60.0,
        augment: Augment | None = None,
    ) -> None:
        if workers < 0 or not timeout > 0:
            raise UsageError(
                f"{workers} workers and a timeout of {timeout} s; use 0 or more, and > 0"
            )
        groups = dataset.groups()
        self.order: Order | GroupedOrder = (
            Order(len(dataset), batch_size, seed)
            if groups is None
            else GroupedOrder(groups, batch_size, seed)
        )
        self.dataset, self.augment = dataset, augment
        self.workers, self.timeout = workers, timeout

    def __iter__(self) -> Iterator[Batch]:
        return self.start(0)

    def steps(self, epochs: float) -> int:
        """The steps that read so many passes over the data, rounded up."""
        return math.ceil(epochs * self.order.length / self.order.batch_size)

    def at(self, step: int) -> Batch:
        """The batch of global step `step` (0 for the first)."""
        indices, epochs = self.order(step)
        batch = self.dataset.batch(indices.tolist())
        if self.augment is None:
            return batch
        for name, value in batch.given.items():
            if value.ndim > 2:
                raise UsageError(
                    f"{self.dataset.name} tells a {name} for each place of a picture, and "
                    "augmenting would move the picture alone; leave out the augmentation"
                )
        told = torch.zeros(len(batch), self.augment.width)
        for row, (index, epoch) in enumerate(zip(indices, epochs, strict=True)):
            random = generator(self.order.seed, int(epoch), int(index))
            batch.x[row], told[row] = self.augment(batch.x[row].clone(), random)
        return replace(batch, augment=told)

    def start(self, step: int) -> Iterator[Batch]:
        """The batches from global step `step` (0 for the first), without end.

        Raises TrainingError when a worker dies or gives nothing within the timeout, and whatever
        the data set raises.
        """
        if self.workers == 0:
            return map(self.at, itertools.count(step))
        return ahead(self.at, step, self.workers, self.timeout, self._told)

    def _told(self, step: int) -> str:
        """Which samples a step reads, in words."""
        indices = self.order(step)[0].tolist()
        more = ", …" if len(indices) > _NAMED else ""
        return f"step {step + 1}, samples {', '.join(map(str, indices[:_NAMED]))}{more}"
