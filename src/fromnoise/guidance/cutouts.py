"""Random parts of a picture: what survives being cut out is seen, and what does not is a trick."""

import struct
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fromnoise.core.errors import UsageError
from fromnoise.core.randomness import Noise


@dataclass(frozen=True)
class Cutouts:
    """Square cut-outs at random, each brought to the size the image-text model reads.

    A side is `least` to 1 of the picture's shorter side, u^power of the way from `least`, u
    uniform, and the place is uniform where it fits. They are drawn from the time and `seed`: the
    same at each visit of a time, others at the next one, and a sample's do not depend on its
    neighbours.

    count: how many; 0 shows the picture whole. Many small changes that please the model without
    being seen do not survive being cut out and scaled, so that pictures stay pictures.
    Raises UsageError for a count or a share that cannot be.
    Reference: Crowson 2021 ("CLIP guided diffusion").
    """

    count: int = 16
    least: float = 0.5
    power: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 0 or not 0 < self.least <= 1 or not self.power > 0 or self.seed < 0:
            raise UsageError(
                f"{self.count} cut-outs of at least {self.least} of a side, power {self.power}, "
                f"seed {self.seed}; use 0 or more, a share of 1, more than 0, and 0 or more"
            )

    def boxes(self, t: float, height: int, width: int) -> list[tuple[int, int, int]]:
        """(top, left, side) of each cut-out at a time, in pixels."""
        (bits,) = struct.unpack("<Q", struct.pack("<d", t))
        drawn = Noise((bits ^ (self.seed * 0x9E3779B97F4A7C15)) % 2**63, 1)
        uniform = drawn.uniform(torch.empty(1, self.count, 3, dtype=torch.float64))[0]
        short, found = min(height, width), []
        for share, down, across in uniform.tolist():
            side = max(1, round(short * (self.least + (1 - self.least) * share**self.power)))
            top, left = int(down * (height - side + 1)), int(across * (width - side + 1))
            found.append((top, left, side))
        return found

    def __call__(self, pictures: Tensor, t: float, size: int) -> Tensor:
        """Cut-outs (count, B, C, size, size) of pictures (B, C, H, W) at one time."""
        height, width = pictures.shape[2:]
        whole = [(slice(None), slice(None))]
        cut = [(slice(a, a + s), slice(b, b + s)) for a, b, s in self.boxes(t, height, width)]
        parts = [pictures[:, :, rows, columns] for rows, columns in cut or whole]
        return torch.stack([_sized(part, size) for part in parts])


WHOLE = Cutouts(count=0)
"""The picture as it is, brought to the size of the image-text model."""


def _sized(pictures: Tensor, size: int) -> Tensor:
    if tuple(pictures.shape[2:]) == (size, size):
        return pictures
    return interpolate(pictures, (size, size), mode="bilinear", antialias=True)
