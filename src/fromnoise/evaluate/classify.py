"""Are samples as good as data? Train a classifier on them and test it on real data it never saw."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError
from fromnoise.evaluate.features import FeatureNetwork, ReaderSettings, train_reader
from fromnoise.evaluate.intervals import Estimate, repeated, wilson

QUICK = ReaderSettings(epochs=16, width=16)
"""A smaller reader, trained many times over."""


def classifier_accuracy(
    x: Tensor,
    label: Tensor,
    test_x: Tensor,
    test_label: Tensor,
    classes: int,
    seeds: Sequence[int] = (0, 1, 2),
    settings: ReaderSettings = QUICK,
) -> Estimate:
    """Train on x (N, ...) with labels (N,), once for each seed; the share right on test data.

    With samples for x it is the classification accuracy score (Ravuri & Vinyals 2019); with real
    data it is what that score is compared with. The mean over seeds, its interval counting both
    the test set's size and the spread between seeds; `more["runs"]` holds each run's.
    """
    if test_label.shape != test_x.shape[:1] or len(test_x) == 0:
        raise ShapeError(f"{len(test_x)} test samples but labels {tuple(test_label.shape)}")
    found = []
    for seed in seeds:
        reader = train_reader(x, label, classes, seed, settings)
        found.append((reader.predict(test_x) == test_label).double().mean().item())
    return repeated(found, len(test_x))


def label_accuracy(reader: FeatureNetwork, x: Tensor, label: Tensor) -> Estimate:
    """The share of conditional samples x (N, ...) that a reader reads as what was asked (N,).

    Wilson's interval; `more["by_class"]` holds the share for each class asked for. A reader is
    wrong now and then on real data too: its own accuracy there is the yardstick.
    """
    if label.shape != x.shape[:1] or len(x) == 0:
        raise ShapeError(f"{len(x)} samples but labels of shape {tuple(label.shape)}")
    right = reader.predict(x) == label
    asked = torch.unique(label).tolist()
    by_class = {str(c): right[label == c].double().mean().item() for c in asked}
    return wilson(int(right.sum()), len(right), {"by_class": by_class})
