"""The weights of score_sde's DDPM++ and NCSN++ as ours, both ways.

Their layers stand in one list, `all_modules`, in the order they are called.
"""

from collections.abc import Collection, Iterator, Mapping
from itertools import count

from torch import Tensor

from fromnoise.core.errors import FileError
from fromnoise.interop.layout import TURNED, Entry, checked, layers, read, write
from fromnoise.nets.levels import Level, levels
from fromnoise.nets.unet import UNet

_BLOCK = (
    ("norm1", "GroupNorm_0"),
    ("conv1", "Conv_0"),
    ("time", "Dense_0"),
    ("norm2", "GroupNorm_1"),
    ("conv2", "Conv_1"),
    ("shortcut", "Conv_2"),
)
_ATTENTION = (("query", "NIN_0"), ("key", "NIN_1"), ("value", "NIN_2"), ("out", "NIN_3"))
_FREQUENCIES = "embedding.time.features.frequencies"

# The noise levels of the training run: a constant of its configuration, not a weight.
IGNORED = ("sigmas",)


def table(network: UNet) -> list[Entry]:
    """The names of a network's parameters here and there.

    Raises FileError for a parameter they have no name for, or a network that attends more than
    once in a level on the way up.
    """
    known = list(network.state_dict())
    places = (f"all_modules.{number}" for number in count())
    entries: list[Entry] = []
    if _FREQUENCIES in known:
        entries.append(Entry((_FREQUENCIES,), (f"{next(places)}.W",)))
    for ours in ("embedding.time.first", "embedding.time.second", "enter"):
        entries += layers([(ours, next(places))], known)
    for i, level in enumerate(levels(network.down)):
        entries += _level(level, f"down.{i}", known, places)
        if level.resample is not None:
            entries += _residual(f"down.{i}.resample", next(places), known)
        if level.resample is not None and network.pyramid:
            entries += layers([(f"pyramid.{i}.conv", f"{next(places)}.Conv2d_0")], known)
    entries += _level(network.middle, "middle", known, places)
    for i, level in enumerate(levels(network.up)):
        if level.after and tuple(level.after) != (len(level) - 1,):
            raise FileError("score_sde attends once in a level on the way up: attention.up = last")
        entries += _level(level, f"up.{i}", known, places)
        if level.resample is not None:
            entries += _residual(f"up.{i}.resample", next(places), known)
    for ours in ("norm", "leave"):
        entries += layers([(ours, next(places))], known)
    return checked(entries, known, "score_sde")


def to_ours(state: Mapping[str, Tensor], network: UNet) -> dict[str, Tensor]:
    """A published state dict under our names; `sigmas` is left out.

    network: of the right configuration; the meta device will do.
    Raises FileError that names the parameters missing or not placed.
    """
    return read(table(network), state, IGNORED)


def to_score_sde(state: Mapping[str, Tensor], network: UNet) -> dict[str, Tensor]:
    """Our state dict under their names, without `sigmas`: the inverse of `to_ours`."""
    return write(table(network), state)


def _level(level: Level, place: str, known: Collection[str], places: Iterator[str]) -> list[Entry]:
    entries: list[Entry] = []
    for index in range(len(level)):
        entries += _residual(f"{place}.blocks.{index}", next(places), known)
        if index in level.after:
            which = level.after.index(index)
            entries += _attention(f"{place}.attentions.{which}.own", next(places), known)
    return entries


def _residual(ours: str, theirs: str, known: Collection[str]) -> list[Entry]:
    return layers([(f"{ours}.{a}", f"{theirs}.{b}") for a, b in _BLOCK], known)


def _attention(ours: str, theirs: str, known: Collection[str]) -> list[Entry]:
    entries = layers([(f"{ours}.norm", f"{theirs}.GroupNorm_0")], known)
    for a, b in _ATTENTION:
        entries.append(Entry((f"{ours}.{a}.weight",), (f"{theirs}.{b}.W",), TURNED))
        entries.append(Entry((f"{ours}.{a}.bias",), (f"{theirs}.{b}.b",)))
    return entries
