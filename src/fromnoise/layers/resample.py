"""Half and double the size of a feature map, in one, two or three spatial dimensions."""

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import interpolate, pad

from fromnoise.core.errors import UsageError
from fromnoise.layers.init import icnr_, xavier_

Down = Literal["strided", "asymmetric"]
Up = Literal["nearest", "shuffle"]
Filter = Literal["box", "fir"]

# The filter [1, 3, 3, 1] / 8 on each axis.
_TAPS = (0.125, 0.375, 0.375, 0.125)

_CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
_FILTERED = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_SPREAD = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
_AVERAGED = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


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
    """A 3-wide convolution of stride 2: (B, C, *space) to (B, out, *space/2), by default out = C.

    strided: one value of padding on both sides. asymmetric: one after the last value only, as
    TensorFlow's "same" padding does and so the published DDPM networks.
    """

    def __init__(
        self, dims: int, channels: int, style: Down = "strided", out: int | None = None
    ) -> None:
        super().__init__()
        self.after = (0, 1) * dims if style == "asymmetric" else None
        around = 1 if self.after is None else 0
        out = channels if out is None else out
        self.conv = xavier_(convolution(dims, channels, out, stride=2, padding=around))

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

    def forward(self, x: Tensor, space: Sequence[int] | None = None) -> Tensor:
        """space: the sizes of the result, where they are not the double."""
        enlarged: Tensor = self.conv(nearest(x, space))
        return enlarged


def nearest(x: Tensor, space: Sequence[int] | None = None) -> Tensor:
    """Nearest up-sampling, by 2 or to these sizes."""
    if space is None:
        return interpolate(x, scale_factor=2.0, mode="nearest")
    return interpolate(x, size=list(space), mode="nearest")


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
    if factor == 1:
        return x
    space = x.shape[2:]
    parted = x.reshape(x.shape[0], -1, *(factor,) * dims, *space)
    order = [axis for d in range(dims) for axis in (2 + dims + d, 2 + d)]
    woven = parted.permute(0, 1, *order)
    return woven.reshape(x.shape[0], -1, *(size * factor for size in space))


def pixel_unshuffle(x: Tensor, dims: int, factor: int = 2) -> Tensor:
    """The inverse of `pixel_shuffle`: (B, C, *space) to (B, C·factor^dims, *space/factor)."""
    if factor == 1:
        return x
    space = [size // factor for size in x.shape[2:]]
    parted = x.reshape(*x.shape[:2], *(v for size in space for v in (size, factor)))
    order = [*range(3, 3 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2)]
    gathered = parted.permute(0, 1, *order)
    return gathered.reshape(x.shape[0], x.shape[1] * math.prod([factor] * dims), *space)


class FilteredDownsample(nn.Module):
    """The filter [1, 3, 3, 1], then a 3-wide convolution of stride 2: (B, C, *space) to half of it.

    The picture is padded with zeros once, by 2, in front of both.
    Reference: Karras et al. 2020 (StyleGAN2); in NCSN++, Song et al. 2021.
    """

    def __init__(self, dims: int, channels: int, out: int) -> None:
        super().__init__()
        self.conv = xavier_(convolution(dims, channels, out, stride=2, padding=0))

    def forward(self, x: Tensor) -> Tensor:
        smooth = _FILTERED[x.ndim - 2](x, _fir(x, 1.0), padding=2, groups=x.shape[1])
        reduced: Tensor = self.conv(smooth)
        return reduced


def halved(x: Tensor, by: Filter) -> Tensor:
    """(B, C, *space) to (B, C, *space/2), without weights.

    box: the mean of 2 values on each axis. fir: the filter [1, 3, 3, 1] / 8 with zeros around the
    picture, then every second value.
    """
    if by == "box":
        return _AVERAGED[x.ndim - 2](x, 2)
    return _FILTERED[x.ndim - 2](x, _fir(x, 1.0), stride=2, padding=1, groups=x.shape[1])


def doubled(x: Tensor, by: Filter) -> Tensor:
    """(B, C, *space) to (B, C, *space·2), without weights.

    box: every value twice on each axis. fir: a zero after every value, then the filter
    [1, 3, 3, 1] / 4 on each axis. `doubled` is the adjoint of `halved` times 2^dims.
    """
    if by == "box":
        return interpolate(x, scale_factor=2.0, mode="nearest")
    return _SPREAD[x.ndim - 2](x, _fir(x, 2.0), stride=2, padding=1, groups=x.shape[1])


def _fir(x: Tensor, gain: float) -> Tensor:
    """The filter as the weight of a convolution of each channel by itself, (C, 1, 4, ...)."""
    taps = x.new_tensor(_TAPS) * gain
    weight = taps
    for _ in range(x.ndim - 3):
        weight = weight[..., None] * taps
    return weight.expand(x.shape[1], 1, *weight.shape)


def upsample(dims: int, channels: int, style: Up) -> nn.Module:
    """The up-sampling layer of a style."""
    return Upsample(dims, channels) if style == "nearest" else ShuffleUpsample(dims, channels)
