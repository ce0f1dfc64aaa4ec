"""A T5 encoder as published, through transformers: long prompts, read by a language model."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fromnoise.core.errors import FileError, FromNoiseError, UsageError
from fromnoise.encoders import prompted
from fromnoise.encoders.base import ENCODERS, Encoder, Slot
from fromnoise.encoders.prompt_schedule import schedule
from fromnoise.encoders.prompts import Chunk, chunks, counts, framed, weighted
from fromnoise.layers.condition import Condition

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5EncoderModel


@ENCODERS.register("t5")
class T5(Encoder):
    """A prompt as the last states of a T5 encoder, (B, length·chunks, width), with a mask.

    The model is opened when the first prompt is read, from safetensors only, and kept out of the
    weights that are saved: a model holds its name. It is never trained. Prompts have the syntax of
    `fromnoise.encoders.prompts`. The null is the empty prompt.

    source: a folder of transformers, or a name on the hub. states: the width of its states
    (`d_model`): 512 small, 768 base, 1024 large, 2048 XL, 4096 XXL. length: tokens of a chunk, its
    end counted in; the relative positions of T5 set no limit. width: of the tokens, by a learned
    linear map, where a network takes other ones. dtype: the type it is run in.
    Needs transformers (`pip install 'fromnoise[text]'`): UsageError without it. FileError for a
    folder or name without such a model, or with one of another width.
    Reference: Raffel et al. 2020; as a text encoder, Saharia et al. 2022.
    """

    slot: Slot = "tokens"

    def __init__(
        self,
        source: str,
        states: int = 512,
        length: int = 77,
        width: int | None = None,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        if length < 2 or states < 1:
            raise UsageError(f"{length} tokens of width {states}; use 2 or more of 1 or more")
        if dtype not in _TYPES:
            raise UsageError(f"dtype {dtype!r} is unknown; use {', '.join(_TYPES)}")
        self.source, self.states, self.length, self.dtype = source, states, length, _TYPES[dtype]
        self.width = states if width is None else width
        self.fit = nn.Identity() if width is None else nn.Linear(states, width)
        # Where the tokens are to be; it follows the module to a device.
        self.place: Tensor
        self.register_buffer("place", torch.zeros(()), persistent=False)

    @cached_property
    def _parts(self) -> "tuple[PreTrainedTokenizerBase, T5EncoderModel]":
        """The tokenizer and the network, which is no submodule: it is not saved with the model."""
        try:
            from transformers import AutoTokenizer, T5EncoderModel
        except ImportError:
            raise UsageError(
                "a t5 encoder needs transformers, which is not installed: "
                "pip install 'fromnoise[text]'"
            ) from None
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.source)
            network = T5EncoderModel.from_pretrained(
                self.source, dtype=self.dtype, use_safetensors=True
            )
        except Exception as error:
            # Whatever the library raises: a folder that is none, no network, weights of another.
            said = str(error).strip().split("\n")[0] or type(error).__name__
            raise FileError(f"no T5 encoder could be opened from {self.source!r}: {said}") from None
        found = network.config.d_model
        if found != self.states:
            raise FileError(
                f"the T5 encoder {self.source!r} has states of width {found}, not {self.states}; "
                f"give states={found}"
            )
        network.requires_grad_(False)
        network.train(False)
        return tokenizer, network

    def chunks(self, prompt: str) -> tuple[Chunk, ...]:
        """The prompt's tokens with their weights. Raises UsageError as `prompts.parse`."""
        return chunks(prompt, self._tokenize, self.length - 1)

    def count(self, prompt: str) -> tuple[int, ...]:
        """How many tokens each chunk of the prompt holds; its end is not counted."""
        return counts(self.chunks(prompt))

    def encode(self, name: str, raw: Any, batch: int) -> Condition:
        """raw: one prompt for all samples, or one for each. Raises as the class says."""
        return prompted.condition(name, prompted.listed(raw, batch), self._rows, self._run)

    def schedule(self, raw: Any, steps: int) -> Sequence[tuple[int, Any]]:
        return schedule(raw, steps)

    def null(self, name: str, batch: int) -> Condition:
        return self.encode(name, "", batch)

    def _tokenize(self, text: str) -> list[int]:
        ids: list[int] = self._parts[0](text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _rows(self, prompt: str) -> prompted.Rows:
        end, pad = (self._sign(name) for name in ("eos_token_id", "pad_token_id"))
        return prompted.Rows(*framed(self.chunks(prompt), self.length, None, end, pad))

    def _sign(self, name: str) -> int:
        value = getattr(self._parts[0], name)
        if not isinstance(value, int):
            raise FromNoiseError(f"the tokenizer of {self.source!r} has no {name}")
        return value

    @torch.no_grad()
    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        network = self._parts[1]
        nn.Module.to(network, ids.device)
        states: Tensor = network(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return states.float()

    def _run(self, rows: prompted.Rows) -> prompted.Told:
        ids = rows.ids.to(self.place.device)
        ends = (ids == self._sign("eos_token_id")).long()
        # What counts is up to the first end, and that end.
        mask = (ends.cumsum(1) - ends) == 0
        states = weighted(self._states(ids, mask), rows.weights.to(ids.device))
        return prompted.Told(self.fit(states), mask)


_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
