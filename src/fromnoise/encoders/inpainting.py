"""A picture with a part of it to be drawn anew, as a network of latents is told it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.images import at_edge, read_picture
from fromnoise.encoders.base import ENCODERS, Coder, Encoder, Slot, repeated
from fromnoise.encoders.picture import opened_pictures
from fromnoise.encoders.planes import numbers, resized, stacked, within
from fromnoise.layers.condition import Condition

MASK, MASKED = "mask", "masked"
"""The names of the channels, whatever the encoder's own."""


@ENCODERS.register("inpainting")
class Inpainting(Encoder):
    """What is to be drawn anew, and the latents of the picture without it.

    channels "mask": 1 where a place is drawn anew, (B, 1, h, w), the nearest of the picture's;
    "masked": codec(picture·(1 − mask)), (B, latent, h, w). Grey, 0 in [−1, 1], stands in the hole.

    Raw input: a mapping of "picture" and "mask". Pictures and paths, one or one for each sample,
    are stretched to the sample's size; of a mask's picture white is drawn anew. As tensors they
    are (3, H, W) in [−1, 1] and (H, W) or (1, H, W) from 0 to 1, a place being drawn anew from 1/2
    on; a batch of either has an axis more. "masked" in place of "picture" gives the latents
    themselves. Nothing given means that all is to be drawn anew.

    latent: channels of the latents.
    Raises UsageError for other things, ShapeError for other shapes.
    Reference: Rombach et al. 2022, section 4.5; as published for Stable Diffusion.
    """

    slot: Slot = "channels"
    droppable = False

    def __init__(self, latent: int = 4) -> None:
        super().__init__()
        self.latent = latent
        self.width = 1 + latent

    def shaped(self, name: str, raw: Any, space: Sequence[int], coder: Coder | None = None) -> Any:
        factor = 1 if coder is None else coder.factor
        pixels = [factor * side for side in space]
        given = _parts(name, raw, pixels)
        mask = resized(_mask(name, given[MASK]), pixels)
        mask = (mask >= 0.5).float()
        if MASKED not in given:
            if coder is None:
                raise UsageError(f"a {name} without a codec is given as its latents, {MASKED!r}")
            picture = resized(_batch(name, given["picture"]), pixels)
            given[MASKED] = _latents(coder, picture * (mask < 0.5))
        return {MASK: interpolate(mask, list(space)), MASKED: given[MASKED]}

    def encode(self, name: str, raw: Any, batch: int) -> Condition:
        if not isinstance(raw, Mapping) or raw.keys() != {MASK, MASKED}:
            raise UsageError(f"a {name} is told as {MASK} and {MASKED}; `shaped` makes them")
        shapes = {MASK: (1, None, None), MASKED: (self.latent, None, None)}
        return Condition(
            {
                key: stacked(key, _one(raw[key]), batch, shape, _floats)
                for key, shape in shapes.items()
            }
        )

    def null(self, name: str, batch: int) -> Condition:
        channels = {MASK: torch.ones(batch, 1), MASKED: torch.zeros(batch, self.latent)}
        return Condition(channels)

    def each(self, raw: Any, batch: int) -> Any:
        if not isinstance(raw, Mapping):
            return raw
        axes = {MASK: 2}
        return {
            key: value if at_edge(value) else repeated(value, batch, axes.get(key, 3))
            for key, value in raw.items()
        }


def _parts(name: str, raw: Any, pixels: Sequence[int]) -> dict[str, Any]:
    if raw is None:
        return {"picture": torch.zeros(3, *pixels), MASK: torch.ones(1, *pixels)}
    if not isinstance(raw, Mapping):
        raise UsageError(f"{name} is given as a picture and a mask, {{'picture': …, 'mask': …}}")
    known = {"picture", MASK, MASKED}
    if raw.keys() - known or MASK not in raw or len(raw) != 2:
        raise UsageError(
            f"{name} is given as 'picture' and 'mask', or 'masked' and 'mask', not "
            f"{', '.join(map(repr, raw)) or 'nothing'}"
        )
    return dict(raw)


def _mask(name: str, raw: Any) -> Tensor:
    """Masks (B, 1, H, W) from 0 to 1."""
    if at_edge(raw) or (isinstance(raw, list | tuple) and raw and all(map(at_edge, raw))):
        opened = opened_pictures(raw, (), lambda one: (read_picture(one, 1) + 1.0) / 2.0)
        return _four(name, opened, 1)
    try:
        value = torch.as_tensor(raw).float()
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(f"the mask of {name} is a picture or numbers, not {raw!r:.60}") from None
    value = value[None] if value.ndim == 2 else value
    if value.ndim == 3 and value.shape[0] != 1:
        value = value[:, None]
    return within(f"mask of {name}", _four(name, value, 1), 0.0, 1.0)


def _batch(name: str, raw: Any) -> Tensor:
    """Pictures (B, 3, H, W) in [−1, 1]."""
    opened = opened_pictures(raw, (), lambda one: read_picture(one, 3))
    return _four(name, numbers(name, opened), 3)


def _four(name: str, value: Tensor, channels: int) -> Tensor:
    value = value[None] if value.ndim == 3 else value
    if value.ndim != 4 or value.shape[1] != channels:
        raise ShapeError(
            f"a part of {name} has shape {tuple(value.shape)}; give ({channels}, H, W), or one for "
            "each sample"
        )
    return value


def _latents(coder: Coder, pictures: Tensor) -> Tensor:
    """Each by itself, so that none depends on others."""
    with torch.no_grad():
        return torch.cat([coder.encode(one[None]) for one in pictures])


def _one(value: Tensor) -> Tensor:
    """A batch of one as what is for all."""
    return value[0] if value.ndim == 4 and len(value) == 1 else value


def _floats(value: Any) -> Tensor:
    return torch.as_tensor(value).float()
