"""An encoder turns raw input (a label, a prompt, a picture) into one slot of a condition."""

from abc import ABC, abstractmethod
from typing import Any, Literal

from torch import nn

from fromnoise.core.config import Kinds
from fromnoise.layers.condition import Condition

ENCODERS = Kinds("encoder")
"""Every encoder a configuration file can name, by kind."""

Slot = Literal["channels", "vector", "tokens"]


class Encoder(nn.Module, ABC):
    """Raw input → a condition with one slot filled, and what stands for no input: the null.

    slot: which of the three slots it fills. width: of what it fills it with. droppable: whether
    training may leave it out, so that there is a model without it to guide away from.
    """

    config: dict[str, Any]
    slot: Slot
    width: int
    droppable = True

    @abstractmethod
    def encode(self, name: str, raw: Any, batch: int) -> Condition:
        """The condition of `batch` samples, its part under `name`.

        raw: one input for all of them, or a sequence with one each.
        """

    @abstractmethod
    def null(self, name: str, batch: int) -> Condition:
        """The condition of `batch` samples that are told nothing."""
