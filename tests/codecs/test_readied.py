"""A codec readied for drawing decodes as the codec does, and what overflows is decoded anew."""

import pytest
import torch
from torch import nn

from fromnoise import codecs
from fromnoise.codecs.codebook import Gradient
from fromnoise.codecs.finite import decode_finite
from fromnoise.codecs.readied import readied
from fromnoise.codecs.tiling import Tiled
from fromnoise.core.errors import NumberError


def small(kind: str = "kl") -> codecs.Codec:
    torch.manual_seed(0)
    if kind == "vq":
        codec: codecs.Codec = codecs.VQ(Gradient(16, 4), widths=(32, 64))
    else:
        codec = codecs.KL(widths=(32, 128, 128), blocks=1)
    for parameter in codec.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return codec.eval()


def latents(side: int = 8) -> torch.Tensor:
    return torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(1))


def distance(got: torch.Tensor, expected: torch.Tensor) -> float:
    return ((got.double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.mark.parametrize("kind", ["kl", "vq", "tiled"])
@torch.no_grad()
def test_the_same_pictures(kind):
    codec = Tiled(small(), tile=8, overlap=4) if kind == "tiled" else small(kind)
    z = latents(12)
    expected = codec.decode(z)
    exact, report = readied(codec, torch.float32)
    if report is None or "plain" in report:
        pytest.skip(str(report))
    assert report["kernels"]["PackedConvolution"] > 1
    assert distance(exact.decode(z), expected) < 5e-6
    quick, _ = readied(codec, torch.bfloat16)
    got = quick.decode(z)
    assert got.dtype == torch.float32
    assert 1e-4 < distance(got, expected) < 2e-2
    assert torch.equal(codec.decode(z), expected), "the codec itself is as it was"


def test_weights_are_shared_in_float32_and_pictures_are_encoded_as_before():
    codec = small()
    quick, _ = readied(codec, torch.bfloat16)
    assert quick.encoder.enter.weight is codec.encoder.enter.weight
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(quick.encode(x), codec.encode(x))


def test_what_has_no_decoder_is_left():
    assert readied(codecs.Identity(), torch.float32)[1] is None


@torch.no_grad()
def test_a_quick_copy_that_overflows_is_not_believed():
    codec, z = small(), latents()
    quick, _ = readied(codec, torch.bfloat16)
    assert torch.equal(decode_finite(codec, z, quick), quick.decode(z))
    broken, _ = readied(codec, torch.bfloat16)
    broken.decoder.norm.bias.data.fill_(torch.inf)
    assert not torch.isfinite(broken.decode(z)).all()
    # norm is shared with the codec, as float32 norms are: give the codec its own again.
    codec = small()
    assert torch.equal(decode_finite(codec, z, broken), codec.decode(z))
    codec.decoder.leave.bias.data.fill_(torch.inf)
    with pytest.raises(NumberError, match="overflow even in float32"):
        decode_finite(codec, z, broken)
