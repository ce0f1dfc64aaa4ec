"""Pictures and depths as extra channels of the network's input."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.core.images import at_edge, read_depth, read_picture
from fromnoise.encoders.base import ENCODERS
from fromnoise.encoders.planes import Null, Planes, numbers, resized, stacked, within


@ENCODERS.register("picture")
class Picture(Planes):
    """A picture in [−1, 1] as extra channels, stretched to the size of the sample.

    What stands in a place of it is told for that place of the sample: a sketch, a photograph to
    change, a mask with what is left of a picture (Saharia et al. 2022, "Palette").
    Raw input: (channels, H, W) for all samples, or (B, channels, H, W).

    channels: 1 for grey, 3 for colour. null: the value that stands for no picture everywhere, or
    "learned". Raises UsageError for other numbers than of a picture, ShapeError for another shape.
    """

    def __init__(self, channels: int = 3, null: Null = 0.0) -> None:
        super().__init__(channels, null)

    def planes(self, name: str, raw: Any, batch: int) -> Tensor:
        shape = (self.width, None, None)
        return stacked(name, raw, batch, shape, lambda value: numbers(name, value)).float()

    def opened(self, raw: Any, space: Sequence[int]) -> Any:
        return opened_pictures(raw, space, lambda one: read_picture(one, self.width))


@ENCODERS.register("depth")
class Depth(Planes):
    """How far away each place is, as one extra channel in [−1, 1].

    Raw input: (H, W) or (1, H, W) for all samples, or (B, H, W) or (B, 1, H, W).

    scale: the numbers that become −1 and 1, [0.5, 20] for metres, say; (−1, 1) leaves them as they
    are. "each" gives every depth its own: what is nearest in it becomes −1 and what is farthest 1,
    as a depth without a unit needs (Rombach et al. 2022, the depth model of Stable Diffusion 2).
    null: the value that stands for no depth everywhere, or "learned".
    Raises UsageError for values that are not finite or beyond the scale, ShapeError for another
    shape.
    """

    axes = 2

    def __init__(
        self, scale: tuple[float, float] | Literal["each"] = (-1.0, 1.0), null: Null = 0.0
    ) -> None:
        super().__init__(1, null)
        if scale != "each" and not scale[0] < scale[1]:
            raise UsageError(
                f"a depth from {scale[0]:g} to {scale[1]:g}; give the nearer one first"
            )
        self.scale = scale

    def planes(self, name: str, raw: Any, batch: int) -> Tensor:
        value = stacked(name, _flat(raw, batch), batch, (None, None), _floats(name))[:, None]
        if isinstance(self.scale, str):
            if not bool(torch.isfinite(value).all()):
                raise UsageError(f"the {name} holds distances that are not finite (inf or NaN)")
            low, high = value.amin((1, 2, 3), True), value.amax((1, 2, 3), True)
        else:
            within(name, value, *self.scale)
            low, high = (value.new_tensor(end) for end in self.scale)
        # A depth that is the same everywhere has no scale of its own.
        unit = (value - low) / torch.where(high > low, high - low, torch.ones_like(high))
        return (2.0 * unit - 1.0).clamp(-1.0, 1.0)

    def each(self, raw: Any, batch: int) -> Any:
        return super().each(raw if at_edge(raw) else _flat(raw, batch), batch)

    def opened(self, raw: Any, space: Sequence[int]) -> Any:
        return opened_pictures(raw, space, self._read)

    def _read(self, one: Any) -> Tensor:
        """A grey picture, black for the nearest of the scale and white for the farthest."""
        low, high = (-1.0, 1.0) if isinstance(self.scale, str) else self.scale
        return low + (high - low) * read_depth(one)


def opened_pictures(raw: Any, space: Sequence[int], read: Callable[[Any], Tensor]) -> Any:
    """Raw input with every picture and path in it read, several of them brought to one size."""
    if at_edge(raw):
        return read(raw)
    if isinstance(raw, np.ndarray) and raw.dtype == np.uint8 and raw.ndim == 4:
        raw = list(raw)
    if isinstance(raw, list | tuple) and raw and all(at_edge(one) for one in raw):
        parts = [read(one) for one in raw]
        planes = [resized(p.reshape(1, -1, *p.shape[-2:]), space)[0] for p in parts]
        return torch.stack(planes).reshape(len(parts), *parts[0].shape[:-2], *planes[0].shape[-2:])
    return raw


def _floats(name: str) -> Callable[[Any], Tensor]:
    def read(value: Any) -> Tensor:
        try:
            return torch.as_tensor(value).float()
        except (TypeError, ValueError, RuntimeError):
            raise UsageError(
                f"a {name} is a grey picture, or a tensor of distances, not {value!r:.60}"
            ) from None

    return read


def _flat(raw: Any, batch: int) -> Any:
    """(B, 1, H, W) and (1, H, W) without their channel."""
    if isinstance(raw, Tensor | np.ndarray):
        if raw.ndim == 4 and raw.shape[1] == 1:
            return raw[:, 0]
        if raw.ndim == 3 and raw.shape[0] == 1 and batch != 1:
            return raw[0]
    return raw
