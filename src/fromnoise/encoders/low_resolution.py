"""A small picture that the sample is to be the large one of."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.images import read_picture
from fromnoise.core.randomness import Noise
from fromnoise.encoders.base import ENCODERS
from fromnoise.encoders.picture import opened_pictures
from fromnoise.encoders.planes import Null, Planes, numbers, resized, stacked
from fromnoise.layers.condition import Condition

FEATURES = 8
"""Numbers that tell the network the level."""


@ENCODERS.register("low_resolution")
class LowResolution(Planes):
    """A small picture z, with noise in it, enlarged to the sample's size; and how much noise.

    channels: enlarge(√(1 − s²)·z + s·ε). vector: cos(kπs) for k = 1 … 8, all ones without noise.
    The level s is drawn evenly from 0 to `noise` in training, so that the network does not trust
    each pixel of z: what it is given later, drawn by another network, is not quite like the data.
    In sampling s is `level`, or is given with the picture.

    Raw input: a picture (channels, h, w) or (B, channels, h, w) in [−1, 1], or a mapping of
    "picture", "level" (a number or one for each sample) and "noise" (ε, which `drawn` adds). Of
    another size it is brought to `size`. In training, where the data gives none, it is the mean of
    the sample over squares.

    size: (height, width) of the small picture, or one number for both. droppable: whether training
    may leave it out; otherwise guidance leaves it in, and strengthens the rest.
    Raises UsageError for a level beyond what was trained.
    Reference: Ho et al. 2021, "Cascaded Diffusion Models", section 4.2.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        channels: int = 3,
        noise: float = 0.5,
        level: float = 0.0,
        droppable: bool = True,
        null: Null = 0.0,
    ) -> None:
        super().__init__(channels, null)
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        if min(self.size) < 1 or not 0 <= noise <= 1 or not 0 <= level <= noise:
            raise UsageError(
                f"a small picture of {self.size} with noise {noise} and level {level}; use sizes "
                "from 1, noise from 0 to 1 and a level no higher"
            )
        self.most, self.level = noise, level
        self.droppable = droppable

    def opened(self, raw: Any, space: Sequence[int]) -> Any:
        del space
        if isinstance(raw, Mapping):
            return {**raw, "picture": self.opened(raw.get("picture"), self.size)}
        return opened_pictures(raw, self.size, lambda one: read_picture(one, self.width))

    def each(self, raw: Any, batch: int) -> Any:
        if not isinstance(raw, Mapping):
            return super().each(raw, batch)
        return {**raw, "picture": super().each(raw["picture"], batch)}

    def drawn(self, raw: Any, noise: Noise, x: Tensor | None = None) -> Any:
        if raw is None and x is None:
            return None
        parts = dict(raw) if isinstance(raw, Mapping) else {"picture": raw}
        batch = len(noise)
        if x is not None:
            if parts["picture"] is None:
                parts["picture"] = interpolate(x.float(), list(self.size), mode="area")
            parts["level"] = self.most * noise.uniform(torch.empty(batch, 1))[:, 0]
        parts["noise"] = noise.normal(torch.empty(batch, self.width, *self.size))
        return parts

    def encode(self, name: str, raw: Any, batch: int) -> Condition:
        parts = raw if isinstance(raw, Mapping) else {"picture": raw}
        for key in parts:
            if key not in ("picture", "level", "noise"):
                raise UsageError(f"a {name} has no {key!r}; it takes picture, level and noise")
        if parts.get("picture") is None:
            raise UsageError(f"a {name} is given without its picture")
        level = self._levels(name, parts.get("level"), batch)
        small = resized(self.planes(name, parts["picture"], batch), self.size)
        eps = parts.get("noise")
        if eps is not None:
            s = level[:, None, None, None].to(small)
            small = torch.sqrt(1.0 - s**2) * small + s * eps.to(small)
        elif bool((level > 0).any()):
            raise UsageError(f"a {name} with a level needs its noise; `drawn` draws it")
        turns = math.pi * torch.arange(1, FEATURES + 1)
        return Condition({name: small}, {name: torch.cos(level[:, None] * turns)})

    def planes(self, name: str, raw: Any, batch: int) -> Tensor:
        shape = (self.width, None, None)
        return stacked(name, raw, batch, shape, lambda value: numbers(name, value)).float()

    def null(self, name: str, batch: int) -> Condition:
        told = super().null(name, batch)
        return replace(told, vector={name: torch.zeros(batch, FEATURES)})

    def _levels(self, name: str, given: Any, batch: int) -> Tensor:
        level = torch.as_tensor(self.level if given is None else given, dtype=torch.float32)
        if level.ndim and level.shape != (batch,):
            raise ShapeError(f"{tuple(level.shape)} levels of {name} given for {batch} samples")
        level = level.expand(batch)
        if not bool(((level >= 0) & (level <= self.most)).all()):
            raise UsageError(
                f"the level {given} of {name} is out of range; this model was trained from 0 to "
                f"{self.most:g}"
            )
        return level
