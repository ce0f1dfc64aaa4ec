"""The autoencoder of latent diffusion: its published count, and diffusers' with its weights."""

import diffusers
import pytest
import torch
from interop.foreign import filled

from fromnoise.codecs import CODECS, KL
from fromnoise.core.errors import FileError, ShapeError
from fromnoise.interop.kl_keys import config, settings, to_diffusers, to_ours

THEIRS = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "scaling_factor": 0.3,
}
ATTENDING = {
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"),
}
CASES = [
    {},
    ATTENDING,
    {"mid_block_add_attention": False},
    {"use_quant_conv": False, "use_post_quant_conv": False},
]


def pair(**changes: object) -> tuple[diffusers.AutoencoderKL, KL]:
    theirs = filled(diffusers.AutoencoderKL(**THEIRS | changes))
    ours = CODECS.build(config(theirs.config, "config.json")).eval()
    ours.load_state_dict(to_ours(theirs.state_dict(), ours))
    return theirs, ours


def test_the_published_count() -> None:
    with torch.device("meta"):
        codec = CODECS.build({"kind": "kl"})
    assert sum(value.numel() for value in codec.parameters()) == 83_653_863
    assert codec.latent_shape((3, 512, 256)) == (4, 64, 32)


@pytest.mark.parametrize("changes", CASES)
@torch.no_grad()
def test_follows_diffusers(changes: dict[str, object]) -> None:
    theirs, ours = pair(**changes)
    x = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    z = torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(2))
    mean, made = theirs.encode(x).latent_dist.mean, theirs.decode(z).sample
    assert mean.std() > 0.1 and made.std() > 0.1
    assert (ours.encode(x) / 0.3 - mean).abs().max() < 1e-5 * mean.abs().max()
    assert (ours.decode(z * 0.3) - made).abs().max() < 1e-5 * made.abs().max()
    assert ours.encode(x).shape[1:] == ours.latent_shape((3, 16, 24))


@pytest.mark.parametrize("changes", CASES)
def test_weights_come_back_bit_for_bit(changes: dict[str, object]) -> None:
    theirs, ours = pair(**changes)
    state = theirs.state_dict()
    back = to_diffusers(ours.state_dict(), ours)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert config(settings(ours.config), "x") == ours.config


def test_every_parameter_gets_a_gradient() -> None:
    _, codec = pair()
    x = torch.randn(1, 3, 8, 8)
    codec.decode(codec.encode(x)).square().sum().backward()
    missing = [name for name, value in codec.named_parameters() if value.grad is None]
    assert missing == []


def test_what_does_not_fit_is_refused() -> None:
    codec = CODECS.build({"kind": "kl", "widths": [4, 8], "groups": 4})
    with pytest.raises(ShapeError, match="multiple of 2"):
        codec.latent_shape((3, 7, 8))
    with pytest.raises(FileError, match="latents_mean"):
        config({"latents_mean": [0.1]}, "config.json")
    with pytest.raises(FileError, match="mirror"):
        config({**THEIRS, "down_block_types": ATTENDING["down_block_types"]}, "config.json")


def test_a_shift_is_taken_off_before_scaling() -> None:
    _, plain = pair()
    _, shifted = pair(shift_factor=0.25)
    shifted.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        z = plain.encode(x)
        assert torch.allclose(shifted.encode(x), z - 0.25 * 0.3, atol=1e-6)
        assert torch.allclose(shifted.decode(z - 0.25 * 0.3), plain.decode(z), atol=1e-5)
