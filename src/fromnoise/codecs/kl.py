"""The convolutional autoencoder of latent diffusion, with its normal latents."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from fromnoise.codecs.base import CODECS, Learned, Passage
from fromnoise.codecs.convolutional import Down, Plan, Up, pointwise
from fromnoise.core.densities import normal_kl
from fromnoise.core.randomness import Noise
from fromnoise.core.tensors import flat_sum

_LEAST, _MOST = -30.0, 20.0
"""Ends of the logarithm of the variance, as in the published code."""


@CODECS.register("kl")
class KL(Learned):
    """Pictures ↔ latents of 1/f of the size, f = 2^(levels − 1): q(z | x) = N(mean, variance).

    The latents are scaling·(mean − shift). In training they are drawn from q, and cost
    KL(q ‖ N(0, 1)), in nats for each number of the picture.

    channels: of pictures; latent: of latents; widths: of the levels, the largest size first;
    blocks: residual blocks in each level of the encoder, one more in the decoder; groups: of the
    norms; scaling, shift: bring latents to unit variance (see `Learned`); attend: attention in the
    middle; attention: down-sampling factors of the levels that attend after every block;
    quantized: a 1-wide convolution on both sides of the latents.
    With widths (128, 256, 512, 512) it has the 83,653,863 parameters of Stable Diffusion's.
    Raises UsageError for no levels, ShapeError for a size that is no multiple of f.
    Reference: Rombach et al. 2022, appendix G.
    """

    def __init__(
        self,
        channels: int = 3,
        latent: int = 4,
        widths: Sequence[int] = (128, 256, 512, 512),
        blocks: int = 2,
        groups: int = 32,
        scaling: float | Literal["measured"] = 0.18215,
        attend: bool = True,
        quantized: bool = True,
        shift: float = 0.0,
        attention: Sequence[int] = (),
    ) -> None:
        plan = Plan(channels, widths, blocks, groups, attend, attention)
        super().__init__(channels, latent, plan.factor, scaling, shift)
        self.depth = blocks + 1
        """Residual blocks in the longest of its levels, those of the decoder."""
        self.encoder = Down(plan, 2 * latent)
        self.decoder = Up(plan, latent)
        self.before = pointwise(2 * latent, 2 * latent, quantized)
        self.after = pointwise(latent, latent, quantized)

    def raw(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]

    def picture(self, raw: Tensor) -> Tensor:
        made: Tensor = self.decoder(self.after(raw))
        return made

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), (B, latent, H/f, W/f) each, not scaled."""
        moments: Tensor = self.before(self.encoder(x))
        mean, log_variance = moments.chunk(2, dim=1)
        return mean, log_variance.clamp(_LEAST, _MOST)

    def passage(self, x: Tensor, noise: Noise) -> Passage:
        mean, log_variance = self.posterior(x)
        drawn = mean + torch.exp(0.5 * log_variance) * noise.normal(mean)
        cost = flat_sum(normal_kl(mean, log_variance, 0.0, 0.0)) / x[0].numel()
        return Passage(self.picture(drawn), cost.to(mean.dtype))

    @property
    def last(self) -> Tensor:
        return self.decoder.leave.weight
