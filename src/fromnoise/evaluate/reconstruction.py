"""How much of a picture an autoencoder keeps: peak signal to noise, and structure."""

import torch
from torch import Tensor

from fromnoise.core.errors import ShapeError

RANGE = 2.0
"""From the least to the most value of a picture in [−1, 1]."""

_SIDE = 12
"""The least side for the window of 11 pixels, as published; below it is 5."""

_CHUNK = 16
"""Pictures compared at once: each pixel's whole window is held in memory, 1 kB for each channel."""


def psnr(x: Tensor, made: Tensor) -> Tensor:
    """10·log₁₀(RANGE² / mean (x − made)²) of each picture, (B,), in dB; higher is better.

    x, made: (B, C, H, W) in [−1, 1]. Equal pictures have infinity.
    """
    _check(x, made)
    error = (x.double() - made.double()).square().flatten(1).mean(1)
    return 10.0 * torch.log10(RANGE**2 / error)


def ssim(x: Tensor, made: Tensor) -> Tensor:
    """The structural similarity of each picture, (B,), at most 1; higher is better.

    Means, variances and covariances under a Gaussian window of 11 pixels (σ 1.5), or of 5 (σ 0.5)
    where a side has under 12 pixels (Wang et al. 2004, eq. 13).
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    _check(x, made)
    sigma = 1.5 if min(x.shape[2:]) >= _SIDE else 0.5
    found = [
        torch.as_tensor(
            structural_similarity_index_measure(
                one.double(), of.double(), sigma=sigma, data_range=RANGE, reduction="none"
            )
        ).reshape(-1)
        for one, of in zip(torch.split(made, _CHUNK), torch.split(x, _CHUNK), strict=True)
    ]
    return torch.cat(found)


def _check(x: Tensor, made: Tensor) -> None:
    if x.ndim != 4 or x.shape != made.shape:
        raise ShapeError(
            f"two sets of pictures (B, C, H, W) are compared one by one, not {tuple(x.shape)} and "
            f"{tuple(made.shape)}"
        )
