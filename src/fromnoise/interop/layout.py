"""Two-way tables between our state dicts and other programs': names, and how their tensors lie.

A table is a list of entries, made for one network. Reading and writing are exact inverses: tensors
are cut, joined, turned or passed on, and no number changes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fromnoise.core.errors import FileError

Order = Literal["legacy", "new"]


class Form(ABC):
    """How the tensors of one entry lie in the other program's file."""

    @abstractmethod
    def read(self, *theirs: Tensor) -> tuple[Tensor, ...]:
        """Their tensors as ours."""

    @abstractmethod
    def write(self, *ours: Tensor) -> tuple[Tensor, ...]:
        """Our tensors as theirs."""


class Same(Form):
    """One tensor, the same in both."""

    def read(self, *theirs: Tensor) -> tuple[Tensor, ...]:
        return theirs

    def write(self, *ours: Tensor) -> tuple[Tensor, ...]:
        return ours


class Turned(Form):
    """One matrix, transposed: an embedding table, or a linear map written (in, out)."""

    def read(self, *theirs: Tensor) -> tuple[Tensor, ...]:
        return tuple(value.T.contiguous() for value in theirs)

    def write(self, *ours: Tensor) -> tuple[Tensor, ...]:
        return self.read(*ours)


@dataclass(frozen=True)
class Pointwise(Form):
    """One linear map, which they write as a convolution of width 1 over `dims` axes of space."""

    dims: int = 1

    def read(self, *theirs: Tensor) -> tuple[Tensor, ...]:
        return tuple(value.flatten(1) for value in theirs)

    def write(self, *ours: Tensor) -> tuple[Tensor, ...]:
        return tuple(value.reshape(*value.shape, *(1,) * self.dims) for value in ours)


class Batched(Form):
    """One tensor that they write with an axis of length 1 in front."""

    def read(self, *theirs: Tensor) -> tuple[Tensor, ...]:
        return tuple(value[0] for value in theirs)

    def write(self, *ours: Tensor) -> tuple[Tensor, ...]:
        return tuple(value[None] for value in ours)


@dataclass(frozen=True)
class Fused(Form):
    """Query, key and value, which they write as one tensor along the first axis.

    new: all queries, all keys, all values. legacy: for each head its query, its key, its value.
    pointwise: the weight is a convolution of width 1, (3·out, in, 1).
    """

    heads: int
    order: Order
    pointwise: bool = False

    def read(self, *theirs: Tensor) -> tuple[Tensor, ...]:
        (value,) = theirs
        flat = value.flatten(1) if self.pointwise else value
        axis = 1 if self.order == "legacy" else 0
        parts = self._cut(flat, axis).unbind(axis)
        return tuple(part.reshape(-1, *flat.shape[1:]).contiguous() for part in parts)

    def write(self, *ours: Tensor) -> tuple[Tensor, ...]:
        axis = 1 if self.order == "legacy" else 0
        parts = [value.reshape(self.heads, -1, *value.shape[1:]) for value in ours]
        whole = torch.stack(parts, dim=axis).reshape(-1, *ours[0].shape[1:])
        return (whole[..., None] if self.pointwise else whole,)

    def _cut(self, flat: Tensor, axis: int) -> Tensor:
        if flat.shape[0] % (3 * self.heads):
            raise FileError(
                f"{tuple(flat.shape)} is not a query, key and value of {self.heads} heads"
            )
        lead = (3, self.heads) if axis == 0 else (self.heads, 3)
        return flat.reshape(*lead, -1, *flat.shape[1:])


@dataclass(frozen=True)
class Repeated(Form):
    """One tensor of ours that they write several times, in a `form`."""

    times: int
    form: Form

    def read(self, *theirs: Tensor) -> tuple[Tensor, ...]:
        first, *rest = theirs
        if not first.is_meta and not all(torch.equal(first, value) for value in rest):
            raise FileError("the copies of a shared embedding differ; this network has one for all")
        return self.form.read(first)

    def write(self, *ours: Tensor) -> tuple[Tensor, ...]:
        # Copies in memory too: safetensors refuses names that share it.
        (value,) = self.form.write(*ours)
        return (value, *(value.clone() for _ in range(self.times - 1)))


@dataclass(frozen=True)
class Absent(Form):
    """One constant tensor of ours that they do not write."""

    make: Callable[[], Tensor]

    def read(self, *theirs: Tensor) -> tuple[Tensor, ...]:
        return (self.make(),)

    def write(self, *ours: Tensor) -> tuple[Tensor, ...]:
        return ()


SAME = Same()
TURNED = Turned()
POINTWISE = Pointwise()
PIXELWISE = Pointwise(2)
BATCHED = Batched()


@dataclass(frozen=True)
class Entry:
    """Our names, their names, and the form between them."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    form: Form = SAME


def layers(
    parts: Iterable[tuple[str, str]], known: Collection[str], weight: Form = SAME
) -> list[Entry]:
    """Entries for the weight and the bias of layers, where our network has them.

    parts: our and their layer's name; known: our parameters' names; weight: the weight's form.
    """
    return [
        Entry((f"{ours}.{kind}",), (f"{theirs}.{kind}",), weight if kind == "weight" else SAME)
        for ours, theirs in parts
        for kind in ("weight", "bias")
        if f"{ours}.{kind}" in known
    ]


def checked(table: Sequence[Entry], known: Iterable[str], program: str) -> list[Entry]:
    """The table, if it has every parameter of our network; else FileError names those it lacks."""
    placed = {name for entry in table for name in entry.ours}
    lacking = [name for name in known if name not in placed]
    if lacking:
        raise FileError(f"{program} has no name for {_listed(lacking)} of this network")
    return list(table)


def read(
    table: Iterable[Entry], state: Mapping[str, Tensor], ignored: Collection[str] = ()
) -> dict[str, Tensor]:
    """Their state dict as ours.

    ignored: names that are no weights, and may be there.
    Raises FileError that names what is missing, and what could not be placed.
    """
    entries = list(table)
    named = {name for entry in entries for name in entry.theirs}
    _complete(named, state, ignored)
    ours: dict[str, Tensor] = {}
    for entry in entries:
        values = entry.form.read(*(state[name] for name in entry.theirs))
        ours.update(zip(entry.ours, values, strict=True))
    return ours


def write(table: Iterable[Entry], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict as theirs. Raises FileError as `read` does."""
    entries = list(table)
    named = {name for entry in entries for name in entry.ours}
    _complete(named, state, ())
    theirs: dict[str, Tensor] = {}
    for entry in entries:
        values = entry.form.write(*(state[name] for name in entry.ours))
        theirs.update(zip(entry.theirs, values, strict=True))
    return theirs


def _complete(named: set[str], state: Mapping[str, Tensor], ignored: Collection[str]) -> None:
    missing = sorted(named - state.keys())
    unplaced = [name for name in state if name not in named and name not in ignored]
    if missing or unplaced:
        faults = [f"lacks {_listed(missing)}"] * bool(missing)
        faults += [f"has no place for {_listed(unplaced)}"] * bool(unplaced)
        raise FileError(f"these weights are of another network: it {' and '.join(faults)}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
