"""One or two CLIP text towers side by side, as Stable Diffusion XL and its refiner read prompts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.encoders.base import ENCODERS, Encoder, Slot
from fromnoise.encoders.clip import CLIPText
from fromnoise.encoders.prompt_schedule import schedule
from fromnoise.layers.condition import Condition, Tokens

POOLED = "pooled"
"""The name of the vector, whatever the encoder's own."""


@ENCODERS.register("clip-joined")
class JoinedCLIP(Encoder):
    """A prompt as the states of one tower beside those of another, and the vector of the last.

    tokens: (B, 77·chunks, width of the first + width of the second). vector "pooled": that of the
    last tower, of its first chunk. first, second: the encoders; the last must be `pooled`. zeros:
    whether the null is all zeros, as these networks were published; else it is the empty prompt.
    Raises UsageError for a last encoder that gives no vector.
    Reference: Podell et al. 2023, section 2.1 and appendix B.
    """

    slot: Slot = "tokens"

    def __init__(self, first: CLIPText, second: CLIPText | None = None, zeros: bool = True) -> None:
        super().__init__()
        self.first, self.second, self.zeros = first, second, zeros
        if not self.towers[-1].pooled:
            raise UsageError("the last text encoder gives the vector; make it with pooled=True")
        self.width = sum(tower.width for tower in self.towers)

    @property
    def towers(self) -> tuple[CLIPText, ...]:
        """One or two."""
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def pooled(self) -> int:
        """The width of the vector."""
        return self.towers[-1].vector_width or 0

    def count(self, prompt: str) -> tuple[int, ...]:
        return self.towers[-1].count(prompt)

    def schedule(self, raw: Any, steps: int) -> Sequence[tuple[int, Any]]:
        return schedule(raw, steps)

    def encode(self, name: str, raw: Any, batch: int) -> Condition:
        """raw: one prompt for all samples, or one for each. Raises as `CLIPText`."""
        told = [tower.encode(name, raw, batch) for tower in self.towers]
        tokens = [one.tokens for one in told if one.tokens is not None]
        return Condition(vector={POOLED: told[-1].vector[name]}, tokens=_beside(tokens))

    def null(self, name: str, batch: int) -> Condition:
        if not self.zeros:
            return self.encode(name, "", batch)
        last = self.towers[-1]
        weight = last.tower.position
        return Condition(
            vector={POOLED: weight.new_zeros(batch, self.pooled)},
            tokens=Tokens(weight.new_zeros(batch, last.length, self.width)),
        )


def _beside(parts: Sequence[Tokens]) -> Tokens:
    """Tokens of the same places, their numbers one after the other."""
    longest = max(part.values.shape[1] for part in parts)
    values = [_longer(part.values, longest) for part in parts]
    masks = [part.mask for part in parts if part.mask is not None]
    # Towers of one vocabulary cut a prompt alike, so that one mask speaks for both.
    mask = next((one for one in masks if one.shape[1] == longest), None)
    return Tokens(torch.cat(values, dim=2), mask)


def _longer(values: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, 0, 0, length - values.shape[1]))
