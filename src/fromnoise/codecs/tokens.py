"""Pictures as codes of a codebook, each of them a vector with a single one."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from fromnoise.codecs.base import CODECS, Codec
from fromnoise.codecs.vq import VQ
from fromnoise.core.errors import UsageError


@CODECS.register("tokens")
class Tokens(Codec):
    """Pictures ↔ codes of `codec` as one-hot vectors (B, K, h, w), K the size of its codebook.

    `decode` takes the code with the largest number, so that one-hot vectors, probabilities and
    logits are all pictures. A token that is zero in all of them is masked: it is shown as the code
    nearest to the mean of the codebook.
    Raises UsageError for a codec without a codebook.
    """

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        if not isinstance(codec, VQ):
            raise UsageError(
                f"a {type(codec).__name__} codec has no codebook, so pictures are no tokens to it; "
                "train one with `fromnoise train shapes-vq`"
            )
        self.codec = codec
        self.latent = codec.codebook.size
        self.channels, self.factor = codec.channels, codec.factor

    def encode(self, x: Tensor) -> Tensor:
        return self.tokens(self.codec.codes(x)).to(x.dtype)

    def tokens(self, codes: Tensor) -> Tensor:
        """Codes (B, h, w) as one-hot vectors (B, K, h, w), float32."""
        return one_hot(codes, self.latent).movedim(-1, 1).float()

    def of_latents(self, z: Tensor) -> Tensor:
        """One-hot vectors of its codec's latents (B, latent, h, w), as `data encode` keeps them."""
        return self.tokens(self.codec.to_codes(z)).to(z.dtype)

    def decode(self, z: Tensor) -> Tensor:
        masked = (z == 0).all(1)
        return self.codec.from_codes(torch.where(masked, self._blank(), z.argmax(1)))

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.latent, *self.codec.latent_shape(shape)[1:])

    def _blank(self) -> Tensor:
        mean = self.codec.codebook.vectors.mean(0)[None, :, None, None]
        return self.codec.codebook.codes(mean)
