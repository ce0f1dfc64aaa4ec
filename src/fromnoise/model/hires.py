"""Two passes: a picture drawn at the size a model knows, enlarged, and drawn again from there."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fromnoise.codecs.tiling import tiled
from fromnoise.core.errors import UsageError
from fromnoise.guidance import Told
from fromnoise.model import sizes
from fromnoise.model.begin import checked_strength, encoded, shortened
from fromnoise.model.draw import Draw, walk, whole
from fromnoise.model.told import Telling
from fromnoise.samplers import Step

if TYPE_CHECKING:
    from fromnoise.model.model import Model

Upscaler = Literal["bicubic", "latent"]

_APART = 1 << 60
"""Seeds with this bit turned: the second pass's noise is not the first one's again."""


@dataclass(frozen=True)
class Hires:
    """A second pass over an enlarged picture.

    scale: of each side, above 1, rounded down to sizes the model can draw. strength: share of its
    steps that are run, in (0, 1], as for an image. steps: of its grid; the first pass's by default.
    upscaler: `bicubic` enlarges the picture, `latent` what is diffused, which spares its decoding
    and encoding and leaves more to be drawn anew.
    Raises UsageError for values out of these.
    """

    scale: float = 2.0
    strength: float = 0.6
    steps: int | None = None
    upscaler: Upscaler = "bicubic"

    def __post_init__(self) -> None:
        if not 1 < self.scale <= 8:
            raise UsageError(f"hires {self.scale:g} is not above 1 and up to 8")
        checked_strength(self.strength)
        if self.steps is not None:
            whole("hires steps", self.steps)
        if self.upscaler not in ("bicubic", "latent"):
            raise UsageError(f"upscaler {self.upscaler!r} is unknown; use bicubic or latent")

    def shape(self, model: "Model", first: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one sample of the second pass, from that of the first.

        Raises UsageError where the model draws one size only, or has no noise to begin from.
        """
        if not model.denoiser.process.noisy:
            raise UsageError(f"{model.card.name} has no noise, so it has no second pass")
        return sizes.enlarged(model, first, self.scale)

    def passes(
        self, model: "Model", first: Draw, grid: Tensor, tell: Callable[[Telling], Told]
    ) -> "Passes":
        """Both passes: what the first is told, over the end of another grid at another size.

        grid: all of the second one's times. tell: makes the conditions of what is told.
        Raises UsageError as `shape` does.
        """
        shape = self.shape(model, first.shape)
        grid = shortened(grid, self.strength)
        telling = replace(
            first.telling, space=model.codec.latent_shape(shape)[1:], steps=len(grid) - 1
        )
        second = replace(
            first,
            grid=grid,
            telling=telling,
            told=tell(telling),
            seeds=tuple(seed ^ _APART for seed in first.seeds),
            shape=shape,
            start=None,
            origin=None,
        )
        return Passes(first, second, self.upscaler)


@dataclass(frozen=True)
class Passes:
    """All a call of `sample` walks: one draw, and perhaps another from the first's enlarged end."""

    first: Draw
    second: Draw | None = None
    upscaler: Upscaler = "bicubic"

    def shapes(self, model: "Model") -> list[tuple[int, ...]]:
        """The shape of one sample's x after each step, without the batch."""
        draws = [self.first] if self.second is None else [self.first, self.second]
        return [
            model.codec.latent_shape(draw.shape)
            for draw in draws
            for _ in range(len(draw.grid) - 1)
        ]

    def walk(self, model: "Model") -> Iterator[Step]:
        """The steps of both, counted through; x grows between them."""
        if self.second is None:
            yield from walk(model, self.first)
            return
        ahead, after = len(self.first.grid) - 1, len(self.second.grid) - 1
        x = None
        for step in walk(model, self.first):
            x = step.x
            yield replace(step, count=ahead + after)
        if x is None:
            return
        kind = str(self.second.dtype).removeprefix("torch.")
        tile = self.second.tile
        origin = enlarged(model, x, self.second.shape, self.upscaler, kind, tile)
        for step in walk(model, replace(self.second, origin=origin)):
            yield replace(step, index=ahead + step.index, count=ahead + after)


def enlarged(
    model: "Model",
    x: Tensor,
    shape: tuple[int, ...],
    upscaler: Upscaler,
    dtype: str = "auto",
    tile: int = 0,
) -> Tensor:
    """The end x of a pass as latents of a larger shape, each sample by itself.

    dtype: what its pictures are decoded in. tile: of latents, for the codec; 0 does it whole.
    """
    if upscaler == "latent":
        return _bicubic(x.float(), model.codec.latent_shape(shape)[1:])
    made = (model.decode(one[None], dtype, tile) for one in x)
    rows = [_bicubic(one, shape[1:]).clamp(-1.0, 1.0) for one in made]
    return encoded(tiled(model.codec, tile), torch.cat(rows), len(x))


def _bicubic(x: Tensor, size: tuple[int, ...]) -> Tensor:
    return interpolate(x, size=size, mode="bicubic", align_corners=False)
