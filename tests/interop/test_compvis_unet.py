"""Single files as latent diffusion wrote them: diffusers' own conversion is the reference."""

from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from nets.filling import filled
from torch import Tensor

from fromnoise import nets
from fromnoise.core.errors import FileError
from fromnoise.interop import unet_condition
from fromnoise.interop.compvis_unet import (
    PREFIX,
    has_average,
    unet_config,
    unet_to_compvis,
    unet_to_ours,
    unet_weights,
)
from fromnoise.interop.unet_condition_keys import to_diffusers, to_ours

BASE: dict[str, Any] = {
    "kind": "unet",
    "in_channels": 4,
    "out_channels": 4,
    "channels": 32,
    "multipliers": [1, 2],
    "blocks": 2,
    "time": "adm",
}


def family(transformer: dict[str, Any], heads: dict[str, int], **changed: Any) -> dict[str, Any]:
    attention = {"at": [1, 2], "transformer": transformer, **heads}
    style = {"uneven": True, **changed.pop("style", {})}
    return BASE | {"attention": attention, "accepts": {"tokens": 12}, "style": style} | changed


EIGHT, WIDE = {"heads": 8}, {"head_channels": 64}
LINEAR = {"projection": "linear"}
FAMILIES: dict[str, dict[str, Any]] = {
    "sd1": family({}, EIGHT),
    "inpainting": family({}, EIGHT, accepts={"tokens": 12, "channels": {"mask": 1, "masked": 4}}),
    "sd2": family(LINEAR, WIDE, channels=64),
    "depth": family(LINEAR, WIDE, channels=64, accepts={"tokens": 12, "channels": {"depth": 1}}),
    "x4": family(
        LINEAR | {"only_cross": [1]},
        EIGHT,
        accepts={"tokens": 12, "channels": {"low_res": 3}, "vector": {"label": 5}},
    ),
    "sdxl": family(
        LINEAR | {"depth": [1, 2], "middle": 2},
        WIDE,
        channels=64,
        style={"joined": {"pooled": 0, "sizes": 256}},
        accepts={"tokens": 12, "vector": {"pooled": 7, "sizes": 6}},
    ),
    "refiner": family(
        LINEAR | {"depth": [2], "middle": 2},
        WIDE,
        channels=64,
        style={"joined": {"pooled": 0, "sizes": 256}},
        accepts={"tokens": 12, "vector": {"pooled": 1280, "sizes": 5}},
    ),
    "unclip": family(
        LINEAR,
        WIDE,
        channels=64,
        style={"joined": {"pooled": 0}},
        accepts={"tokens": 12, "vector": {"pooled": 2048}},
    ),
}


def network(name: str) -> nets.UNet:
    made = nets.build(FAMILIES[name], device="meta")
    assert isinstance(made, nets.UNet)
    return made


@pytest.mark.parametrize("name", FAMILIES)
def test_the_way_through_diffusers_is_the_same(name: str) -> None:
    net = filled(FAMILIES[name])
    assert isinstance(net, nets.UNet)
    state = net.state_dict()
    file = unet_to_compvis(state, net)
    assert all(key.startswith(PREFIX) for key in file)
    settings = unet_condition.settings(net.config, (8, 8))
    theirs = convert_ldm_unet_checkpoint(dict(file), settings)
    expected = to_diffusers(state, net)
    assert theirs.keys() == expected.keys()
    assert all(torch.equal(theirs[key], expected[key]) for key in expected)
    # Back: out of diffusers' names the same file, bit for bit.
    back = unet_to_compvis(to_ours(theirs, net), net)
    assert back.keys() == file.keys()
    assert all(torch.equal(back[key], file[key]) for key in file)
    ours = unet_to_ours(unet_weights(file, "a file"), net)
    assert all(torch.equal(ours[key], state[key]) for key in state)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_configuration_is_read_off_the_weights(name: str) -> None:
    net = network(name)
    beside = {"first_stage_model.encoder.conv_in.weight": torch.zeros(1)}
    file = unet_to_compvis(net.state_dict(), net) | beside
    config = unet_config(unet_weights(file, "a file"), "a file")
    assert nets.build(config, device="meta").config == net.config


