"""What sampling returns: pictures that show themselves, and the numbers behind them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from fromnoise.core.images import grid_image, png_bytes, to_pil

EACH = ("seeds", "label", "prompt", "inputs", "negative", "guidance", "image")
"""What of a recipe may differ from sample to sample: every list in it has one entry for each."""


class Samples(Sequence[Any]):
    """The samples of one call, in data space.

    As a sequence it holds pictures (PIL), or numpy rows when the data are points.
    tensor: (B, C, H, W) in [−1, 1], or (B, D). recipe: everything needed to draw them again;
    sample i was drawn with `recipe["seeds"][i]`. In a notebook it shows as one sheet.
    """

    def __init__(self, tensor: Tensor, recipe: Mapping[str, Any]) -> None:
        self.tensor = tensor
        self.recipe = dict(recipe)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            rows = list(range(len(self))[index])
            return Samples(self.tensor[index], part_of(self.recipe, rows))
        if self.tensor.ndim == 2:
            return self.tensor[index].numpy()
        return to_pil(self.tensor[index])

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def sheet(self, columns: int | None = None, scale: int | None = None) -> Image.Image:
        """All of them as one picture: a contact sheet, or a scatter of points."""
        return sheet(self.tensor, columns, scale)

    def _repr_png_(self) -> bytes:
        return png_bytes(self.sheet())


def part_of(recipe: Mapping[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """The recipe of some samples of a call: what was given for each is cut down with them."""
    return {key: cut(value, rows) if key in EACH else value for key, value in recipe.items()}


def cut(value: Any, rows: Sequence[int]) -> Any:
    """What of a value is of some of the samples: of every list, tensor and array in it these rows.

    So it is of values whose lists have an entry for each sample, as `Conditioning.each` makes them.
    """
    if isinstance(value, Mapping):
        return {name: cut(one, rows) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [value[i] for i in rows]
    return value[list(rows)] if isinstance(value, Tensor | np.ndarray) and value.ndim else value


def one_of(recipe: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The recipe of sample `index` of a call as that of a call of its own; seeds stay a list."""
    one = {
        key: _single(cut(recipe[key], [index])) if key in EACH else recipe[key] for key in recipe
    }
    return {**one, "seeds": [recipe["seeds"][index]]}


def _single(value: Any) -> Any:
    """What was cut to one sample, out of its lists."""
    if isinstance(value, Mapping):
        return {name: _single(one) for name, one in value.items()}
    return value[0] if isinstance(value, list) else value


def sheet(tensor: Tensor, columns: int | None = None, scale: int | None = None) -> Image.Image:
    """Pictures (B, C, H, W) on one sheet, small ones enlarged; points (B, D) as a scatter."""
    if tensor.ndim == 2:
        return scatter(tensor.double().cpu().numpy())
    if scale is None:
        scale = max(1, 64 // max(tensor.shape[-1], 1))
    if columns is None:
        columns = min(len(tensor), max(1, round(len(tensor) ** 0.5)))
    return grid_image([to_pil(x) for x in tensor], columns, scale)


def scatter(points: "np.ndarray[Any, Any]", size: int = 320, span: float = 1.6) -> Image.Image:
    """The first two coordinates as dark dots on white, over [−span, span]²."""
    place = np.round((points[:, :2] + span) / (2 * span) * (size - 1)).astype(int)
    inside = np.all((place >= 0) & (place < size), axis=1)
    counts = np.zeros((size, size))
    np.add.at(counts, (size - 1 - place[inside, 1], place[inside, 0]), 1.0)
    # Each dot covers 3×3 pixels so that it can be seen.
    padded = np.pad(counts, 1)
    spread = sum(padded[i : i + size, j : j + size] for i in range(3) for j in range(3))
    shade = 255.0 * np.exp(-1.2 * np.asarray(spread))
    return Image.fromarray(shade.astype(np.uint8), "L")
