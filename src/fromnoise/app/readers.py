"""The feature network of a run's data: trained once, kept in the run folder, opened again."""

import json
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fromnoise.app.reporting import Reporter
from fromnoise.core.files import load_tensors, save_tensors, write_json
from fromnoise.evaluate import FeatureNetwork, restore, train_reader

if TYPE_CHECKING:
    from fromnoise.app.evaluate_samples import Subject


def reader_of(subject: "Subject", reporter: Reporter) -> FeatureNetwork:
    """The feature network of this data, trained once and kept in the run folder."""
    weights, card = subject.folder / "reader.safetensors", subject.folder / "reader.json"
    if weights.exists() and card.exists():
        tensors, _ = load_tensors(weights)
        return restore(tensors, json.loads(card.read_text("utf-8")))
    reporter.say("training the reader (a classifier of real data that the figures are read with)")
    x, label = subject.train.x, subject.train.label
    classes = len(subject.model.card.classes)
    if label is None or classes < 2:
        # Without classes there is nothing to read: features come from telling data and noise apart.
        (x, label), classes = _two_kinds(x), 2
    with reporter.progress("the reader, in hundredths", 100) as progress:
        reader = train_reader(
            x,
            label,
            classes,
            data=subject.recipe.name,
            watch=lambda shown, of: progress.advance(100 * shown // of),
        )
    save_tensors(weights, dict(reader.state()), {})
    write_json(card, dict(reader.card))
    return reader


def _two_kinds(x: Tensor) -> tuple[Tensor, Tensor]:
    """Data and the same with noise, and which is which."""
    generator = torch.Generator().manual_seed(0)
    noise = x[torch.randperm(len(x), generator=generator)]
    noise = noise + 0.5 * x.std() * torch.randn(x.shape, generator=generator)
    label = torch.cat([torch.zeros(len(x)), torch.ones(len(x))]).long()
    return torch.cat([x, noise]), label
