"""Does a picture show the label map it was asked for? Read back, without learning anything."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError
from fromnoise.data.annotations import instances, overlap
from fromnoise.data.maps import NAMES, UNKNOWN, read_map
from fromnoise.evaluate.detection import OVERLAP
from fromnoise.evaluate.intervals import Estimate, bootstrap, wilson
from fromnoise.evaluate.learners import mean_overlap, overlaps

KEYS: Mapping[str, str] = {
    "map_miou": "Mean over classes of the intersection over union of the maps that pictures were "
    "asked to show and the maps read back from them; `real` is that of real pictures, which is "
    "below 1 because a reader has to guess at edges.",
    "map_kinds": "Share of the things asked for that are found in their place (overlap 0.5 or "
    "more), with the kind asked for.",
}
"""Each figure of a model that draws to label maps → what it means."""


def measure_maps(asked: Tensor, pictures: Tensor) -> dict[str, Estimate]:
    """`KEYS` → figures of pictures (N, 3, H, W) in [−1, 1] and the maps (N, H, W) they are to show.

    Raises ShapeError for another number of maps than pictures.
    """
    if len(asked) != len(pictures) or not len(asked):
        raise ShapeError(f"{len(asked)} maps asked for and {len(pictures)} pictures")
    found = torch.stack([read_map(picture) for picture in pictures])
    shared, either = overlaps(found, asked, len(NAMES))

    def statistic(weight: Tensor, _: Tensor) -> float:
        return mean_overlap(shared * weight[:, None], either * weight[:, None])

    value = mean_overlap(shared, either)
    low, high = bootstrap(statistic, value, (len(asked), 1))
    right = total = 0
    for wanted, read in zip(asked, torch.where(found == UNKNOWN, 0, found), strict=True):
        there = instances(read.numpy())
        for thing in instances(wanted.numpy()):
            same = [other for other in there if other.category == thing.category]
            right += any(overlap(thing, other) >= OVERLAP for other in same)
            total += 1
    shares = (shared.sum(0) / either.sum(0).clamp(min=1)).tolist()
    by_class = dict(zip(NAMES, shares, strict=True))
    return {
        "map_miou": Estimate(value, low, min(high, 1.0), len(asked), {"by_class": by_class}),
        "map_kinds": wilson(right, total),
    }
