"""Large pictures through a codec in tiles that overlap, so that memory does not grow with them."""

from collections.abc import Callable

import torch
from torch import Tensor

from fromnoise.codecs.base import Codec
from fromnoise.core.errors import UsageError


class Tiled(Codec):
    """Another codec, tile by tile where a picture is larger than one tile.

    Every latent, and every pixel, is a mean of what the tiles over it say, with weights that sum to
    1 (to rounding): 0 in the quarter of an overlap next to a tile's edge, where zeros stand in for
    what lies outside, then rising straight over half of it. So

    - what a codec computes from places no further away than a quarter of the overlap is exact, and
      the result is that of the whole, to rounding;
    - no pixel is further from the whole than the furthest tile over it, and there is no seam: from
      one tile to the next the weights change by at most 2/overlap from one latent to the next.

    What is left is that group norms and attention in the middle see a tile in place of the whole:
    with a trained codec, tile by tile differences of tone, blended. docs/autoencoders.md has it
    measured.

    tile, overlap: in latents; overlap is a multiple of 4 and at most half a tile.
    Raises UsageError for others.
    """

    def __init__(self, codec: Codec, tile: int = 64, overlap: int = 16) -> None:
        super().__init__()
        if overlap < 4 or overlap % 4 or 2 * overlap > tile:
            raise UsageError(
                f"tiles of {tile} latents cannot overlap by {overlap}; use a multiple of 4 from 4 "
                "to half a tile"
            )
        self.codec = codec
        self.factor = codec.factor
        self.tile = tile
        self.overlap = overlap

    def encode(self, x: Tensor) -> Tensor:
        _, height, width = self.latent_shape(tuple(x.shape[1:]))
        return self._over(x, (height, width), self.codec.encode, self.factor, 1)

    def decode(self, z: Tensor) -> Tensor:
        return self._over(z, (z.shape[-2], z.shape[-1]), self.codec.decode, 1, self.factor)

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self.codec.latent_shape(shape)

    def _over(
        self,
        x: Tensor,
        size: tuple[int, int],
        compute: Callable[[Tensor], Tensor],
        inside: int,
        outside: int,
    ) -> Tensor:
        """compute(x) by tiles of a plane of `size` latents.

        inside, outside: values of x and of the answer along the side of one latent.
        """
        if max(size) <= self.tile:
            return compute(x)
        rows, columns = (starts(length, self.tile, self.overlap) for length in size)
        total: Tensor | None = None
        for top in rows:
            for left in columns:
                ends = [min(a + self.tile, n) for a, n in zip((top, left), size, strict=True)]
                cut = x[..., top * inside : ends[0] * inside, left * inside : ends[1] * inside]
                made = compute(cut)
                down, across = (
                    self._weight(a, b, n, outside, made)
                    for a, b, n in zip((top, left), ends, size, strict=True)
                )
                if total is None:
                    shape = (*made.shape[:2], *(n * outside for n in size))
                    total = made.new_zeros(shape)
                total[
                    ..., top * outside : ends[0] * outside, left * outside : ends[1] * outside
                ] += made * down[:, None] * across
        assert total is not None
        return total

    def _weight(self, start: int, end: int, size: int, scale: int, like: Tensor) -> Tensor:
        """The weights of a tile along one side, (end − start)·scale values."""
        weight = torch.ones((end - start) * scale, dtype=torch.float64)
        still, rising = self.overlap // 4 * scale, self.overlap // 2 * scale
        ramp = (torch.arange(rising, dtype=torch.float64) + 0.5) / rising
        edge = torch.cat([torch.zeros(still), ramp, torch.ones(still)])
        if start > 0:
            weight[: len(edge)] *= edge
        if end < size:
            weight[-len(edge) :] *= edge.flip(0)
        return weight.to(like)


def tiled(codec: Codec, tile: int) -> Codec:
    """A codec in tiles of so many latents that overlap by a quarter; itself where tile is 0.

    Raises UsageError for 1 to 7.
    """
    return Tiled(codec, tile, max(4, tile // 16 * 4)) if tile else codec


def starts(size: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin, so that each overlaps the next by `overlap` and the last ends at `size`.

    The last is as long as what is left, between the overlap and a whole tile.
    """
    step = tile - overlap
    found = [0]
    while found[-1] + tile < size:
        found.append(found[-1] + step)
    return found
