"""Networks that make a sample at once: beside a denoiser, one that is asked a single time."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.layers.condition import Condition
from fromnoise.nets.base import Accepts, Network
from fromnoise.nets.embed import table
from fromnoise.nets.mlp import Residual

NOTHING = Accepts()


class Flat(Network, ABC):
    """A network of samples of one shape, taken as a row of numbers.

    shape: of a sample, (C, *space). accepts: vectors, told to every block; no channels or tokens.
    Raises UsageError for an empty shape, a width or depth below 1, or slots it cannot take.
    """

    def __init__(self, shape: Sequence[int], width: int, depth: int, accepts: Accepts) -> None:
        super().__init__()
        if not shape or min(shape) < 1 or width < 1 or depth < 1:
            raise UsageError(
                f"a network of whole samples needs a shape, width and depth of 1 or more; "
                f"got {tuple(shape)}, {width}, {depth}"
            )
        if accepts.tokens is not None or accepts.channels:
            raise UsageError(f"a network of whole samples takes vectors only, not {accepts}")
        self.shape = tuple(shape)
        self.only = (shape[1], shape[2]) if len(shape) == 3 else None
        self.numbers = prod(shape)
        self.width = width
        self.in_channels = self.out_channels = shape[0]
        self.spatial_dims = len(shape) - 1
        self.divisor = 1
        self.accepts = accepts

    def flat(self, x: Tensor) -> Tensor:
        """Samples (B, *shape) as rows (B, numbers). Raises ShapeError for another shape."""
        if tuple(x.shape[1:]) != self.shape:
            raise ShapeError(f"this network is for samples {self.shape}, not {tuple(x.shape[1:])}")
        return x.flatten(1)

    def picture(self, rows: Tensor) -> Tensor:
        """Rows (B, numbers) as samples (B, *shape)."""
        return rows.reshape(rows.shape[0], *self.shape)


class Generator(Flat, ABC):
    """A network from noise to a sample in one evaluation.

    As a denoiser it is asked once, at t = 1, where x_t is noise and nothing else: its belief about
    x0 there is the sample. So noise, seeds, conditions and files are those of every other model.
    """

    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        # A graph that is exported cannot ask about its values.
        if not torch.compiler.is_exporting() and bool((time != 1).any()):
            raise UsageError(
                f"this network draws in one step from noise, at time 1, and was asked at time "
                f"{time.min().item():g}; use steps=1"
            )
        return self.generate(x, condition)

    @abstractmethod
    def generate(self, noise: Tensor, condition: Condition) -> Tensor:
        """The sample (B, *shape) that standard normal noise (B, *shape) becomes."""


class Stack(nn.Module):
    """Linear, residual blocks that are told the condition's vectors, norm, linear.

    (B, ins) → (B, outs). accepts: the vectors it is told, by name with their widths.
    """

    def __init__(
        self, ins: int, outs: int, width: int, depth: int, accepts: Accepts, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.width = width
        self.enter = nn.Linear(ins, width)
        self.tables = nn.ModuleDict({k: table(size, width) for k, size in accepts.vector.items()})
        self.blocks = nn.ModuleList(Residual(width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, outs)

    def forward(self, rows: Tensor, vectors: dict[str, Tensor]) -> Tensor:
        h = self.enter(rows)
        embedded = torch.zeros_like(h)
        for name, embed in self.tables.items():
            embedded = embedded + embed(vectors[name].to(h.dtype))
        for block in self.blocks:
            h = block(h, embedded)
        answer: Tensor = self.leave(nn.functional.silu(self.norm(h)))
        return answer
