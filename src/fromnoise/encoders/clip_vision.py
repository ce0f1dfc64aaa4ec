"""CLIP's picture tower as an encoder: a picture as one vector, or as tokens to attend to."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.images import at_edge, read_image
from fromnoise.encoders.base import ENCODERS, Encoder, Slot
from fromnoise.encoders.clip_towers import VisionSettings, VisionTower, vision_settings
from fromnoise.layers.condition import Condition, Tokens

MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Of red, green and blue in [0, 1], of the pictures CLIP was trained on."""

STD = (0.26862954, 0.26130258, 0.27577711)

Gives = Literal["vector", "token", "patches"]


def prepared(picture: Image.Image, size: int = 224) -> Float[Tensor, "3 size size"]:
    """A picture as CLIP sees it: the shorter side `size` (bicubic), its middle, normalised.

    The same numbers as transformers' `CLIPImageProcessor`, which resizes with Pillow too.
    """
    short = min(picture.size)
    wide, high = (size if side == short else int(size * side / short) for side in picture.size)
    resized = picture.convert("RGB").resize((wide, high), Image.Resampling.BICUBIC)
    left, top = (wide - size) // 2, (high - size) // 2
    pixels = np.asarray(resized.crop((left, top, left + size, top + size)), dtype=np.float32)
    return normalised(torch.from_numpy(pixels / 255.0).permute(2, 0, 1))


def seen(
    x: Float[Tensor, "batch channels height width"], size: int = 224
) -> Float[Tensor, "batch 3 size size"]:
    """Pictures in [−1, 1] as CLIP sees them, differentiable; within a level or so of `prepared`.

    Raises ShapeError for what has not 1 or 3 channels.
    """
    if x.shape[1] not in (1, 3):
        raise ShapeError(f"pictures have shape (B, 1 or 3, H, W), not {tuple(x.shape)}")
    height, width = x.shape[2:]
    short = min(height, width)
    high, wide = (size if side == short else int(size * side / short) for side in (height, width))
    x = (x.expand(-1, 3, -1, -1) / 2 + 0.5).clamp(0, 1)
    # Bicubic weights overshoot at edges. Pillow keeps what it has within range after the rows, and
    # after the columns again.
    for sides in ((height, wide), (high, wide)):
        if tuple(x.shape[2:]) != sides:
            x = interpolate(x, list(sides), mode="bicubic", antialias=True).clamp(0, 1)
    top, left = (high - size) // 2, (wide - size) // 2
    return normalised(x[:, :, top : top + size, left : left + size])


def normalised(x: Float[Tensor, "*batch 3 height width"]) -> Tensor:
    """Colours in [0, 1] less their mean, over their spread, in CLIP's training data."""
    mean, std = (torch.tensor(values, dtype=x.dtype, device=x.device) for values in (MEAN, STD))
    return (x - mean[:, None, None]) / std[:, None, None]


