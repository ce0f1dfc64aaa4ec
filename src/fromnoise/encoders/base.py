"""An encoder turns raw input (a label, a prompt, a picture) into one slot of a condition."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fromnoise.core.config import Kinds
from fromnoise.core.randomness import Noise
from fromnoise.layers.condition import Condition
from fromnoise.schedules import SCHEDULES

ENCODERS = Kinds("encoder", uses=(SCHEDULES,))
"""Every encoder a configuration file can name, by kind."""

Slot = Literal["channels", "vector", "tokens"]


class Coder(Protocol):
    """What takes pictures (B, C, H, W) in [−1, 1] to latents (B, c, H/factor, W/factor)."""

    factor: int

    def encode(self, x: Tensor) -> Tensor:
        """The latents of pictures."""
        ...


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

    def count(self, prompt: str) -> tuple[int, ...]:
        """How many tokens each chunk of a prompt has; nothing for what reads no prompts."""
        del prompt
        return ()

    def schedule(self, raw: Any, steps: int) -> Sequence[tuple[int, Any]]:
        """One input over a run: (until and with this step, counted from 1; input).

        By default it is the same in all steps; a prompt may change, as `[a:b:0.4]` does.
        """
        return [(steps, raw)]

    def opened(self, raw: Any, space: Sequence[int]) -> Any:
        """What a person gives (pictures, paths) as what `encode` takes; others as they are.

        space: the sizes of a sample, which pictures of several sizes are brought to.
        """
        del space
        return raw

    def sides(self, raw: Any) -> tuple[int, int] | None:
        """Height and width of what is diffused that an input asks for; None where any will do."""
        del raw
        return None

    def shaped(
        self, name: str, raw: Any, space: Sequence[int], coder: "Coder | None" = None
    ) -> Any:
        """The raw input, None where none was given, for samples of one shape.

        What the network is told as latents becomes them, and what follows from the size of a
        sample is filled in. space: the sizes of a sample; coder: its codec, where there is one.
        Raises UsageError where nothing was given and nothing can stand for it.
        """
        del name, space, coder
        return raw

    def drawn(self, raw: Any, noise: Noise, x: Tensor | None = None) -> Any:
        """The raw input with what it leaves to chance drawn.

        raw: None where none was given. x: the samples (B, ...) in training; None in sampling.
        """
        del noise, x
        return raw

    def each(self, raw: Any, batch: int) -> Any:
        """The raw input with one entry for each sample in every list, tensor and array of it.

        What is one for all and is itself such a thing is there `batch` times; all else stays.
        """
        del batch
        return raw

    def fitted(self, condition: Condition, space: Sequence[int]) -> Condition:
        """A condition of its own with channels of the sizes of a sample."""
        del space
        return condition

    def opposite(self, told: Condition) -> Condition:
        """What stands against what is told, in guidance, where it is not droppable: the same."""
        return told


def repeated(raw: Any, batch: int, axes: int) -> Any:
    """Numbers with so many axes, one for all, once for each sample; others as they are."""
    if _axes(raw) != axes:
        return raw
    if isinstance(raw, np.ndarray):
        raw = torch.from_numpy(raw)
    listed = isinstance(raw, list | tuple)
    if listed and raw and isinstance(raw[0], Tensor | np.ndarray):
        raw = torch.stack([torch.as_tensor(one) for one in raw])
    return raw.expand(batch, *raw.shape) if isinstance(raw, Tensor) else [raw] * batch


def _axes(raw: Any) -> int:
    """The axes of nested lists of numbers, or of tensors."""
    if isinstance(raw, Tensor | np.ndarray):
        return raw.ndim
    if isinstance(raw, list | tuple):
        return 1 + (_axes(raw[0]) if raw else 0)
    return 0
