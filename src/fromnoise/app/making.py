"""What a network makes of a whole data set, in order: for files that training reads again."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fromnoise import data
from fromnoise.app.asked import recipe_of
from fromnoise.app.reporting import Reporter
from fromnoise.app.sources import config_of
from fromnoise.data import Dataset
from fromnoise.model import Model


def asked_data(model: Model, run: str, source: str | None) -> Dataset:
    """The data asked for, in the size and colours of a model; without, that of its run."""
    if source is None:
        return data.load(recipe_of(Path(run)).data)
    channels, *size = model.shape
    side = size[0] if len(set(size)) == 1 else size
    return data.load(config_of(source, size=side, mode="L" if channels == 1 else "RGB"))


def made_of(
    dataset: Dataset, make: Callable[[Tensor], Tensor], reporter: Reporter, batch: int
) -> Tensor:
    """make(x) of all samples, in their order, with progress shown."""
    parts = []
    with reporter.progress(f"reading {dataset.name}", len(dataset)) as progress, torch.no_grad():
        for first in range(0, len(dataset), batch):
            samples = dataset.batch(range(first, min(first + batch, len(dataset))))
            parts.append(make(samples.x))
            progress.advance(first + len(samples))
    return torch.cat(parts)
