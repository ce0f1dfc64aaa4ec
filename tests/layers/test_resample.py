import pytest
import torch
from torch.nn import functional as F

from fromnoise.core.errors import UsageError
from fromnoise.layers.init import xavier_
from fromnoise.layers.resample import (
    Downsample,
    ShuffleUpsample,
    convolution,
    pixel_shuffle,
    pixel_unshuffle,
)

SPACES = {1: (6,), 2: (4, 6), 3: (2, 4, 6)}
CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@pytest.mark.parametrize("dims", SPACES)
def test_icnr_starts_as_nearest_upsampling_of_the_small_convolution(dims):
    layer = ShuffleUpsample(dims, 5).double()
    x = torch.randn(2, 5, *SPACES[dims], dtype=torch.float64)
    small = CONVOLVE[dims](x, layer.conv.weight[:: 2**dims], padding=1)
    nearest = F.interpolate(small, scale_factor=2, mode="nearest")
    torch.testing.assert_close(layer(x), nearest, atol=1e-12, rtol=0)
    xavier_(layer)
    assert (layer(x) - F.interpolate(small, scale_factor=2, mode="nearest")).abs().max() > 0.1


@pytest.mark.parametrize("dims", SPACES)
def test_pixel_shuffle_and_its_inverse(dims):
    x = torch.randn(2, 3 * 2**dims, *SPACES[dims])
    wide = pixel_shuffle(x, dims)
    assert wide.shape == (2, 3, *(2 * size for size in SPACES[dims]))
    assert torch.equal(pixel_unshuffle(wide, dims), x)


def test_in_two_dimensions_it_is_torchs():
    x = torch.randn(2, 12, 3, 5)
    assert torch.equal(pixel_shuffle(x, 2), F.pixel_shuffle(x, 2))
    wide = torch.randn(2, 3, 4, 6)
    assert torch.equal(pixel_unshuffle(wide, 2), F.pixel_unshuffle(wide, 2))


@pytest.mark.parametrize("dims", SPACES)
def test_asymmetric_downsampling_looks_one_step_further(dims):
    layer = Downsample(dims, 2, "asymmetric").double()
    x = torch.randn(1, 2, *SPACES[dims], dtype=torch.float64)
    padded = F.pad(x, (0, 1) * dims)
    expected = CONVOLVE[dims](padded, layer.conv.weight, layer.conv.bias, stride=2)
    assert torch.equal(layer(x), expected)
    assert layer(x).shape[2:] == tuple(size // 2 for size in SPACES[dims])
    assert Downsample(dims, 2).double()(x).shape == layer(x).shape


def test_dimensions_that_cannot_be():
    with pytest.raises(UsageError, match="not 4"):
        convolution(4, 1, 1)
