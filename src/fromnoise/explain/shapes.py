"""Every tensor on the way from a prompt to a picture, with its shape: no number is computed.

The parts are copied to the meta device, where a tensor has a shape and no memory, and hooks say
what passes through them. So it takes as long for a network of a billion weights as for a small one.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from fromnoise.encoders import Encoder
from fromnoise.layers.attention import Hook, Place, hooked
from fromnoise.layers.condition import Condition
from fromnoise.layers.spatial_transformer import SpatialTransformer
from fromnoise.model import Model
from fromnoise.model.memory import TOKENS, nothing_told
from fromnoise.model.meta import on_meta, zeros
from fromnoise.model.sizes import checked_shape
from fromnoise.nets.base import Network

Shape = tuple[int, ...]


@dataclass
class Row:
    """One tensor. part: of the chain; name: of what makes it, as it stands in the module.

    shape: of what comes out. skip: channels joined to it from an earlier feature map, which `name`
    takes besides what comes before. attention: (name, heads, queries, keys) of every map made on
    the way. parameters: of what makes it. times: how many of the same follow each other.
    """

    part: str
    name: str
    shape: Shape
    skip: int = 0
    attention: list[tuple[str, int, int, int]] = field(default_factory=list)
    parameters: int = 0
    times: int = 1
    last: str = ""

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        maps = [
            {"name": name, "heads": heads, "queries": queries, "keys": keys}
            for name, heads, queries, keys in self.attention
        ]
        return {
            "part": self.part,
            "name": self.name,
            "last": self.last or self.name,
            "times": self.times,
            "shape": list(self.shape),
            "skip": self.skip,
            "attention": maps,
            "parameters": self.parameters,
        }


@dataclass(frozen=True)
class Shapes:
    """The tensors of a model in the order they are made, and its parameters by part."""

    rows: list[Row]
    parameters: dict[str, int]

    def lines(self) -> Iterator[str]:
        """A table, each part under its own name."""
        cells = [(row, _cells(row)) for row in self.rows]
        widths = [max(len(one[i]) for _, one in cells) for i in range(3)]
        part = ""
        for row, one in cells:
            if row.part != part:
                part = row.part
                yield part
            padded = [f"{cell:{width}}" for cell, width in zip(one, widths, strict=False)]
            yield ("  " + "  ".join([*padded, one[3]])).rstrip()
        counts = ", ".join(f"{name} {count:,}" for name, count in self.parameters.items())
        yield f"parameters: {counts}; together {sum(self.parameters.values()):,}"

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"tensors": [row.plain() for row in self.rows], "parameters": self.parameters}


def model_shapes(model: Model, prompt: str = "a cat", shape: Shape | None = None) -> Shapes:
    """Every tensor of one guided step: what is told, the picture, its latents, the network.

    prompt: whose tokens are shown, where prompts are read. shape: of a picture.
    Raises ShapeError for one the model does not draw.
    """
    shape = model.shape if shape is None else checked_shape(model, shape)
    latent = model.codec.latent_shape(shape)
    rows: list[Row] = []
    tokens = 0
    for name in model.conditioning.names:
        made, told = _told(name, cast(Encoder, model.conditioning.encoders[name]), prompt)
        rows += made
        tokens += 0 if told.tokens is None else told.tokens.values.shape[1]
    codec = on_meta(model.codec)
    coded = next(model.codec.parameters(), None) is not None
    if coded:
        rows.append(Row("picture", "x0", (1, *shape)))
        rows += follow("encoder", codec, lambda: codec.encode(zeros((1, *shape))))
        rows.append(Row("latents", "z", (1, *latent)))
    rows += network_shapes(model.denoiser.net, latent, tokens)
    if coded:
        rows += follow("decoder", codec, lambda: codec.decode(zeros((1, *latent))))
    if model.denoiser.net.draws:
        rows.append(Row("sample", "picture" if len(shape) == 3 else "x0", (1, *shape)))
    parts = {"encoders": model.conditioning, "autoencoder": codec, "network": model.denoiser.net}
    return Shapes(_joined(rows), {name: n for name, part in parts.items() if (n := _count(part))})


def network_shapes(net: Network, latent: Shape, tokens: int = 0) -> list[Row]:
    """The tensors of a network over x_t of a shape (C, *space), and what it is told.

    tokens: how many it attends to, where it does; 77 by default.
    """
    part = "network"
    rows = [Row(part, "x_t", (1, *latent)), Row(part, "time", (1,))]
    told = nothing_told(net, 1, latent, zeros, tokens or TOKENS)
    rows += [Row(part, f"told {name}", tuple(v.shape)) for name, v in _slots(told).items()]
    bare = on_meta(net)
    made: list[Tensor] = []

    def run() -> None:
        made.append(bare(zeros((1, *latent)), zeros((1,)), told))

    rows += follow(part, bare, run)
    return _joined([*rows, *(Row(part, "answer", tuple(one.shape)) for one in made)])


def follow(part: str, module: nn.Module, run: Callable[[], Any]) -> list[Row]:
    """What passes through the outermost parts of a module while `run` runs it.

    A part is one that gives a tensor and does not itself hold a list of parts: of a U-Net its
    blocks and what is between them, level by level.
    """
    rows: list[Row] = []
    with torch.no_grad(), _watching(part, module, rows) as maps, hooked(maps):
        try:
            run()
        except (NotImplementedError, RuntimeError):
            # It asks about values, which there are none of; what was seen until then stays.
            rows.append(Row(part, "(the rest depends on values)", ()))
    return rows


class _Maps(Hook):
    """Adds every attention map to the row of the part it is made in."""

    def __init__(self) -> None:
        self.inside: list[Row] = []

    def wants(self, place: Place) -> bool:
        return bool(self.inside)

    def maps(self, place: Place, probabilities: Tensor) -> Tensor:
        _, heads, queries, keys = probabilities.shape
        kind = place.name.rpartition(".")[2]
        name = kind if kind in ("own", "cross") else place.kind
        self.inside[-1].attention.append((name, heads, queries, keys))
        return probabilities


@contextmanager
def _watching(part: str, module: nn.Module, rows: list[Row]) -> Iterator[_Maps]:
    maps = _Maps()
    handles = []
    before: list[int] = []

    def enter(name: str, child: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, given: tuple[Any, ...]) -> None:
            if not maps.inside:
                x = given[0] if given and isinstance(given[0], Tensor) else None
                skip = 0 if x is None or x.ndim < 4 or not before else x.shape[1] - before[-1]
                row = Row(part, name, (), skip=max(skip, 0), parameters=_count(child))
                maps.inside.append(row)
                handles.append(child.register_forward_hook(leave(row)))

        return hook

    def leave(row: Row) -> Callable[..., None]:
        def hook(_: nn.Module, __: tuple[Any, ...], out: Any) -> None:
            if maps.inside and maps.inside[-1] is row:
                maps.inside.pop()
                if isinstance(out, Tensor):
                    row.shape = tuple(out.shape)
                    rows.append(row)
                    if out.ndim >= 4:
                        before.append(out.shape[1])

        return hook

    for name, child in module.named_modules():
        if name and not isinstance(child, nn.Identity) and not _holds_parts(child):
            handles.append(child.register_forward_pre_hook(enter(name, child)))
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def _holds_parts(module: nn.Module) -> bool:
    """Whether what is in it is shown in its place."""
    if isinstance(module, SpatialTransformer):
        return False
    return any(isinstance(child, nn.ModuleList | nn.ModuleDict) for child in module.modules())


def _told(name: str, encoder: Encoder, prompt: str) -> tuple[list[Row], Condition]:
    """What one encoder makes of its input, prompts as ids and tokens; and the condition."""
    rows, ids = [], _Ids()
    told = encoder.null(name, 1)
    if encoder.count(prompt):
        bare = on_meta(encoder)
        inside = follow(name, bare, lambda: ids.of(bare, name, prompt))
        rows = [Row(name, f"text {prompt!r}", ())]
        rows += [Row(name, "token ids", ids.shape)] if ids.shape else []
        rows += inside
        told = ids.told or told
    rows += [Row(name, slot, tuple(value.shape)) for slot, value in _slots(told).items()]
    return rows, told


class _Ids:
    """Reads a prompt and keeps the shape of its ids, and the condition they become."""

    def __init__(self) -> None:
        self.shape: Shape = ()
        self.told: Condition | None = None

    def of(self, encoder: Any, name: str, prompt: str) -> None:
        """Encode the prompt with what takes ids watched."""

        def hook(_: nn.Module, given: tuple[Any, ...]) -> None:
            whole = given and isinstance(given[0], Tensor) and not given[0].is_floating_point()
            if whole and not self.shape:
                self.shape = tuple(given[0].shape)

        handles = [part.register_forward_pre_hook(hook) for part in encoder.modules()]
        try:
            self.told = encoder.encode(name, prompt, 1)
        finally:
            for handle in handles:
                handle.remove()


def _slots(told: Condition) -> Mapping[str, Tensor]:
    slots = {f"channels {name}": value for name, value in told.channels.items()}
    slots |= {f"vector {name}": value for name, value in told.vector.items()}
    return slots if told.tokens is None else {**slots, "tokens": told.tokens.values}


def _joined(rows: list[Row]) -> list[Row]:
    """Neighbours that differ in their number alone as one row."""
    joined: list[Row] = []
    for row in rows:
        last = joined[-1] if joined else None
        alike = last is not None and (last.part, last.shape, last.skip, last.attention) == (
            row.part,
            row.shape,
            row.skip,
            row.attention,
        )
        stem, _, number = row.name.rpartition(".")
        if last is not None and alike and number.isdigit() and stem == last.name.rpartition(".")[0]:
            last.times += 1
            last.last = row.name
            last.parameters += row.parameters
        else:
            joined.append(row)
    return joined


def _cells(row: Row) -> list[str]:
    name = row.name if row.times == 1 else f"{row.name} … {row.last.rpartition('.')[2]}"
    shape = f"({', '.join(map(str, row.shape))}{',' if len(row.shape) == 1 else ''})"
    notes = [f"skip of {row.skip} joined"] if row.skip else []
    for (kind, heads, queries, keys), times in Counter(row.attention).items():
        many = f", {times} times" if times > 1 else ""
        notes.append(f"{kind}: {heads} head{'s' if heads > 1 else ''} × {queries} × {keys}{many}")
    count = f"{row.parameters:,}" if row.parameters else ""
    return [name, shape if row.shape else "", count, "; ".join(notes)]


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
