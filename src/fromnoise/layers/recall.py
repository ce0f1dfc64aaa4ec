"""What attention remembers of a run: keys and values of tokens that stay the same.

The memory belongs to whoever enters it, the bound denoiser of one run, and goes with it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

Pair = tuple[Tensor, Tensor]


class Recall:
    """Keys and values by the layer that made them, with the tokens they were made of.

    Of each layer the last are held, so it never grows beyond one pair for each.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[int, bool], tuple[nn.Module, Tensor, Pair]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def pair(self, layer: nn.Module, tokens: Tensor, make: Callable[[], Pair]) -> Pair:
        """What `make` gives, or gave for this very tensor; never what has a gradient to pass."""
        # What was made in inference mode cannot take part in a gradient later.
        place = (id(layer), torch.is_inference_mode_enabled())
        held = self._held.get(place)
        if held is not None and held[0] is layer and held[1] is tokens:
            return held[2]
        made = make()
        if not any(part.requires_grad for part in made):
            self._held[place] = (layer, tokens, made)
        return made


_recall: ContextVar[Recall | None] = ContextVar("attention_recall", default=None)


@contextmanager
def recalling(memory: Recall) -> Iterator[None]:
    """Let attention to tokens remember in `memory` for the length of a `with` block.

    It holds for the calling thread only. Enter it around a network call, never across a `yield`.
    """
    token = _recall.set(memory)
    try:
        yield
    finally:
        _recall.reset(token)


def kept(layer: nn.Module, tokens: Tensor, make: Callable[[], Pair]) -> Pair:
    """Key and value of tokens by `make`, or those remembered of the same layer and tensor."""
    memory = _recall.get()
    return make() if memory is None else memory.pair(layer, tokens, make)
