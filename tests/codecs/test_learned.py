"""What trained codecs share: measured scales, the normal latents' cost, previews, overflow."""

from typing import Any

import pytest
import torch
from interop.foreign import filled
from torch import Tensor, nn

from fromnoise.codecs import CODECS, Codec, Learned, Passage
from fromnoise.codecs.finite import decode_finite
from fromnoise.codecs.preview import fit_preview
from fromnoise.core.errors import NumberError, ShapeError
from fromnoise.core.randomness import FixedNoise, Noise

KL: dict[str, Any] = {"kind": "kl", "widths": [4, 8], "groups": 4, "blocks": 1, "latent": 3}


def kl(**changes: Any) -> Learned:
    torch.manual_seed(0)
    return filled(CODECS.build({**KL, **changes}))


@torch.no_grad()
def test_measured_latents_have_mean_0_and_variance_1_in_each_channel() -> None:
    codec, plain = kl(scaling="measured"), kl(scaling=1.0)
    x = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = codec.encode(x)
    assert torch.equal(before, plain.encode(x))
    codec.measure(x, batch=7)
    z = codec.encode(x).double()
    variance, mean = torch.var_mean(z, dim=(0, 2, 3), correction=0)
    assert mean.abs().max() < 1e-5 and (variance - 1).abs().max() < 1e-4
    # A codec of one's own is not changed by where its latents are moved to.
    assert torch.allclose(codec.decode(codec.encode(x)), plain.decode(plain.encode(x)), atol=1e-4)
    again = kl(scaling="measured")
    again.load_state_dict(codec.state_dict())
    assert torch.equal(again.encode(x), codec.encode(x))
    constant = plain.encode(x)
    plain.measure(x)
    assert torch.equal(plain.encode(x), constant)


def test_the_cost_is_the_divergence_for_each_number_of_the_picture() -> None:
    codec = kl()
    x, noise = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 4, 4)
    passage = codec.passage(x, FixedNoise([noise]))
    mean, log_variance = codec.posterior(x)
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    wanted = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
    assert torch.allclose(passage.cost, wanted.flatten(1).sum(1) / (3 * 8 * 8), rtol=1e-4)
    drawn = mean + (0.5 * log_variance).exp() * noise
    assert torch.allclose(passage.made, codec.picture(drawn), atol=1e-5)


class Linear(Learned):
    """Latents that are a straight map of the mean colour: the preview is exact."""

    def __init__(self) -> None:
        super().__init__(3, 4, 2, 0.5, 0.1)
        self.map = nn.Parameter(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))

    def raw(self, x: Tensor) -> Tensor:
        small = nn.functional.avg_pool2d(x, 2)
        return torch.einsum("lc,bchw->blhw", self.map, small) + 0.3

    def picture(self, raw: Tensor) -> Tensor:
        raise NotImplementedError

    def passage(self, x: Tensor, noise: Noise) -> Passage:
        raise NotImplementedError

    @property
    def last(self) -> Tensor:
        return self.map


@torch.no_grad()
def test_the_preview_of_a_linear_codec_is_the_small_picture() -> None:
    codec = Linear()
    x = torch.rand(12, 3, 8, 6, generator=torch.Generator().manual_seed(1)) * 2 - 1
    preview = fit_preview(codec, x, batch=5)
    fresh = torch.rand(2, 3, 8, 6) * 2 - 1
    small = nn.functional.avg_pool2d(fresh, 2)
    assert (preview(codec.encode(fresh)) - small).abs().max() < 1e-4
    assert preview.share > 0.9999
    assert preview(codec.encode(fresh), factor=2).shape == fresh.shape
    # The control: latents that say nothing of the colours explain nothing.
    blind = kl()
    with torch.no_grad():
        blind.before.weight.zero_()
    assert fit_preview(blind, x).share < 0.2
    with pytest.raises(ShapeError, match="latents"):
        preview(torch.zeros(1, 3, 4, 4))


class Loud(Codec):
    """A decoder whose numbers are beyond half precision within, and sound in float32."""

    def __init__(self, factor: float = 1e4, dtype: torch.dtype = torch.float16) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), factor, dtype=dtype))

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor) -> Tensor:
        return (z * self.weight) * self.weight / self.weight / self.weight

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape


def test_an_overflow_is_decoded_again_in_float32_and_never_shown() -> None:
    z = torch.rand(1, 3, 4, 4)
    loud = Loud()
    assert not torch.isfinite(loud.decode(z.half())).all()
    made = decode_finite(loud, z)
    assert made.dtype == torch.float32 and torch.allclose(made, z, rtol=1e-3)
    assert loud.weight.dtype == torch.float16
    quiet = decode_finite(Loud(2.0), z)
    assert quiet.dtype == torch.float32 and torch.allclose(quiet, z, atol=1e-2)


def test_what_float32_cannot_save_is_an_error() -> None:
    z = torch.rand(1, 3, 4, 4)
    for codec in (Loud(1e30, torch.float32), Loud(float("nan"))):
        with pytest.raises(NumberError, match="even in float32"):
            decode_finite(codec, z)
    with pytest.raises(NumberError, match="latents are not finite"):
        decode_finite(Loud(1.0), z * torch.inf)
