"""What the encoders of pictures share: planes the network sees beside x, and their null."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.images import at_edge
from fromnoise.encoders.base import Encoder, Slot, repeated
from fromnoise.layers.condition import Condition

Null = float | Literal["learned"]
"""What stands for no picture in every place of every channel: a number, or one for each channel
that is learned with the network, from 0 on."""

_SLACK = 1e-3


class Planes(Encoder, ABC):
    """Raw pictures → channels (B, width, H, W), brought to the size of the sample.

    The null is the same in every place, (B, width), so it has every size. axes: of one raw input.
    """

    slot: Slot = "channels"
    axes = 3

    def __init__(self, width: int, null: Null = 0.0) -> None:
        super().__init__()
        if width < 1:
            raise UsageError(f"an encoder of {width} channels; use 1 or more")
        self.width = width
        value = torch.zeros(width) if null == "learned" else torch.full((width,), float(null))
        # A fixed one is part of the configuration, not of the weights.
        self.nothing: Tensor
        if null == "learned":
            self.nothing = nn.Parameter(value)
        else:
            self.register_buffer("nothing", value, persistent=False)

    @abstractmethod
    def planes(self, name: str, raw: Any, batch: int) -> Tensor:
        """Checked channels (B, width, h, w) of any size."""

    def encode(self, name: str, raw: Any, batch: int) -> Condition:
        return Condition(channels={name: self.planes(name, raw, batch)})

    def each(self, raw: Any, batch: int) -> Any:
        if at_edge(raw):
            return [raw] * batch if isinstance(raw, np.ndarray) else raw
        return repeated(raw, batch, self.axes)

    def null(self, name: str, batch: int) -> Condition:
        return Condition(channels={name: self.nothing.expand(batch, -1)})

    def fitted(self, condition: Condition, space: Sequence[int]) -> Condition:
        channels = {name: self.resized(v, space) for name, v in condition.channels.items()}
        return replace(condition, channels=channels)

    def resized(self, planes: Tensor, space: Sequence[int]) -> Tensor:
        """Planes (B, width, h, w) of another size; what is the same everywhere stays."""
        return resized(planes, space)


def resized(planes: Tensor, space: Sequence[int]) -> Tensor:
    """Pictures (B, C, h, w) of the size (H, W): bilinear, every pixel counted when they shrink."""
    if planes.ndim != 4 or len(space) != 2 or planes.shape[2:] == tuple(space):
        return planes
    return interpolate(planes, list(space), mode="bilinear", antialias=True)


def stacked(
    name: str, raw: Any, batch: int, shape: tuple[int | None, ...], read: Callable[[Any], Tensor]
) -> Tensor:
    """One tensor for all `batch` samples, or one for each, as (B, *shape).

    shape: of one, None for any size. raw: such a tensor, a batch or a list of them, or what numpy
    makes an array of. read: the tensor of an array. Raises ShapeError naming what came.
    """
    if isinstance(raw, list | tuple) and raw and isinstance(raw[0], Tensor | np.ndarray):
        sizes = {tuple(part.shape) for part in raw}
        if len(sizes) > 1:
            raise ShapeError(
                f"the {name} parts have different sizes, {' and '.join(map(str, sorted(sizes)))}; "
                "give one size"
            )
        raw = torch.stack([torch.as_tensor(part) for part in raw])
    value = read(raw)
    if value.ndim == len(shape):
        value = value.expand(batch, *value.shape)
    wanted = ", ".join("size" if size is None else str(size) for size in shape)
    fits = value.ndim == len(shape) + 1 and all(
        size in (None, there) and there for size, there in zip(shape, value.shape[1:], strict=True)
    )
    if not fits:
        raise ShapeError(
            f"a {name} of shape {tuple(value.shape)}; give ({wanted}) for all samples, or "
            f"({batch}, {wanted})"
        )
    if value.shape[0] != batch:
        raise ShapeError(f"{value.shape[0]} of {name} given for {batch} samples; give one each")
    return value


def numbers(name: str, raw: Any) -> Tensor:
    """Finite numbers in [−1, 1], float32; UsageError for anything else."""
    value = _tensor(name, raw)
    if not value.is_floating_point():
        raise UsageError(
            f"the {name} holds whole numbers ({value.dtype}); give floats in [-1, 1], or a picture"
        )
    return within(name, value.float(), -1.0, 1.0)


def within(name: str, value: Tensor, low: float, high: float) -> Tensor:
    """The values, as they are; UsageError where one is not finite or outside low to high."""
    least, most = (float(v) for v in value.detach().aminmax()) if value.numel() else (low, high)
    slack = _SLACK * (high - low)
    if not (low - slack <= least and most <= high + slack):
        raise UsageError(
            f"the {name} goes from {least:g} to {most:g}; it takes {low:g} to {high:g}"
        )
    return value


def whole(name: str, raw: Any) -> Tensor:
    """Whole numbers, int64; UsageError for anything else."""
    value = _tensor(name, raw)
    if value.dtype == torch.bool or value.is_floating_point() or value.is_complex():
        raise UsageError(f"the {name} holds {value.dtype}; give whole numbers, one a place")
    return value.long()


def _tensor(name: str, raw: Any) -> Tensor:
    try:
        return torch.as_tensor(raw)
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(
            f"a {name} is a picture, or a tensor of its numbers, not {type(raw).__name__} "
            f"{str(raw)[:40]!r}"
        ) from None
