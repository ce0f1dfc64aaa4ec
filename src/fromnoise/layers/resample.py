"""Half and double the size of a feature map, in one, two or three spatial dimensions."""

import math
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from fromnoise.core.errors import UsageError
from fromnoise.layers.init import icnr_, xavier_

Down = Literal["strided", "asymmetric"]
Up = Literal["nearest", "shuffle"]

_CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}


def convolution(
    dims: int,
    channels: int,
    out: int,
    kernel: int = 3,
    stride: int = 1,
    padding: int | None = None,
) -> nn.Conv1d | nn.Conv2d | nn.Conv3d:
    """A convolution over `dims` spatial dimensions; without `padding` it keeps the size.

    Raises UsageError unless `dims` is 1, 2 or 3.
    """
    if dims not in _CONVOLUTIONS:
        raise UsageError(f"a convolution has 1, 2 or 3 spatial dimensions, not {dims}")
    around = kernel // 2 if padding is None else padding
    return _CONVOLUTIONS[dims](channels, out, kernel, stride=stride, padding=around)


class Downsample(nn.Module):
    """A 3-wide convolution of stride 2: (B, C, *space) to (B, C, *space/2).

    strided: one value of padding on both sides. asymmetric: one after the last value only, as
    TensorFlow's "same" padding does and so the published DDPM networks.
    """

    def __init__(self, dims: int, channels: int, style: Down = "strided") -> None:
        super().__init__()
        self.after = (0, 1) * dims if style == "asymmetric" else None
        around = 1 if self.after is None else 0
        self.conv = xavier_(convolution(dims, channels, channels, stride=2, padding=around))

    def forward(self, x: Tensor) -> Tensor:
        if self.after is not None:
            x = pad(x, self.after)
        reduced: Tensor = self.conv(x)
        return reduced


class Upsample(nn.Module):
    """Nearest up-sampling by 2, then a 3-wide convolution: (B, C, *space) to (B, C, *space·2)."""

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.conv = xavier_(convolution(dims, channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        enlarged: Tensor = self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))
        return enlarged


class ShuffleUpsample(nn.Module):
    """A 3-wide convolution to 2^dims sub-pixels, then a pixel shuffle; it starts as nearest.

    Reference: Shi et al. 2016 (sub-pixel convolution), Aitken et al. 2017 (its initialisation).
    """

    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.conv = xavier_(convolution(dims, channels, channels * 2**dims))
        icnr_(self.conv.weight, 2**dims)

    def forward(self, x: Tensor) -> Tensor:
        return pixel_shuffle(self.conv(x), x.ndim - 2)


def pixel_shuffle(x: Tensor, dims: int, factor: int = 2) -> Tensor:
    """Sub-pixels from channels into space: (B, C·factor^dims, *space) to (B, C, *space·factor).

    Channel c·factor^dims + k becomes sub-pixel k of channel c, counted row by row; for two
    dimensions this is torch's `pixel_shuffle`.
    """
    space = x.shape[2:]
    parted = x.reshape(x.shape[0], -1, *(factor,) * dims, *space)
    order = [axis for d in range(dims) for axis in (2 + dims + d, 2 + d)]
    woven = parted.permute(0, 1, *order)
    return woven.reshape(x.shape[0], -1, *(size * factor for size in space))


def pixel_unshuffle(x: Tensor, dims: int, factor: int = 2) -> Tensor:
    """The inverse of `pixel_shuffle`: (B, C, *space) to (B, C·factor^dims, *space/factor)."""
    space = [size // factor for size in x.shape[2:]]
    parted = x.reshape(*x.shape[:2], *(v for size in space for v in (size, factor)))
    order = [*range(3, 3 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2)]
    gathered = parted.permute(0, 1, *order)
    return gathered.reshape(x.shape[0], x.shape[1] * math.prod([factor] * dims), *space)


def upsample(dims: int, channels: int, style: Up) -> nn.Module:
    """The up-sampling layer of a style."""
    return Upsample(dims, channels) if style == "nearest" else ShuffleUpsample(dims, channels)
