"""The diffusion transformer: patches as tokens, told the time and the label by adaptive norms."""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, silu

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.layers.attention import TokenAttention
from fromnoise.layers.condition import Condition, Tokens
from fromnoise.layers.embeddings import Convention, positions
from fromnoise.layers.init import xavier_, zero_
from fromnoise.layers.resample import convolution
from fromnoise.nets.base import Accepts, Network
from fromnoise.nets.embed import Embedding, NullTable

_FEATURES = 256
_EPS = 1e-6


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """norm(x)·(1 + scale) + shift with a layer norm without weights; x (B, N, C), others (B, C)."""
    normed = layer_norm(x, x.shape[-1:], eps=_EPS)
    return torch.addcmul(shift[:, None], normed, 1 + scale[:, None])


class AdaptiveBlock(nn.Module):
    """A transformer block whose norms and residual sums are set by an embedding e (adaLN-Zero).

    (b₁, s₁, g₁, b₂, s₂, g₂) = M e, then
    x + g₁·attention(norm(x)·(1 + s₁) + b₁) and x + g₂·mlp(norm(x)·(1 + s₂) + b₂).
    M starts at zero, so the block starts as the identity.

    With tokens of that width, x + cross(norm(x), tokens) stands between the two: its last layer
    starts at zero too, so that a block starts without them.

    width: of x (B, N, width) and of e (B, width), which comes after its SiLU; hidden: of the MLP.
    Reference: Peebles & Xie 2023, section 3.2; cross-attention, Chen et al. 2023, "PixArt-α",
    section 2.3 (there without the norm).
    """

    def __init__(
        self, width: int, heads: int, hidden: int, place: str, tokens: int | None = None
    ) -> None:
        super().__init__()
        self.attention = TokenAttention(width, heads, f"{place}.attention")
        self.cross = None
        if tokens is not None:
            self.cross = TokenAttention(width, heads, f"{place}.cross", context=tokens)
            zero_(self.cross.out)
        self.first = xavier_(nn.Linear(width, hidden))
        self.second = xavier_(nn.Linear(hidden, width))
        self.modulation = zero_(nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, embedded: Tensor, tokens: Tokens | None = None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(embedded).chunk(6, dim=1)
        own = modulated(x, shift1, scale1)
        x = x + gate1[:, None] * self.attention(own, own)
        if self.cross is not None and tokens is not None:
            normed = layer_norm(x, x.shape[-1:], eps=_EPS)
            x = x + self.cross(normed, tokens.values, tokens.mask)
        h = gelu(self.first(modulated(x, shift2, scale2)), approximate="tanh")
        changed: Tensor = x + gate2[:, None] * self.second(h)
        return changed


_NOTHING = Accepts()


class DiT(Network):
    """A transformer over the patches of a picture of fixed size.

    size: (height, width) of the picture, or one number for both; patch: side of a patch; width:
    of the tokens; depth: blocks; heads: of each, dividing the width; hidden: the MLP's width over
    the tokens' width.
    out_channels: as many as come in by default; twice as many for a learned variance.
    time: convention of the time features, 256 of them.
    accepts: a raw vector is embedded by a `NullTable`: K classes have K + 1 rows, and the zeros
    that a dropped label is are the last of them. Tokens are attended to in every block, after the
    picture itself.
    `position`, the sines and cosines of each patch's place, is a parameter that does not train.
    Raises UsageError for a patch that does not divide the size, heads that do not divide the
    width, or a width that is no multiple of 4; ShapeError for a picture of another size.
    Reference: Peebles & Xie 2023; tokens, Chen et al. 2023, "PixArt-α".
    """

    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int | None = None,
        size: int | tuple[int, int] = 32,
        patch: int = 2,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        hidden: float = 4.0,
        time: Convention = "adm",
        accepts: Accepts = _NOTHING,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = in_channels if out_channels is None else out_channels
        self.spatial_dims = 2
        self.accepts = accepts
        self.size = self.only = (size, size) if isinstance(size, int) else size
        self.patch = self.divisor = patch
        _check(self.size, patch, width, depth)
        self.embedding = Embedding(_FEATURES, width, time, accepts.vector, NullTable)
        for layer in (self.embedding.time.first, self.embedding.time.second):
            nn.init.normal_(layer.weight, std=0.02)
        self.enter = xavier_(
            convolution(2, self.input_channels, width, patch, stride=patch, padding=0)
        )
        # A patch enters through a linear layer, so its fans are those of one.
        nn.init.xavier_uniform_(self.enter.weight.detach().view(width, -1))
        grid = positions(self.size[0] // patch, self.size[1] // patch, width)
        self.position = nn.Parameter(grid.to(self.enter.weight.dtype), requires_grad=False)
        inside = int(hidden * width)
        self.blocks = nn.ModuleList(
            AdaptiveBlock(width, heads, inside, f"blocks.{i}", accepts.tokens) for i in range(depth)
        )
        self.modulation = zero_(nn.Linear(width, 2 * width))
        self.leave = zero_(nn.Linear(width, patch**2 * self.out_channels))

    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        if tuple(x.shape[2:]) != self.size:
            raise ShapeError(
                f"this transformer takes pictures of {self.size[0]} by {self.size[1]}, "
                f"not {tuple(x.shape[2:])}"
            )
        self.check_tokens(x.shape[0], condition)
        embedded = silu(self.embedding(time, self.vectors(x.shape[0], condition)))
        tokens = self.enter(x).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            tokens = self.step(block, tokens, embedded, condition.tokens)
        shift, scale = self.modulation(embedded).chunk(2, dim=1)
        return self._picture(self.leave(modulated(tokens, shift, scale)))

    def _picture(self, tokens: Tensor) -> Tensor:
        """(B, patches, patch·patch·C), channels last, to (B, C, height, width)."""
        rows, columns = (side // self.patch for side in self.size)
        parts = tokens.reshape(-1, rows, columns, self.patch, self.patch, self.out_channels)
        return parts.permute(0, 5, 1, 3, 2, 4).reshape(-1, self.out_channels, *self.size)


def _check(size: tuple[int, int], patch: int, width: int, depth: int) -> None:
    if patch < 1 or depth < 1 or width < 1 or min(size) < 1:
        raise UsageError(
            f"a transformer needs size, patch, width and depth of 1 or more; "
            f"got {size}, {patch}, {width}, {depth}"
        )
    if size[0] % patch or size[1] % patch:
        raise UsageError(f"patch {patch} does not divide the size {size[0]} by {size[1]}")
