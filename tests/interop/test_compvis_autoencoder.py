"""Autoencoders in the layout of latent diffusion, against diffusers' own conversion."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from interop.foreign import filled
from torch import Tensor, nn

from fromnoise.codecs import CODECS, KL
from fromnoise.codecs.presets import PRESETS, build
from fromnoise.codecs.vq import VQ
from fromnoise.core.errors import FileError
from fromnoise.interop import kl_keys
from fromnoise.interop.compvis_autoencoder import (
    PREFIX,
    autoencoder_config,
    autoencoder_to_compvis,
    autoencoder_to_ours,
    autoencoder_weights,
)

TINY: dict[str, Any] = {"kind": "kl", "widths": [32, 32, 64], "blocks": 1, "scaling": 0.5}
KINDS = {
    "middle": TINY,
    "no attention": TINY | {"attend": False},
    "no convolution of the latents": TINY | {"quantized": False},
    "levels": TINY | {"attention": [2, 4]},
}


def made(config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    return filled(CODECS.build(config))


@pytest.mark.parametrize("kind", ["middle", "no attention"])
def test_the_way_through_diffusers_is_the_same(kind: str) -> None:
    codec: KL = made(KINDS[kind])
    file = autoencoder_to_compvis(codec.state_dict(), codec)
    settings = kl_keys.settings(codec.config)
    theirs = convert_ldm_vae_checkpoint(dict(file), settings)
    expected = kl_keys.to_diffusers(codec.state_dict(), codec)
    assert theirs.keys() == expected.keys()
    assert all(torch.equal(theirs[name], expected[name]) for name in expected)
    opened = AutoencoderKL.from_config(settings)
    opened.load_state_dict(theirs)
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        mean = opened.eval().encode(x).latent_dist.mean
        torch.testing.assert_close(codec.posterior(x)[0], mean, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_comes_back_and_says_what_it_is(kind: str) -> None:
    codec: KL = made(KINDS[kind])
    state = codec.state_dict()
    file = autoencoder_to_compvis(state, codec)
    for beside in (file, {name.removeprefix(PREFIX): file[name] for name in file}):
        found = autoencoder_weights(beside | {"loss.logvar": torch.zeros(())}, "a file")
        config = autoencoder_config(found, "a file", 0.5)
        assert CODECS.build(config).config == codec.config
        ours = autoencoder_to_ours(found, codec)
        assert ours.keys() == state.keys()
        assert all(torch.equal(ours[name], state[name]) for name in state)
    again = autoencoder_to_compvis(ours, codec)
    assert all(torch.equal(again[name], file[name]) for name in file)


@pytest.mark.parametrize("name", ["kl-f8", "kl-f16", "vq-f4", "vq-f8", "vq-f4-noattn"])
def test_published_autoencoders_are_told_from_their_weights(name: str) -> None:
    codec = build(name, device="meta")
    assert isinstance(codec, KL | VQ)
    file = autoencoder_to_compvis(codec.state_dict(), codec)
    config = autoencoder_config(autoencoder_weights(file, name), name, codec.config["scaling"])
    assert CODECS.build(PRESETS[name] | config).config == codec.config
    assert len(file) == sum("codebook" not in key for key in codec.state_dict()) + (
        name.startswith("vq")
    )


NAMES = set(
    """
encoder.conv_in encoder.down.0.block.0.norm1 encoder.down.0.block.0.conv1
encoder.down.0.block.0.norm2 encoder.down.0.block.0.conv2 encoder.down.0.downsample.conv
encoder.down.1.block.0.norm1 encoder.down.1.block.0.conv1 encoder.down.1.block.0.norm2
encoder.down.1.block.0.conv2 encoder.down.1.block.0.nin_shortcut encoder.down.1.attn.0.norm
encoder.down.1.attn.0.q encoder.down.1.attn.0.k encoder.down.1.attn.0.v
encoder.down.1.attn.0.proj_out encoder.mid.block_1.norm1 encoder.mid.block_1.conv1
encoder.mid.block_1.norm2 encoder.mid.block_1.conv2 encoder.mid.attn_1.norm encoder.mid.attn_1.q
encoder.mid.attn_1.k encoder.mid.attn_1.v encoder.mid.attn_1.proj_out encoder.mid.block_2.norm1
encoder.mid.block_2.conv1 encoder.mid.block_2.norm2 encoder.mid.block_2.conv2 encoder.norm_out
encoder.conv_out quant_conv post_quant_conv
""".split()  # noqa: SIM905
)


def test_the_names_are_those_of_the_published_code() -> None:
    codec = CODECS.build(TINY | {"widths": [32, 64], "attention": [2]})
    file = autoencoder_to_compvis(codec.state_dict(), codec)
    names = {name.removeprefix(PREFIX).rpartition(".")[0] for name in file}
    assert {name for name in names if not name.startswith("decoder")} == NAMES
    # The smallest level has the highest number on both sides, and the decoder a block more.
    assert "decoder.up.1.upsample.conv" in names and "decoder.up.0.upsample.conv" not in names
    assert "decoder.up.1.attn.1.q" in names and "decoder.up.0.block.0.nin_shortcut" in names
    weight = file[f"{PREFIX}encoder.mid.attn_1.q.weight"]
    assert weight.shape == (64, 64, 1, 1)


def without(file: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: value for name, value in file.items() if part not in name}


def test_other_files_are_refused() -> None:
    codec: KL = made(TINY)
    file = autoencoder_to_compvis(codec.state_dict(), codec)
    with pytest.raises(FileError, match=r"mine\.safetensors holds no autoencoder"):
        autoencoder_weights(nn.Linear(2, 2).state_dict(), "mine.safetensors")
    for part, message in (
        ("decoder.conv_in", r"lacks decoder\.conv_in\.weight"),
        ("encoder.down.", "lacks its levels"),
    ):
        found = autoencoder_weights(without(file, part), "mine")
        with pytest.raises(FileError, match=message):
            autoencoder_config(found, "mine", 1.0)
    odd = file | {f"{PREFIX}encoder.down.1.block.1.conv1.weight": torch.zeros(1)}
    with pytest.raises(FileError, match="different numbers of blocks"):
        autoencoder_config(autoencoder_weights(odd, "mine"), "mine", 1.0)
    found = autoencoder_weights(without(file, "mid.attn_1.q"), "mine")
    with pytest.raises(FileError, match=r"lacks decoder\.mid\.attn_1\.q"):
        autoencoder_to_ours(found, codec)