@ENCODERS.register("clip-image")
class CLIPImage(Encoder):
    """A picture as a CLIP embedding: what is on it and how, not where. For variations of it.

    tower: the name of a published one ("vit-l/14") or its sizes. gives: "vector", the projected
    embedding; "token", the same as one token; "patches", the last states of the class token and of
    every patch, normed, as tokens. unit: whether vectors are brought to length 1. width: of tokens,
    by a learned linear map, where a network takes other ones. frozen: whether the tower's weights
    are kept from training. The null is all zeros.
    Raises UsageError for a tower that is not known, and for a width of a vector.
    Reference: Radford et al. 2021; Ramesh et al. 2022.
    """

    slot: Slot = "vector"

    def __init__(
        self,
        tower: str | VisionSettings = "vit-l/14",
        gives: Gives = "vector",
        unit: bool = False,
        width: int | None = None,
        frozen: bool = True,
    ) -> None:
        super().__init__()
        settings = vision_settings(tower)
        if gives == "patches":
            settings = settings.model_copy(update={"projection": None})
        if gives == "vector" and width is not None:
            raise UsageError("a vector has the width of its tower, which the network embeds")
        self.gives, self.unit = gives, unit
        if gives != "vector":
            self.slot = "tokens"
        inner = settings.projection or settings.width
        self.width = inner if width is None else width
        self.size = settings.size
        self.tower = VisionTower(settings).requires_grad_(not frozen)
        self.fit = nn.Identity() if width is None else nn.Linear(inner, width)

    def opened(self, raw: Any, space: Sequence[int]) -> Any:
        """Paths and PIL pictures, one or a list, as the tower sees them; others as they are."""
        del space
        if at_edge(raw):
            return Prepared(self._open(raw)[None])
        if isinstance(raw, list | tuple) and raw and all(at_edge(one) for one in raw):
            return Prepared(torch.stack([self._open(one) for one in raw]))
        return raw

    def encode(self, name: str, raw: Any, batch: int) -> Condition:
        """raw: what `opened` gives; pictures in [−1, 1], (3, H, W) for all or (B, 3, H, W); or raw
        embeddings (K,) or (B, K), for a vector or a token.

        Raises ShapeError for another number of pictures than samples, UsageError for other things.
        """
        raw = self.opened(raw, ())
        if isinstance(raw, Prepared):
            told = self._told(raw.pictures)
        else:
            value = self._numbers(raw)
            told = self._embeddings(value) if value.ndim < 3 else self._told(self._batch(value))
        if len(told) not in (1, batch):
            raise ShapeError(f"{len(told)} pictures given for {batch} samples; give one each")
        return self._condition(name, told.expand(batch, *told.shape[1:]))

    def null(self, name: str, batch: int) -> Condition:
        count = self.tower.position.shape[0] if self.gives == "patches" else 1
        zeros = self.tower.position.new_zeros(batch, count, self.width)
        if self.gives == "vector":
            return Condition(vector={name: zeros[:, 0]})
        return Condition(tokens=Tokens(zeros))

    def embedding(self, pictures: Tensor) -> Tensor:
        """Prepared pictures (B, 3, size, size) → projected vectors (B, K)."""
        vector: Tensor = self.tower(pictures).embedding
        return nn.functional.normalize(vector, dim=1) if self.unit else vector

    def _told(self, pictures: Tensor) -> Tensor:
        pictures = pictures.to(self.tower.position)
        if self.gives != "patches":
            return self.embedding(pictures)
        states: Tensor = self.tower.norm(self.tower(pictures).states[-1])
        return states

    def _condition(self, name: str, told: Tensor) -> Condition:
        if self.gives == "vector":
            return Condition(vector={name: told})
        return Condition(tokens=Tokens(self.fit(told if told.ndim == 3 else told[:, None])))

    def _embeddings(self, value: Tensor) -> Tensor:
        settings = self.tower.settings
        wanted = settings.projection or settings.width
        if self.gives == "patches" or value.ndim < 1 or value.shape[-1] != wanted:
            raise ShapeError(
                f"a picture has shape (3, H, W), not {tuple(value.shape)}"
                + ("" if self.gives == "patches" else f"; an embedding would be ({wanted},)")
            )
        value = value.to(self.tower.position)
        return value.expand(1, -1) if value.ndim == 1 else value

    def _batch(self, value: Tensor) -> Tensor:
        return seen(value if value.ndim == 4 else value[None], self.size)

    def _open(self, raw: Any) -> Tensor:
        if isinstance(raw, np.ndarray):
            raw = Image.fromarray(raw.squeeze(2) if raw.shape[2:] == (1,) else raw)
        return prepared(raw if isinstance(raw, Image.Image) else read_image(raw), self.size)

    def _numbers(self, raw: Any) -> Tensor:
        try:
            value = torch.as_tensor(np.asarray(raw) if isinstance(raw, list | tuple) else raw)
        except (TypeError, ValueError, RuntimeError):
            raise UsageError(
                f"a picture is a path, a PIL picture or a tensor in [-1, 1], not {raw!r:.40}"
            ) from None
        if not value.is_floating_point() or not bool(torch.isfinite(value).all()):
            raise UsageError(
                f"a picture of numbers holds finite floats in [-1, 1], not {value.dtype}"
            )
        return value


class Prepared:
    """Pictures as the tower sees them, (B, 3, size, size)."""

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures
