"""The residual block of a U-Net, and the attention beside it."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import dropout, silu

from fromnoise.core.config import Settings
from fromnoise.core.errors import UsageError
from fromnoise.layers.attention import Attention
from fromnoise.layers.condition import Tokens
from fromnoise.layers.init import xavier_, zero_
from fromnoise.layers.resample import Down, Up, convolution


class Style(Settings):
    """How the blocks of a U-Net are made.

    groups, eps: of the group norms. scale_shift: time scales and shifts after the second norm
    (Nichol & Dhariwal 2021) in place of being added before it (Ho, Jain & Abbeel 2020). dropout:
    probability in [0, 1). up, down: how a feature map is enlarged and reduced.
    """

    groups: Annotated[int, Field(ge=1)] = 32
    eps: Annotated[float, Field(gt=0)] = 1e-5
    scale_shift: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    up: Up = "nearest"
    down: Down = "strided"


def group_norm(channels: int, style: Style) -> nn.GroupNorm:
    """The group norm of a style. Raises UsageError when its groups do not divide the channels."""
    if channels % style.groups:
        raise UsageError(
            f"{style.groups} norm groups do not divide {channels} channels; set style.groups"
        )
    return nn.GroupNorm(style.groups, channels, eps=style.eps)


class ResBlock(nn.Module):
    """Norm, SiLU, convolution; time; norm, SiLU, dropout, convolution; plus the shortcut.

    h = conv1(silu(norm1(x))), then h + W e before norm2, or norm2(h)·(1 + s) + b with (s, b) = W e
    for `scale_shift`. The second convolution starts at zero, so the block starts as its shortcut.

    embedding: width of e, the time embedding after its SiLU, (B, embedding).
    Reference: Ho, Jain & Abbeel 2020, appendix B; scale and shift: Nichol & Dhariwal 2021.
    """

    def __init__(self, dims: int, channels: int, out: int, embedding: int, style: Style) -> None:
        super().__init__()
        self.scale_shift = style.scale_shift
        self.dropout = style.dropout
        self.norm1 = group_norm(channels, style)
        self.conv1 = xavier_(convolution(dims, channels, out))
        self.time = xavier_(nn.Linear(embedding, 2 * out if style.scale_shift else out))
        self.norm2 = group_norm(out, style)
        self.conv2 = zero_(convolution(dims, out, out))
        self.shortcut = (
            nn.Identity() if channels == out else xavier_(convolution(dims, channels, out, 1))
        )

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x)))
        told = self.time(embedded)
        told = told.reshape(*told.shape, *(1,) * (x.ndim - 2))
        if self.scale_shift:
            scale, shift = told.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        else:
            h = self.norm2(h + told)
        h = self.conv2(dropout(silu(h), self.dropout, self.training))
        changed: Tensor = self.shortcut(x) + h
        return changed


class AttentionBlock(nn.Module):
    """Attention of a feature map on itself and then, where tokens are told, on the tokens.

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
        self.own = Attention(group_norm(channels, style), channels, heads, f"{place}.own")
        self.cross = (
            None
            if tokens is None
            else Attention(group_norm(channels, style), channels, heads, f"{place}.cross", tokens)
        )

    def forward(self, x: Tensor, tokens: Tokens | None = None) -> Tensor:
        x = self.own(x)
        return x if self.cross is None else self.cross(x, tokens)
