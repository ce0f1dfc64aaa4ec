"""Batches of training data from any step on, read ahead by other processes if asked."""

import itertools
import math
import traceback
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from fromnoise.core.errors import FromNoiseError, TrainingError, UsageError
from fromnoise.data.augment import Augment, generator
from fromnoise.data.base import Batch, Dataset
from fromnoise.data.buckets import GroupedOrder
from fromnoise.data.order import Order


class Loader:
    """The batches of a training run, in the order of `Order`, or of `GroupedOrder` for groups.

    Step k gives the same batch whatever the number of workers and wherever reading began.
    workers: processes that read ahead; 0 reads in this one. timeout: seconds to wait for a
    worker's batch. augment: a change drawn anew for each sample in each epoch.
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
        for row, (index, epoch) in enumerate(zip(indices, epochs, strict=True)):
            random = generator(self.order.seed, int(epoch), int(index))
            batch.x[row] = self.augment(batch.x[row].clone(), random)
        return batch

    def start(self, step: int) -> Iterator[Batch]:
        """The batches from global step `step` (0 for the first), without end.

        Raises TrainingError when a worker dies or gives nothing within the timeout, and whatever
        the data set raises.
        """
        if self.workers == 0:
            return map(self.at, itertools.count(step))
        return self._ahead(step)

    def _ahead(self, step: int) -> Iterator[Batch]:
        loader: DataLoader[Any] = DataLoader(
            _Steps(self),
            batch_size=None,
            sampler=itertools.count(step),
            num_workers=self.workers,
            collate_fn=_as_it_is,
            timeout=self.timeout,
            # Its own: by default a draw is taken from the caller's global generator.
            generator=torch.Generator(),
        )
        batches = iter(loader)
        try:
            while True:
                batch = _next(batches, self.timeout)
                if isinstance(batch, FromNoiseError):
                    raise batch
                yield batch
        finally:
            # The workers end with their iterator; a traceback would keep it alive.
            del batches


class _Steps(TorchDataset[Any]):
    """The loader as torch reads it: one item for each step. It runs in the workers."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getitem__(self, step: int) -> Batch | FromNoiseError:
        # Raised in a worker, an error would arrive wrapped in a text of many lines.
        try:
            return self._loader.at(step)
        except FromNoiseError as error:
            return error
        except Exception as error:
            failed = TrainingError(f"loading data failed: {type(error).__name__}: {error}")
            failed.add_note(traceback.format_exc())
            return failed


def _as_it_is(batch: Any) -> Any:
    return batch


def _next(batches: Iterator[Any], timeout: float) -> Any:
    """The next batch, or the error that came in its place."""
    try:
        return next(batches)
    except RuntimeError as error:
        return TrainingError(_reason(error, timeout))


def _reason(error: RuntimeError, timeout: float) -> str:
    text = str(error)
    if "timed out" in text:
        return f"no data came within {timeout:g} s; a worker hangs or the disk is too slow"
    if "exited unexpectedly" in text:
        return (
            f"a process that loads data died ({text.splitlines()[0]}); it may have run out of "
            "memory: use fewer workers"
        )
    return f"loading data failed: {text.splitlines()[0]}"
