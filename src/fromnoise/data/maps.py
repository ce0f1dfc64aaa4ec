"""Drawn scenes as pairs of a label map and a picture: what is asked for, pixel by pixel.

A map holds 0 for background and 1 to 4 for the kind of thing a pixel belongs to, in the order of
`scenes.KINDS`. Colours are not in it: a picture may have any.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fromnoise.core.images import to_tensor
from fromnoise.data import shapes_reader
from fromnoise.data.base import DATA, Dataset
from fromnoise.data.scenes import KINDS
from fromnoise.data.shapes import Pixels, Scene, Shapes

MAP = "map"
"""The name under which a data set gives label maps, and an encoder takes them."""

NAMES = ("background", *KINDS)
"""What each number of a map stands for."""

UNKNOWN = len(NAMES)
"""The number, of no class, that `read_map` gives to a thing of no known kind."""

_COVERED = 0.5
_KEPT = 1 << 14


@DATA.register("maps")
class Maps(Dataset):
    """The scenes of `Shapes`, each with the label map that says which pixels are which kind.

    given: "map", (B, size, size) int64. A pixel belongs to a thing that covers half of it or more;
    things do not touch, so no pixel belongs to two. Scene i is that of `Shapes(size, count, seed)`.
    """

    def __init__(self, size: int = 32, count: int = 50_000, seed: int = 0) -> None:
        self._shapes = Shapes(size, count, seed)
        self.name, self.levels, self.shape = "maps", 256, self._shapes.shape
        self.classes, self.labels = (), None
        # Drawing takes longer than a small network's step.
        self._pair = lru_cache(_KEPT)(self._drawn)

    def __len__(self) -> int:
        return len(self._shapes)

    def scene(self, index: int) -> Scene:
        """All that is known about sample `index`."""
        return self._shapes.scene(index)

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        pictures = [to_tensor(self._pair(int(i))[0]) for i in indices]
        return torch.stack(pictures) if pictures else torch.empty(0, *self.shape)

    def given(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> dict[str, Tensor]:
        maps = [self._pair(int(i))[1].long() for i in indices]
        side = self.shape[1]
        return {MAP: torch.stack(maps) if maps else torch.empty(0, side, side, dtype=torch.int64)}

    def _drawn(self, index: int) -> tuple[Pixels, Tensor]:
        scene, side = self.scene(index), self.shape[1]
        return scene.draw(side), label_map(scene, side).to(torch.uint8)


def label_map(scene: Scene, side: int) -> Int[Tensor, "side side"]:
    """The map of a scene at that side in pixels: 0, or 1 + the place of the kind in `KINDS`."""
    drawn = torch.zeros(side, side, dtype=torch.int64)
    for thing, mask in zip(scene.things, scene.masks(side), strict=True):
        drawn[mask >= _COVERED] = 1 + KINDS.index(thing.kind)
    return drawn


def read_map(picture: Float[Tensor, "3 height width"]) -> Int[Tensor, "height width"]:
    """The map of a picture in [−1, 1], read without having learned anything.

    A pixel belongs to a thing when half of the way from white to the thing's colour, or more.
    What is of no known kind is `UNKNOWN`. Raises as `shapes_reader.read` does.
    """
    found = torch.zeros(picture.shape[1:], dtype=torch.int64)
    for thing, share in shapes_reader.covered(picture):
        number = 1 + KINDS.index(thing.kind) if thing.kind in KINDS else UNKNOWN
        found[torch.from_numpy(share >= _COVERED)] = number
    return found
