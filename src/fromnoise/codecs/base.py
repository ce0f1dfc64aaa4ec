"""A codec turns data into what is diffused, and back: pixels as they are, or latents."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from fromnoise.core.config import Kinds

CODECS = Kinds("codec")
"""Every codec a configuration file can name, by kind."""


class Codec(nn.Module, ABC):
    """Data (B, *shape) ↔ latents (B, *latent_shape(shape)). Diffusion sees only the latents."""

    config: dict[str, Any]

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
