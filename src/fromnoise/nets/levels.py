"""The levels of a U-Net: what they are, how they are made, and the way down through them."""

from abc import ABC
from collections.abc import Sequence
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import silu

from fromnoise.core.config import Settings
from fromnoise.core.errors import UsageError
from fromnoise.layers.blocks import AttentionBlock, ResampleBlock, ResBlock, Style, scaled
from fromnoise.layers.condition import Condition, Tokens
from fromnoise.layers.embeddings import coordinates
from fromnoise.layers.resample import (
    Downsample,
    FilteredDownsample,
    pixel_unshuffle,
    upsample,
)
from fromnoise.layers.spatial_transformer import SpatialTransformer, TransformerStyle
from fromnoise.nets.base import Accepts, Network
from fromnoise.nets.embed import Embedding


class AttentionStyle(Settings):
    """Where a U-Net attends, and with how many heads.

    at: down-sampling factors of the levels with attention after every block (1 = full size, 2 =
    half). up: on the way up, after `every` block or only after the `last` of a level. middle: also
    in the middle. heads: their number, unless head_channels gives their width. transformer: in
    place of bare attention, the transformers of latent diffusion (Rombach et al. 2022).
    """

    at: tuple[int, ...] = ()
    up: Literal["every", "last"] = "every"
    middle: bool = True
    heads: Annotated[int, Field(ge=1)] = 1
    head_channels: Annotated[int, Field(ge=1)] | None = None
    transformer: TransformerStyle | None = None

    def count(self, channels: int) -> int:
        """How many heads attend over so many channels."""
        if self.head_channels is None:
            return self.heads
        if channels % self.head_channels:
            raise UsageError(
                f"attention.head_channels {self.head_channels} does not divide {channels} channels"
            )
        return channels // self.head_channels

    def depth(self, factor: int) -> int:
        """How many blocks the transformers of a level have."""
        depths = (1,) if self.transformer is None else self.transformer.depth
        return depths[0] if len(depths) == 1 else depths[sorted(self.at).index(factor)]


