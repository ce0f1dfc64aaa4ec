"""The three ways a network can be told something, and no others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError


@dataclass(frozen=True)
class Tokens:
    """Tokens for cross-attention: `values` (B, L, D), and `mask` (B, L), true where it counts."""

    values: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True)
class Condition:
    """What a network is told besides x and t, in three named slots.

    channels: extra input channels by name, each (B, C, ...) of the picture's spatial size, or
        (B, C) for what is the same in every place; the network concatenates them in the order it
        declares.
    vector: raw vectors by name, each (B, K): one-hot or mixed class weights, sizes, levels; the
        network embeds them and adds them to its time embedding.
    tokens: a sequence for cross-attention.
    null: what the network is told of these samples when it is told nothing, for guidance without
        a classifier; its encoders say which slots that drops.
    """

    channels: Mapping[str, Tensor] = field(default_factory=dict)
    vector: Mapping[str, Tensor] = field(default_factory=dict)
    tokens: Tokens | None = None
    null: "Condition | None" = None

    @property
    def batch(self) -> int | None:
        """How many samples it speaks of, or None when every slot is empty."""
        for value in (*self.channels.values(), *self.vector.values()):
            return value.shape[0]
        return None if self.tokens is None else self.tokens.values.shape[0]

    def map(self, function: Callable[[Tensor], Tensor]) -> "Condition":
        """Apply a function of one tensor to every tensor in every slot."""
        tokens = self.tokens
        if tokens is not None:
            mask = None if tokens.mask is None else function(tokens.mask)
            tokens = Tokens(function(tokens.values), mask)
        return Condition(
            {k: function(v) for k, v in self.channels.items()},
            {k: function(v) for k, v in self.vector.items()},
            tokens,
            None if self.null is None else self.null.map(function),
        )

    def rows(self, index: slice | Tensor) -> "Condition":
        """The condition of some of the samples."""
        return self.map(lambda value: value[index])

    def to(self, device: torch.device | str) -> "Condition":
        """The same condition on another device."""
        return self.map(lambda value: value.to(device))


def where(keep: Tensor, told: Condition, null: Condition) -> Condition:
    """Per sample, `told` where `keep` (B,) is true and `null` elsewhere.

    Raises ShapeError when they do not fill the same slots. Shorter tokens are padded and masked.
    """

    def pick(a: Tensor, b: Tensor) -> Tensor:
        mask = keep.reshape((-1,) + (1,) * (a.ndim - 1))
        return torch.where(mask.to(a.device), a, b.to(a))

    return _zip(told, null, pick)


def concatenate(first: Condition, second: Condition) -> Condition:
    """Two conditions with the same slots, one after the other along the batch.

    Raises ShapeError when they do not fill the same slots. Shorter tokens are padded and masked.
    """
    return _zip(first, second, lambda a, b: torch.cat([a, b.to(a)]))


def merge(*conditions: Condition) -> Condition:
    """One condition for the same samples out of several: tokens concatenate, names unite.

    Raises ShapeError when two of them use the same name in the same slot.
    """
    channels: dict[str, Tensor] = {}
    vector: dict[str, Tensor] = {}
    parts: list[Tokens] = []
    for condition in conditions:
        for slot, values in (
            (channels, condition.channels),
            (vector, condition.vector),
        ):
            clash = slot.keys() & values.keys()
            if clash:
                raise ShapeError(f"condition parts share the name {sorted(clash)[0]!r}")
            slot.update(values)
        if condition.tokens is not None:
            parts.append(condition.tokens)
    nulls = [c.null for c in conditions if c.null is not None]
    null = merge(*nulls) if nulls and len(nulls) == len(conditions) else None
    return Condition(channels, vector, _join(parts), null)


def _join(parts: list[Tokens]) -> Tokens | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    masks = [_mask(p) for p in parts]
    return Tokens(torch.cat([p.values for p in parts], dim=1), torch.cat(masks, dim=1))


def _mask(tokens: Tokens) -> Tensor:
    if tokens.mask is not None:
        return tokens.mask
    values = tokens.values
    return torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)


def _zip(a: Condition, b: Condition, function: Callable[[Tensor, Tensor], Tensor]) -> Condition:
    if _slots(a) != _slots(b):
        raise ShapeError(f"conditions have different parts: {_slots(a)} and {_slots(b)}")
    tokens = None
    if a.tokens is not None and b.tokens is not None:
        tokens = _zip_tokens(a.tokens, b.tokens, function)
    return Condition(
        {k: function(*_spread(v, b.channels[k])) for k, v in a.channels.items()},
        {k: function(v, b.vector[k]) for k, v in a.vector.items()},
        tokens,
    )


def _spread(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Channels (B, C), the same in every place, in every place of the other's."""
    return everywhere(a, b.shape[2:]), everywhere(b, a.shape[2:])


def everywhere(value: Tensor, space: Sequence[int]) -> Tensor:
    """Channels (B, C) as (B, C, *space); those with places of their own as they are."""
    if value.ndim != 2:
        return value
    return value.reshape(*value.shape, *(1,) * len(space)).expand(*value.shape, *space)


def _slots(condition: Condition) -> list[str]:
    tokens = [] if condition.tokens is None else ["tokens"]
    return [*sorted(condition.channels), *sorted(condition.vector), *tokens]


def _zip_tokens(a: Tokens, b: Tokens, function: Callable[[Tensor, Tensor], Tensor]) -> Tokens:
    if a.mask is None and b.mask is None and a.values.shape[1] == b.values.shape[1]:
        return Tokens(function(a.values, b.values))
    length = max(a.values.shape[1], b.values.shape[1])
    a, b = _padded(a, length), _padded(b, length)
    return Tokens(function(a.values, b.values), function(_mask(a), _mask(b)))


def _padded(tokens: Tokens, length: int) -> Tokens:
    extra = length - tokens.values.shape[1]
    return Tokens(
        torch.nn.functional.pad(tokens.values, (0, 0, 0, extra)),
        torch.nn.functional.pad(_mask(tokens), (0, extra)),
    )
