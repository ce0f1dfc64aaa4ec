"""A small picture with noise in it, and how much as a number of steps: the ×4 upscaler's input."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.images import read_picture
from fromnoise.core.randomness import Noise
from fromnoise.encoders.base import ENCODERS, Coder
from fromnoise.encoders.picture import opened_pictures
from fromnoise.encoders.planes import Planes, numbers, stacked
from fromnoise.layers.condition import Condition
from fromnoise.schedules import DiscreteSchedule

LEVEL = "label"
"""The name of the vector that says the level, whatever the encoder's own."""


@ENCODERS.register("noised")
class Noised(Planes):
    """A picture z of the size of the latents, √ᾱ_k·z + √(1 − ᾱ_k)·ε, and the index k, one-hot.

    channels: the picture, (B, channels, h, w). vector "label": (B, levels). The noise hides what a
    poor picture has of faults; the more, the freer the network is. It is told in both halves of
    guidance. Raw input: a picture, a path, or (channels, h, w) in [−1, 1], or a mapping of
    "picture", "level" (k, a whole number from 0 to `most`) and "noise" (ε, which `drawn` adds).
    It asks for samples of its own size; for others it is brought to theirs.

    schedule: of that noise, discrete. levels: how many the network knows. level: k where none is
    given. Raises UsageError without a picture, or for a level out of range.
    Reference: Saharia et al. 2021, "Image Super-Resolution via Iterative Refinement"; Ho et al.
    2021, section 4.2; the values are those of the published upscaler.
    """

    droppable = False

    def __init__(
        self,
        schedule: DiscreteSchedule,
        channels: int = 3,
        levels: int = 1000,
        level: int = 20,
        most: int = 350,
    ) -> None:
        super().__init__(channels)
        most = min(most, levels - 1, len(schedule.alphas_cumprod) - 1)
        if not 0 <= level <= most:
            raise UsageError(f"level {level} is not from 0 to {most}")
        self.levels, self.level, self.most = levels, level, most
        self.kept = schedule.alphas_cumprod

    def opened(self, raw: Any, space: Sequence[int]) -> Any:
        if isinstance(raw, Mapping):
            return {**raw, "picture": self.opened(raw.get("picture"), space)}
        return opened_pictures(raw, space, lambda one: read_picture(one, self.width))

    def sides(self, raw: Any) -> tuple[int, int] | None:
        picture = raw.get("picture") if isinstance(raw, Mapping) else raw
        if isinstance(picture, list | tuple) and picture:
            picture = picture[0]
        read = opened_pictures(picture, (), lambda one: read_picture(one, self.width))
        if not isinstance(read, Tensor) or read.ndim < 3:
            return None
        return (read.shape[-2], read.shape[-1])

    def shaped(self, name: str, raw: Any, space: Sequence[int], coder: Coder | None = None) -> Any:
        parts = dict(raw) if isinstance(raw, Mapping) else {"picture": raw}
        if parts.get("picture") is None:
            raise UsageError(
                f"this model enlarges a picture: give it as the input {name}, e.g. "
                f"--input {name}=small.png"
            )
        for key in parts:
            if key not in ("picture", "level", "noise"):
                raise UsageError(f"{name} has no {key!r}; it takes picture, level and noise")
        picture = numbers(name, parts["picture"])
        single = picture.ndim == 3
        sized = self.resized(picture[None] if single else picture, space)
        return {**parts, "picture": sized[0] if single else sized}

    def drawn(self, raw: Any, noise: Noise, x: Tensor | None = None) -> Any:
        if raw is None or "noise" in raw:
            return raw
        shape = raw["picture"].shape[-3:]
        return {**raw, "noise": noise.normal(torch.empty(len(noise), *shape))}

    def each(self, raw: Any, batch: int) -> Any:
        if not isinstance(raw, Mapping):
            return super().each(raw, batch)
        planes = {
            k: super(Noised, self).each(raw[k], batch) for k in ("picture", "noise") if k in raw
        }
        return {**raw, **planes}

    def encode(self, name: str, raw: Any, batch: int) -> Condition:
        level = self._levels(name, raw.get("level"), batch)
        small = self.planes(name, raw["picture"], batch)
        eps = stacked(name, raw["noise"], batch, tuple(small.shape[1:]), torch.as_tensor)
        kept = self.kept[level][:, None, None, None]
        noisy = kept.sqrt().to(small) * small + (1.0 - kept).sqrt().to(small) * eps.to(small)
        return Condition({name: noisy}, {LEVEL: one_hot(level, self.levels).float()})

    def planes(self, name: str, raw: Any, batch: int) -> Tensor:
        shape = (self.width, None, None)
        return stacked(name, raw, batch, shape, lambda value: numbers(name, value)).float()

    def null(self, name: str, batch: int) -> Condition:
        level = torch.full((batch,), self.level)
        told = {LEVEL: one_hot(level, self.levels).float()}
        return Condition(super().null(name, batch).channels, told)

    def _levels(self, name: str, given: Any, batch: int) -> Tensor:
        level = torch.as_tensor(self.level if given is None else given)
        if level.is_floating_point() or level.dtype == torch.bool:
            raise UsageError(f"the level of {name} is a whole number from 0 to {self.most}")
        if level.ndim and level.shape != (batch,):
            raise ShapeError(f"{tuple(level.shape)} levels of {name} given for {batch} samples")
        if not bool(((level >= 0) & (level <= self.most)).all()):
            raise UsageError(f"level {given} of {name} is not from 0 to {self.most}")
        return level.long().expand(batch)
