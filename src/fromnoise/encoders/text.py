"""Text as tokens to attend to: a vocabulary learned from captions, and a small transformer."""

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.core.errors import UsageError
from fromnoise.encoders.base import ENCODERS, Encoder, Slot
from fromnoise.encoders.prompt_schedule import schedule
from fromnoise.encoders.prompted import Rows, Told, condition, listed
from fromnoise.encoders.prompts import Chunk, chunks, counts, framed
from fromnoise.layers.condition import Condition
from fromnoise.layers.transformer import Tower

START, END = 0, 1
_SPECIAL = 2
_STD = 0.02


def alphabet() -> list[str]:
    """The 256 signs that stand for the bytes of a text, in a fixed order."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def learn_merges(captions: Iterable[str], vocabulary: int) -> list[str]:
    """The merges of byte pairs that shorten these captions most, "a b" each, in their order.

    vocabulary: signs in all, the 256 bytes and the two ends counted in. The same captions give the
    same merges.
    Reference: Sennrich, Haddow & Birch 2016; on bytes, Radford et al. 2019.
    """
    from tokenizers import Tokenizer, models, trainers

    least = _SPECIAL + 256
    if vocabulary < least:
        raise UsageError(f"a vocabulary of {vocabulary} signs; use {least} or more")
    learner = Tokenizer(models.BPE())
    _prepare(learner)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - _SPECIAL,
        initial_alphabet=alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    learner.train_from_iterator(captions, trainer)
    merges = _parts(learner)["merges"]
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]


@ENCODERS.register("text")
class Text(Encoder):
    """A prompt as tokens (B, L, width): bytes merged to words, embedded, seen by a transformer.

    The encoder is trained with the network that attends to it. Every token sees every other one.
    A text is put in small letters, and is START, its signs and END, filled up to `length`, where
    the mask says what counts. The null is the empty prompt, so it is learned by dropping prompts.
    With `pooled` it also gives the mean of the tokens that count, over √width so that its square
    sums to about 1, as the vector of the same name.

    Prompts have weights, BREAK and chunks, see `prompts`; a longer prompt is several chunks.

    vocabulary: signs to learn from the captions of the data. merges: those learned; with none,
    only bytes are known. length: tokens of a chunk, both ends counted in. heads divide the width.
    Raises UsageError for sizes that cannot be, or merges that do not follow from each other.
    """

    slot: Slot = "tokens"

    def __init__(
        self,
        vocabulary: int = 1024,
        merges: Sequence[str] = (),
        length: int = 32,
        width: int = 128,
        depth: int = 2,
        heads: int = 4,
        pooled: bool = False,
    ) -> None:
        super().__init__()
        if length < 3:
            raise UsageError(f"prompts of {length} tokens leave no room for words; use 3 or more")
        self.merges = tuple(merges)
        self.length, self.width, self.pooled = length, width, pooled
        self.signs = _signs(self.merges)
        self.embedding = nn.Embedding(len(self.signs), width)
        self.position = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.embedding.weight, std=_STD)
        nn.init.normal_(self.position, std=_STD)
        self.tower = Tower(width, depth, heads, 4 * width)
        self.norm = nn.LayerNorm(width)

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer, models

        merges = [(first, second) for first, second in (pair.split(" ") for pair in self.merges)]
        tokenizer = Tokenizer(models.BPE(vocab=dict(self.signs), merges=merges))
        _prepare(tokenizer)
        return tokenizer

    def tokenize(self, text: str) -> list[int]:
        """The signs of a text by number, without its ends, however long it is.

        Any space is one space, so the parts of a prompt are read as they are when they stand alone.
        """
        return list(self._tokenizer.encode(" ".join(text.split())).ids)

    def chunks(self, prompt: str) -> tuple[Chunk, ...]:
        """A prompt's signs and weights in chunks of at most `length` − 2; see `prompts`."""
        return chunks(prompt, self.tokenize, self.length - 2)

    def count(self, prompt: str) -> tuple[int, ...]:
        """How many tokens of a prompt each of its chunks holds, without the ends."""
        return counts(self.chunks(prompt))

    def encode(self, name: str, raw: Any, batch: int) -> Condition:
        """raw: one prompt for all samples, or one for each.

        A weight multiplies the tokens of its words. A prompt of several chunks is that many times
        as long, and a shorter one beside it is filled up and masked.
        Raises UsageError for what is no text or cannot be parsed, ShapeError for another number of
        prompts than samples.
        """
        return condition(name, listed(raw, batch), self._rows, self._run)

    def schedule(self, raw: Any, steps: int) -> Sequence[tuple[int, Any]]:
        return schedule(raw, steps)

    def null(self, name: str, batch: int) -> Condition:
        return self.encode(name, "", batch)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """ids (B, length), −1 where there is none: (tokens (B, length, width), mask)."""
        mask = ids >= 0
        x = self.embedding(ids.clamp(min=0)) + self.position
        values: Tensor = self.norm(self.tower(x, mask[:, None, None, :]))
        return values, mask

    def _rows(self, prompt: str) -> Rows:
        return Rows(*framed(self.chunks(prompt), self.length, START, END, -1))

    def _run(self, rows: Rows) -> Told:
        values, mask = self(rows.ids.to(self.position.device))
        values = values * rows.weights.to(values)[..., None]
        return Told(values, mask, self._mean(values, mask) if self.pooled else None)

    def _mean(self, values: Tensor, mask: Tensor) -> Tensor:
        counted = mask[:, :, None].to(values)
        total: Tensor = (values * counted).sum(1)
        return total / (counted.sum(1) * math.sqrt(self.width))


def _signs(merges: Sequence[str]) -> dict[str, int]:
    signs = {"<start>": START, "<end>": END}
    for sign in alphabet():
        signs[sign] = len(signs)
    for pair in merges:
        parts = pair.split(" ")
        if len(parts) != 2 or not all(part in signs for part in parts):
            raise UsageError(f"the merge {pair!r} is of signs that are not known by then")
        signs.setdefault("".join(parts), len(signs))
    return signs


def _prepare(tokenizer: Any) -> None:
    from tokenizers import normalizers, pre_tokenizers

    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def _parts(tokenizer: Any) -> dict[str, Any]:
    import json

    parts: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return parts
