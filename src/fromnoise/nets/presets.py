"""Published networks by name: each a function that returns a configuration."""

from collections.abc import Callable
from typing import Any

Config = dict[str, Any]


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


PRESETS: dict[str, Callable[[], Config]] = {
    "ddpm-cifar10": ddpm_cifar10,
    "ddpm-256": ddpm_256,
    "ddim-celeba": ddim_celeba,
}
