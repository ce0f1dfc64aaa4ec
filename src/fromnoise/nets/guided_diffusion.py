"""The networks of improved-diffusion and guided-diffusion, from the flags they are published with.

The models' pages give command lines, not configurations: a published model is its flags.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from fromnoise.core.config import Settings
from fromnoise.core.errors import UsageError

Config = dict[str, Any]
Order = Literal["legacy", "new"]

CLASSES = 1000
_MULTIPLIERS: dict[int, tuple[int | float, ...]] = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    32: (1, 2, 2, 2),
}

_Count = Annotated[int, Field(ge=1)]


class Flags(Settings):
    """The flags that shape a network, with the names and the defaults of the published scripts.

    image_size: of the result. attention_resolutions: sizes of the feature maps with attention.
    channel_mult: by default that of the size. num_head_channels: width of a head, in place of
    num_heads. learn_sigma: twice the channels come out (a learned variance). class_cond: 1000
    classes. small_size: of the low-resolution picture of an upsampler, which comes in enlarged to
    `image_size` (bilinear) as the channels "low_res". use_new_attention_order: how the weights of
    query, key and value lie in a file; the network is the same.
    Reference: Nichol & Dhariwal 2021; Dhariwal & Nichol 2021.
    """

    image_size: _Count = 64
    num_channels: _Count = 128
    num_res_blocks: _Count = 2
    channel_mult: tuple[int | float, ...] = ()
    num_heads: _Count = 4
    num_head_channels: _Count | None = None
    attention_resolutions: tuple[_Count, ...] = (16, 8)
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_cond: bool = False
    learn_sigma: bool = False
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    small_size: _Count | None = None

    @field_validator("attention_resolutions", "channel_mult", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """The numbers of a list, which flags separate by commas."""
        if not isinstance(value, str):
            return value
        return tuple(float(part) if "." in part else int(part) for part in value.split(",") if part)

    @property
    def order(self) -> Order:
        """How the query, key and value of each head lie in a file of this model."""
        return "new" if self.use_new_attention_order else "legacy"

    @property
    def _tower(self) -> int:
        """The size whose levels it has: an upsampler to 512 has those of 256."""
        return self.image_size if self.small_size is None else min(self.image_size, 256)

    def config(self) -> Config:
        """The configuration of the `UNet`. Raises UsageError for a size without known levels."""
        vector = {"label": CLASSES} if self.class_cond else {}
        channels = {} if self.small_size is None else {"low_res": 3}
        return {
            "kind": "unet",
            "in_channels": 3,
            "out_channels": 6 if self.learn_sigma else 3,
            "channels": self.num_channels,
            "multipliers": list(self.channel_mult or _multipliers(self._tower)),
            "blocks": self.num_res_blocks,
            "attention": _attention(
                self.image_size, self.attention_resolutions, self.num_heads, self.num_head_channels
            ),
            "style": _style(self.use_scale_shift_norm, self.resblock_updown, self.dropout),
            "time": "adm",
            "accepts": {"vector": vector, "channels": channels},
        }


class ClassifierFlags(Settings):
    """The flags of a classifier of noisy pictures. Reference: Dhariwal & Nichol 2021, section 4."""

    image_size: _Count = 64
    classifier_width: _Count = 128
    classifier_depth: _Count = 2
    classifier_attention_resolutions: tuple[_Count, ...] = (32, 16, 8)
    classifier_use_scale_shift_norm: bool = True
    classifier_resblock_updown: bool = True

    @property
    def order(self) -> Order:
        """How the query, key and value of each head lie in a file of this model."""
        return "legacy"

    def config(self) -> Config:
        """The configuration of the `Classifier`. Raises UsageError for a size without levels."""
        return {
            "kind": "classifier",
            "in_channels": 3,
            "classes": CLASSES,
            "size": self.image_size,
            "channels": self.classifier_width,
            "multipliers": list(_multipliers(self.image_size)),
            "blocks": self.classifier_depth,
            "attention": _attention(
                self.image_size, self.classifier_attention_resolutions, 1, head_channels=64
            ),
            "style": _style(
                self.classifier_use_scale_shift_norm, self.classifier_resblock_updown, 0.0
            ),
            "time": "adm",
        }


def _multipliers(size: int) -> tuple[int | float, ...]:
    if size not in _MULTIPLIERS:
        raise UsageError(
            f"no levels are published for size {size}, only for {sorted(_MULTIPLIERS)}; "
            "give channel_mult"
        )
    return _MULTIPLIERS[size]


def _attention(
    size: int, resolutions: tuple[int, ...], heads: int, head_channels: int | None
) -> Config:
    at = sorted(size // resolution for resolution in resolutions)
    return {"at": at, "heads": heads, "head_channels": head_channels}


def _style(scale_shift: bool, by_block: bool, dropout: float) -> Config:
    return {
        "scale_shift": scale_shift,
        "resample": "block" if by_block else "layer",
        "dropout": dropout,
    }


_IDDPM = Flags(num_res_blocks=3, learn_sigma=True)
_ADM = Flags(
    num_channels=256,
    num_head_channels=64,
    attention_resolutions=(32, 16, 8),
    class_cond=True,
    learn_sigma=True,
    resblock_updown=True,
)


def _but(flags: Flags, **changed: Any) -> Flags:
    return Flags.model_validate({**flags.model_dump(), **changed})


FLAGS: dict[str, Flags] = {
    "iddpm-cifar10": _but(_IDDPM, image_size=32, dropout=0.3),
    "iddpm-64": _IDDPM,
    "iddpm-64-cond": _but(_IDDPM, num_channels=192, class_cond=True),
    "iddpm-lsun-256": _but(
        _IDDPM,
        image_size=256,
        num_res_blocks=2,
        num_heads=1,
        attention_resolutions=(16,),
        use_scale_shift_norm=False,
    ),
    "iddpm-64-256": _but(
        _IDDPM,
        image_size=256,
        small_size=64,
        num_channels=192,
        num_res_blocks=2,
        class_cond=True,
    ),
    "adm-64": _but(
        _ADM,
        num_channels=192,
        num_res_blocks=3,
        dropout=0.1,
        use_new_attention_order=True,
    ),
    "adm-128": _but(_ADM, image_size=128, num_head_channels=None),
    "adm-256": _but(_ADM, image_size=256),
    "adm-256-uncond": _but(_ADM, image_size=256, class_cond=False),
    "adm-lsun-256": _but(_ADM, image_size=256, class_cond=False, dropout=0.1),
    "adm-512": _but(_ADM, image_size=512),
    "adm-64-256": _but(
        _ADM, image_size=256, small_size=64, num_channels=192, num_head_channels=None
    ),
    "adm-128-512": _but(
        _ADM, image_size=512, small_size=128, num_channels=192, attention_resolutions=(32, 16)
    ),
}
CLASSIFIERS: dict[str, ClassifierFlags] = {
    "adm-classifier-64": ClassifierFlags(classifier_depth=4),
    "adm-classifier-128": ClassifierFlags(image_size=128),
    "adm-classifier-256": ClassifierFlags(image_size=256),
    "adm-classifier-512": ClassifierFlags(image_size=512),
}
