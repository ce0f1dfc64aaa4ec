"""What a model's inputs take from its data: the names of classes, the words of captions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fromnoise.core.errors import UsageError
from fromnoise.data import Dataset
from fromnoise.encoders.prompts import escaped
from fromnoise.encoders.text import learn_merges

_READ = 20_000
"""The most captions a vocabulary is learned from, evenly taken from all."""

Config = Mapping[str, Any]


def fitted(told: Mapping[str, Config], dataset: Dataset) -> dict[str, Config]:
    """The configurations of encoders, with what they take from the data filled in.

    A label gets the classes' names in place of their number, so that either can be asked; they are
    in the order of the data's classes. A text without merges learns them from the captions.
    Raises UsageError for a text where the data has no captions.
    """
    return {name: _FITTED.get(part["kind"], _as_is)(part, dataset) for name, part in told.items()}


def examples(names: Sequence[str], dataset: Dataset, count: int) -> dict[str, Any]:
    """What to draw as a preview: each class in turn, and what is known of some of the samples."""
    asked: dict[str, Any] = {}
    if "label" in names and dataset.classes:
        asked["label"] = [i % len(dataset.classes) for i in range(count)]
    if not set(names) - {"label"}:
        return asked
    batch = dataset.batch(_evenly(dataset, count).tolist())
    if "prompt" in names and batch.caption is not None:
        asked["prompt"] = [escaped(caption) for caption in batch.caption]
    known = {name: value for name, value in batch.given.items() if name in names}
    return {**asked, "inputs": known} if known else asked


def _as_is(part: Config, dataset: Dataset) -> Config:
    del dataset
    return part


def _labels(part: Config, dataset: Dataset) -> Config:
    if part["classes"] != len(dataset.classes):
        return part
    return {**part, "classes": list(dataset.classes)}


def _words(part: Config, dataset: Dataset) -> Config:
    if part.get("merges"):
        return part
    captions = dataset.captions(_evenly(dataset, min(_READ, len(dataset))))
    if captions is None:
        raise UsageError(
            f"{dataset.name} has no captions to learn words from; use data with captions, or a "
            "recipe without prompts"
        )
    return {**part, "merges": learn_merges(captions, part.get("vocabulary", 1024))}


def _evenly(dataset: Dataset, count: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    return np.linspace(0, len(dataset) - 1, count).round().astype(np.int64)


_FITTED = {"label": _labels, "text": _words}
