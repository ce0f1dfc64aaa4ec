"""Latents as small pictures without the decoder: a straight line for each colour."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from fromnoise.codecs.base import Codec
from fromnoise.core.errors import ShapeError


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
    parts = torch.split(x, batch)
    latents = torch.cat([codec.encode(part) for part in parts]).double()
    small = avg_pool2d(x.double(), codec.factor)
    rows = latents.movedim(1, -1).flatten(0, 2)
    wanted = small.movedim(1, -1).flatten(0, 2)
    with_one = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
    # gelsd: latents that hardly vary leave the matrix short of full rank.
    found = torch.linalg.lstsq(with_one.cpu(), wanted.cpu(), driver="gelsd").solution
    left = (with_one.cpu() @ found - wanted.cpu()).square().sum()
    spread = (wanted - wanted.mean(0)).square().sum().cpu()
    share = 1.0 - (left / spread.clamp(min=1e-12)).item()
    return Preview(found[:-1].T.float().contiguous(), found[-1].float(), share)
