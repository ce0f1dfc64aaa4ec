"""A vector of numbers as it is: the direction of a picture, features, another model's samples."""

from typing import Any

import torch

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.encoders.base import ENCODERS, Encoder, Slot, repeated
from fromnoise.layers.condition import Condition


@ENCODERS.register("vector")
class Vector(Encoder):
    """Vectors (B, width), over √width: of numbers of size 1 the squares then sum to about 1.

    Raw input: one vector (width,) for all samples, or one for each. The null is all zeros.

    Raises UsageError for what is no numbers, or not finite, ShapeError for another shape.
    """

    slot: Slot = "vector"

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 1:
            raise UsageError(f"a vector of {width} numbers; use 1 or more")
        self.width = width

    def encode(self, name: str, raw: Any, batch: int) -> Condition:
        try:
            vector = torch.as_tensor(raw, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError):
            raise UsageError(f"the {name} is a vector of numbers, not {raw!r:.60}") from None
        if vector.ndim == 1:
            vector = vector.expand(batch, -1)
        if vector.shape != (batch, self.width):
            raise ShapeError(
                f"the {name} has shape {tuple(vector.shape)}; this model takes "
                f"({batch}, {self.width})"
            )
        if not bool(torch.isfinite(vector).all()):
            raise UsageError(f"the {name} holds numbers that are not finite")
        return Condition(vector={name: vector / self.width**0.5})

    def each(self, raw: Any, batch: int) -> Any:
        return repeated(raw, batch, axes=1)

    def null(self, name: str, batch: int) -> Condition:
        return Condition(vector={name: torch.zeros(batch, self.width)})
