"""A residual network of fully connected layers, for points."""

from torch import Tensor, nn
from torch.nn.functional import dropout, silu

from fromnoise.core.errors import UsageError
from fromnoise.layers.condition import Condition
from fromnoise.layers.embeddings import Convention
from fromnoise.layers.init import xavier_, zero_
from fromnoise.nets.base import Accepts, Network
from fromnoise.nets.embed import Embedding


class Residual(nn.Module):
    """x + second(silu(first(norm(x)) + time(e))); `second` starts at zero."""

    def __init__(self, width: int, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.norm = nn.LayerNorm(width)
        self.first = xavier_(nn.Linear(width, width))
        self.time = xavier_(nn.Linear(width, width))
        self.second = zero_(nn.Linear(width, width))

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        h = silu(self.first(self.norm(x)) + self.time(embedded))
        changed: Tensor = x + self.second(dropout(h, self.probability, self.training))
        return changed


_NOTHING = Accepts()


class MLP(Network):
    """Residual fully connected blocks over points (B, in_channels), without spatial axes.

    width: of every hidden layer; depth: residual blocks; features: of the time embedding;
    dropout: probability in [0, 1). accepts: channels are further coordinates; it takes no tokens.
    Raises UsageError for a width, depth or dropout out of range, or tokens.
    """

    def __init__(
        self,
        in_channels: int = 2,
        out_channels: int | None = None,
        width: int = 128,
        depth: int = 3,
        features: int = 64,
        dropout: float = 0.0,
        time: Convention = "ddpm",
        accepts: Accepts = _NOTHING,
    ) -> None:
        super().__init__()
        if width < 1 or depth < 1 or not 0 <= dropout < 1:
            raise UsageError(
                f"an MLP needs width and depth of 1 or more and dropout in [0, 1); "
                f"got {width}, {depth}, {dropout}"
            )
        if accepts.tokens is not None:
            raise UsageError("an MLP takes no tokens; give it a vector, or use a unet")
        self.in_channels = in_channels
        self.out_channels = in_channels if out_channels is None else out_channels
        self.spatial_dims = 0
        self.divisor = 1
        self.accepts = accepts
        self.embedding = Embedding(features, width, time, accepts.vector)
        self.enter = xavier_(nn.Linear(self.input_channels, width))
        self.blocks = nn.ModuleList(Residual(width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.leave = zero_(nn.Linear(width, self.out_channels))

    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        vectors = self.vectors(x.shape[0], condition)
        embedded = silu(self.embedding(time, vectors))
        h = self.enter(x)
        for block in self.blocks:
            h = self.step(block, h, embedded)
        answer: Tensor = self.leave(silu(self.norm(h)))
        return answer
