"""The VQ autoencoder: diffusers' `VQModel` with its weights, and codes to pictures and back."""

import diffusers
import pytest
import torch
from interop.foreign import filled

from fromnoise.codecs import CODECS, VQ
from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.randomness import Noise
from fromnoise.interop.vq_keys import config, settings, to_diffusers, to_ours

THEIRS = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 2,
    "latent_channels": 3,
    "num_vq_embeddings": 64,
    "norm_num_groups": 4,
    "scaling_factor": 0.3,
}
CASES = [
    {},
    {"mid_block_add_attention": False},
    {"vq_embed_dim": 5},
    {
        "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"),
    },
]


def pair(**changes: object) -> tuple[diffusers.VQModel, VQ]:
    theirs = filled(diffusers.VQModel(**THEIRS | changes))
    ours = CODECS.build(config(theirs.config, "config.json")).eval()
    ours.load_state_dict(to_ours(theirs.state_dict(), ours))
    return theirs, ours


@pytest.mark.parametrize("changes", CASES)
@torch.no_grad()
def test_follows_diffusers(changes: dict[str, object]) -> None:
    theirs, ours = pair(**changes)
    x = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    raw = theirs.encode(x).latents
    assert raw.std() > 0.1
    assert (ours.encode(x) / 0.3 - raw).abs().max() < 1e-5 * raw.abs().max()
    codes = theirs.quantize(raw)[2][2].reshape(2, 4, 6)
    assert torch.equal(ours.codes(x), codes) and len(codes.unique()) > 3
    made = theirs.decode(raw).sample
    assert made.std() > 0.1
    for again in (ours.decode(raw * 0.3), ours.from_codes(codes)):
        assert (again - made).abs().max() < 2e-5 * made.abs().max()


@pytest.mark.parametrize("changes", CASES)
def test_weights_come_back_bit_for_bit(changes: dict[str, object]) -> None:
    theirs, ours = pair(**changes)
    state = theirs.state_dict()
    back = to_diffusers(ours.state_dict(), ours)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    assert CODECS.build(config(settings(ours.config), "x")).config == ours.config
    diffusers.VQModel(**{k: v for k, v in settings(ours.config).items() if k[0] != "_"})


@torch.no_grad()
def test_codes_latents_and_pictures_agree() -> None:
    _, ours = pair()
    codes = torch.randint(64, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    latents = ours.latents(codes)
    assert torch.equal(ours.to_codes(latents), codes)
    assert torch.allclose(ours.decode(latents), ours.from_codes(codes), atol=1e-5)
    # What is near a vector is decoded as that vector: it cleans what a diffusion model leaves.
    near = ours.decode(latents + 1e-5)
    assert torch.allclose(near, ours.from_codes(codes), atol=1e-5)


def test_training_reaches_every_parameter_and_shows_the_codebook_the_batch() -> None:
    codec = CODECS.build({
        "kind": "vq", "codebook": {"kind": "gradient", "size": 8, "width": 2}, "widths": [4, 8],
        "groups": 4, "blocks": 1,
    })  # fmt: skip
    passage = codec.passage(torch.randn(3, 3, 8, 8), Noise([0, 1, 2]))
    (passage.made.square().sum() + passage.cost.sum()).backward()
    assert [n for n, p in codec.named_parameters() if p.grad is None] == []
    assert passage.seen is not None and passage.seen.shape == (3, 2 * 4 * 4)
    codec.codebook.decay = 0.0
    codec.seen(passage.seen, seed=0)
    codes = codec.codebook.codes(passage.seen.reshape(3, 2, 4, 4))
    times = torch.bincount(codes.reshape(-1), minlength=8)
    assert torch.allclose(codec.codebook.met, times * 8 / 48)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(FileError, match="spatial"):
        config({**THEIRS, "norm_type": "spatial"}, "config.json")
    _, ours = pair()
    with pytest.raises(UsageError, match="no shift"):
        settings({**ours.config, "shift": 0.5})
    with pytest.raises(UsageError, match="measured for each channel"):
        settings({**ours.config, "scaling": "measured"})
