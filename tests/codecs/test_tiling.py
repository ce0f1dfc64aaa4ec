"""Tiles: exact where a codec looks no further than they overlap, and without a seam elsewhere."""

from itertools import product

import pytest
import torch
from interop.foreign import filled
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from fromnoise.codecs import CODECS, Codec
from fromnoise.codecs.tiling import Tiled, starts
from fromnoise.core.errors import UsageError


class Local(Codec):
    """Convolutions alone, which reach two latents on the way in and on the way out."""

    factor = 2

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.into = nn.Parameter(torch.randn(3, 3, 10, 10, generator=generator))
        self.out = nn.Parameter(torch.randn(3, 3, 9, 9, generator=generator))

    def encode(self, x: Tensor) -> Tensor:
        return conv2d(x, self.into, stride=2, padding=4)

    def decode(self, z: Tensor) -> Tensor:
        return conv2d(interpolate(z, scale_factor=2.0), self.out, padding=4)

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (shape[0], shape[1] // 2, shape[2] // 2)


@pytest.mark.parametrize("size", [(40, 56), (38, 64), (16, 90), (50, 50)])
@torch.no_grad()
def test_a_local_codec_is_exact_in_tiles(size: tuple[int, int]) -> None:
    whole = Local()
    tiled = Tiled(whole, tile=16, overlap=8)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    z = whole.encode(x)
    assert (tiled.encode(x) - z).abs().max() < 1e-3
    assert (tiled.decode(z) - whole.decode(z)).abs().max() < 1e-2
    # The control: with an overlap too small for what the codec sees, the edges show.
    narrow = Tiled(whole, tile=16, overlap=4)
    assert (narrow.encode(x) - z).abs().max() > 1.0
    assert (narrow.decode(z) - whole.decode(z)).abs().max() > 1.0


@pytest.mark.parametrize("size", [17, 24, 40, 41, 100])
def test_weights_sum_to_one_and_tiles_cover_the_plane(size: int) -> None:
    tiled = Tiled(Local(), tile=16, overlap=8)
    total = torch.zeros(size)
    for start in starts(size, 16, 8):
        end = min(start + 16, size)
        assert end - start >= 8
        total[start:end] += tiled._weight(start, end, size, 1, torch.zeros(1))
    assert torch.allclose(total, torch.ones(size), atol=1e-6)


@torch.no_grad()
def test_no_seam_where_norms_see_only_a_tile() -> None:
    codec = filled(CODECS.build({
        "kind": "kl", "widths": [8, 8], "groups": 4, "blocks": 1, "latent": 2, "attend": False,
        "scaling": 1.0,
    }))  # fmt: skip
    z = torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(0)).cumsum(3) / 4
    whole = codec.decode(z)
    tiled = Tiled(codec, tile=32, overlap=16).decode(z)
    cut = torch.cat([codec.decode(z[..., :32]), codec.decode(z[..., 32:])], dim=3)

    def seam(made: Tensor) -> float:
        """The steps that differ from the whole's, across the middle, over those elsewhere."""
        steps = ((made - whole)[..., 1:] - (made - whole)[..., :-1]).abs().mean((0, 1, 2))
        return (steps[63] / steps.median()).item()

    assert seam(tiled) < 2.0
    # The control: tiles that do not overlap have an edge.
    assert seam(cut) > 4.0
    # Each pixel is a mean of the tiles over it, so none is further off than the furthest tile.
    furthest = 0.0
    for top, left in product((0, 16, 32), repeat=2):
        tile = codec.decode(z[..., top : top + 32, left : left + 32])
        part = whole[..., 2 * top : 2 * top + 64, 2 * left : 2 * left + 64]
        furthest = max(furthest, (tile - part).abs().max().item())
    assert (tiled - whole).abs().max() <= furthest + 1e-5


@torch.no_grad()
def test_a_small_picture_is_not_cut() -> None:
    whole = Local()
    tiled = Tiled(whole, tile=16, overlap=8)
    z = torch.randn(1, 3, 16, 12)
    assert torch.equal(tiled.decode(z), whole.decode(z))
    assert tiled.latent_shape((3, 32, 24)) == (3, 16, 12) and tiled.factor == 2


@pytest.mark.parametrize(("tile", "overlap"), [(16, 0), (16, 6), (16, 12), (8, 3)])
def test_overlaps_that_cannot_be_are_refused(tile: int, overlap: int) -> None:
    with pytest.raises(UsageError, match="multiple of 4"):
        Tiled(Local(), tile, overlap)