class Level(nn.Module):
    """The blocks of one size: each a residual block, with attention after those in `after`.

    resample: what changes the size after them, or None; a residual block there is told the time.
    """

    def __init__(
        self,
        blocks: Sequence[ResBlock],
        attentions: Sequence[AttentionBlock | SpatialTransformer],
        after: Sequence[int],
        resample: nn.Module | None,
        style: Style,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attentions = nn.ModuleList(attentions)
        self.resample = resample
        self.after = tuple(after)
        self.scale = style.residual_scale
        self.by_block = style.resample == "block"

    def __len__(self) -> int:
        return len(self.blocks)

    def step(self, index: int, h: Tensor, embedded: Tensor, tokens: Tokens | None) -> Tensor:
        """One residual block and its attention."""
        h = scaled(self.blocks[index](h, embedded), self.scale)
        if index not in self.after:
            return h
        attended: Tensor = self.attentions[self.after.index(index)](h, tokens)
        return attended

    def change(self, h: Tensor, embedded: Tensor, space: Sequence[int] | None = None) -> Tensor:
        """The feature map in the size of the next level, or in these sizes."""
        resample = cast(nn.Module, self.resample)
        if self.by_block:
            return scaled(resample(h, embedded), self.scale)
        changed: Tensor = resample(h) if space is None else resample(h, space)
        return changed


class Descending(Network, ABC):
    """A network that begins as a U-Net does: down the levels and through the middle."""

    patch: int
    coordinates: bool
    embedding: Embedding
    enter: nn.Module
    down: nn.ModuleList
    pyramid: nn.ModuleList
    middle: Level

    def descend(
        self, x: Tensor, time: Tensor, condition: Condition
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The middle's features, the embedding the blocks are told, the skip connections."""
        batch = x.shape[0]
        self.check_tokens(batch, condition)
        embedded = silu(self.embedding(time, self.vectors(batch, condition)))
        x = pixel_unshuffle(x, self.spatial_dims, self.patch)
        h: Tensor = self.enter(torch.cat([x, coordinates(x)], dim=1) if self.coordinates else x)
        skips = [h]
        for place, level in enumerate(levels(self.down)):
            for index in range(len(level)):
                h = self.step(level.step, index, h, embedded, condition.tokens)
                skips.append(h)
            if level.resample is not None:
                h = self.step(level.change, h, embedded)
                if self.pyramid:
                    h = x = scaled(self.pyramid[place](x) + h, level.scale)
                skips.append(h)
        for index in range(len(self.middle)):
            h = self.step(self.middle.step, index, h, embedded, condition.tokens)
        return h, embedded, skips


def levels(modules: nn.ModuleList) -> list[Level]:
    """The levels of one way, in the order they are passed."""
    return [cast(Level, module) for module in modules]


class Maker:
    """Makes the parts of one U-Net, with what they have in common.

    widths: the channels of each level; embedding: the width of what the blocks are told.
    """

    def __init__(
        self,
        dims: int,
        widths: Sequence[int],
        embedding: int,
        attention: AttentionStyle,
        style: Style,
        tokens: int | None,
    ) -> None:
        self.dims = dims
        self.widths = tuple(widths)
        self.embedding = embedding
        self.attention = attention
        self.style = style
        self.tokens = tokens

    def way_down(self, blocks: int) -> tuple[nn.ModuleList, list[int]]:
        """The levels on the way down, and the channels of every skip connection they leave."""
        made = nn.ModuleList()
        skips = [self.widths[0]]
        for i, width in enumerate(self.widths):
            last = i == len(self.widths) - 1
            resample = None if last else self._reduced(width)
            ins = [skips[-1]] + [width] * (blocks - 1)
            after = range(blocks) if 2**i in self.attention.at else ()
            made.append(self._level(i, ins, f"down.{i}", after, resample))
            skips += [width] * (blocks if last else blocks + 1)
        return made, skips

    def pyramid(self, channels: int) -> nn.ModuleList:
        """What reduces the input for each level, where the style has it; from so many channels."""
        made = nn.ModuleList()
        if self.style.pyramid == "none":
            return made
        for width in self.widths[:-1]:
            made.append(
                FilteredDownsample(self.dims, channels, width)
                if self.style.filter == "fir"
                else Downsample(self.dims, channels, "asymmetric", width)
            )
            channels = width
        return made

    def middle(self) -> Level:
        """Two residual blocks, with attention between them."""
        width = self.widths[-1]
        blocks = [self._block(width, width) for _ in range(2)]
        after = (0,) if self.attention.middle else ()
        attentions = [
            self._attend(width, f"middle.attentions.{i}", None) for i in range(len(after))
        ]
        return Level(blocks, attentions, after, None, self.style)

    def way_up(self, blocks: int, skips: list[int]) -> nn.ModuleList:
        """The levels on the way up, one block more in each; it empties `skips`."""
        made = nn.ModuleList()
        below = self.widths[-1]
        attended = range(blocks, blocks + 1) if self.attention.up == "last" else range(blocks + 1)
        for place, i in enumerate(reversed(range(len(self.widths)))):
            width = self.widths[i]
            resample = self._enlarged(width) if i else None
            before = [below] + [width] * blocks
            ins = [channels + skips.pop() for channels in before]
            after = attended if 2**i in self.attention.at else ()
            made.append(self._level(i, ins, f"up.{place}", after, resample))
            below = width
        return made

    def _level(
        self,
        index: int,
        ins: Sequence[int],
        place: str,
        after: Sequence[int],
        resample: nn.Module | None,
    ) -> Level:
        """Level `index`, the largest being 0, of blocks that take `ins` channels."""
        out = self.widths[index]
        blocks = [self._block(channels, out) for channels in ins]
        attentions = [
            self._attend(out, f"{place}.attentions.{i}", 2**index) for i in range(len(after))
        ]
        return Level(blocks, attentions, after, resample, self.style)

    def _block(self, channels: int, out: int) -> ResBlock:
        return ResBlock(self.dims, channels, out, self.embedding, self.style)

    def _attend(
        self, channels: int, place: str, factor: int | None
    ) -> AttentionBlock | SpatialTransformer:
        """What attends at a level of this down-sampling factor, or in the middle (None)."""
        heads = self.attention.count(channels)
        made = self.attention.transformer
        if made is None or self.tokens is None:
            return AttentionBlock(channels, heads, self.style, place, self.tokens)
        return SpatialTransformer(
            self.dims,
            channels,
            heads,
            self.style,
            self.tokens,
            place,
            made.middle if factor is None else self.attention.depth(factor),
            made.projection == "linear",
            factor in made.only_cross,
        )

    def _reduced(self, width: int) -> nn.Module:
        if self.style.resample == "block":
            return ResampleBlock(self.dims, width, self.embedding, self.style, "halve")
        return Downsample(self.dims, width, self.style.down)

    def _enlarged(self, width: int) -> nn.Module:
        if self.style.resample == "block":
            return ResampleBlock(self.dims, width, self.embedding, self.style, "double")
        return upsample(self.dims, width, self.style.up)


def divisor(style: Style, levels: int) -> int:
    """What the sizes a U-Net takes are multiples of.

    Raises UsageError for uneven sizes with layers that know only halves and doubles.
    """
    if not style.uneven:
        return int(style.patch * 2 ** (levels - 1))
    if style.resample != "layer" or style.up != "nearest" or style.pyramid != "none":
        raise UsageError(
            "style.uneven needs style.resample 'layer', style.up 'nearest' and no style.pyramid"
        )
    return style.patch


def level_widths(channels: int, multipliers: Sequence[float], blocks: int) -> list[int]:
    """The channels of each level, channels · multiplier.

    Raises UsageError where one is not a whole number, or there are no levels or blocks.
    """
    if channels < 4 or blocks < 1 or not multipliers or min(multipliers) <= 0:
        raise UsageError(
            f"a U-Net needs channels of 4 or more, blocks of 1 or more and positive multipliers; "
            f"got {channels}, {blocks}, {tuple(multipliers)}"
        )
    for multiplier in multipliers:
        if channels * multiplier % 1:
            raise UsageError(
                f"multiplier {multiplier} of {channels} channels is not a whole number"
            )
    return [int(channels * multiplier) for multiplier in multipliers]


def check_attention(attention: AttentionStyle, depth: int, accepts: Accepts) -> None:
    """Raise UsageError for an attention factor no level has, or tokens that nothing attends to."""
    factors = [2**i for i in range(depth)]
    for factor in attention.at:
        if factor not in factors:
            raise UsageError(f"attention.at: no level has factor {factor}; they have {factors}")
    if accepts.tokens is not None and not attention.at and not attention.middle:
        raise UsageError("tokens are attended to where the picture is; name levels in attention.at")
    if attention.transformer is not None:
        _check_transformer(attention.transformer, attention.at, accepts)


def _check_transformer(made: TransformerStyle, at: Sequence[int], accepts: Accepts) -> None:
    if accepts.tokens is None:
        raise UsageError("attention.transformer attends to tokens; give accepts.tokens their width")
    if len(made.depth) not in (1, len(at)):
        raise UsageError(
            f"attention.transformer.depth has {len(made.depth)} numbers for {len(at)} levels with "
            "attention; give one, or one for each"
        )
    for factor in made.only_cross:
        if factor not in at:
            raise UsageError(
                f"attention.transformer.only_cross: there is no attention at factor {factor}; it "
                f"is at {list(at)}"
            )
