"""Crops of the photographs inside scikit-image: real pictures that need no download."""

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fromnoise.core.errors import UsageError, unknown
from fromnoise.core.images import read_image, to_tensor
from fromnoise.data.base import DATA, Dataset
from fromnoise.data.order import bits

_CROP = 6

PHOTOGRAPHS: dict[str, tuple[str, str]] = {
    "astronaut": ("astronaut.png", "an astronaut"),
    "brick": ("brick.png", "a brick wall"),
    "cameraman": ("camera.png", "a man with a camera"),
    "cat": ("chelsea.png", "a cat"),
    "coffee": ("coffee.png", "a cup of coffee"),
    "coins": ("coins.png", "coins"),
    "grass": ("grass.png", "grass"),
    "gravel": ("gravel.png", "gravel"),
    "galaxies": ("hubble_deep_field.jpg", "galaxies"),
    "moon": ("moon.png", "the moon"),
    "motorcycle": ("motorcycle_left.png", "a motorcycle"),
    "retina": ("retina.jpg", "a retina"),
    "rocket": ("rocket.jpg", "a rocket"),
}
"""Name → the file in scikit-image, and what it shows.

Only files that every wheel of scikit-image carries; others it would fetch when they are used.
"""


@DATA.register("photos")
class Photos(Dataset):
    """Square crops of photographs, scaled to `size`; the photograph is the class.

    Crop i is of photograph i mod n. Its side is log-uniform from `least` of the photograph's
    shorter side (but never under `size`: nothing is enlarged) to all of it, its place uniform;
    all three depend on (seed, i) alone. Captions say what is shown: "a photograph of a cat".

    size: side in pixels. names: which photographs; all that are large enough by default. mode: RGB,
    or grey ("L"). A random split puts crops of one photograph on both sides; to hold out whole
    photographs, name them in two data sets.
    Raises UsageError for an unknown name, a size no photograph has, or without scikit-image.
    """

    def __init__(
        self,
        size: int = 32,
        count: int = 10_000,
        seed: int = 0,
        names: Sequence[str] = (),
        least: float = 0.25,
        mode: Literal["RGB", "L"] = "RGB",
    ) -> None:
        if size < 1 or count < 1 or seed < 0 or not 0.0 < least <= 1.0:
            raise UsageError(
                f"size is {size}, count {count}, seed {seed} and least {least}; use 1 or more, 1 "
                "or more, 0 or more, and more than 0 to 1"
            )
        for name in names:
            if name not in PHOTOGRAPHS:
                raise unknown("photograph", name, PHOTOGRAPHS)
        folder = _folder()
        found = {n: read_image(folder / PHOTOGRAPHS[n][0], mode) for n in names or PHOTOGRAPHS}
        small = [name for name, image in found.items() if min(image.size) < size]
        if (names and small) or len(small) == len(found):
            raise UsageError(
                f"{', '.join(small)} is smaller than {size}×{size}; use a smaller size"
            )
        self._images = [_halved(found[name], size) for name in found if name not in small]
        self.name, self.levels = "photos", 256
        self.shape = (3 if mode == "RGB" else 1, size, size)
        self.classes = tuple(name for name in found if name not in small)
        self.labels = torch.arange(count) % len(self.classes)
        self._seed, self._least = seed, least

    def __len__(self) -> int:
        return len(self.labels) if self.labels is not None else 0

    def crop(self, index: int) -> tuple[int, int, int]:
        """(left, top, side) of a sample's crop in its photograph, in pixels."""
        width, height = self._images[index % len(self._images)][0].size
        drawn = bits(3, self._seed, _CROP, index) / 2.0**64
        most = min(width, height)
        least = max(self._least * most, self.shape[1])
        side = min(most, round(least * math.exp(float(drawn[0]) * math.log(most / least))))
        left, top = ((edge - side) * part for edge, part in ((width, drawn[1]), (height, drawn[2])))
        return round(left), round(top), side

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        if len(indices) == 0:
            return torch.empty(0, *self.shape)
        return torch.stack([to_tensor(self._cut(int(i))) for i in indices])

    def captions(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> list[str]:
        names = [self.classes[int(i) % len(self.classes)] for i in indices]
        return [f"a photograph of {PHOTOGRAPHS[name][1]}" for name in names]

    def _cut(self, index: int) -> Image.Image:
        left, top, side = self.crop(index)
        sizes = self._images[index % len(self._images)]
        level = min(_level(side, self.shape[1]), len(sizes) - 1)
        edges = np.array([left, top, left + side, top + side]) / 2**level
        box = (float(edges[0]), float(edges[1]), float(edges[2]), float(edges[3]))
        return sizes[level].resize((self.shape[2], self.shape[1]), Image.Resampling.LANCZOS, box)


def _level(side: int, size: int) -> int:
    """How often a crop may be halved and still have two pixels or more for each of the result."""
    return max(0, int(math.log2(side / (2 * size))))


def _halved(image: Image.Image, size: int) -> list[Image.Image]:
    """A photograph and its halves, as far as crops of it are read from them: it saves most time."""
    sizes = [image]
    while len(sizes) <= _level(min(image.size), size):
        sizes.append(sizes[-1].reduce(2))
    return sizes


def _folder() -> Path:
    """Where scikit-image keeps its pictures; the package itself is not imported."""
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise UsageError(
            "the photographs come with scikit-image; install it: pip install 'fromnoise[data]'"
        )
    return Path(found.submodule_search_locations[0]) / "data"