NOT_IN_THE_FILE = {"ldm-churches", "ldm-inpainting"}
FAST = {"sd1-inpaint", "sd-x4", "ldm-churches", "ldm-semantic"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name in nets.LATENT_PRESETS
    ],
)
def test_published_networks_are_told_from_their_weights(name: str) -> None:
    net = nets.build(name, device="meta")
    assert isinstance(net, nets.UNet)
    state = unet_weights(unet_to_compvis(net.state_dict(), net), name)
    if name in NOT_IN_THE_FILE:
        with pytest.raises(FileError, match="its residual blocks change the size"):
            unet_config(state, name)
        return
    config = unet_config(state, name)
    if name == "ldm-semantic":
        # Three channels more are a small picture in other files.
        config["accepts"]["channels"] = {"map": 3}
    assert nets.build(config, device="meta").config == net.config
    if config["attention"]["transformer"] is not None:
        written = unet_condition.settings(net.config, (64, 64))
        again, _ = unet_condition.config(written, name)
        assert nets.build(again, device="meta").config == net.config


def averaged(file: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the code of latent diffusion names the average: without dots."""
    return {
        "model_ema." + name.removeprefix("model.").replace(".", ""): value + 1
        for name, value in file.items()
    }


def test_the_running_average_can_be_taken_instead() -> None:
    net = filled(FAMILIES["sd1"])
    assert isinstance(net, nets.UNet)
    file = unet_to_compvis(net.state_dict(), net)
    both = file | averaged(file) | {"model_ema.decay": torch.tensor(0.9)}
    assert has_average(both) and not has_average(file)
    config = {"layers_per_block": 2}
    theirs = convert_ldm_unet_checkpoint(dict(both), config, extract_ema=True)
    ours = to_diffusers(unet_to_ours(unet_weights(both, "a file", averaged=True), net), net)
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[key], ours[key]) for key in ours)
    plain = unet_weights(both, "a file")
    assert all(torch.equal(plain[key.removeprefix(PREFIX)], file[key]) for key in file)
    with pytest.raises(FileError, match="no running average"):
        unet_weights(file, "a file", averaged=True)


def without(file: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: value for name, value in file.items() if part not in name}


def test_other_files_are_refused() -> None:
    net = network("sd1")
    file = unet_to_compvis(net.state_dict(), net)
    with pytest.raises(FileError, match=r"mine\.safetensors holds no U-Net"):
        unet_weights({"conv.weight": torch.zeros(1)}, "mine.safetensors")
    for part, reason in (
        ("input_blocks.0.0.weight", "lacks model.diffusion_model.input_blocks.0.0.weight"),
        ("out.2.weight", "lacks model.diffusion_model.out.2.weight"),
        ("input_blocks.5.", "not alike within each level"),
        ("input_blocks.2.1.", "not alike within each level"),
        ("input_blocks.", "holds no U-Net of latent diffusion"),
    ):
        with pytest.raises(FileError, match=reason):
            unet_config(unet_weights(without(file, part), "mine"), "mine")
    weights = unet_weights(without(file, "output_blocks.0."), "mine")
    with pytest.raises(FileError, match=r"lacks output_blocks\.0"):
        unet_to_ours(weights, net)
    with pytest.raises(FileError, match="has no place for surplus"):
        unet_to_ours(unet_weights(file, "mine") | {"surplus": torch.zeros(1)}, net)


def test_bare_attention_has_heads_only_where_it_is_published() -> None:
    config = BASE | {"attention": {"at": [2]}}
    net = nets.build(config, device="meta")
    assert isinstance(net, nets.UNet)
    state = unet_weights(unet_to_compvis(net.state_dict(), net), "mine")
    with pytest.raises(FileError, match="how many heads its attention has is not in the file"):
        unet_config(state, "mine")
