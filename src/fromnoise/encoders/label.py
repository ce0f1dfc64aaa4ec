"""Class labels as raw vectors: one-hot, or several classes mixed with weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.encoders.base import ENCODERS, Encoder, Slot
from fromnoise.layers.condition import Condition


@ENCODERS.register("label")
class Label(Encoder):
    """A class label as a raw vector (B, K): one-hot, or weights that mix classes.

    classes: their number, or their names. A label is a number, a name, a mapping from those to
    weights ({3: 0.5, 8: 0.5}), or a sequence of these with one for each sample. The null is all
    zeros, so it is fixed and learned only through the network's embedding of it.
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
        if isinstance(raw, Tensor):
            raw = raw.tolist()
        if not isinstance(raw, Sequence) or isinstance(raw, str):
            return self._one(raw).expand(batch, -1).clone()
        if len(raw) != batch:
            raise ShapeError(f"{len(raw)} labels given for {batch} samples; give one each")
        return torch.stack([self._one(label) for label in raw])

    def _one(self, label: Any) -> Tensor:
        weights = label if isinstance(label, Mapping) else {label: 1.0}
        vector = torch.zeros(self.width)
        for name, weight in weights.items():
            vector[self._index(name)] += float(weight)
        return vector

    def _index(self, label: Any) -> int:
        if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < self.width:
            return label
        if str(label) in self.names and not isinstance(label, float):
            return self.names.index(str(label))
        shown = ", ".join(self.names[:12]) + (", …" if self.width > 12 else "")
        raise UsageError(
            f"label {label!r} is not a class of this model; use 0 to {self.width - 1}, or a name: "
            f"{shown}"
        )
