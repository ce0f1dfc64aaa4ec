import pytest
import torch
from diffusers.models.downsampling import FirDownsample2D, downsample_2d
from diffusers.models.upsampling import upsample_2d
from torch.nn import functional as F

from fromnoise.core.errors import UsageError
from fromnoise.layers.init import xavier_
from fromnoise.layers.resample import (
    Downsample,
    FilteredDownsample,
    ShuffleUpsample,
    convolution,
    doubled,
    halved,
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


@pytest.mark.parametrize("by", ["box", "fir"])
@pytest.mark.parametrize("dims", SPACES)
def test_doubling_is_the_adjoint_of_halving_times_the_new_cells(dims, by):
    small = torch.randn(2, 3, *SPACES[dims], dtype=torch.float64)
    wide = torch.randn(2, 3, *(2 * size for size in SPACES[dims]), dtype=torch.float64)
    left = (halved(wide, by) * small).sum()
    right = (wide * doubled(small, by)).sum() / 2**dims
    torch.testing.assert_close(left, right, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dims", SPACES)
def test_the_filter_keeps_what_is_constant_away_from_the_border(dims):
    inside = (slice(None), slice(None), *(slice(1, -1),) * dims)
    x = torch.ones(1, 2, *(6,) * dims, dtype=torch.float64)
    for change in (halved, doubled):
        result = change(x, "fir")
        torch.testing.assert_close(result[inside], torch.ones_like(result)[inside])
        assert result.min() < 0.95


def test_the_filter_follows_diffusers():
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    taps = (1, 3, 3, 1)
    torch.testing.assert_close(halved(x, "fir"), downsample_2d(x, taps), atol=1e-14, rtol=0)
    torch.testing.assert_close(doubled(x, "fir"), upsample_2d(x, taps), atol=1e-14, rtol=0)
    theirs = FirDownsample2D(3, 5, use_conv=True).double()
    ours = FilteredDownsample(2, 3, 5).double()
    ours.conv.load_state_dict(theirs.Conv2d_0.state_dict())
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-14, rtol=0)
