"""What the text encoders with a published vocabulary share: it is data, and cuts their prompts."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.encoders import prompted
from fromnoise.encoders.base import Encoder, Slot
from fromnoise.encoders.prompt_schedule import schedule
from fromnoise.encoders.prompts import Chunk, chunks, counts, framed
from fromnoise.layers.condition import Condition

_VOCABULARY = "vocabulary"


class Signs(Protocol):
    """Text → ids, and the ids of what frames a text; `comma` is that of a comma, if it has one."""

    start: int
    end: int
    pad: int
    comma: int | None

    def __call__(self, text: str) -> list[int]:
        """The ids of a text, without its start and end."""
        ...


class Reading(Encoder, ABC):
    """An encoder of prompts whose vocabulary is a buffer, saved with the weights.

    A prompt is cut into chunks of length − 2 tokens, each between the start and the end of a text
    and filled up; the chunks are encoded apart and their tokens follow each other. The null is the
    empty prompt.

    length: tokens of a chunk with both ends. backtrack: a full chunk ends after a comma among its
    last so many tokens; 0 for no such rule.
    """

    slot: Slot = "tokens"
    length: int
    backtrack = 0
    vocabulary: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer(_VOCABULARY, torch.zeros(0, dtype=torch.uint8))

    @abstractmethod
    def reader(self, data: bytes) -> Signs:
        """What reads prompts by a vocabulary, from the bytes it is saved as."""

    @abstractmethod
    def run(self, rows: prompted.Rows) -> prompted.Told:
        """What the encoder makes of chunks."""

    def read_with(self, data: bytes, size: int, rows: int) -> Self:
        """Read prompts with this vocabulary from now on; returns itself.

        size: how many rows its ids need; rows: how many the encoder embeds.
        Raises UsageError for a vocabulary with more ids than that.
        """
        if size > rows:
            raise UsageError(
                f"a vocabulary with ids up to {size - 1} for a tower that embeds {rows}"
            )
        self.vocabulary = torch.frombuffer(bytearray(data), dtype=torch.uint8).clone()
        self.__dict__.pop("tokenizer", None)
        return self

    @cached_property
    def tokenizer(self) -> Signs:
        """What reads prompts. Raises UsageError where no vocabulary was set."""
        if not self.vocabulary.numel():
            raise UsageError(
                f"this {self.config['kind']} encoder has no vocabulary; give it one with "
                "encoder.set_vocabulary(read_vocabulary(folder))"
            )
        return self.reader(self.vocabulary.cpu().numpy().tobytes())

    def chunks(self, prompt: str) -> tuple[Chunk, ...]:
        """The prompt's tokens with their weights. Raises UsageError as `prompts.parse`."""
        tokenizer = self.tokenizer
        comma = tokenizer.comma if self.backtrack else None
        return chunks(prompt, tokenizer, self.length - 2, comma, self.backtrack)

    def count(self, prompt: str) -> tuple[int, ...]:
        """How many tokens each chunk of the prompt holds, its ends not counted."""
        return counts(self.chunks(prompt))

    def encode(self, name: str, raw: Any, batch: int) -> Condition:
        """raw: one prompt for all samples, or one for each.

        Raises UsageError for what is no text or a weight that is no number, ShapeError for another
        number of prompts than samples.
        """
        return prompted.condition(name, prompted.listed(raw, batch), self._rows, self.run)

    def schedule(self, raw: Any, steps: int) -> Sequence[tuple[int, Any]]:
        return schedule(raw, steps)

    def null(self, name: str, batch: int) -> Condition:
        return self.encode(name, "", batch)

    def _rows(self, prompt: str) -> prompted.Rows:
        signs = self.tokenizer
        parts = self.chunks(prompt)
        return prompted.Rows(*framed(parts, self.length, signs.start, signs.end, signs.pad))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        # A fresh encoder does not know yet how long its vocabulary is.
        if prefix + _VOCABULARY in state:
            self.vocabulary = torch.empty_like(state[prefix + _VOCABULARY])
            self.__dict__.pop("tokenizer", None)
        super()._load_from_state_dict(state, prefix, *rest)
