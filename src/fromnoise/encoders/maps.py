"""Classes as extra channels: of every place (a label map), or one for the whole picture."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from fromnoise.core.errors import UsageError
from fromnoise.core.images import at_edge, read_labels
from fromnoise.encoders.base import ENCODERS, Encoder, Slot
from fromnoise.encoders.label import Label
from fromnoise.encoders.planes import Planes, stacked, whole
from fromnoise.layers.condition import Condition


@ENCODERS.register("map")
class LabelMap(Planes):
    """A class for every place of the picture, as one-hot channels.

    Channel k is 1 where the class is k, 0 elsewhere. The null is 0 in all of them, which no class
    is. Raw input: class numbers (H, W) for all samples, or (B, H, W); a map of another size is
    taken at its nearest places. A picture is read by its values: of a grey one the grey, of one
    with a palette the place in the palette.

    classes: their number, or their names. unknown: the number of what has no class, if any (255 in
    many data sets): it is 0 in all channels.
    Raises UsageError for numbers that are no class, ShapeError for another shape.
    Reference: as channels of a diffusion model, Wang et al. 2022, "Semantic Image Synthesis via
    Diffusion Models", in the simplest form.
    """

    axes = 2

    def __init__(self, classes: int | Sequence[str], unknown: int | None = None) -> None:
        names = [str(i) for i in range(classes)] if isinstance(classes, int) else list(classes)
        if not names or len(set(names)) != len(names):
            raise UsageError("a label map needs at least one class, each with a name of its own")
        super().__init__(len(names))
        self.names = tuple(names)
        self.unknown = unknown

    def planes(self, name: str, raw: Any, batch: int) -> Tensor:
        ids = stacked(name, raw, batch, (None, None), lambda value: whole(name, value))
        told = torch.ones_like(ids, dtype=torch.bool)
        if self.unknown is not None:
            told = ids != self.unknown
        wrong = ids[told & ((ids < 0) | (ids >= self.width))]
        if wrong.numel():
            raise UsageError(
                f"the {name} holds class {int(wrong[0])}; this model knows 0 to {self.width - 1}"
                + ("" if self.unknown is None else f", and {self.unknown} for none")
            )
        planes = one_hot(torch.where(told, ids, 0), self.width) * told[..., None]
        return planes.permute(0, 3, 1, 2).float()

    def opened(self, raw: Any, space: Sequence[int]) -> Any:
        if at_edge(raw):
            return read_labels(raw)
        if isinstance(raw, list | tuple) and raw and all(at_edge(one) for one in raw):
            maps = [read_labels(one)[None, None].double() for one in raw]
            return torch.cat([self.resized(m, space)[:, 0] for m in maps]).long()
        return raw

    def resized(self, planes: Tensor, space: Sequence[int]) -> Tensor:
        if planes.ndim != 4 or len(space) != 2 or planes.shape[2:] == tuple(space):
            return planes
        return interpolate(planes, list(space), mode="nearest-exact")


@ENCODERS.register("class_channels")
class ClassChannels(Encoder):
    """A class label as extra channels that are the same everywhere, in place of a vector.

    Channel k is 1 everywhere for class k, as in the first conditional networks (Mirza & Osindero
    2014, "Conditional Generative Adversarial Nets"): a network that knows of no embedding can be
    told. Labels are those of the encoder `label`, mixtures too; the null is 0 everywhere.

    classes: their number, or their names.
    """

    slot: Slot = "channels"

    def __init__(self, classes: int | Sequence[str]) -> None:
        super().__init__()
        self.label = Label(classes)
        self.width = self.label.width

    def encode(self, name: str, raw: Any, batch: int) -> Condition:
        return Condition(channels={name: self.label.vector(raw, batch)})

    def each(self, raw: Any, batch: int) -> Any:
        return self.label.each(raw, batch)

    def null(self, name: str, batch: int) -> Condition:
        return Condition(channels={name: torch.zeros(batch, self.width)})
