"""The two towers of CLIP: a text and a picture, each as tokens and as one vector that compares."""

from typing import Annotated, NamedTuple

import torch
from jaxtyping import Float, Integer
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from fromnoise.core.config import Settings
from fromnoise.core.errors import ShapeError, UsageError, unknown
from fromnoise.layers.transformer import Activation, Tower, causal

_Count = Annotated[int, Field(ge=1)]


class TextSettings(Settings):
    """The sizes of a text tower.

    vocabulary: token ids; length: tokens of a sequence. hidden: middle of the MLPs. projection:
    width of the vector, or None for a tower that has none. end: the id at whose first place the
    vector is read; None for the place of the largest id, which is the same for the published
    vocabularies (files with `eos_token_id` 2 mean that).
    """

    vocabulary: _Count = 49_408
    length: Annotated[int, Field(ge=3)] = 77
    width: _Count = 768
    depth: _Count = 12
    heads: _Count = 12
    hidden: _Count = 3072
    activation: Activation = "quick_gelu"
    projection: _Count | None = None
    end: int | None = None
    eps: Annotated[float, Field(gt=0)] = 1e-5


class VisionSettings(Settings):
    """The sizes of a picture tower: pictures of `size`, cut in squares of `patch`."""

    size: _Count = 224
    patch: _Count = 14
    width: _Count = 1024
    depth: _Count = 24
    heads: _Count = 16
    hidden: _Count = 4096
    activation: Activation = "quick_gelu"
    projection: _Count | None = None
    eps: Annotated[float, Field(gt=0)] = 1e-5


TEXTS: dict[str, TextSettings] = {
    "vit-b/32": TextSettings(width=512, heads=8, hidden=2048, projection=512),
    "vit-b/16": TextSettings(width=512, heads=8, hidden=2048, projection=512),
    "vit-l/14": TextSettings(projection=768),
    "vit-h/14": TextSettings(
        width=1024, depth=24, heads=16, hidden=4096, activation="gelu", projection=1024
    ),
    "vit-bigg/14": TextSettings(
        width=1280, depth=32, heads=20, hidden=5120, activation="gelu", projection=1280
    ),
}
"""Published text towers, with their projection. Radford et al. 2021; OpenCLIP for H and bigG."""

VISIONS: dict[str, VisionSettings] = {
    "vit-b/32": VisionSettings(
        patch=32, width=768, depth=12, heads=12, hidden=3072, projection=512
    ),
    "vit-b/16": VisionSettings(
        patch=16, width=768, depth=12, heads=12, hidden=3072, projection=512
    ),
    "vit-l/14": VisionSettings(projection=768),
    "vit-h/14": VisionSettings(
        width=1280, depth=32, hidden=5120, activation="gelu", projection=1024
    ),
    "vit-bigg/14": VisionSettings(
        width=1664, depth=48, hidden=8192, activation="gelu", projection=1280
    ),
}
"""Published picture towers, with their projection."""


def text_settings(tower: str | TextSettings) -> TextSettings:
    """Settings by the name of a published tower. Raises UsageError for a name that is none."""
    if isinstance(tower, TextSettings):
        return tower
    if tower not in TEXTS:
        raise unknown("CLIP text tower", tower, TEXTS)
    return TEXTS[tower]


def vision_settings(tower: str | VisionSettings) -> VisionSettings:
    """Settings by the name of a published tower. Raises UsageError for a name that is none."""
    if isinstance(tower, VisionSettings):
        return tower
    if tower not in VISIONS:
        raise unknown("CLIP picture tower", tower, VISIONS)
    return VISIONS[tower]


class Seen(NamedTuple):
    """What a tower makes of its input.

    states: what each layer leaves, the first what entered, (B, L, width) each, not normed.
    pooled: (B, width), one vector, normed. embedding: it projected, or itself where there is no
    projection.
    """

    states: list[Tensor]
    pooled: Tensor
    embedding: Tensor


