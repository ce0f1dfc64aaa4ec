"""A network with plain tensors as inputs, for formats that know no conditions."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fromnoise.core.errors import ShapeError
from fromnoise.layers.condition import Condition, Tokens
from fromnoise.model import Model
from fromnoise.nets.base import Network
from fromnoise.nets.generator import Generator

TOKENS = 4
"""How many tokens an example has; the exported network takes any number of them."""


class Flat(nn.Module):
    """network(x, time, condition) as a function of x, time and one tensor for each slot.

    `slots` names them in order: `channels_NAME`, `vector_NAME`, `tokens` and `tokens_mask`. The
    network is a float32 copy in evaluation mode.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).float().eval().requires_grad_(False)
        accepts = network.accepts
        self.slots = (
            *(f"channels_{name}" for name in accepts.channels),
            *(f"vector_{name}" for name in accepts.vector),
            *(() if accepts.tokens is None else ("tokens", "tokens_mask")),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all inputs in order."""
        return ("x", "time", *self.slots)

    def forward(self, x: Tensor, time: Tensor, *told: Tensor) -> Tensor:
        accepts = self.network.accepts
        parts = list(told)
        channels = {name: parts.pop(0) for name in accepts.channels}
        vector = {name: parts.pop(0) for name in accepts.vector}
        tokens = None if accepts.tokens is None else Tokens(*parts)
        answer: Tensor = self.network(x, time, Condition(channels, vector, tokens))
        return answer


@dataclass(frozen=True)
class Inputs:
    """Examples of a network's inputs, and which of their axes may vary, by the axis's name."""

    tensors: tuple[Tensor, ...]
    axes: tuple[dict[int, str], ...]


def example(
    flat: Flat, batch: int, space: Sequence[int], time: Tensor, tokens: int = TOKENS
) -> Inputs:
    """Inputs of a batch over a space, drawn with a fixed seed. time: (batch,), as it is told."""
    network, accepts = flat.network, flat.network.accepts
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    over = {2 + place: f"size{place}" for place in range(len(space))}
    tensors = [draw(batch, network.in_channels, *space), time.float()]
    axes: list[dict[int, str]] = [over, {}]
    for count in accepts.channels.values():
        tensors.append(draw(batch, count, *space))
        axes.append(over)
    for width in accepts.vector.values():
        tensors.append(draw(batch, width).abs())
        axes.append({})
    if accepts.tokens is not None:
        mask = torch.arange(tokens).expand(batch, -1) < tokens - 1
        tensors += [draw(batch, tokens, accepts.tokens), mask]
        axes += [{1: "length"}, {1: "length"}]
    return Inputs(tuple(tensors), tuple({0: "batch", **part} for part in axes))


def takes_any_size(flat: Flat, space: Sequence[int]) -> bool:
    """Whether the network takes a larger picture than one of this size."""
    if not space:
        return False
    larger = [size + flat.network.unit for size in space]
    try:
        with torch.no_grad():
            flat(*example(flat, 1, larger, torch.ones(1)).tensors)
    except ShapeError:
        return False
    return True


def traced_space(flat: Flat, space: Sequence[int], sizes: bool) -> list[int]:
    """The sizes to trace a network at: where they may vary, each its own and none the least.

    Tracing takes sizes that are equal, or 1 in units of the divisor, for the same and fixed.
    """
    if not sizes:
        return list(space)
    return [flat.network.unit * (2 + place) for place in range(len(space))]


def told_times(model: Model, count: int) -> Tensor:
    """What the network is told at so many times between data and noise.

    A generator is asked at 1 only.
    """
    first, last = (1.0, 1.0) if isinstance(model.denoiser.net, Generator) else (0.1, 0.9)
    t = torch.linspace(first, last, count, dtype=torch.float64)
    with torch.no_grad():
        scales = model.denoiser.process.reference(t)
        return model.denoiser.parameterization.time(t, scales)


def dynamic_shapes(inputs: Inputs, divisor: int, sizes: bool) -> dict[str, Any]:
    """What `torch.export` is told of the axes that vary; sizes: whether those of space do."""
    from torch.export import Dim

    made: dict[str, Any] = {"batch": Dim("batch", min=1), "length": Dim("length", min=1)}
    for name in {name for axes in inputs.axes for name in axes.values()} - made.keys():
        # A size is a multiple of the divisor, and is told so: the network checks it.
        root = Dim(f"{name}_units", min=1)
        made[name] = root if divisor == 1 else divisor * root

    def shape(axes: dict[int, str]) -> dict[int, Any]:
        vary = {axis: name for axis, name in axes.items() if sizes or not name.startswith("size")}
        return {axis: made[name] for axis, name in vary.items()}

    x, time, *told = (shape(axes) for axes in inputs.axes)
    return {"x": x, "time": time, **({"told": tuple(told)} if told else {})}
