"""The U-Net with time embedding, in one, two or three spatial dimensions."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import silu

from fromnoise.layers.blocks import Style, group_norm
from fromnoise.layers.condition import Condition
from fromnoise.layers.embeddings import Convention
from fromnoise.layers.init import xavier_, zero_
from fromnoise.layers.resample import convolution, pixel_shuffle
from fromnoise.nets.base import Accepts
from fromnoise.nets.embed import Embedding
from fromnoise.nets.levels import (
    AttentionStyle,
    Descending,
    Maker,
    check_attention,
    divisor,
    level_widths,
    levels,
)

_PLAIN_ATTENTION = AttentionStyle()
_PLAIN_STYLE = Style()
_NOTHING = Accepts()


class UNet(Descending):
    """A U-Net: levels of residual blocks down, a middle, and up again with skip connections.

    spatial_dims: 1 (audio), 2 (pictures) or 3 (video).
    out_channels: as many as come in by default; twice as many for a learned variance.
    channels, multipliers: level i has channels · multipliers[i] channels and 1/2^i of the size; the
    time embedding is 4 · channels wide.
    blocks: residual blocks in each level on the way down; one more on the way up.
    time: convention of the time embedding. accepts: the slots of a condition it takes; `tokens`
    are attended to after each attention of the picture on itself. With `attention.transformer` it
    is the U-Net of latent diffusion and of Stable Diffusion.
    Every block, attention and the last convolution start at zero, so the output does.
    Raises UsageError for a number of norm groups or heads that does not divide the channels, or an
    attention factor no level has.
    Reference: Ho, Jain & Abbeel 2020, appendix B; Ronneberger, Fischer & Brox 2015; Rombach et
    al. 2022.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int | None = None,
        spatial_dims: int = 2,
        channels: int = 128,
        multipliers: Sequence[int | float] = (1, 2, 2, 2),
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
        self.patch = style.patch
        self.divisor = divisor(style, len(multipliers))
        self.uneven = style.uneven
        self.levels = len(multipliers)
        self.accepts = accepts
        widths = level_widths(channels, multipliers, blocks)
        check_attention(attention, len(widths), accepts)
        make = Maker(spatial_dims, widths, 4 * channels, attention, style, accepts.tokens)
        self.embedding = Embedding(
            channels, 4 * channels, time, accepts.vector, joined=style.joined
        )
        folded = style.patch**spatial_dims
        entering, leaving = folded * self.input_channels, folded * self.out_channels
        self.coordinates = style.coordinates
        places = spatial_dims if style.coordinates else 0
        self.enter = xavier_(convolution(spatial_dims, entering + places, widths[0]))
        self.down, skips = make.way_down(blocks)
        self.pyramid = make.pyramid(entering)
        self.middle = make.middle()
        self.up = make.way_up(blocks, skips)
        self.norm = group_norm(widths[0], style)
        self.leave = zero_(convolution(spatial_dims, widths[0], leaving))

    @property
    def unit(self) -> int:
        return int(self.patch * 2 ** (self.levels - 1))

    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        h, embedded, skips = self.descend(x, time, condition)
        for level in levels(self.up):
            for index in range(len(level)):
                h = torch.cat([h, skips.pop()], dim=1)
                h = self.step(level.step, index, h, embedded, condition.tokens)
            if level.resample is not None:
                space = skips[-1].shape[2:] if self.uneven else None
                h = self.step(level.change, h, embedded, space)
        answer: Tensor = self.leave(silu(self.norm(h)))
        return pixel_shuffle(answer, self.spatial_dims, self.patch)
