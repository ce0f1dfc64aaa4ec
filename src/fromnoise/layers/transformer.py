"""Transformer blocks over sequences: what text and vision towers are made of."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from fromnoise.core.errors import UsageError
from fromnoise.layers.attention import Place, attend, parted

Activation = Literal["gelu", "quick_gelu"]


def quick_gelu(x: Tensor) -> Tensor:
    """x·sigmoid(1.702·x): the approximation of GELU that the first CLIP models were trained with.

    Reference: Hendrycks & Gimpel 2016, section 2; Radford et al. 2021 (their code).
    """
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": gelu, "quick_gelu": quick_gelu}
"""What stands between the two layers of a block, by name."""


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), over x (B, L, width).

    heads: they divide the width, unless head_width gives each its own. hidden: width of the middle
    of the MLP. place: the name shown to attention hooks. eps: of the norms. bias: of query, key and
    value; all other layers have one.
    Raises UsageError for heads that do not divide the width.
    Reference: Vaswani et al. 2017; norms before, as Radford et al. 2019.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        place: str,
        activation: Activation = "gelu",
        eps: float = 1e-5,
        head_width: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if head_width is None and width % heads:
            raise UsageError(f"{heads} attention heads do not divide width {width}")
        inner = width if head_width is None else heads * head_width
        self.heads = heads
        self.place = Place(place, "self")
        self.activation = ACTIVATIONS[activation]
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.query = nn.Linear(width, inner, bias=bias)
        self.key = nn.Linear(width, inner, bias=bias)
        self.value = nn.Linear(width, inner, bias=bias)
        self.out = nn.Linear(inner, width)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.first = nn.Linear(width, hidden)
        self.second = nn.Linear(hidden, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """mask: broadcast to (B, heads, L, L), true where a query sees a key; None for all."""
        own = self.norm1(x)
        query, key, value = (
            parted(layer(own), self.heads) for layer in (self.query, self.key, self.value)
        )
        mixed = attend(query, key, value, self.place, mask)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        changed: Tensor = x + self.second(self.activation(self.first(self.norm2(x))))
        return changed


class Tower(nn.Module):
    """Blocks one after another over x (B, L, width); `depth` of them, see `TransformerBlock`.

    `layers(x, mask)` gives what each of them leaves, the first being x itself.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        activation: Activation = "gelu",
        eps: float = 1e-5,
        head_width: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if depth < 1 or width < 1:
            raise UsageError(f"a tower of depth {depth} and width {width}; use 1 or more of both")
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, hidden, f"blocks.{i}", activation, eps, head_width, bias)
            for i in range(depth)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.layers(x, mask)[-1]

    def layers(self, x: Tensor, mask: Tensor | None = None) -> list[Tensor]:
        """x and what each block leaves: depth + 1 tensors (B, L, width)."""
        left = [x]
        for block in self.blocks:
            left.append(block(left[-1], mask))
        return left


def causal(length: int, device: torch.device | None = None) -> Tensor:
    """(1, 1, length, length), true where a key is not after its query."""
    square = torch.ones(length, length, dtype=torch.bool, device=device)
    return square.tril()[None, None]
