"""Attention, and the one seam through which its maps are read or replaced."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from fromnoise.core.errors import UsageError
from fromnoise.layers.condition import Tokens
from fromnoise.layers.init import xavier_, zero_
from fromnoise.layers.recall import kept
from fromnoise.layers.slices import room_for, sliced

_FEW_KEYS = 64


@dataclass(frozen=True)
class Place:
    """Where in a network an attention stands: its name there and what it looks at."""

    name: str
    kind: Literal["self", "cross"]


@dataclass(frozen=True)
class Moment:
    """What is known of the network call that an attention is part of.

    t: the time of each row (B,), 0 = data and 1 = noise; None outside a denoiser. told: which rows
    are told the condition (B,), the others being those that guidance moves away from; None where
    all rows are told the same way.
    """

    t: Tensor | None = None
    told: Tensor | None = None


class Kernel(Protocol):
    """How attention is computed when nobody watches: (B, heads, N, D) in, the same shape out."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attend; `mask` (B, 1, 1, K) is true where a key counts."""
        ...


class Hook(ABC):
    """What stands in the seam: it sees, and may replace, what every attention it wants does.

    `moment()` says within it when the network is called, and which rows are told something.
    """

    @abstractmethod
    def wants(self, place: Place) -> bool:
        """Whether this attention is of interest; the others run untouched, bit for bit."""

    def inputs(
        self, place: Place, query: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The query, key and value to go on with, each (B, heads, N, D); by default the same."""
        return query, key, value

    @abstractmethod
    def maps(self, place: Place, probabilities: Tensor) -> Tensor:
        """The probabilities (B, heads, queries, keys) to go on with."""


_hooks: ContextVar[tuple[Hook, ...]] = ContextVar("attention_hooks", default=())
_moment: ContextVar[Moment] = ContextVar("attention_moment", default=Moment())  # noqa: B039


@contextmanager
def hooked(*hooks: Hook) -> Iterator[None]:
    """Let hooks stand in the seam for the length of a `with` block, after those already there.

    It holds for the calling thread only. Enter it around a network call, never across a `yield`.
    """
    token = _hooks.set((*_hooks.get(), *hooks))
    try:
        yield
    finally:
        _hooks.reset(token)


def active_hooks() -> tuple[Hook, ...]:
    """The hooks now in the seam, outermost first."""
    return _hooks.get()


def moment() -> Moment:
    """The network call that is being made."""
    return _moment.get()


@contextmanager
def during(t: Tensor | None = None, told: Tensor | None = None) -> Iterator[None]:
    """Let hooks know t and which rows are told something; what is not given stays as it was.

    It holds for the calling thread only. Enter it around a network call, never across a `yield`.
    """
    now = _moment.get()
    token = _moment.set(Moment(now.t if t is None else t, now.told if told is None else told))
    try:
        yield
    finally:
        _moment.reset(token)


@contextmanager
def recalled(hooks: Sequence[Hook], at: Moment) -> Iterator[None]:
    """The seam as it was at another time: these hooks alone, and that moment."""
    tokens = _hooks.set(tuple(hooks)), _moment.set(at)
    try:
        yield
    finally:
        _hooks.reset(tokens[0])
        _moment.reset(tokens[1])


def plain_kernel(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """torch's scaled dot-product attention; written out where its gradient is slow.

    On a processor the backward pass of the fused operation in bfloat16 takes 3 to 10 times as long
    as that of the product written out, as long as there are few keys. Where torch has no fused
    kernel and the map would take too much of the memory that is free, it is made in slices.
    """
    cpu, learns = query.device.type == "cpu", query.requires_grad and torch.is_grad_enabled()
    if cpu and learns and query.dtype == torch.bfloat16 and key.shape[2] <= _FEW_KEYS:
        return probabilities(query, key, mask).to(value.dtype) @ value
    room = room_for(query, key, value)
    if room is not None:
        return sliced(query, key, value, mask, room)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask)


def probabilities(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √D) over the keys, in float32 at least; a row with no key at all is zero.

    query, key: (B, heads, N, D); mask: (B, 1, 1, K), true where a key counts.
    Reference: Vaswani et al. 2017, equation 1.
    """
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if mask is None:
        weights: Tensor = logits.softmax(dim=-1)
        return weights
    weights = logits.masked_fill(~mask, -torch.inf).softmax(dim=-1)
    return weights.masked_fill(~mask, 0.0)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    place: Place,
    mask: Tensor | None = None,
    kernel: Kernel = plain_kernel,
) -> Tensor:
    """Attention of every network: softmax(q kᵀ / √D) v, watched by the hooks in the seam.

    query, key, value: (B, heads, N, D); mask: (B, 1, 1, K), true where a key counts. Without a
    hook that wants this place the kernel computes it; with one, the map is made and shown.
    """
    active = [hook for hook in _hooks.get() if hook.wants(place)]
    if not active:
        return kernel(query, key, value, mask)
    for hook in active:
        query, key, value = hook.inputs(place, query, key, value)
    weights = probabilities(query, key, mask)
    for hook in active:
        weights = hook.maps(place, weights)
    return weights.to(value.dtype) @ value


