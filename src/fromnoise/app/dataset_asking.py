"""What each picture of a drawn data set is asked to show, and so what its labels are."""

import heapq
import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fromnoise import data
from fromnoise.app.asked import recipe_of
from fromnoise.app.requests import SampleRequest
from fromnoise.app.sample import number_of, shape_of, told_inputs
from fromnoise.app.sources import config_of
from fromnoise.core.errors import UsageError, unknown
from fromnoise.data import Dataset
from fromnoise.data.maps import MAP, NAMES, UNKNOWN, read_map
from fromnoise.data.scenes import KINDS
from fromnoise.encoders import LabelMap
from fromnoise.model import Model

DRAWN = ("maps", "shapes")
"""Data sets whose pictures the reader of shapes can read."""

_ENDLESS = 2**31 - 1


@dataclass(frozen=True)
class Wanted:
    """What one picture is to show: a class, a text, a label map (H, W), or nothing at all."""

    seed: int
    label: int | None = None
    text: str = ""
    ids: Tensor | None = None


class Asking(ABC):
    """What pictures are asked to show. The same seed and class always want the same.

    classes: those that can be asked for. kinds: the names of what a map's numbers from 1 on stand
    for, where pictures come with one. readable: whether the reader of shapes can check them.
    """

    classes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    readable = False

    def plan(self, count: int) -> list[int | None]:
        """The class of each of the first `count` pictures."""
        return [None] * count

    @abstractmethod
    def wanted(self, seed: int, label: int | None) -> Wanted:
        """What the picture drawn with a seed is to show."""

    def arguments(self, wanted: Sequence[Wanted]) -> dict[str, Any]:
        """What `Model.stream` is told of some pictures."""
        del wanted
        return {}

    def map_of(self, wanted: Wanted, picture: Tensor) -> Tensor | None:
        """The label map of a drawn picture (C, H, W); None where there is none."""
        del picture
        return wanted.ids


class ByClass(Asking):
    """Classes in turn, or `counts` of each."""

    def __init__(self, classes: Sequence[str], chosen: Sequence[int], have: Sequence[int]) -> None:
        self.classes, self.chosen, self.have = tuple(classes), list(chosen), list(have)

    def plan(self, count: int) -> list[int | None]:
        return [self.chosen[place] for place in evened(self.have, count)]

    def wanted(self, seed: int, label: int | None) -> Wanted:
        assert label is not None
        return Wanted(seed, label, self.classes[label])

    def arguments(self, wanted: Sequence[Wanted]) -> dict[str, Any]:
        return {"label": [one.label for one in wanted]}


class ByMap(Asking):
    """Label maps of scenes that training never drew, one for each seed.

    size: height and width of the pictures; a map of another is taken at its nearest places, as the
    model is told it, so that masks and boxes fit what is drawn.
    """

    def __init__(self, fresh: Dataset, names: Sequence[str], size: Sequence[int]) -> None:
        self.fresh, self.kinds, self.size = fresh, tuple(names[1:]), list(size)
        self.readable = tuple(names) == NAMES

    def wanted(self, seed: int, label: int | None) -> Wanted:
        del label
        ids = self.fresh.given(_place(self.fresh, seed))[MAP]
        if list(ids.shape[1:]) != self.size:
            ids = interpolate(ids[None].double(), self.size, mode="nearest-exact")[0].long()
        ids = ids[0]
        there = [self.kinds[number - 1] for number in torch.unique(ids).tolist() if number]
        return Wanted(seed, None, ", ".join(there), ids)

    def arguments(self, wanted: Sequence[Wanted]) -> dict[str, Any]:
        # Plain numbers: a picture's recipe holds its map, and draws it again.
        return {"inputs": {MAP: [one.ids.tolist() for one in wanted if one.ids is not None]}}


class ByCaption(Asking):
    """One prompt for all, or captions of scenes that training never drew."""

    def __init__(self, prompt: str | None, fresh: Dataset | None, readable: bool) -> None:
        self.prompt, self.fresh, self.readable = prompt, fresh, readable
        self.kinds = KINDS if readable else ()

    def wanted(self, seed: int, label: int | None) -> Wanted:
        del label
        if self.prompt is not None:
            return Wanted(seed, None, self.prompt)
        assert self.fresh is not None
        told = self.fresh.captions(_place(self.fresh, seed))
        assert told is not None
        return Wanted(seed, None, told[0])

    def arguments(self, wanted: Sequence[Wanted]) -> dict[str, Any]:
        return {"prompt": [one.text for one in wanted]}

    def map_of(self, wanted: Wanted, picture: Tensor) -> Tensor | None:
        if not self.readable:
            return None
        read = read_map(picture)
        # What the reader cannot name has no class to be labelled with.
        return torch.where(read == UNKNOWN, 0, read)


