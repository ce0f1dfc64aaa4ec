"""Where sampling begins: at noise, at a tensor of the caller's, or at a picture with noise on it.

Image to image (SDEdit): x_t = α(t)·E(picture) + σ(t)·ε at a time t on the way, and the rest of the
grid from there. The less noise, the more of the picture stays.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageOps
from torch import Tensor

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.files import sha256
from fromnoise.core.images import at_edge, read_picture, to_pil, to_tensor
from fromnoise.model import sizes
from fromnoise.model.steering import GIVEN
from fromnoise.model.tiles import within_memory

if TYPE_CHECKING:
    from fromnoise.codecs import Codec
    from fromnoise.model.model import Model

STRENGTH = 0.75
"""How much of the way from noise is walked where an image is given and no strength."""


@dataclass(frozen=True)
class Beginning:
    """The pictures to begin from, and how much of them is drawn anew.

    pictures: (1 or count, C, H, W) in [−1, 1]. strength: share of the steps that are run, in
    (0, 1]. names: the pictures as a recipe holds them, one or a list.
    """

    pictures: Tensor
    strength: float
    names: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.pictures.shape[1:])

    def used(self) -> dict[str, str]:
        """The fingerprints of the files among the pictures, by their names."""
        names = self.names if isinstance(self.names, list) else [self.names]
        return {name: sha256(name) for name in names if name != GIVEN}


def beginning(
    model: "Model",
    image: Any,
    strength: float | None,
    shape: Sequence[int] | None,
    count: int,
) -> Beginning | None:
    """What `sample` is asked to begin from; None for noise.

    image: a picture for all samples, or one for each. Paths, PIL and uint8 arrays are scaled to
    cover `shape` and cut at their middle; without a shape they keep their aspect and get the area
    the model was made for. Tensors (C, H, W) or (count, C, H, W) in [−1, 1] are taken as they are.
    Raises UsageError for a strength without an image and a model without noise, ShapeError for a
    shape the model does not draw, FileError for a file that is no picture.
    """
    if image is None:
        if strength is not None:
            raise UsageError("strength says how much of an image is drawn anew; give an image")
        return None
    if not model.denoiser.process.noisy or len(model.shape) != 3:
        raise UsageError(
            f"{model.card.name} draws no pictures out of noise, so it cannot begin from one"
        )
    share = STRENGTH if strength is None else checked_strength(strength)
    wanted = None if shape is None else sizes.checked_shape(model, tuple(shape))
    several = isinstance(image, list | tuple)
    listed = list(image) if several else [image]
    if isinstance(image, Tensor) and image.ndim == 4:
        listed = list(image)
    if len(listed) not in (1, count):
        raise ShapeError(f"{len(listed)} images given for {count} samples; give one, or one each")
    pictures = []
    for one in listed:
        picture = _picture(model, one, wanted)
        # The first says the size of all, so that they go together.
        wanted = tuple(picture.shape)
        pictures.append(picture)
    names = [str(one) if isinstance(one, str | Path) else GIVEN for one in listed]
    return Beginning(torch.stack(pictures), share, names if len(names) > 1 else names[0])


def checked_strength(strength: float) -> float:
    """A share in (0, 1], or UsageError."""
    if isinstance(strength, bool) or not isinstance(strength, int | float):
        raise UsageError(f"strength {strength!r} is no number")
    if not 0 < strength <= 1:
        raise UsageError(
            f"strength {strength} is not above 0 and up to 1; 1 keeps next to nothing of the image"
        )
    return float(strength)


def check_start(start: Tensor, begun: Beginning | None) -> None:
    """UsageError for a start beside an image, or one that is not finite."""
    if begun is not None:
        raise UsageError("give a start or an image to begin from, not both")
    if not bool(torch.isfinite(start).all()):
        raise UsageError("start holds NaN or infinity")


def shortened(grid: Tensor, strength: float) -> Tensor:
    """The last ⌊N·strength⌋ of the N steps of a grid.

    Raises UsageError where that is none, naming the least strength that is one.
    Reference: Meng et al. 2022, "SDEdit", algorithm 1; the rounding is that of diffusers.
    """
    steps = len(grid) - 1
    kept = min(int(steps * strength), steps)
    if kept < 1:
        raise UsageError(
            f"strength {strength:g} of {steps} steps is none of them; use "
            f"{math.ceil(1000 / steps) / 1000:g} or more, or more steps"
        )
    return grid[steps - kept :]


def encoded(codec: "Codec", pictures: Tensor, count: int) -> Tensor:
    """The latents of pictures, (count, ...): each by itself, so that none depends on others."""
    side = max(pictures.shape[1:]) // codec.factor
    with torch.no_grad(), within_memory(codec, side):
        latents = torch.cat([codec.encode(one[None]) for one in pictures])
    return latents.expand(count, *latents.shape[1:]) if len(latents) == 1 else latents


def _picture(model: "Model", one: Any, wanted: tuple[int, ...] | None) -> Tensor:
    """One picture (C, H, W) in [−1, 1]."""
    if isinstance(one, Tensor):
        return _whole(model, one, wanted)
    if not at_edge(one):
        raise UsageError(f"an image is a file, a picture or a tensor, not {one!r:.60}")
    channels = model.shape[0]
    if channels not in (1, 3):
        raise UsageError(f"{model.card.name} draws {channels} channels; give a tensor of them")
    image = to_pil(read_picture(one, channels))
    _, height, width = wanted or sizes.shape_for(model, image.width, image.height)
    return to_tensor(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))


def _whole(model: "Model", one: Tensor, wanted: tuple[int, ...] | None) -> Tensor:
    """A tensor as it is, if the model draws samples of its shape."""
    shape = tuple(one.shape)
    if wanted is not None and shape != wanted:
        raise ShapeError(f"an image of shape {shape} where samples have {wanted}")
    sizes.checked_shape(model, shape)
    if not bool(torch.isfinite(one).all()):
        raise UsageError("the image holds NaN or infinity")
    return one.detach().float()
