"""Whether pictures show what their prompts ask for, attribute by attribute."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.data import Dataset, Emoji, Shapes, Subset, shapes_reader
from fromnoise.data.scenes import COLOURS, KINDS
from fromnoise.evaluate.intervals import Estimate, wilson

Verdicts = Mapping[str, Tensor]
"""Attribute → (N,), 1 where it is right, 0 where it is wrong, NaN where the prompt is silent."""

Judge = Callable[[Tensor, Sequence[str]], Verdicts]
"""Pictures (N, C, H, W) and the prompt of each → what of it is true."""

ALL = "all"
"""The attribute that is right where every other one is."""

_SCENES = ("kind", "colour", "size", "count", "position")
_SEED = 1_000_003


def judge_of(dataset: Dataset) -> Judge | None:
    """What judges pictures of this data by their prompts; None where nothing here can."""
    whole = _whole(dataset)
    if isinstance(whole, Shapes):
        return scene_judge
    return emoji_judge(whole) if isinstance(whole, Emoji) else None


def scene_judge(pictures: Tensor, captions: Sequence[str]) -> Verdicts:
    """Reads drawn scenes (see `shapes_reader`): kind, colour, size, count and position.

    `all`: the caption is true and mentions everything in the picture.
    """
    rows = []
    for picture, caption in zip(pictures, captions, strict=True):
        reading = shapes_reader.read(picture)
        told: dict[str, float] = {k: float(v) for k, v in reading.attributes(caption).items()}
        rows.append({**told, ALL: float(reading.covers(caption))})
    return _columns(rows, (*_SCENES, ALL))


def emoji_judge(dataset: Emoji) -> Judge:
    """Finds the nearest picture of the data: is it of the sign asked for, and of the colour?

    Nearest by Euclidean distance of pixels, among every sign in every colour it is dyed in.
    """
    known: dict[str, set[tuple[int, str | None]]] = {}
    for entry in dataset.entries:
        # A green apple is a sign of its own, and the red one dyed.
        known.setdefault(entry.caption, set()).add((entry.sign, entry.dye))
    owners = {entry.picture: entry for entry in reversed(dataset.entries)}
    places = sorted(owners)
    first = {entry.picture: i for i, entry in reversed(list(enumerate(dataset.entries)))}
    shown = dataset.batch([first[place] for place in places]).x.flatten(1)

    def judge(pictures: Tensor, captions: Sequence[str]) -> Verdicts:
        nearest = torch.cdist(pictures.float().flatten(1), shown).argmin(1).tolist()
        rows = []
        for index, caption in zip(nearest, captions, strict=True):
            if caption not in known:
                raise UsageError(f"{caption!r} is no caption of these emoji: no judging it")
            found, asked = owners[places[index]], known[caption]
            row = {"sign": float(any(found.sign == sign for sign, _ in asked))}
            if any(dye for _, dye in asked):
                row["colour"] = float(any(found.dye == dye for _, dye in asked))
            rows.append({**row, ALL: float((found.sign, found.dye) in asked)})
        return _columns(rows, ("sign", "colour", ALL))

    return judge


def prompt_sets(
    train: Dataset, held_out: Dataset, count: int, seed: int = 0
) -> dict[str, list[str]]:
    """Captions to ask for, `count` of each kind at most, by what training has seen of them.

    seen: captions of the training data. unseen: held-out ones that training never shows.
    unseen_pairs: of pairs that the data leaves out altogether (drawn scenes `without` some).
    """
    shown = _captions(train)
    known = set(shown)
    fresh = list(dict.fromkeys(c for c in _captions(held_out) if c not in known))
    found = {"seen": _some(list(dict.fromkeys(shown)), count, seed)}
    found |= {"unseen": _some(fresh, count, seed)} if fresh else {}
    pairs = _left_out(_whole(train), count)
    return {**found, "unseen_pairs": pairs} if pairs else found


def shares(verdicts: Verdicts) -> Iterator[tuple[str, Estimate]]:
    """The share of each attribute that is right, among the prompts that speak of it.

    `attributes` is the share over all attributes that prompts speak of, `all` left out.
    """
    right = asked = 0.0
    for name, column in verdicts.items():
        spoken = column[~column.isnan()]
        if not len(spoken):
            continue
        if name != ALL:
            right, asked = right + float(spoken.sum()), asked + len(spoken)
        yield name, wilson(float(spoken.sum()), len(spoken))
    if asked:
        yield "attributes", wilson(right, asked)


def _columns(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Verdicts:
    nothing = float("nan")
    return {name: torch.tensor([row.get(name, nothing) for row in rows]) for name in names}


def _whole(dataset: Dataset) -> Dataset:
    while isinstance(dataset, Subset):
        dataset = dataset.whole
    return dataset


def _captions(dataset: Dataset) -> list[str]:
    told = dataset.captions(np.arange(len(dataset)))
    if told is None:
        raise UsageError(f"{dataset.name} has no captions to ask for")
    return told


def _some(captions: list[str], count: int, seed: int) -> list[str]:
    order = torch.randperm(len(captions), generator=torch.Generator().manual_seed(seed))
    return [captions[i] for i in order[:count].tolist()]


def _left_out(whole: Dataset, count: int) -> list[str]:
    """Captions of scenes made of nothing but the pairs a data set of scenes leaves out."""
    without = whole.config.get("without") if isinstance(whole, Shapes) else None
    if not isinstance(whole, Shapes) or not without:
        return []
    others = [f"{c} {k}" for c in COLOURS for k in KINDS if f"{c} {k}" not in without]
    return _captions(Shapes(whole.shape[1], count, seed=_SEED, without=others))