class Unasked(Asking):
    """Pictures of a model that is told nothing."""

    def wanted(self, seed: int, label: int | None) -> Wanted:
        return Wanted(seed, label)


def asking(model: Model, request: SampleRequest) -> Asking:
    """What to ask of a model. Raises UsageError for a request that does not fit what it takes."""
    if len(model.shape) != 3:
        raise UsageError(f"{model.card.name} draws points; --as-dataset is for pictures")
    takes = model.conditioning.names
    if "label" not in takes:
        for name in ("classes", "balance"):
            if getattr(request, name) is not None:
                told = " or ".join(takes) or "nothing"
                raise UsageError(
                    f"{model.card.name} is not told a class (it is told {told}); leave out --{name}"
                )
    if "label" in takes:
        return _by_class(model, request)
    if MAP in takes:
        encoder = model.conditioning.encoders[MAP]
        assert isinstance(encoder, LabelMap)
        if MAP in told_inputs(request.input):
            raise UsageError(
                f"a data set draws a {MAP} of its own for each picture; leave out --input {MAP}=…"
            )
        size = (shape_of(model, request) or model.shape)[1:]
        return ByMap(_fresh(request)[0], encoder.names, size)
    if "prompt" in takes:
        return _by_caption(request)
    return Unasked()


def _by_class(model: Model, request: SampleRequest) -> ByClass:
    classes = model.card.classes
    if not classes:
        raise UsageError(f"{model.card.name} does not say what its classes are called")
    chosen = _chosen(request.classes or "all", classes)
    have = [0] * len(chosen)
    if request.balance is not None:
        have = _there(request.balance, model, [classes[i] for i in chosen])
    return ByClass(classes, chosen, have)


def _chosen(text: str, classes: Sequence[str]) -> list[int]:
    """`all`, or numbers and names with commas, as class numbers, each once."""
    if text.strip() == "all":
        return list(range(len(classes)))
    names = [part.strip() for part in text.split(",") if part.strip()]
    chosen = []
    for name in names:
        if name in classes:
            chosen.append(list(classes).index(name))
        elif (number := number_of(name)) is not None and number < len(classes):
            chosen.append(number)
        else:
            raise unknown("class", name, classes)
    if not chosen:
        raise UsageError(f"--classes {text!r} names no class; use all, or names with commas")
    return list(dict.fromkeys(chosen))


def _there(source: str, model: Model, names: Sequence[str]) -> list[int]:
    """How many pictures of each class a folder or data set holds. UsageError for other classes."""
    channels, height, width = model.shape
    mode = "L" if channels == 1 else "RGB"
    size = height if height == width else [height, width]
    real = data.load(config_of(source, size=size, mode=mode))
    missing = [name for name in names if name not in real.classes]
    if real.labels is None or len(missing) == len(names):
        has = ", ".join(real.classes[:12]) or "none"
        raise UsageError(
            f"{source} has classes {has}, and the model draws {', '.join(names[:12])}; "
            "--balance needs the same"
        )
    counts = torch.bincount(real.labels, minlength=len(real.classes)).tolist()
    return [counts[real.classes.index(name)] if name in real.classes else 0 for name in names]


def evened(have: Sequence[int], count: int) -> list[int]:
    """Which place each of `count` more is to join, so that all end as even as they can.

    The next one always joins where there are fewest, and of equals the first.

    >>> evened([3, 0, 1], 4)
    [1, 1, 2, 1]
    """
    heap = [(number, place) for place, number in enumerate(have)]
    heapq.heapify(heap)
    joined = []
    for _ in range(count):
        number, place = heap[0]
        heapq.heapreplace(heap, (number + 1, place))
        joined.append(place)
    return joined


def _by_caption(request: SampleRequest) -> ByCaption:
    if request.prompt is not None and not (Path(request.model or "") / "config.json").is_file():
        return ByCaption(request.prompt, None, False)
    fresh, kind = _fresh(request)
    if request.prompt is None and fresh.captions(_place(fresh, 0)) is None:
        raise UsageError("the model's data has no captions to ask for; give a prompt")
    return ByCaption(request.prompt, fresh, kind in DRAWN)


def _fresh(request: SampleRequest) -> tuple[Dataset, str]:
    """New samples of the kind the model was trained on, and the kind; else its own samples.

    Drawn data has another seed and no end. Raises FileError where the model is no run.
    """
    recipe = recipe_of(Path(request.model or ""))
    kind = str(recipe.data["kind"])
    takes = inspect.signature(data.DATA[kind]).parameters
    changed: dict[str, Any] = {}
    if "seed" in takes and "count" in takes:
        changed = {"seed": recipe.data.get("seed", 0) + 1, "count": _ENDLESS}
    return data.load({**recipe.data, **changed}), kind


def _place(dataset: Dataset, seed: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    return np.array([seed % len(dataset)], np.int64)
