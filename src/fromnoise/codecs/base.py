"""A codec turns data into what is diffused, and back: pixels as they are, or latents."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fromnoise.codecs.codebook import CODEBOOKS
from fromnoise.core.config import Kinds
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.core.randomness import Noise

CODECS = Kinds("codec", uses=(CODEBOOKS,))
"""Every codec a configuration file can name, by kind."""

MEASURED: Literal["measured"] = "measured"
"""In place of a scale: the codec takes it from data, and keeps it with its weights."""

_LEAST = 1e-6


class Codec(nn.Module, ABC):
    """Data (B, *shape) ↔ latents (B, *latent_shape(shape)). Diffusion sees only the latents.

    factor: pixels of a picture along the side of one latent.
    """

    config: dict[str, Any]
    factor: int = 1

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """The latents of data: pictures (B, C, H, W) in [−1, 1], or points (B, D)."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The data of latents."""

    @abstractmethod
    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one sample's latents, from the shape of one sample's data."""


@CODECS.register("identity")
class Identity(Codec):
    """Pixels as they are: z = x."""

    def __init__(self) -> None:
        super().__init__()

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor) -> Tensor:
        return z

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(shape)


@dataclass(frozen=True)
class Passage:
    """Pictures taken to latents and back, as in training.

    made: the pictures (B, C, H, W) that come back. cost: of each picture's latents (B,), see the
    codec. seen: what the codec is to be told of the whole batch after the step, (B, K), or None.
    """

    made: Tensor
    cost: Tensor
    seen: Tensor | None = None


class Learned(Codec, ABC):
    """A codec of pictures (B, channels, H, W) that is trained: z = scaling·(raw latents − shift).

    channels: of pictures; latent: of latents; factor: sides of pictures are multiples of it.
    scaling, shift: numbers, or with scaling MEASURED one pair for each channel that `measure`
    takes from data, kept with the weights; before, they are 1 and 0. Latents of the data they
    come from then have mean 0 and variance 1 in every channel; most lie in [−4, 4]. Pictures come
    back about in [−1, 1], and are not kept in that range here.
    Raises UsageError for a scaling that is not above 0.
    """

    scale: Tensor | float
    centre: Tensor | float

    def __init__(
        self,
        channels: int,
        latent: int,
        factor: int,
        scaling: float | Literal["measured"],
        shift: float,
    ) -> None:
        super().__init__()
        measured = scaling == MEASURED
        if not measured and not (isinstance(scaling, float | int) and scaling > 0):
            raise UsageError(f"the scaling of latents is {scaling}; use more than 0, or {MEASURED}")
        if measured and shift:
            raise UsageError(f"a {MEASURED} scaling comes with its shift; leave out {shift}")
        self.channels = channels
        self.latent = latent
        self.factor = factor
        if measured:
            self.register_buffer("scale", torch.ones(1, latent, 1, 1))
            self.register_buffer("centre", torch.zeros(1, latent, 1, 1))
        else:
            self.scale, self.centre = float(scaling), float(shift)

    @abstractmethod
    def raw(self, x: Tensor) -> Tensor:
        """The latents of pictures, not scaled."""

    @abstractmethod
    def picture(self, raw: Tensor) -> Tensor:
        """The pictures of latents that are not scaled."""

    @abstractmethod
    def passage(self, x: Tensor, noise: Noise) -> Passage:
        """Pictures to latents and back, as they are trained; `noise` draws what is drawn."""

    @property
    @abstractmethod
    def last(self) -> Tensor:
        """The weight of the decoder's last layer, where adversarial losses are weighed."""

    def start(self, x: Tensor, seed: int) -> None:
        """Called once before training with some of the data (M, ...)."""
        del x, seed

    def seen(self, seen: Tensor, seed: int) -> None:
        """Called after a step with what `passage` told of the whole batch, (B, K)."""
        del seen, seed

    def encode(self, x: Tensor) -> Tensor:
        self.latent_shape(tuple(x.shape[1:]))
        return (self.raw(x) - self.centre) * self.scale

    def decode(self, z: Tensor) -> Tensor:
        return self.picture(z / self.scale + self.centre)

    @torch.no_grad()
    def measure(self, x: Tensor, batch: int = 64) -> None:
        """Take mean and spread of each channel from the latents of x (N, C, H, W), if measured.

        Nothing is done where the scaling is a number.
        """
        if not (isinstance(self.scale, Tensor) and isinstance(self.centre, Tensor)):
            return
        raw = torch.cat([self.raw(part).double() for part in torch.split(x, batch)])
        variance, mean = torch.var_mean(raw, dim=(0, 2, 3), keepdim=True, correction=0)
        self.centre.copy_(mean)
        self.scale.copy_(variance.sqrt().clamp(min=_LEAST).reciprocal())

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 3 or shape[0] != self.channels:
            raise ShapeError(
                f"this codec takes pictures of {self.channels} channels, not samples of {shape}"
            )
        height, width = shape[-2:]
        if height % self.factor or width % self.factor or not height or not width:
            raise ShapeError(
                f"pictures of {height} by {width} have no latents here: each side is a multiple "
                f"of {self.factor}"
            )
        return (self.latent, height // self.factor, width // self.factor)
