"""Class labels as raw vectors: one-hot, or several classes mixed with weights."""

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.encoders.base import ENCODERS, Encoder, Slot
from fromnoise.layers.condition import Condition


@ENCODERS.register("label")
class Label(Encoder):
    """A class label as a raw vector (B, K): one-hot, or weights that mix classes.

    classes: their number, or their names. A label is a number, a name, a mapping from those to
    weights ({3: 0.5, 8: 0.5}, taken as they are), or a sequence with one of these, or of the K
    weights themselves, for each sample. The null is all zeros, so it is fixed and learned only
    through the network's embedding of it.
    """

    slot: Slot = "vector"

    def __init__(self, classes: int | Sequence[str]) -> None:
        super().__init__()
        names = [str(i) for i in range(classes)] if isinstance(classes, int) else list(classes)
        if not names or len(set(names)) != len(names):
            raise UsageError("a label needs at least one class, each with a name of its own")
        self.names = tuple(names)
        self.width = len(names)

    def encode(self, name: str, raw: Any, batch: int) -> Condition:
        return Condition(vector={name: self.vector(raw, batch)})

    def null(self, name: str, batch: int) -> Condition:
        return Condition(vector={name: torch.zeros(batch, self.width)})

    def vector(self, raw: Any, batch: int) -> Tensor:
        """The raw vectors (batch, K) of one label, or of one for each sample.

        Raises UsageError for a class that is not known, ShapeError for a wrong number of labels.
        """
        if isinstance(raw, Tensor | np.ndarray):
            raw = raw.tolist()
        if not isinstance(raw, Sequence) or isinstance(raw, str):
            return self._one(raw).expand(batch, -1).clone()
        if len(raw) != batch:
            raise ShapeError(f"{len(raw)} labels given for {batch} samples; give one each")
        return torch.stack([self._one(label) for label in raw])

    def each(self, raw: Any, batch: int) -> Any:
        if isinstance(raw, Tensor | np.ndarray):
            raw = raw.tolist()
        if isinstance(raw, Sequence) and not isinstance(raw, str):
            return [self._written(label) for label in raw]
        return self._written(raw)

    def _written(self, label: Any) -> Any:
        """Weights by the names of the classes: a list of them would be one for each sample."""
        if isinstance(label, Mapping):
            weights: dict[str, float] = {}
            for one, weight in label.items():
                name = self.names[self._index(one)]
                weights[name] = weights.get(name, 0.0) + weight
            return weights
        several = isinstance(label, Sequence) and not isinstance(label, str)
        return dict(zip(self.names, label, strict=True)) if several else label

    def _one(self, label: Any) -> Tensor:
        pairs = [(label, 1.0)]
        if isinstance(label, Mapping):
            pairs = list(label.items())
        elif isinstance(label, Sequence) and not isinstance(label, str):
            if len(label) != self.width:
                raise ShapeError(f"{len(label)} weights given for {self.width} classes")
            pairs = list(enumerate(label))
        vector = torch.zeros(self.width)
        for name, weight in pairs:
            if not isinstance(weight, int | float) or not math.isfinite(weight):
                raise UsageError(f"class {name!r} has weight {weight!r}; give a finite number")
            vector[self._index(name)] += weight
        return vector

    def _index(self, label: Any) -> int:
        whole = isinstance(label, SupportsIndex) and not isinstance(label, bool)
        if whole and 0 <= operator.index(label) < self.width:
            return operator.index(label)
        if str(label) in self.names and not isinstance(label, float):
            return self.names.index(str(label))
        shown = ", ".join(self.names[:12]) + (", …" if self.width > 12 else "")
        raise UsageError(
            f"label {label!r} is not a class of this model; use 0 to {self.width - 1}, or a name: "
            f"{shown}"
        )