class TextTower(nn.Module):
    """Token ids → states and a vector: a transformer in which no token sees a later one.

    The vector is the last state at the token that ends the text, normed and projected.
    Reference: Radford et al. 2021, section 2.4; the sizes are those of their and OpenCLIP's code.
    """

    def __init__(self, settings: TextSettings) -> None:
        super().__init__()
        self.settings = settings
        width = settings.width
        self.embedding = nn.Embedding(settings.vocabulary, width)
        self.position = nn.Parameter(torch.empty(settings.length, width))
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.position, std=0.01)
        self.tower = _tower(settings)
        self.norm = nn.LayerNorm(width, eps=settings.eps)
        self.projection = _projection(width, settings.projection)

    def forward(self, ids: Integer[Tensor, "batch length"]) -> Seen:
        """Raises ShapeError for more tokens than there are positions."""
        length = ids.shape[1]
        if length > self.settings.length:
            raise ShapeError(f"{length} tokens for a text tower that reads {self.settings.length}")
        x = self.embedding(ids) + self.position[:length]
        states = self.tower.layers(x, causal(length, ids.device))
        end = self.settings.end
        place = ids.argmax(1) if end is None else (ids == end).int().argmax(1)
        pooled = self.norm(states[-1][torch.arange(len(ids), device=ids.device), place])
        return Seen(states, pooled, self.projection(pooled))


class VisionTower(nn.Module):
    """A picture (B, 3, size, size), prepared → states of its patches and a vector.

    A class token goes before the patches; the vector is its last state, normed and projected.
    Raises UsageError for patches that do not divide the size.
    Reference: Dosovitskiy et al. 2021; Radford et al. 2021, section 2.4.
    """

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        self.settings = settings
        if settings.size % settings.patch:
            raise UsageError(f"patches of {settings.patch} do not divide {settings.size} pixels")
        width, patch = settings.width, settings.patch
        count = (settings.size // patch) ** 2
        self.enter = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.first = nn.Parameter(torch.empty(width))
        self.position = nn.Parameter(torch.empty(count + 1, width))
        nn.init.normal_(self.first, std=width**-0.5)
        nn.init.normal_(self.position, std=width**-0.5)
        self.before = nn.LayerNorm(width, eps=settings.eps)
        self.tower = _tower(settings)
        self.norm = nn.LayerNorm(width, eps=settings.eps)
        self.projection = _projection(width, settings.projection)

    def forward(self, pictures: Float[Tensor, "batch 3 size size"]) -> Seen:
        """Raises ShapeError for pictures of another size."""
        size = self.settings.size
        if pictures.shape[1:] != (3, size, size):
            raise ShapeError(
                f"pictures {tuple(pictures.shape)} for a tower that sees (B, 3, {size}, {size})"
            )
        patches = self.enter(pictures).flatten(2).transpose(1, 2)
        first = self.first.expand(len(pictures), 1, -1)
        x = self.before(torch.cat([first, patches], dim=1) + self.position)
        states = self.tower.layers(x)
        pooled = self.norm(states[-1][:, 0])
        return Seen(states, pooled, self.projection(pooled))


class CLIP(nn.Module):
    """Both towers, whose vectors are compared: logits = exp(scale)·cos(picture, text).

    Raises UsageError when the two vectors have different widths.
    Reference: Radford et al. 2021, figure 3.
    """

    def __init__(self, text: TextSettings, vision: VisionSettings) -> None:
        super().__init__()
        if text.projection is None or text.projection != vision.projection:
            raise UsageError(
                f"texts are projected to {text.projection} and pictures to {vision.projection}; "
                "use one width for both"
            )
        self.text = TextTower(text)
        self.vision = VisionTower(vision)
        self.scale = nn.Parameter(torch.tensor(1 / 0.07).log())

    def forward(self, ids: Tensor, pictures: Tensor) -> Float[Tensor, "pictures texts"]:
        """The logits of each picture (rows) with each text (columns)."""
        texts = normalize(self.text(ids).embedding, dim=1)
        seen = normalize(self.vision(pictures).embedding, dim=1)
        logits: Tensor = self.scale.exp() * seen @ texts.T
        return logits


def _tower(settings: TextSettings | VisionSettings) -> Tower:
    return Tower(
        settings.width,
        settings.depth,
        settings.heads,
        settings.hidden,
        settings.activation,
        settings.eps,
    )


def _projection(width: int, out: int | None) -> nn.Module:
    return nn.Identity() if out is None else nn.Linear(width, out, bias=False)
