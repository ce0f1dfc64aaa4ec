"""An image-text model: pictures and texts as directions, and how well they fit."""

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor

from fromnoise.core.errors import UsageError
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning
from fromnoise.encoders.prompts import escaped
from fromnoise.guidance.noisy_classifier import Reading, matched
from fromnoise.nets.image_text import ImageText
from fromnoise.processes import Process

PROMPT = "prompt"
"""The name of the text in an image-text model."""

CLEAN = (
    "this image-text model was trained on clean pictures only; look at the belief with "
    'through="x0", or train one of noisy pictures (recipe shapes-clip-noisy)'
)


class Opened(Protocol):
    """An image-text model as `fn.load` opens it."""

    denoiser: NetworkDenoiser
    conditioning: Conditioning


class Matcher(Reading):
    """Pictures and texts as directions (B, D), and how well they fit: e^s·cos.

    Trained on pairs, e^s·cos(f(x_t, t), g(c)) is log p(c | x_t) − log p(c) but for a number that is
    the same for all pairs (van den Oord et al. 2018, section 2.3). So its gradient in x_t is that
    of log p(c | x_t), and a model of noisy pictures guides by Bayes' rule at scale 1.

    reader: its network, and how that is told x and t. conditioning: its text encoder.
    Raises UsageError for a network that is no image-text model.
    """

    def __init__(self, reader: NetworkDenoiser, conditioning: Conditioning) -> None:
        super().__init__(reader)
        if not isinstance(reader.net, ImageText):
            raise UsageError(
                f"a {type(reader.net).__name__} does not compare pictures with texts; use a run of "
                "the recipe shapes-clip, or another of its kind"
            )
        if conditioning.names != (PROMPT,):
            raise UsageError(
                f"an image-text model is told a {PROMPT} and nothing else, not "
                f"{', '.join(conditioning.names) or 'nothing'}"
            )
        self.conditioning = conditioning

    @property
    def net(self) -> ImageText:
        """The network: the tower of the pictures, and what brings texts to the same space."""
        return cast(ImageText, self.reader.net)

    @classmethod
    def of(cls, opened: Opened) -> "Matcher":
        """The image-text model of a run that trained one, as `fn.load` opens it."""
        return cls(opened.denoiser, opened.conditioning)

    def pictures(
        self, x: Tensor, t: Tensor | None = None, process: Process | None = None
    ) -> Tensor:
        """The directions (B, D) of pictures x (B, C, H, W), clean, or at t (B,) of a process.

        The process is its own by default; another one's pictures are read at its own time of the
        same σ/α. Raises UsageError for noisy pictures where it was trained on clean ones.
        """
        if t is None:
            t = torch.zeros(len(x), dtype=torch.float64)
        elif not self.net.noisy:
            raise UsageError(CLEAN)
        if process is not None and process is not self.reader.process:
            x, t = matched(x, t, process, self.reader.process)
        reader = self._in(x.dtype)
        like = next(reader.parameters())
        return reader.output(x.to(like), t.to(like.device)).to(x)

    def directions(self, told: Tensor, dtype: torch.dtype) -> Tensor:
        """The directions (N, D) of texts, from their encoder's vectors (N, words)."""
        net = cast(ImageText, self._in(dtype).net)
        return net.texts(told.to(net.log_scale))

    def texts(self, prompts: Sequence[str]) -> Tensor:
        """The directions (N, D) of prompts, with weights and all that a prompt may say."""
        told = self.conditioning({PROMPT: list(prompts)}, len(prompts))
        if told.vector.get(PROMPT) is None:
            raise UsageError(
                "an image-text model compares a text by one vector; give its encoder `pooled`"
            )
        return self.net.texts(told.vector[PROMPT])

    def captions(self, captions: Sequence[str]) -> Tensor:
        """The directions (N, D) of captions, whose brackets and colons are text."""
        return self.texts([escaped(caption) for caption in captions])
