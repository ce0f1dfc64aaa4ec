"""The published U-Nets of latent diffusion and Stable Diffusion by name.

Their sizes are those of latents, not of pictures: whatever the autoencoder beside them makes.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

Config = dict[str, Any]

_CLIP, _OPEN_CLIP, _OPEN_CLIP_G = 768, 1024, 1280
"""Width of the tokens of Stable Diffusion 1, of 2, and of SDXL's second encoder."""
_KL, _VQ = (4, 4), (3, 3)
"""Channels that come in, without those of the condition, and go out."""


def sd1(extra: dict[str, int] | None = None) -> Config:
    """Stable Diffusion 1.x: 859,520,964 parameters, latents of 4 channels (Rombach et al. 2022).

    extra: further input channels by name, after the latents. Inpainting has the mask and the
    latents of the picture without what is masked (859,535,364), editing by instructions the latents
    of the picture (859,532,484; Brooks, Holynski & Efros 2023).
    """
    return _unet(
        channels=320,
        at=(1, 2, 4),
        heads=8,
        transformer={},
        accepts={"tokens": _CLIP, "channels": extra or {}},
    )


def sd2(extra: dict[str, int] | None = None) -> Config:
    """Stable Diffusion 2.x: 865,910,724 parameters; inpainting 865,925,124, depth 865,913,604."""
    return _unet(
        channels=320,
        at=(1, 2, 4),
        head_channels=64,
        transformer={"projection": "linear"},
        accepts={"tokens": _OPEN_CLIP, "channels": extra or {}},
    )


def sd_x4() -> Config:
    """The ×4 upscaler of Stable Diffusion: 473,398,020 parameters.

    It is told the picture at a quarter of the size and, as a label, how noisy that is (0 to 999).
    """
    return _unet(
        channels=256,
        multipliers=(1, 2, 2, 4),
        at=(2, 4, 8),
        heads=8,
        transformer={"projection": "linear", "only_cross": [2, 4]},
        accepts={
            "tokens": _OPEN_CLIP,
            "channels": {"low_res": 3},
            "vector": {"label": 1000},
        },
    )


def sdxl(extra: dict[str, int] | None = None) -> Config:
    """SDXL: 2,567,463,684 parameters (Podell et al. 2023).

    It is told the pooled text of the second encoder and six numbers of pixels: height and width as
    they were, top and left of the crop, height and width wanted.
    """
    made = {"depth": [2, 10], "middle": 10}
    return _xl(320, (1, 2, 4), _CLIP + _OPEN_CLIP_G, 6, made, extra)


def sdxl_refiner() -> Config:
    """The refiner of SDXL: 2,259,526,660 parameters (Podell et al. 2023).

    It attends to the second encoder alone, and its fifth number is an aesthetic score.
    """
    return _xl(384, (1, 2, 4, 4), _OPEN_CLIP_G, 5, {"depth": [4], "middle": 4})


def _xl(
    channels: int,
    multipliers: tuple[int, ...],
    tokens: int,
    sizes: int,
    transformer: Config,
    extra: dict[str, int] | None = None,
) -> Config:
    return _unet(
        channels=channels,
        multipliers=multipliers,
        at=(2, 4),
        head_channels=64,
        transformer={"projection": "linear", **transformer},
        style={"joined": {"pooled": 0, "sizes": 256}},
        accepts={
            "tokens": tokens,
            "channels": extra or {},
            "vector": {"pooled": _OPEN_CLIP_G, "sizes": sizes},
        },
    )


def sd_unclip(width: int) -> Config:
    """Stable unCLIP 2.1: 870,173,124 parameters (ViT-H) or 869,517,764 (ViT-L).

    width: of what it is told, the noised embedding of a picture and, in as many sines and cosines,
    how noisy that is; 2048 or 1536.
    """
    config = sd2()
    config["accepts"] |= {"vector": {"pooled": width}}
    config["style"] |= {"joined": {"pooled": 0}}
    return config


def ldm_celebahq() -> Config:
    """Latent diffusion of CelebA-HQ, FFHQ and bedrooms, VQ-f4: 274,056,163 parameters.

    Reference of this and the following: Rombach et al. 2022, appendix E, and the configurations
    published with the weights.
    """
    return _unet(224, (2, 4, 8), (1, 2, 3, 4), _VQ, head_channels=32)


def ldm_churches() -> Config:
    """Latent diffusion of churches, KL-f8: 294,966,916 parameters."""
    style = {"scale_shift": True, "resample": "block"}
    return _unet(192, (1, 2, 4, 8), (1, 2, 2, 4, 4), heads=8, style=style)


def ldm_imagenet() -> Config:
    """Latent diffusion of ImageNet, VQ-f4, a class as one token: 400,920,579 parameters."""
    return _told(512, 192, (2, 4, 8), (1, 2, 3, 5), _VQ)


