"""Published autoencoders by name: each a configuration, its parameters counted in the tests."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fromnoise.codecs.base import CODECS, Codec
from fromnoise.core.meta import without_memory

Config = dict[str, Any]


def _kl(latent: int, widths: Sequence[int], attention: Sequence[int] = (), **more: Any) -> Config:
    return {
        "kind": "kl",
        "latent": latent,
        "widths": [128 * m for m in widths],
        "attention": list(attention),
        "scaling": 1.0,
        **more,
    }


def _vq(
    size: int, width: int, widths: Sequence[int], attention: Sequence[int] = (), **more: Any
) -> Config:
    return {
        "kind": "vq",
        "codebook": {"kind": "gradient", "size": size, "width": width},
        "widths": [128 * m for m in widths],
        "attention": list(attention),
        **more,
    }


PRESETS: Mapping[str, Config] = {
    "kl-f4": _kl(3, (1, 2, 4)),
    "kl-f8": _kl(4, (1, 2, 4, 4), scaling=0.18215),
    "kl-f16": _kl(16, (1, 1, 2, 2, 4), (16,)),
    "kl-f32": _kl(64, (1, 1, 2, 2, 4, 4), (16, 32)),
    "x4-upscaler": _kl(4, (1, 2, 4), scaling=0.08333),
    "vq-f4": _vq(8192, 3, (1, 2, 4)),
    "vq-f4-noattn": _vq(8192, 3, (1, 2, 4), attend=False),
    "vq-f8": _vq(16384, 4, (1, 2, 2, 4), (8,)),
    "vq-f8-n256": _vq(256, 4, (1, 2, 2, 4), (8,)),
    "vq-f16": _vq(16384, 8, (1, 1, 2, 2, 4), (16,)),
    "vqgan-f16-1024": _vq(1024, 256, (1, 1, 2, 2, 4), (16,)),
    "vqgan-f16-16384": _vq(16384, 256, (1, 1, 2, 2, 4), (16,)),
}
"""Name → configuration: those of latent diffusion (Rombach et al. 2022, tables 8 and 9), of Stable
Diffusion (kl-f8 with its scaling, x4-upscaler) and of VQGAN on ImageNet (Esser et al. 2021).

All are for pictures of three channels; those made at 256×256 attend at 16×16 or 32×32 there.
"""


def build(name: str | Mapping[str, Any], device: str | torch.device | None = None) -> Codec:
    """A codec by its published name, or from a configuration `{"kind": "kl", ...}`.

    Its weights are drawn from torch's global generator; with device="meta" it has shapes but no
    memory. Raises UsageError for an unknown name or kind (with the nearest), or a value it cannot
    take.
    """
    where = torch.device("cpu" if device is None else device)
    with without_memory() if where.type == "meta" else where:
        codec: Codec = CODECS.build(CODECS.config_of(name, PRESETS))
    return codec
