"""What samples are becoming, for a look: beliefs as pictures at next to no cost."""

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import interpolate

from fromnoise.codecs import Learned
from fromnoise.codecs.preview import Preview, fit_to_decoder

if TYPE_CHECKING:
    from fromnoise.model.model import Model

SHARE = 0.6
"""Of the variance of what the decoder makes, the least that a line has to explain."""


class Previews:
    """Beliefs of one run as pictures: latents by a straight line for each colour.

    The line is fitted when it is first asked for, to what the decoder makes of a little noise.
    Where it explains less than SHARE of that, and where latents are no numbers that a line could
    read (tokens), beliefs are decoded.

    dtype: of the run, for the decoder.
    """

    def __init__(self, model: "Model", dtype: str = "auto") -> None:
        self._model, self._dtype = model, dtype
        self._fitted: Preview | None = None

    def __call__(self, x: Tensor, side: int | None = None) -> Tensor:
        """Pictures (B, C, H, W) in [−1, 1], or points, of beliefs x.

        side: pixels along the longest side, at most; by default that of the samples. Between
        latents the colours of the line run evenly.
        """
        if x.ndim != 4:
            return self._model.decode(x, self._dtype)
        line, longest = self._line(), max(x.shape[2:])
        factor = self._model.codec.factor
        wanted = factor * longest if side is None else min(side, factor * longest)
        if line is None:
            # Latents made smaller decode to a smaller picture, in a fraction of the time.
            return self._model.decode(_shrunk(x.float(), wanted // factor), self._dtype)
        small = line(_shrunk(x.float(), wanted))
        return interpolate(small, scale_factor=max(1, wanted // longest), mode="bilinear")

    def _line(self) -> Preview | None:
        codec = self._model.codec
        if not isinstance(codec, Learned):
            return None
        if self._fitted is None:
            self._fitted = fit_to_decoder(
                codec.latent, codec.factor, lambda z: self._model.decode(z, self._dtype)
            )
        return self._fitted if self._fitted.share >= SHARE else None


def _shrunk(x: Tensor, longest: int) -> Tensor:
    """Maps (B, C, h, w) whose longest side is at most so long."""
    now = max(x.shape[2:])
    return x if now <= longest else interpolate(x, scale_factor=longest / now, mode="area")
