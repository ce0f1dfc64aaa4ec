"""A transformer over tokens, some of them masked, that says what each of them is."""

import torch
from torch import Tensor, nn

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.layers.condition import Condition
from fromnoise.layers.embeddings import Convention, positions
from fromnoise.layers.init import xavier_, zero_
from fromnoise.layers.transformer import Tower
from fromnoise.nets.base import Accepts, Network
from fromnoise.nets.embed import Embedding

_NOTHING = Accepts()


class TokenTransformer(Network):
    """x (B, K, h, w), one-hot over K codes or all zero, to logits (B, K, h, w).

    The sequence [time and vectors | words | tokens] passes a `Tower` in which all see each other,
    but for words that are masked; the logits are read at the tokens' places. A masked token has an
    embedding of its own, and every token that of its place.

    in_channels: K. size: (h, w), or one number for both. width, depth, heads: of the transformer.
    features, time: of the time features. accepts: vectors, added to the time's token, and words
    (tokens); no channels.
    Raises UsageError for a size, width or depth below 1, heads that do not divide the width, a
    width that is no multiple of 4, and channel slots; ShapeError for tokens of another size.
    Reference: Chang et al. 2022, "MaskGIT", section 3.2.
    """

    def __init__(
        self,
        in_channels: int = 256,
        size: int | tuple[int, int] = 8,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        features: int = 64,
        time: Convention = "ddpm",
        accepts: Accepts = _NOTHING,
    ) -> None:
        super().__init__()
        self.size = self.only = (size, size) if isinstance(size, int) else size
        if min(in_channels, width, depth, *self.size) < 1 or accepts.channels:
            raise UsageError(
                f"a transformer of tokens needs codes, size, width and depth of 1 or more and no "
                f"channel slots; got {in_channels}, {self.size}, {width}, {depth} and {accepts}"
            )
        self.in_channels = self.out_channels = in_channels
        self.spatial_dims = 2
        self.divisor = 1
        self.accepts = accepts
        self.embedding = Embedding(features, width, time, accepts.vector)
        self.enter = nn.Linear(in_channels, width, bias=False)
        self.masked = nn.Parameter(0.02 * torch.randn(width))
        nn.init.normal_(self.enter.weight, std=0.02)
        grid = positions(*self.size, width)
        self.position = nn.Parameter(0.02 * grid.to(self.enter.weight.dtype))
        self.told = None if accepts.tokens is None else xavier_(nn.Linear(accepts.tokens, width))
        self.tower = Tower(width, depth, heads, 4 * width)
        self.norm = nn.LayerNorm(width)
        self.leave = zero_(nn.Linear(width, in_channels))

    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        if tuple(x.shape[2:]) != self.size:
            raise ShapeError(
                f"this transformer takes tokens of {self.size[0]} by {self.size[1]}, "
                f"not {tuple(x.shape[2:])}"
            )
        batch = len(x)
        self.check_tokens(batch, condition)
        rows = x.flatten(2).transpose(1, 2)
        # One-hot rows sum to 1 and those of masked tokens to 0.
        tokens = self.enter(rows) + (1 - rows.sum(2, keepdim=True)) * self.masked + self.position
        before = [self.embedding(time, self.vectors(batch, condition))[:, None]]
        mask = None
        if self.told is not None and condition.tokens is not None:
            words = condition.tokens
            before.append(self.told(words.values.to(x.dtype)))
            if words.mask is not None:
                ones = [words.mask.new_ones(batch, n) for n in (1, rows.shape[1])]
                mask = torch.cat([ones[0], words.mask, ones[1]], dim=1)[:, None, None, :]
        sequence = torch.cat([*before, tokens], dim=1)
        left = self.step(self.tower, sequence, mask)[:, -rows.shape[1] :]
        logits: Tensor = self.leave(self.norm(left))
        return logits.transpose(1, 2).reshape(x.shape)
