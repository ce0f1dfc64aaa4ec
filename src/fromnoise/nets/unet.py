"""The U-Net with time embedding, in one, two or three spatial dimensions."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import silu
from torch.utils.checkpoint import checkpoint

from fromnoise.core.config import Settings
from fromnoise.core.errors import UsageError
from fromnoise.layers.attention import active_hooks, hooked
from fromnoise.layers.blocks import AttentionBlock, ResBlock, Style, group_norm
from fromnoise.layers.condition import Condition, Tokens
from fromnoise.layers.embeddings import Convention
from fromnoise.layers.init import xavier_, zero_
from fromnoise.layers.resample import Downsample, convolution, upsample
from fromnoise.nets.base import Accepts, Network
from fromnoise.nets.embed import Embedding


class AttentionStyle(Settings):
    """Where a U-Net attends, and with how many heads.

    at: down-sampling factors of the levels with attention after every block (1 = full size, 2 =
    half). middle: also in the middle. heads: their number, unless head_channels gives their width.
    """

    at: tuple[int, ...] = ()
    middle: bool = True
    heads: Annotated[int, Field(ge=1)] = 1
    head_channels: Annotated[int, Field(ge=1)] | None = None

    def count(self, channels: int) -> int:
        """How many heads attend over so many channels."""
        if self.head_channels is None:
            return self.heads
        if channels % self.head_channels:
            raise UsageError(
                f"attention.head_channels {self.head_channels} does not divide {channels} channels"
            )
        return channels // self.head_channels


class Level(nn.Module):
    """The blocks of one size: each a residual block, with attention where there is any."""

    def __init__(
        self,
        blocks: Sequence[ResBlock],
        attentions: Sequence[AttentionBlock],
        resample: nn.Module | None,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.attentions = nn.ModuleList(attentions)
        self.resample = resample

    def __len__(self) -> int:
        return len(self.blocks)

    def step(self, index: int, h: Tensor, embedded: Tensor, tokens: Tokens | None) -> Tensor:
        """One residual block and its attention."""
        h = self.blocks[index](h, embedded)
        return self.attentions[index](h, tokens) if index < len(self.attentions) else h


_PLAIN_ATTENTION = AttentionStyle()
_PLAIN_STYLE = Style()
_NOTHING = Accepts()


class UNet(Network):
    """A U-Net: levels of residual blocks down, a middle, and up again with skip connections.

    spatial_dims: 1 (audio), 2 (pictures) or 3 (video).
    out_channels: as many as come in by default; twice as many for a learned variance.
    channels, multipliers: level i has channels · multipliers[i] channels and 1/2^i of the size.
    blocks: residual blocks in each level on the way down; one more on the way up.
    time: convention of the time embedding. accepts: the slots of a condition it takes; `tokens`
    are attended to after each attention of the picture on itself.
    Every block, attention and the last convolution start at zero, so the output does.
    Raises UsageError for a number of norm groups or heads that does not divide the channels, or an
    attention factor no level has.
    Reference: Ho, Jain & Abbeel 2020, appendix B; Ronneberger, Fischer & Brox 2015.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int | None = None,
        spatial_dims: int = 2,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: AttentionStyle = _PLAIN_ATTENTION,
        style: Style = _PLAIN_STYLE,
        time: Convention = "ddpm",
        accepts: Accepts = _NOTHING,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = in_channels if out_channels is None else out_channels
        self.spatial_dims = spatial_dims
        self.divisor = 2 ** (len(multipliers) - 1)
        self.accepts = accepts
        _check(channels, multipliers, blocks, attention, accepts)
        make = _Maker(spatial_dims, 4 * channels, attention, style, accepts.tokens)
        widths = [channels * m for m in multipliers]
        self.embedding = Embedding(channels, 4 * channels, time, accepts.vector)
        self.enter = xavier_(convolution(spatial_dims, self.input_channels, channels))
        self.down, skips = _way_down(make, channels, widths, blocks)
        self.middle = make.middle(widths[-1])
        self.up = _way_up(make, widths, blocks, skips)
        self.norm = group_norm(channels, style)
        self.leave = zero_(convolution(spatial_dims, widths[0], self.out_channels))

    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        batch = x.shape[0]
        vectors = {name: self.vector(name, batch, condition) for name in self.accepts.vector}
        self.check_tokens(batch, condition)
        embedded = silu(self.embedding(time, vectors))
        tokens = condition.tokens
        h = self.enter(x)
        skips = [h]
        for level in _levels(self.down):
            for index in range(len(level)):
                h = self._step(level, index, h, embedded, tokens)
                skips.append(h)
            if level.resample is not None:
                h = level.resample(h)
                skips.append(h)
        for index in range(len(self.middle)):
            h = self._step(self.middle, index, h, embedded, tokens)
        for level in _levels(self.up):
            for index in range(len(level)):
                h = torch.cat([h, skips.pop()], dim=1)
                h = self._step(level, index, h, embedded, tokens)
            if level.resample is not None:
                h = level.resample(h)
        answer: Tensor = self.leave(silu(self.norm(h)))
        return answer

    def _step(
        self,
        level: Level,
        index: int,
        h: Tensor,
        embedded: Tensor,
        tokens: Tokens | None,
    ) -> Tensor:
        if not (self.checkpointing and torch.is_grad_enabled()):
            return level.step(index, h, embedded, tokens)
        hooks = active_hooks()
        stepped: Tensor = checkpoint(
            level.step,
            index,
            h,
            embedded,
            tokens,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), hooked(*hooks)),
        )
        return stepped


