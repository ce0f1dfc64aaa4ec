"""The residual block of a U-Net, and the attention beside it."""

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import dropout, silu

from fromnoise.core.config import Settings
from fromnoise.core.errors import UsageError
from fromnoise.layers.attention import Attention
from fromnoise.layers.condition import Tokens
from fromnoise.layers.init import xavier_, zero_
from fromnoise.layers.resample import Down, Filter, Up, convolution, doubled, halved


class Style(Settings):
    """How the blocks of a U-Net are made.

    groups, eps: of the group norms. scale_shift: time scales and shifts after the second norm
    (Nichol & Dhariwal 2021) in place of being added before it (Ho, Jain & Abbeel 2020). dropout:
    probability in [0, 1). up, down: how a feature map is enlarged and reduced by a layer.

    resample: whether such a `layer` changes the size, or a residual `block` with a filter without
    weights inside (Brock, Donahue & Simonyan 2019). filter: that filter, `box` or `fir`
    ([1, 3, 3, 1]). shortcut: of such a block, the `identity` or a 1-wide convolution
    (`projected`). residual_scale: factor of every residual sum; 1/√2 keeps its variance.
    pyramid: `residual` also adds the input itself, reduced by a convolution for each level, on the
    way down. ADM (Dhariwal & Nichol 2021) has the first of these, NCSN++ (Song et al. 2021) all.

    patch: side of the squares of pixels that are folded into channels at the entrance and unfolded
    at the exit; 2 quarters the work (Hoogeboom, Heek & Salimans 2023).

    coordinates: the first convolution is also given the place of every pixel, −1 to 1 along each
    axis, so that words such as "left" mean something (Liu et al. 2018, "CoordConv").

    uneven: whether sizes are taken that cannot be halved: halves are rounded up, and on the way up
    a feature map is enlarged to the size it had.

    joined: raw vectors that go through two layers together, in this order, in place of a table
    each; with how many sines and cosines stand for each of their numbers, 0 for the number itself
    (SDXL: {"pooled": 0, "sizes": 256}; Podell et al. 2023, section 2.2).
    """

    groups: Annotated[int, Field(ge=1)] = 32
    eps: Annotated[float, Field(gt=0)] = 1e-5
    scale_shift: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    up: Up = "nearest"
    down: Down = "strided"
    resample: Literal["layer", "block"] = "layer"
    filter: Filter = "box"
    shortcut: Literal["identity", "projected"] = "identity"
    residual_scale: Annotated[float, Field(gt=0)] = 1.0
    pyramid: Literal["none", "residual"] = "none"
    patch: Annotated[int, Field(ge=1, le=16)] = 1
    coordinates: bool = False
    uneven: bool = False
    joined: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)


def group_norm(channels: int, style: Style, eps: float | None = None) -> nn.GroupNorm:
    """The group norm of a style, with its ε or another.

    Raises UsageError when its groups do not divide the channels.
    """
    if channels % style.groups:
        raise UsageError(
            f"{style.groups} norm groups do not divide {channels} channels; set style.groups"
        )
    return nn.GroupNorm(style.groups, channels, eps=style.eps if eps is None else eps)


class _Block(nn.Module, ABC):
    """What the residual blocks share: all but the change of size after the first norm."""

    def __init__(
        self, dims: int, channels: int, out: int, embedding: int, style: Style, project: bool
    ) -> None:
        super().__init__()
        self.scale_shift = style.scale_shift
        self.dropout = style.dropout
        self.norm1 = group_norm(channels, style)
        self.conv1 = xavier_(convolution(dims, channels, out))
        self.time = xavier_(nn.Linear(embedding, 2 * out if style.scale_shift else out))
        self.norm2 = group_norm(out, style)
        self.conv2 = zero_(convolution(dims, out, out))
        self.shortcut = xavier_(convolution(dims, channels, out, 1)) if project else nn.Identity()

    @abstractmethod
    def resized(self, x: Tensor) -> Tensor:
        """The feature map in the size of the result."""

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        h = self.conv1(self.resized(silu(self.norm1(x))))
        told = self.time(embedded)
        told = told.reshape(*told.shape, *(1,) * (x.ndim - 2))
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        else:
            h = self.norm2(h + told)
        h = self.conv2(dropout(silu(h), self.dropout, self.training))
        changed: Tensor = self.shortcut(self.resized(x)) + h
        return changed


class ResBlock(_Block):
    """Norm, SiLU, convolution; time; norm, SiLU, dropout, convolution; plus the shortcut.

    h = conv1(silu(norm1(x))), then h + W e before norm2, or norm2(h)·(1 + s) + b with (s, b) = W e
    for `scale_shift`. The second convolution starts at zero, so the block starts as its shortcut.

    embedding: width of e, the time embedding after its SiLU, (B, embedding).
    Reference: Ho, Jain & Abbeel 2020, appendix B; scale and shift: Nichol & Dhariwal 2021.
    """

    def __init__(self, dims: int, channels: int, out: int, embedding: int, style: Style) -> None:
        super().__init__(dims, channels, out, embedding, style, project=channels != out)

    def resized(self, x: Tensor) -> Tensor:
        return x


class ResampleBlock(_Block):
    """A residual block that also doubles or halves the size, by a filter without weights.

    h = conv1(r(silu(norm1(x)))), and r(x) goes to the shortcut; the rest is `ResBlock`.

    change: r, to `double` or `halve` with `style.filter`. The channels stay.
    Reference: Brock, Donahue & Simonyan 2019 (BigGAN); Song et al. 2021; Dhariwal & Nichol 2021.
    """

    def __init__(
        self,
        dims: int,
        channels: int,
        embedding: int,
        style: Style,
        change: Literal["double", "halve"],
    ) -> None:
        project = style.shortcut == "projected"
        super().__init__(dims, channels, channels, embedding, style, project)
        self.filter: Filter = style.filter
        self.change = doubled if change == "double" else halved

    def resized(self, x: Tensor) -> Tensor:
        return self.change(x, self.filter)


class AttentionBlock(nn.Module):
    """Attention of a feature map on itself and then, where tokens are told, on the tokens.

    Each of the two is a residual sum, times `style.residual_scale`.
    tokens: their width, or None. place: name of the block, the prefix of the two places.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        style: Style,
        place: str,
        tokens: int | None = None,
    ) -> None:
        super().__init__()
        self.scale = style.residual_scale
        self.own = Attention(group_norm(channels, style), channels, heads, f"{place}.own")
        self.cross = (
            None
            if tokens is None
            else Attention(group_norm(channels, style), channels, heads, f"{place}.cross", tokens)
        )

    def forward(self, x: Tensor, tokens: Tokens | None = None) -> Tensor:
        x = scaled(self.own(x), self.scale)
        return x if self.cross is None else scaled(self.cross(x, tokens), self.scale)


def scaled(x: Tensor, factor: float) -> Tensor:
    """x · factor, without touching x where that is 1."""
    return x if factor == 1 else x * factor
