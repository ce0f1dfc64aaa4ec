"""Average precision: how well boxes with scores find the things of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fromnoise.core.errors import ShapeError

OVERLAP = 0.5
"""Intersection over union from which on a box counts as found."""

_LEVELS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Boxes:
    """Boxes of one picture: corners (N, 4) as left, top, right, bottom; classes (N,) from 0.

    score: (N,) of found boxes, higher for surer ones; None of true ones.
    """

    corners: Tensor
    classes: Tensor
    score: Tensor | None = None


def overlap(a: Float[Tensor, "n 4"], b: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Intersection over union of every box of `a` with every box of `b`."""
    least = torch.maximum(a[:, None, :2], b[None, :, :2])
    most = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (most - least).clamp(min=0).prod(2)
    sizes = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b)]
    return shared / (sizes[0][:, None] + sizes[1][None] - shared)


@dataclass(frozen=True)
class Matched:
    """What was found of one class: of each box, surest first, its picture and whether it is right.

    things: how many things of the class each picture holds (pictures,).
    """

    picture: Tensor
    right: Tensor
    things: Tensor

    def precision(self, weight: Float[Tensor, " pictures"]) -> float | None:
        """Average precision with every picture counted so often; None without a thing of the class.

        The highest precision at or beyond each of 101 recalls from 0 to 1, averaged, as COCO's
        evaluation has it (Lin et al. 2014).
        """
        # By numpy: resampling asks for it some thousand times, and the arrays are short.
        times = weight.double().numpy()
        known = float(self.things.numpy() @ times)
        if known == 0:
            return None
        counted = times[self.picture.numpy()]
        right = np.cumsum(self.right.numpy() * counted)
        recall, precision = right / known, right / np.maximum(np.cumsum(counted), 1e-12)
        # From here on, the best that any later point reaches.
        best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        place = np.searchsorted(recall, _LEVELS - 1e-12)
        return float(best[place].sum() / len(_LEVELS))


def match(found: Sequence[Boxes], true: Sequence[Boxes], classes: int) -> list[Matched]:
    """Found boxes against true ones, class by class.

    In each picture the surest box goes first; it is right where a thing of its class that no surer
    box took overlaps it by `OVERLAP` or more, and it takes the one that does most.
    Raises ShapeError for another number of pictures, or found boxes without scores.
    """
    if len(found) != len(true) or any(boxes.score is None for boxes in found):
        raise ShapeError(
            f"{len(found)} found and {len(true)} true pictures; found ones need scores"
        )
    return [_match(found, true, number) for number in range(classes)]


def _match(found: Sequence[Boxes], true: Sequence[Boxes], number: int) -> Matched:
    scores, rights, pictures = [], [], []
    things = torch.zeros(len(true), dtype=torch.float64)
    for picture, (seen, known) in enumerate(zip(found, true, strict=True)):
        assert seen.score is not None
        real = known.corners[known.classes == number]
        things[picture] = len(real)
        mine = seen.classes == number
        score, turn = seen.score[mine].sort(descending=True, stable=True)
        shares = overlap(seen.corners[mine][turn].double(), real.double())
        scores.append(score.double())
        rights.append(_taken(shares))
        pictures.append(torch.full((len(score),), picture))
    score, turn = torch.cat(scores).sort(descending=True, stable=True)
    return Matched(torch.cat(pictures)[turn], torch.cat(rights)[turn], things)


def _taken(shares: Tensor) -> Tensor:
    """Which of the found (N,) take a true one, given their overlaps (N, M), in this order."""
    right = torch.zeros(len(shares), dtype=torch.float64)
    free = torch.ones(shares.shape[1], dtype=torch.bool)
    for row, share in enumerate(shares):
        left = torch.where(free, share, -1.0)
        if len(left) and float(left.max()) >= OVERLAP:
            free[int(left.argmax())] = False
            right[row] = 1.0
    return right


def average_precision(matched: Sequence[Matched], weight: Tensor) -> float:
    """The mean over the classes there are, every picture counted `weight` (pictures,) times."""
    found = [one.precision(weight) for one in matched]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else 0.0
