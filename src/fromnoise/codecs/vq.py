"""The autoencoder whose latents are vectors of a codebook: VQ-VAE, and VQGAN with its losses."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from fromnoise.codecs.base import CODECS, Learned, Passage
from fromnoise.codecs.codebook import Codebook
from fromnoise.codecs.convolutional import Down, Plan, Up, pointwise
from fromnoise.core.randomness import Noise


@CODECS.register("vq")
class VQ(Learned):
    """Pictures ↔ latents of 1/f of the size, f = 2^(levels − 1), and those ↔ codes of a codebook.

    Latents are what the encoder finds, scaling·(raw − shift), not yet replaced by vectors of the
    codebook; `decode` replaces them first, which takes off what a diffusion model left of noise
    (Rombach et al. 2022, section 3.1). `codes` and `from_codes` are the discrete side.

    codebook: how latents are replaced; their channels are its width. in_between: channels between
    encoder or decoder and the 1-wide convolution beside the codebook; by default its width.
    The other arguments are those of `KL`. The cost in training is that of the codebook.
    Raises UsageError for no levels, ShapeError for a size that is no multiple of f.
    References: van den Oord et al. 2017 (VQ-VAE); Esser, Rombach & Ommer 2021 (VQGAN).
    """

    def __init__(
        self,
        codebook: Codebook,
        channels: int = 3,
        widths: Sequence[int] = (128, 256, 512),
        blocks: int = 2,
        groups: int = 32,
        scaling: float | Literal["measured"] = 1.0,
        shift: float = 0.0,
        attend: bool = True,
        attention: Sequence[int] = (),
        in_between: int | None = None,
    ) -> None:
        plan = Plan(channels, widths, blocks, groups, attend, attention)
        super().__init__(channels, codebook.width, plan.factor, scaling, shift)
        self.depth = blocks + 1
        """Residual blocks in the longest of its levels, those of the decoder."""
        inner = codebook.width if in_between is None else in_between
        self.encoder = Down(plan, inner)
        self.decoder = Up(plan, inner)
        self.before = pointwise(inner, codebook.width)
        self.after = pointwise(codebook.width, inner)
        self.codebook = codebook

    def raw(self, x: Tensor) -> Tensor:
        found: Tensor = self.before(self.encoder(x))
        return found

    def picture(self, raw: Tensor) -> Tensor:
        return self._made(self.codebook(raw).vectors)

    def codes(self, x: Tensor) -> Tensor:
        """The codes (B, H/f, W/f) of pictures, int64 from 0 to size − 1."""
        self.latent_shape(tuple(x.shape[1:]))
        return self.codebook.codes(self.raw(x))

    def from_codes(self, codes: Tensor) -> Tensor:
        """The pictures of codes (B, h, w). UsageError for a code there is not."""
        return self._made(self.codebook.look_up(codes).to(self.last.dtype))

    def latents(self, codes: Tensor) -> Tensor:
        """The latents (B, latent, h, w), scaled, that codes (B, h, w) stand for."""
        return (self.codebook.look_up(codes) - self.centre) * self.scale

    def to_codes(self, z: Tensor) -> Tensor:
        """The codes (B, h, w) of latents (B, latent, h, w), scaled: the nearest of each."""
        return self.codebook.codes(z / self.scale + self.centre)

    def passage(self, x: Tensor, noise: Noise) -> Passage:
        raw = self.raw(x)
        with torch.autocast(x.device.type, enabled=False):
            found = self.codebook(raw)
        seen = raw.detach().flatten(1)
        return Passage(self._made(found.vectors), found.cost, seen)

    def start(self, x: Tensor, seed: int) -> None:
        with torch.no_grad():
            self.codebook.start(self.raw(x), seed)

    def seen(self, seen: Tensor, seed: int) -> None:
        self.codebook.seen(seen.reshape(len(seen), self.latent, -1).mT.flatten(0, 1), seed)

    @property
    def last(self) -> Tensor:
        return self.decoder.leave.weight

    def _made(self, vectors: Tensor) -> Tensor:
        made: Tensor = self.decoder(self.after(vectors))
        return made
