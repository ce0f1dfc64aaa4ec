"""Published autoencoders: their counts, and what else is known of them."""

import pytest
import torch

from fromnoise.codecs import KL, PRESETS, VQ, build
from fromnoise.core.errors import UsageError

COUNTS = {
    "kl-f4": 55_312_063,
    "kl-f8": 83_653_863,
    "kl-f16": 69_610_963,
    "kl-f32": 103_880_131,
    "x4-upscaler": 55_325_927,
    "vq-f4": 55_322_782,
    "vq-f4-noattn": 53_219_486,
    "vq-f8": 67_717_295,
    "vq-f8-n256": 67_652_783,
    "vq-f16": 69_593_371,
    "vqgan-f16-1024": 72_141_699,
    "vqgan-f16-16384": 76_073_859,
}
LATENTS = {"kl-f4": (3, 64, 64), "kl-f32": (64, 8, 8), "vq-f16": (8, 16, 16), "vq-f8": (4, 32, 32)}


@pytest.mark.parametrize("name", PRESETS)
def test_the_published_count(name: str) -> None:
    assert PRESETS.keys() == COUNTS.keys()
    codec = build(name, device="meta")
    assert sum(value.numel() for value in codec.parameters()) == COUNTS[name]
    assert build(codec.config, device="meta").config == codec.config
    factor = codec.latent_shape((3, 256, 256))[1]
    assert 256 // factor == codec.factor
    if name in LATENTS:
        assert codec.latent_shape((3, 256, 256)) == LATENTS[name]


def test_sides_and_the_codebook_of_vq_f4() -> None:
    codec = build("vq-f4", device="meta")
    assert isinstance(codec, VQ)
    of = {"encoder": 22_337_411, "decoder": 32_960_771, "codebook": 8192 * 3}
    for name, count in of.items():
        assert sum(p.numel() for p in codec.get_submodule(name).parameters()) == count
    sd = build("kl-f8", device="meta")
    assert isinstance(sd, KL) and sd.scale == 0.18215
    assert sum(p.numel() for p in sd.encoder.parameters()) == 34_163_592
    assert sum(p.numel() for p in sd.decoder.parameters()) == 49_490_179


def test_names_kinds_and_what_is_neither() -> None:
    assert build({"kind": "identity"}).config == {"kind": "identity"}
    with torch.device("meta"):
        assert build("kl", device="meta").config["kind"] == "kl"
    with pytest.raises(UsageError, match="did you mean"):
        build("kl-f9")
    with pytest.raises(UsageError, match="no level"):
        build({"kind": "kl", "widths": [8, 8], "groups": 4, "attention": [4]})
    with pytest.raises(UsageError, match="more than 0"):
        build({"kind": "kl", "scaling": 0.0})
    with pytest.raises(UsageError, match="comes with its shift"):
        build({"kind": "kl", "scaling": "measured", "shift": 0.1})
