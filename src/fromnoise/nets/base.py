"""What a network is: a function of x, time and a condition that it declares beforehand."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated, Any

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fromnoise.core.config import Settings
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.layers.attention import active_hooks, moment, recalled
from fromnoise.layers.condition import Condition, everywhere

SELF = "self"

_Count = Annotated[int, Field(ge=1)]
_TAKEN = frozenset(dir(nn.ModuleDict()))


class Accepts(Settings):
    """The slots of a condition a network takes.

    channels: extra input channels by name with their counts; they follow x in this order. The one
        named "self" is the network's own last belief (self-conditioning): zeros where it is absent.
    vector: raw vectors by name with their widths, embedded and added to the time embedding.
    tokens: width of the tokens it attends to, or None.
    """

    channels: dict[str, _Count] = Field(default_factory=dict)
    vector: dict[str, _Count] = Field(default_factory=dict)
    tokens: _Count | None = None

    @field_validator("channels", "vector")
    @classmethod
    def _named(cls, slots: dict[str, int]) -> dict[str, int]:
        for name in slots:
            if not name.isidentifier() or name in _TAKEN:
                raise ValueError(f"{name!r} cannot name a slot; use another plain word")
        return slots

    def __str__(self) -> str:
        parts = [f"channels {name} ({count})" for name, count in self.channels.items()]
        parts += [f"vector {name} ({width})" for name, width in self.vector.items()]
        parts += [] if self.tokens is None else [f"tokens of width {self.tokens}"]
        return ", ".join(parts) or "no condition"


class Network(nn.Module, ABC):
    """A network of x (B, in_channels, *space), time (B,) and a condition.

    Returns (B, out_channels, *space). `time` is in the network's own units. Each size in `space`
    is a multiple of `divisor`; `accepts` says which slots of a condition it takes: all of them
    and no others. `checkpointing` trades memory for a second forward pass in training.
    draws: whether its answer is a sample or leads to one; a classifier's is a reading of one.
    side: the height and width of the only pictures it takes; None where it takes others too.
    only: (height, width) of the only samples it draws; None for every multiple of `divisor`.
    guide: how to ask for one that does not draw as a guide of another model; "" where it is none.
    """

    draws = True
    side: int | None = None
    only: tuple[int, int] | None = None
    guide = "classifier:{run}"
    config: dict[str, Any]
    in_channels: int
    out_channels: int
    spatial_dims: int
    divisor: int
    accepts: Accepts

    def __init__(self) -> None:
        super().__init__()
        self.checkpointing = False

    @property
    def input_channels(self) -> int:
        """Channels that enter the first layer: those of x and of every channel slot."""
        return self.in_channels + sum(self.accepts.channels.values())

    @property
    def unit(self) -> int:
        """Sizes that are multiples of this are halved without rounding; exports are made in it."""
        return self.divisor

    def forward(self, x: Tensor, time: Tensor, condition: Condition | None = None) -> Tensor:
        """The network's answer, (B, out_channels, *space).

        Raises ShapeError for a shape it cannot take, UsageError for a slot it does not know or
        that is missing.
        """
        told = Condition() if condition is None else condition
        self._check_x(x, time)
        self._check_slots(told)
        extra = [self._channels(name, count, x, told) for name, count in self.slots]
        return self.compute(torch.cat([x, *extra], dim=1) if extra else x, time, told)

    @abstractmethod
    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        """The answer to x with its extra channels, (B, input_channels, *space), all checked."""

    def step(self, part: Callable[..., Tensor], *given: Any) -> Tensor:
        """part(*given), computed again in the backward pass where `checkpointing` says so.

        The second time sees the attention hooks of the first.
        """
        if not (self.checkpointing and torch.is_grad_enabled()):
            return part(*given)
        hooks, now = active_hooks(), moment()
        stepped: Tensor = checkpoint(
            part,
            *given,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), recalled(hooks, now)),
        )
        return stepped

    @property
    def slots(self) -> tuple[tuple[str, int], ...]:
        """The channel slots in order."""
        return tuple(self.accepts.channels.items())

    def _check_x(self, x: Tensor, time: Tensor) -> None:
        if x.ndim != 2 + self.spatial_dims or x.shape[1] != self.in_channels:
            axes = ", ".join(("batch", str(self.in_channels), *("size",) * self.spatial_dims))
            raise ShapeError(f"the network takes x of shape ({axes}), not {tuple(x.shape)}")
        for size in x.shape[2:]:
            if size == 0 or size % self.divisor:
                raise ShapeError(
                    f"size {size} is not a multiple of {self.divisor}, which this network needs; "
                    "resize or pad"
                )
        if time.shape != x.shape[:1]:
            raise ShapeError(f"time has shape {tuple(time.shape)}; give one for each of {len(x)}")

    def _check_slots(self, told: Condition) -> None:
        given = {f"channels {name}" for name in told.channels}
        given |= {f"vector {name}" for name in told.vector}
        given |= set() if told.tokens is None else {"tokens"}
        wanted = {f"channels {name}" for name in self.accepts.channels}
        wanted |= {f"vector {name}" for name in self.accepts.vector}
        wanted |= set() if self.accepts.tokens is None else {"tokens"}
        for slot in sorted(given - wanted):
            raise UsageError(f"this network does not take {slot}; it takes {self.accepts}")
        for slot in sorted(wanted - given - {f"channels {SELF}"}):
            raise UsageError(f"the condition lacks {slot}; this network takes {self.accepts}")

    def _channels(self, name: str, count: int, x: Tensor, told: Condition) -> Tensor:
        shape = (x.shape[0], count, *x.shape[2:])
        if name not in told.channels:
            return x.new_zeros(shape)
        given = everywhere(told.channels[name], x.shape[2:])
        _check_shape(f"channels {name}", given, shape)
        return given.to(x)

    def vectors(self, batch: int, told: Condition) -> dict[str, Tensor]:
        """The raw vectors of every slot by name, checked."""
        return {name: self.vector(name, batch, told) for name in self.accepts.vector}

    def vector(self, name: str, batch: int, told: Condition) -> Tensor:
        """The raw vector of a slot, (batch, width), checked."""
        _check_shape(f"vector {name}", told.vector[name], (batch, self.accepts.vector[name]))
        return told.vector[name]

    def check_tokens(self, batch: int, told: Condition) -> None:
        """Raise ShapeError when tokens or their mask are not (batch, length, width)."""
        if told.tokens is None or self.accepts.tokens is None:
            return
        length = told.tokens.values.shape[1]
        _check_shape("tokens", told.tokens.values, (batch, length, self.accepts.tokens))
        if told.tokens.mask is not None:
            _check_shape("the tokens' mask", told.tokens.mask, (batch, length))


def _check_shape(what: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape:
        raise ShapeError(f"{what} has shape {tuple(value.shape)}; the network needs {shape}")
