"""A transformer whose sample is one vector among the tokens it is told."""

import torch
from torch import Tensor, nn

from fromnoise.core.errors import UsageError
from fromnoise.layers.condition import Condition
from fromnoise.layers.embeddings import Convention
from fromnoise.layers.init import xavier_, zero_
from fromnoise.layers.transformer import Tower
from fromnoise.nets.base import Accepts, Network
from fromnoise.nets.embed import Embedding

_TOKENS = Accepts(tokens=128)


class VectorTransformer(Network):
    """x (B, C), time and tokens to (B, C): the sequence [time and vectors | x | tokens] is read at
    the place of x.

    Each of the three enters by a linear layer; all see each other, but for tokens that are masked.

    width, depth, heads: of the transformer. features, time: of the time features. accepts: vectors
    that are added to the time's token, tokens, further coordinates as channels.
    Raises UsageError for a width or depth below 1, or heads that do not divide the width.
    Reference: Ramesh et al. 2022 (unCLIP), section 2.2, whose prior reads at a token of its own and
    lets no token see a later one.
    """

    def __init__(
        self,
        in_channels: int = 64,
        out_channels: int | None = None,
        width: int = 128,
        depth: int = 3,
        heads: int = 4,
        features: int = 64,
        time: Convention = "ddpm",
        accepts: Accepts = _TOKENS,
    ) -> None:
        super().__init__()
        if in_channels < 1 or width < 1 or depth < 1:
            raise UsageError(
                f"a transformer of vectors of {in_channels} numbers, width {width} and depth "
                f"{depth}; use 1 or more of each"
            )
        self.in_channels = in_channels
        self.out_channels = in_channels if out_channels is None else out_channels
        self.spatial_dims = 0
        self.divisor = 1
        self.accepts = accepts
        self.embedding = Embedding(features, width, time, accepts.vector)
        self.enter = xavier_(nn.Linear(self.input_channels, width))
        self.told = None if accepts.tokens is None else xavier_(nn.Linear(accepts.tokens, width))
        self.place = nn.Parameter(0.02 * torch.randn(2, width))
        self.tower = Tower(width, depth, heads, 4 * width)
        self.norm = nn.LayerNorm(width)
        self.leave = zero_(nn.Linear(width, self.out_channels))

    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        batch = x.shape[0]
        self.check_tokens(batch, condition)
        told = self.embedding(time, self.vectors(batch, condition))
        sequence = torch.stack([told, self.enter(x)], dim=1) + self.place
        mask = None
        if self.told is not None and condition.tokens is not None:
            tokens = condition.tokens
            sequence = torch.cat([sequence, self.told(tokens.values.to(x.dtype))], dim=1)
            if tokens.mask is not None:
                own = tokens.mask.new_ones(batch, 2)
                mask = torch.cat([own, tokens.mask], dim=1)[:, None, None, :]
        answer: Tensor = self.leave(self.norm(self.step(self.tower, sequence, mask)[:, 1]))
        return answer