def ldm_imagenet_f8() -> Config:
    """Latent diffusion of ImageNet, VQ-f8, a class as one token: 394,984,196 parameters."""
    return _told(512, 256, (1, 2, 4), (1, 2, 4), head_channels=32)


def ldm_text2img() -> Config:
    """The large model of text to pictures, KL-f8: 872,300,484 parameters; BERT 1280 wide."""
    return _told(1280, 320, (1, 2, 4), heads=8)


def ldm_text2img_256() -> Config:
    """The small model of text to pictures, VQ-f4: 403,623,939 parameters; BERT 640 wide."""
    return _told(640, 192, (2, 4, 8), (1, 2, 3, 5), _VQ, head_channels=32)


def ldm_layout2img() -> Config:
    """Layouts to pictures, VQ-f4: 246,277,379 parameters."""
    made = {"depth": [3], "middle": 3}
    return _told(512, 128, (2, 4, 8), (1, 2, 3, 4), _VQ, head_channels=32, transformer=made)


def ldm_super_resolution() -> Config:
    """Super-resolution ×4 in latents, VQ-f4: 113,622,563 parameters; told the small picture."""
    accepts = {"channels": {"low_res": 3}}
    return _unet(160, (8,), (1, 2, 2, 4), _VQ, head_channels=32, accepts=accepts)


def ldm_inpainting() -> Config:
    """Inpainting, VQ-f4: 387,245,827 parameters; told the latents of what is kept, and the mask."""
    accepts = {"channels": {"masked": 3, "mask": 1}}
    style = {"resample": "block"}
    return _unet(256, (2, 4, 8), (1, 2, 3, 4), _VQ, heads=8, style=style, accepts=accepts)


def ldm_semantic() -> Config:
    """Label maps to pictures, VQ-f4: 215,229,315 parameters; it attends in the middle alone."""
    return _unet(128, (), (1, 4, 8), _VQ, heads=8, accepts={"channels": {"map": 3}})


def rdm() -> Config:
    """Retrieval-augmented diffusion, KL-f16: 1,335,480,400 parameters (Blattmann et al. 2022).

    Its tokens are CLIP embeddings of the pictures found.
    """
    return _told(_CLIP, 448, (1, 2, 4), (1, 2, 3, 4), (16, 16), head_channels=32)


def _told(
    tokens: int,
    channels: int,
    at: tuple[int, ...],
    multipliers: tuple[int, ...] = (1, 2, 4, 4),
    latents: tuple[int, int] = _KL,
    heads: int = 1,
    head_channels: int | None = None,
    transformer: Config | None = None,
) -> Config:
    made, accepts = transformer or {}, {"tokens": tokens}
    return _unet(channels, at, multipliers, latents, heads, head_channels, made, accepts=accepts)


def _unet(
    channels: int,
    at: tuple[int, ...],
    multipliers: tuple[int, ...] = (1, 2, 4, 4),
    latents: tuple[int, int] = _KL,
    heads: int = 1,
    head_channels: int | None = None,
    transformer: Config | None = None,
    style: Config | None = None,
    accepts: Config | None = None,
) -> Config:
    # A layer halves any size; a residual block only even ones.
    by_layer = "resample" not in (style or {})
    return {
        "kind": "unet",
        "in_channels": latents[0],
        "out_channels": latents[1],
        "channels": channels,
        "multipliers": list(multipliers),
        "blocks": 2,
        "attention": {
            "at": list(at),
            "heads": heads,
            "head_channels": head_channels,
            "transformer": transformer,
        },
        "style": {"uneven": by_layer, **(style or {})},
        "time": "adm",
        "accepts": accepts or {},
    }


_INPAINT = {"mask": 1, "masked": 4}

LATENT_PRESETS: dict[str, Callable[[], Config]] = {
    "sd1": sd1,
    "sd1-inpaint": partial(sd1, _INPAINT),
    "sd1-pix2pix": partial(sd1, {"picture": 4}),
    "sd2": sd2,
    "sd2-inpaint": partial(sd2, _INPAINT),
    "sd2-depth": partial(sd2, {"depth": 1}),
    "sd2-unclip-h": partial(sd_unclip, 2048),
    "sd2-unclip-l": partial(sd_unclip, 1536),
    "sd-x4": sd_x4,
    "sdxl": sdxl,
    "sdxl-inpaint": partial(sdxl, _INPAINT),
    "sdxl-refiner": sdxl_refiner,
    "ldm-celebahq": ldm_celebahq,
    "ldm-churches": ldm_churches,
    "ldm-imagenet": ldm_imagenet,
    "ldm-imagenet-f8": ldm_imagenet_f8,
    "ldm-text2img": ldm_text2img,
    "ldm-text2img-256": ldm_text2img_256,
    "ldm-layout2img": ldm_layout2img,
    "ldm-super-resolution": ldm_super_resolution,
    "ldm-inpainting": ldm_inpainting,
    "ldm-semantic": ldm_semantic,
    "rdm": rdm,
}
"""The U-Nets of latents by name."""
