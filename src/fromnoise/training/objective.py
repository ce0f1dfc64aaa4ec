"""What is trained: an objective yields losses and keeps its own state."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fromnoise.codecs import Codec
from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise
from fromnoise.encoders import Conditioning
from fromnoise.encoders.prompts import escaped
from fromnoise.layers.condition import Condition
from fromnoise.nets.base import Network
from fromnoise.training.draws import Draws
from fromnoise.training.dropout import Dropout

MAIN = "main"

_GIVEN: dict[str, Callable[[Any], Any]] = {
    "label": attrgetter("label"),
    "prompt": lambda batch: _meant(batch.caption),
    "augment": attrgetter("augment"),
}
"""What a batch knows of each input a network may be told, by the input's name."""


def _meant(captions: Sequence[str] | None) -> list[str] | None:
    # A caption is no prompt: its brackets and colons are text.
    return None if captions is None else [escaped(caption) for caption in captions]


class Samples(Protocol):
    """A batch of training data: x (B, ...) and what is known of each sample.

    An objective also reads `augment` where its network is told of augmentations.
    """

    @property
    def x(self) -> Tensor: ...
    @property
    def label(self) -> Tensor | None: ...
    @property
    def caption(self) -> Sequence[str] | None: ...
    @property
    def given(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Phase:
    """One loss of a step, and the group of parameters that it trains.

    loss: a scalar, the mean over the samples it was given. each: what `observed` is to be
    told of each of them, (B,) or (B, K): its loss, say, or its time and loss.
    """

    name: str
    loss: Tensor
    group: str = MAIN
    each: Tensor | None = None


class Objective(nn.Module, ABC):
    """What is trained, with all its state: everything in its `state_dict` is checkpointed.

    splits: whether a step may be split over micro-steps and processes, each sample's loss being its
    own. codec: what makes the latents it learns of, see `behind`; None where it learns of the data.
    """

    splits = True
    encoded = False

    def __init__(self) -> None:
        super().__init__()
        self.codec: Codec | None = None

    def behind(self, codec: Codec, encoded: bool = False) -> None:
        """Learn of the latents of a codec, which is not trained and is kept with the state.

        encoded: whether the data are latents already. Raises UsageError for an objective that
        learns of pixels only.
        """
        raise UsageError(
            f"a {type(self).__name__} objective learns of the data itself, and not behind a "
            f"{type(codec).__name__} codec; leave the codec out"
        )

    def keep(self, codec: Codec, encoded: bool) -> None:
        """Freeze a codec and hold it, so that a run that goes on needs no other folder."""
        self.codec = codec.requires_grad_(False)
        self.encoded = encoded

    def data(self, batch: "Samples", device: torch.device) -> Tensor:
        """What is learned of a batch: its samples, or their latents where it is behind a codec."""
        x = batch.x.to(device)
        if self.codec is None or self.encoded:
            return x
        with torch.no_grad(), unrounded(x):
            latents: Tensor = self.codec.encode(x)
        return latents

    @abstractmethod
    def phases(self, batch: Samples, draws: Draws) -> Iterable[Phase]:
        """The losses of a step in order; the parameters of one are stepped before the next.

        All randomness that should not depend on how the step is split comes from `draws`.
        """

    def rehearse(self, batch: Samples, draws: Draws) -> None:
        """Compute on a batch all that training will, to find what cannot be before it begins.

        Called in evaluation mode and without gradients.
        """
        for _ in self.phases(batch, draws):
            pass

    def prepare(self, x: Tensor, seed: int) -> None:
        """Called once before the first step with some of the training data (M, ...)."""
        del x, seed

    def observed(self, positions: Tensor, losses: Tensor) -> None:
        """Called before `after_step` where a phase has `each`: the same in every process.

        positions: places in the step's batch, 0 to B − 1. losses: those of the samples there,
        (B,) or (B, K), whichever process and micro-step they came from.
        """
        del positions, losses

    def after_step(self) -> None:
        """Called after the parameters have been stepped."""

    def save_memory(self, on: bool) -> None:
        """Compute the activations of its networks a second time, in place of keeping them."""
        for module in self.modules():
            if isinstance(module, Network):
                module.checkpointing = on

    def groups(self) -> Mapping[str, list[tuple[str, nn.Parameter]]]:
        """The named parameters of each group; each group has its own optimizer."""
        return {MAIN: [(n, p) for n, p in self.named_parameters() if p.requires_grad]}


def condition_of(
    conditioning: Conditioning,
    batch: Samples,
    chance: Tensor,
    dropout: Dropout | None,
    noise: Noise,
    space: Sequence[int] | None = None,
) -> Condition | None:
    """What a network is told of a batch, but for what `dropout` leaves out.

    An input is what the batch was given under its name, else what `_GIVEN` reads of the batch,
    else what its encoder makes of the samples. None where the network takes no condition.

    chance: a number on [0, 1) for each sample, which decides whether it is told nothing at all.
    noise: draws the rest; nothing, where neither dropout nor an encoder leaves more to chance.
    space: sizes of what the network sees, where those are not the samples'.
    Raises UsageError for an input that the data knows nothing of.
    """
    names = conditioning.names
    if not names:
        return None
    known = {name: batch.given.get(name) for name in names}
    for name in set(known) & set(_GIVEN):
        if known[name] is None:
            known[name] = _GIVEN[name](batch)
    raw = conditioning.drawn(known, noise, batch.x)
    for name in names:
        if name not in raw and name not in _GIVEN:
            gives = ", ".join(sorted(batch.given)) or "nothing besides labels and captions"
            raise UsageError(
                f"the model is to be told a {name}, which this data does not know; it gives {gives}"
            )
    keep = None if dropout is None else dropout.keep(names, chance, noise)
    told: Condition = conditioning(raw, len(chance), tuple(space or batch.x.shape[2:]), keep)
    return replace(told, null=None)


def unrounded(like: Tensor) -> torch.autocast:
    """Arithmetic in the type of the numbers, whatever the network around it is run in."""
    return torch.autocast(like.device.type, enabled=False)
