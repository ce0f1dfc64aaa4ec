"""What was done to a training sample, told to the network so that it does not leak into samples."""

from typing import Any

import torch

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.encoders.base import ENCODERS, Encoder, Slot, repeated
from fromnoise.layers.condition import Condition


@ENCODERS.register("augment")
class Augmentation(Encoder):
    """The numbers (B, width) that an augmentation tells of each sample, as they are.

    The null is all zeros: nothing was done. Sampling is told that unless asked for something else,
    and so the samples are like the data and not like the changed data. It is never dropped in
    training: a network told nothing of a changed sample would learn to draw changed ones.

    width: how many numbers; Karras et al. 2022 (appendix F.2) tell 9.
    """

    slot: Slot = "vector"
    droppable = False

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 1:
            raise UsageError(f"an augmentation that tells {width} numbers; use 1 or more")
        self.width = width

    def encode(self, name: str, raw: Any, batch: int) -> Condition:
        vector = torch.as_tensor(raw, dtype=torch.float32)
        if vector.ndim == 1:
            vector = vector.expand(batch, -1)
        if vector.shape != (batch, self.width):
            raise ShapeError(
                f"what an augmentation tells has shape {tuple(vector.shape)}; this model takes "
                f"({batch}, {self.width})"
            )
        return Condition(vector={name: vector})

    def each(self, raw: Any, batch: int) -> Any:
        return repeated(raw, batch, axes=1)

    def null(self, name: str, batch: int) -> Condition:
        return Condition(vector={name: torch.zeros(batch, self.width)})