def _levels(modules: nn.ModuleList) -> list[Level]:
    return [cast(Level, module) for module in modules]


class _Maker:
    """Makes the parts of one U-Net, with what they have in common."""

    def __init__(
        self,
        dims: int,
        embedding: int,
        attention: AttentionStyle,
        style: Style,
        tokens: int | None,
    ) -> None:
        self.dims = dims
        self.embedding = embedding
        self.attention = attention
        self.style = style
        self.tokens = tokens

    def block(self, channels: int, out: int) -> ResBlock:
        return ResBlock(self.dims, channels, out, self.embedding, self.style)

    def attend(self, channels: int, place: str) -> AttentionBlock:
        heads = self.attention.count(channels)
        return AttentionBlock(channels, heads, self.style, place, self.tokens)

    def level(
        self,
        ins: Sequence[int],
        out: int,
        place: str,
        factor: int,
        resample: nn.Module | None,
    ) -> Level:
        blocks = [self.block(channels, out) for channels in ins]
        here = factor in self.attention.at
        attentions = [
            self.attend(out, f"{place}.attentions.{i}") for i in range(len(ins) if here else 0)
        ]
        return Level(blocks, attentions, resample)

    def middle(self, channels: int) -> Level:
        attentions = [self.attend(channels, "middle.attentions.0")] * self.attention.middle
        return Level([self.block(channels, channels) for _ in range(2)], attentions, None)


def _way_down(
    make: _Maker, channels: int, widths: Sequence[int], blocks: int
) -> tuple[nn.ModuleList, list[int]]:
    """The levels on the way down, and the channels of every skip connection they leave."""
    levels = nn.ModuleList()
    skips = [channels]
    for i, width in enumerate(widths):
        last = i == len(widths) - 1
        resample = None if last else Downsample(make.dims, width, make.style.down)
        ins = [skips[-1]] + [width] * (blocks - 1)
        levels.append(make.level(ins, width, f"down.{i}", 2**i, resample))
        skips += [width] * (blocks if last else blocks + 1)
    return levels, skips


def _way_up(make: _Maker, widths: Sequence[int], blocks: int, skips: list[int]) -> nn.ModuleList:
    levels = nn.ModuleList()
    below = widths[-1]
    for place, i in enumerate(reversed(range(len(widths)))):
        width = widths[i]
        resample = upsample(make.dims, width, make.style.up) if i else None
        before = [below] + [width] * blocks
        ins = [channels + skips.pop() for channels in before]
        levels.append(make.level(ins, width, f"up.{place}", 2**i, resample))
        below = width
    return levels


def _check(
    channels: int,
    multipliers: Sequence[int],
    blocks: int,
    attention: AttentionStyle,
    accepts: Accepts,
) -> None:
    if channels < 4 or blocks < 1 or not multipliers or min(multipliers) < 1:
        raise UsageError(
            f"a U-Net needs channels of 4 or more, blocks and multipliers of 1 or more; "
            f"got {channels}, {blocks}, {tuple(multipliers)}"
        )
    factors = [2**i for i in range(len(multipliers))]
    for factor in attention.at:
        if factor not in factors:
            raise UsageError(f"attention.at: no level has factor {factor}; they have {factors}")
    if accepts.tokens is not None and not attention.at and not attention.middle:
        raise UsageError("tokens are attended to where the picture is; name levels in attention.at")
