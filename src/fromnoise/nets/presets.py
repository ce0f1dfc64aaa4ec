"""Published networks by name: each a function that returns a configuration."""

from collections.abc import Callable
from functools import partial

from fromnoise.nets.guided_diffusion import CLASSES, CLASSIFIERS, FLAGS, Config
from fromnoise.nets.latent_presets import LATENT_PRESETS


def ddpm_cifar10() -> Config:
    """DDPM for CIFAR-10, 32×32: 35,746,307 parameters (Ho, Jain & Abbeel 2020)."""
    return _ddpm((1, 2, 2, 2), attention=2, dropout=0.1)


def ddpm_256() -> Config:
    """DDPM for LSUN and CelebA-HQ, 256×256: 113,673,219 parameters (Ho, Jain & Abbeel 2020)."""
    return _ddpm((1, 1, 2, 2, 4, 4), attention=16, dropout=0.0)


def ddim_celeba() -> Config:
    """DDIM for CelebA, 64×64: 78,700,803 parameters (Song, Meng & Ermon 2021)."""
    return _ddpm((1, 2, 2, 2, 4), attention=4, dropout=0.1)


def _ddpm(multipliers: tuple[int, ...], attention: int, dropout: float) -> Config:
    return {
        "kind": "unet",
        "in_channels": 3,
        "channels": 128,
        "multipliers": list(multipliers),
        "blocks": 2,
        "attention": {"at": [attention]},
        "style": {"eps": 1e-6, "dropout": dropout, "down": "asymmetric"},
        "time": "ddpm",
    }


def ddpmpp() -> Config:
    """DDPM++ for CIFAR-10, 32×32, in continuous time: 61,804,419 parameters (Song et al. 2021).

    Its time is 999 · t. The same network serves the VP and the sub-VP process.
    """
    return _score_sde({}, time="ddpm", blocks=4)


def ddpmpp_deep() -> Config:
    """DDPM++ deep for CIFAR-10: 106,632,579 parameters (Song et al. 2021)."""
    return _score_sde({}, time="ddpm", blocks=8)


def ncsnpp() -> Config:
    """NCSN++ for CIFAR-10, 32×32, in continuous time: 62,758,787 parameters (Song et al. 2021).

    Its time is log σ, with σ on the scale of pictures in [0, 1]; what it answers over that σ is the
    score there. x comes in scaled to [−1, 1]. Its 128 Fourier frequencies are a buffer.
    """
    return _score_sde({"filter": "fir", "pyramid": "residual"}, time="ncsnpp", blocks=4)


def ncsnpp_deep() -> Config:
    """NCSN++ deep for CIFAR-10: 107,586,947 parameters (Song et al. 2021)."""
    return _score_sde({"filter": "fir", "pyramid": "residual"}, time="ncsnpp", blocks=8)


def _score_sde(style: Config, time: str, blocks: int) -> Config:
    shared = {
        "eps": 1e-6,
        "dropout": 0.1,
        "resample": "block",
        "shortcut": "projected",
        "residual_scale": 0.5**0.5,
    }
    return {
        "kind": "unet",
        "in_channels": 3,
        "channels": 128,
        "multipliers": [1, 2, 2, 2],
        "blocks": blocks,
        "attention": {"at": [2], "up": "last"},
        "style": shared | style,
        "time": time,
    }


_DIT = {"s": (12, 384, 6), "b": (12, 768, 12), "l": (24, 1024, 16), "xl": (28, 1152, 16)}


def dit(model: str, patch: int, size: int = 32) -> Config:
    """DiT for the 4-channel latents of ImageNet pictures, 1000 classes (Peebles & Xie 2023).

    model: s, b, l or xl. patch: 2, 4 or 8. size: of the latents; 32 for pictures of 256, 64 for
    512. Half of the 8 channels that come out are a learned variance.
    """
    depth, width, heads = _DIT[model]
    return {
        "kind": "dit",
        "in_channels": 4,
        "out_channels": 8,
        "size": size,
        "patch": patch,
        "width": width,
        "depth": depth,
        "heads": heads,
        "accepts": {"vector": {"label": CLASSES}},
    }


PRESETS: dict[str, Callable[[], Config]] = {
    "ddpm-cifar10": ddpm_cifar10,
    "ddpm-256": ddpm_256,
    "ddim-celeba": ddim_celeba,
    **{name: flags.config for name, flags in FLAGS.items()},
    **{name: flags.config for name, flags in CLASSIFIERS.items()},
    "ddpm++": ddpmpp,
    "ddpm++-deep": ddpmpp_deep,
    "ncsn++": ncsnpp,
    "ncsn++-deep": ncsnpp_deep,
    **{f"dit-{model}/{patch}": partial(dit, model, patch) for model in _DIT for patch in (2, 4, 8)},
    "dit-xl/2-512": partial(dit, "xl", 2, 64),
    **LATENT_PRESETS,
}