class Attention(nn.Module):
    """Residual multi-head attention of a feature map on itself or on tokens.

    x + out(attend(query(norm(x)), key(c), value(c))) with c = norm(x), or the tokens where
    `context` is their width. `out` starts at zero, so the layer starts as the identity.

    channels: of the feature map; heads: must divide them; place: the name shown to hooks.
    Raises UsageError when the heads do not divide the channels.
    Reference: Vaswani et al. 2017; in a U-Net, Ho, Jain & Abbeel 2020.
    """

    def __init__(
        self,
        norm: nn.Module,
        channels: int,
        heads: int,
        place: str,
        context: int | None = None,
    ) -> None:
        super().__init__()
        if channels % heads:
            raise UsageError(f"{heads} attention heads do not divide {channels} channels")
        self.heads = heads
        self.place = Place(place, "self" if context is None else "cross")
        self.kernel: Kernel = plain_kernel
        width = channels if context is None else context
        self.norm = norm
        self.query = xavier_(nn.Linear(channels, channels))
        self.key = xavier_(nn.Linear(width, channels))
        self.value = xavier_(nn.Linear(width, channels))
        self.out = zero_(nn.Linear(channels, channels))

    def forward(self, x: Tensor, tokens: Tokens | None = None) -> Tensor:
        own: Tensor = self.norm(x).flatten(2).transpose(1, 2)
        context, mask = own, None
        if self.place.kind == "cross" and tokens is not None:
            context = tokens.values
            mask = None if tokens.mask is None else tokens.mask[:, None, None, :]
        query = parted(self.query(own), self.heads)
        key, value = keys_and_values(self, context, own.dtype)
        mixed = attend(query, key, value, self.place, mask, self.kernel)
        change: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return x + change.transpose(1, 2).reshape(x.shape)


class TokenAttention(nn.Module):
    """Multi-head attention of a sequence, (B, M, C), on a sequence, (B, N, D): (B, M, out).

    out(attend(query(x), key(c), value(c))), without norm and residual sum.

    channels: C, divided by heads; place: the name shown to hooks; out: by default C. context: D
    of tokens of another kind; by default C, a sequence attended to by its like. bias: of query,
    key and value; `out` has one always.
    Raises UsageError when the heads do not divide the channels.
    Reference: Vaswani et al. 2017.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        place: str,
        out: int | None = None,
        context: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if channels % heads:
            raise UsageError(f"{heads} attention heads do not divide {channels} channels")
        self.heads = heads
        self.place = Place(place, "self" if context is None else "cross")
        self.kernel: Kernel = plain_kernel
        width = channels if context is None else context
        self.query = xavier_(nn.Linear(channels, channels, bias=bias))
        self.key = xavier_(nn.Linear(width, channels, bias=bias))
        self.value = xavier_(nn.Linear(width, channels, bias=bias))
        self.out = xavier_(nn.Linear(channels, channels if out is None else out))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """mask: (B, N), true where an element of the context counts."""
        query = parted(self.query(x), self.heads)
        key, value = keys_and_values(self, context, x.dtype)
        counts = None if mask is None else mask[:, None, None, :]
        mixed = attend(query, key, value, self.place, counts, self.kernel)
        answer: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return answer


def keys_and_values(
    layer: Attention | TokenAttention, context: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Those of a context, (B, heads, N, D) each; those of tokens may be remembered over a run."""

    def make() -> tuple[Tensor, Tensor]:
        seen = context.to(dtype)
        return parted(layer.key(seen), layer.heads), parted(layer.value(seen), layer.heads)

    return kept(layer, context, make) if layer.place.kind == "cross" else make()


def parted(x: Tensor, heads: int) -> Tensor:
    """(B, N, C) to (B, heads, N, C/heads)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def everywhere(place: Place) -> bool:
    """Every attention."""
    return True


class ReadMaps(Hook):
    """Keeps the maps of the attentions chosen, in the order of the calls.

    `maps_at["name"]` is a list with one (B, heads, queries, keys) tensor for each call.
    """

    def __init__(self, choose: Callable[[Place], bool] = everywhere) -> None:
        self._choose = choose
        self.maps_at: dict[str, list[Tensor]] = {}

    def wants(self, place: Place) -> bool:
        return self._choose(place)

    def maps(self, place: Place, probabilities: Tensor) -> Tensor:
        self.maps_at.setdefault(place.name, []).append(probabilities.detach().clone())
        return probabilities


class ReplaceMaps(Hook):
    """Puts `change(place, part)` in place of part of the maps: some heads, some keys (tokens).

    heads, tokens: which of them are shown to `change` and replaced; None for all.
    """

    def __init__(
        self,
        change: Callable[[Place, Tensor], Tensor],
        choose: Callable[[Place], bool] = everywhere,
        heads: Sequence[int] | None = None,
        tokens: Sequence[int] | None = None,
    ) -> None:
        self._change = change
        self._choose = choose
        self._heads = heads
        self._tokens = tokens

    def wants(self, place: Place) -> bool:
        return self._choose(place)

    def maps(self, place: Place, probabilities: Tensor) -> Tensor:
        heads = _index(self._heads, probabilities, 1)[:, None]
        tokens = _index(self._tokens, probabilities, 3)[None, :]
        changed = probabilities.clone()
        part = probabilities.index_select(1, heads[:, 0]).index_select(3, tokens[0])
        new = self._change(place, part).to(changed.dtype)
        changed[:, heads, :, tokens] = new.permute(1, 3, 0, 2)
        return changed


def _index(chosen: Sequence[int] | None, maps: Tensor, axis: int) -> Tensor:
    size = maps.shape[axis]
    return torch.as_tensor(
        range(size) if chosen is None else list(chosen),
        dtype=torch.long,
        device=maps.device,
    )
