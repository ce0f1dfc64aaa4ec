"""The classifier of noisy pictures: the first half of a U-Net, then a pool by attention."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.layers.attention import TokenAttention
from fromnoise.layers.blocks import Style, group_norm
from fromnoise.layers.condition import Condition
from fromnoise.layers.embeddings import Convention
from fromnoise.layers.init import xavier_
from fromnoise.layers.resample import convolution
from fromnoise.nets.base import Accepts
from fromnoise.nets.embed import Embedding
from fromnoise.nets.levels import (
    AttentionStyle,
    Descending,
    Maker,
    check_attention,
    level_widths,
)


class AttentionPool(nn.Module):
    """A feature map as one vector: its mean attends to itself and to every place.

    c = [mean(x) | x] + position, (B, 1 + cells, C); the answer is the attention of c_0 on c,
    (B, out).

    cells: places in the feature map; place: the name shown to hooks.
    Reference: Radford et al. 2021 (CLIP), section 2.4; Dhariwal & Nichol 2021.
    """

    def __init__(self, cells: int, channels: int, heads: int, out: int, place: str) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(1 + cells, channels) / channels**0.5)
        self.attention = TokenAttention(channels, heads, f"{place}.attention", out)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + self.position
        pooled: Tensor = self.attention(tokens[:, :1], tokens)
        return pooled[:, 0]


_PLAIN_ATTENTION = AttentionStyle()
_PLAIN_STYLE = Style()


class Classifier(Descending):
    """The log-odds of each class of a noisy picture, (B, classes): log p(y | x_t, t) by softmax.

    It goes down and through the middle as `UNet` does, then pools by attention, with the heads of
    the middle.

    classes: how many; size: height and width of the pictures, fixed by the pool's positions.
    The other arguments are those of `UNet`. It takes no condition.
    Raises UsageError where `UNet` does, and for a size that the levels do not divide; ShapeError
    for a picture of another size.
    Reference: Dhariwal & Nichol 2021, section 4 and appendix I.
    """

    draws = False

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 1000,
        size: int = 64,
        channels: int = 128,
        multipliers: Sequence[int | float] = (1, 2, 3, 4),
        blocks: int = 4,
        attention: AttentionStyle = _PLAIN_ATTENTION,
        style: Style = _PLAIN_STYLE,
        time: Convention = "adm",
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = classes
        self.spatial_dims = 2
        self.patch = style.patch
        self.divisor = style.patch * 2 ** (len(multipliers) - 1)
        self.accepts = Accepts()
        self.side = size
        if style.uneven or style.joined:
            raise UsageError("a classifier has one size and no vectors: no style.uneven or joined")
        if size < 1 or size % self.divisor or classes < 1:
            raise UsageError(
                f"a classifier needs a size that is a multiple of {self.divisor} and a class; "
                f"got {size} and {classes}"
            )
        widths = level_widths(channels, multipliers, blocks)
        check_attention(attention, len(widths), self.accepts)
        make = Maker(2, widths, 4 * channels, attention, style, None)
        self.embedding = Embedding(channels, 4 * channels, time, {})
        entering = style.patch**2 * in_channels
        self.coordinates = style.coordinates
        places = 2 if style.coordinates else 0
        self.enter = xavier_(convolution(2, entering + places, widths[0]))
        self.down, _ = make.way_down(blocks)
        self.pyramid = make.pyramid(entering)
        self.middle = make.middle()
        self.norm = group_norm(widths[-1], style)
        cells = (size // self.divisor) ** 2
        heads = attention.count(widths[-1])
        self.pool = AttentionPool(cells, widths[-1], heads, classes, "pool")

    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        if tuple(x.shape[2:]) != (self.side, self.side):
            raise ShapeError(
                f"this classifier takes pictures of {self.side} by {self.side}, "
                f"not {tuple(x.shape[2:])}"
            )
        h, _, _ = self.descend(x, time, condition)
        answer: Tensor = self.pool(silu(self.norm(h)))
        return answer
