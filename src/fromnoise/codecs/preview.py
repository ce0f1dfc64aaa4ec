"""Latents as small pictures without the decoder: a straight line for each colour."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from fromnoise.codecs.base import Codec
from fromnoise.core.errors import ShapeError

_SIDE, _DECODED, _ROWS_EACH = 16, 4, 8
"""Sides of the latents that a line is fitted to, and how many of them; places for each unknown."""


@dataclass(frozen=True)
class Preview:
    """colour = weight·z + bias at every latent: a picture of the size of the latents.

    weight: (C, latent). bias: (C,). share: of the variance of small pictures that it explains.
    """

    weight: Tensor
    bias: Tensor
    share: float

    def __call__(self, z: Tensor, factor: int = 1) -> Tensor:
        """Pictures (B, C, h·factor, w·factor) in [−1, 1] of latents (B, latent, h, w).

        Raises ShapeError for latents of another number of channels.
        """
        if z.ndim != 4 or z.shape[1] != self.weight.shape[1]:
            raise ShapeError(
                f"this preview is of latents (B, {self.weight.shape[1]}, h, w), not "
                f"{tuple(z.shape)}"
            )
        weight, bias = self.weight.to(z), self.bias.to(z)
        made = torch.einsum("cl,blhw->bchw", weight, z) + bias[:, None, None]
        small = made.clamp(-1.0, 1.0)
        return small if factor == 1 else interpolate(small, scale_factor=factor, mode="nearest")


@torch.no_grad()
def fit_preview(codec: Codec, x: Tensor, batch: int = 32) -> Preview:
    """The preview of a codec by least squares: min Σ ‖W·z + b − mean of the pixels‖².

    x: some pictures (N, C, H, W) in [−1, 1], a dozen or more; each latent is compared with the mean
    of the factor × factor pixels it stands for.
    """
    latents = torch.cat([codec.encode(part) for part in torch.split(x, batch)])
    return _fitted(latents, avg_pool2d(x, codec.factor))


@torch.no_grad()
def fit_to_decoder(latent: int, factor: int, decode: Callable[[Tensor], Tensor]) -> Preview:
    """The same line where no pictures are at hand: fitted to what a decoder makes of noise.

    The noise is a sum of noise at 2×2, 4×4 and 8×8 places, each enlarged to 16×16 latents, so that
    neighbours are alike as in pictures, of mean 0 and variance 1 as latents are scaled to.
    latent: its channels; factor: pixels along the side of one; decode: latents (N, latent, 16, 16)
    to pictures. 4 are decoded, more where there are many channels; they are always the same ones.
    """
    count = max(_DECODED, math.ceil(_ROWS_EACH * (latent + 1) / _SIDE**2))
    generator = torch.Generator().manual_seed(0)
    z = torch.zeros(count, latent, _SIDE, _SIDE)
    for side in (2, 4, 8):
        drawn = torch.randn(count, latent, side, side, generator=generator)
        z += interpolate(drawn, size=(_SIDE, _SIDE), mode="bilinear")
    z = (z - z.mean((0, 2, 3), keepdim=True)) / z.std((0, 2, 3), keepdim=True)
    return _fitted(z, avg_pool2d(decode(z), factor))


def _fitted(latents: Tensor, small: Tensor) -> Preview:
    """The line from latents (N, C, h, w) to pictures of their size by least squares."""
    rows = latents.double().movedim(1, -1).flatten(0, 2)
    wanted = small.double().movedim(1, -1).flatten(0, 2)
    with_one = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
    # gelsd: latents that hardly vary leave the matrix short of full rank.
    found = torch.linalg.lstsq(with_one.cpu(), wanted.cpu(), driver="gelsd").solution
    left = (with_one.cpu() @ found - wanted.cpu()).square().sum()
    spread = (wanted - wanted.mean(0)).square().sum().cpu()
    share = 1.0 - (left / spread.clamp(min=1e-12)).item()
    return Preview(found[:-1].T.float().contiguous(), found[-1].float(), share)
