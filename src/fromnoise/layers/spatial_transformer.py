"""The transformer inside a U-Net: a feature map attends to itself and to tokens, and is mixed."""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import gelu

from fromnoise.core.config import Settings
from fromnoise.layers.attention import TokenAttention
from fromnoise.layers.blocks import Style, group_norm, scaled
from fromnoise.layers.condition import Tokens
from fromnoise.layers.init import xavier_, zero_
from fromnoise.layers.resample import convolution

_NORM_EPS = 1e-6


class TransformerStyle(Settings):
    """How the transformers of a U-Net are made.

    depth: blocks of each, one number for all levels with attention or one for each, the largest
    first. middle: blocks of the one in the middle. projection: what leads into and out of it, a
    1-wide `convolution` (Stable Diffusion 1) or a `linear` layer (2 and later). only_cross:
    down-sampling factors of the levels where the first attention of a block looks at the tokens,
    too, in place of the picture.
    """

    depth: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1,)
    middle: Annotated[int, Field(ge=1)] = 1
    projection: Literal["convolution", "linear"] = "convolution"
    only_cross: tuple[int, ...] = ()


class GatedFeedForward(nn.Module):
    """W₂ (a · gelu(g)) + b₂ with (a, g) = W₁ x + b₁: (B, N, C) to the same, 4·C wide inside.

    Reference: Shazeer 2020, "GLU variants improve transformer" (GEGLU).
    """

    def __init__(self, width: int, factor: int = 4) -> None:
        super().__init__()
        self.first = xavier_(nn.Linear(width, 2 * factor * width))
        self.second = xavier_(nn.Linear(factor * width, width))

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.first(x).chunk(2, dim=-1)
        mixed: Tensor = self.second(value * gelu(gate))
        return mixed


class SpatialBlock(nn.Module):
    """x + own(norm(x)), + cross(norm(x), tokens), + feed(norm(x)), over places x (B, N, width).

    only_cross: `own` looks at the tokens, too. place: prefix of the two places shown to hooks.
    Queries, keys and values have no bias.
    Reference: Rombach et al. 2022, appendix E.2.1.
    """

    def __init__(
        self, width: int, heads: int, tokens: int, place: str, only_cross: bool = False
    ) -> None:
        super().__init__()
        self.only_cross = only_cross
        first = tokens if only_cross else None
        self.norm1 = nn.LayerNorm(width)
        self.own = TokenAttention(width, heads, f"{place}.own", context=first, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.cross = TokenAttention(width, heads, f"{place}.cross", context=tokens, bias=False)
        self.norm3 = nn.LayerNorm(width)
        self.feed = GatedFeedForward(width)

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        own = self.norm1(x)
        seen = (tokens.values, tokens.mask) if self.only_cross else (own, None)
        x = x + self.own(own, *seen)
        x = x + self.cross(self.norm2(x), tokens.values, tokens.mask)
        changed: Tensor = x + self.feed(self.norm3(x))
        return changed


class SpatialTransformer(nn.Module):
    """x + leave(blocks(enter(norm(x)))): a feature map (B, C, *space) that is told tokens.

    Between `enter` and `leave` the map is a sequence of its places. The norm's ε is 1e-6. `leave`
    starts at zero, so the layer starts as the identity.

    heads: they divide the channels. style: of the norm, and the factor of the sum. tokens: their
    width. depth: number of blocks. place: prefix of the places shown to hooks.
    Raises UsageError for heads or norm groups that do not divide the channels.
    Reference: Rombach et al. 2022, appendix E.2.1.
    """

    def __init__(
        self,
        dims: int,
        channels: int,
        heads: int,
        style: Style,
        tokens: int,
        place: str,
        depth: int = 1,
        linear: bool = False,
        only_cross: bool = False,
    ) -> None:
        super().__init__()
        self.linear = linear
        self.scale = style.residual_scale
        self.norm = group_norm(channels, style, _NORM_EPS)
        self.enter = xavier_(_projection(dims, channels, linear))
        self.blocks = nn.ModuleList(
            SpatialBlock(channels, heads, tokens, f"{place}.blocks.{i}", only_cross)
            for i in range(depth)
        )
        self.leave = zero_(_projection(dims, channels, linear))

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        h: Tensor = self.norm(x)
        h = self.enter(_places(h)) if self.linear else _places(self.enter(h))
        for block in self.blocks:
            h = block(h, tokens)
        h = _space(self.leave(h), x) if self.linear else self.leave(_space(h, x))
        return scaled(x + h, self.scale)


def _projection(dims: int, channels: int, linear: bool) -> nn.Module:
    return nn.Linear(channels, channels) if linear else convolution(dims, channels, channels, 1)


def _places(x: Tensor) -> Tensor:
    """(B, C, *space) as a sequence of places, (B, N, C)."""
    return x.flatten(2).transpose(1, 2)


def _space(sequence: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_places`, in the shape of `like`."""
    return sequence.transpose(1, 2).reshape(like.shape)
