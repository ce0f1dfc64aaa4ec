"""Every published network has the published number of parameters, and costs no memory to name."""

import pytest

from fromnoise import nets
from fromnoise.core.errors import UsageError

COUNTS = {
    "ddpm-cifar10": 35_746_307,
    "ddpm-256": 113_673_219,
    "ddim-celeba": 78_700_803,
    "iddpm-cifar10": 52_546_438,
    "iddpm-64": 121_063_942,
    "iddpm-64-cond": 273_049_350,
    "iddpm-lsun-256": 113_676_678,
    "iddpm-64-256": 279_792_390,
    "adm-64": 295_904_454,
    "adm-128": 421_529_606,
    "adm-256": 553_838_086,
    "adm-256-uncond": 552_814_086,
    "adm-lsun-256": 552_814_086,
    "adm-512": 558_997_638,
    "adm-64-256": 311_795_910,
    "adm-128-512": 308_835_270,
    "adm-classifier-64": 65_438_568,
    "adm-classifier-128": 42_568_040,
    "adm-classifier-256": 54_096_360,
    "adm-classifier-512": 54_448_360,
    "ddpm++": 61_804_419,
    "ddpm++-deep": 106_632_579,
    "ncsn++": 62_758_787,
    "ncsn++-deep": 107_586_947,
    "dit-s/2": 32_963_360,
    "dit-s/4": 32_945_024,
    "dit-s/8": 33_148_160,
    "dit-b/2": 130_512_416,
    "dit-b/4": 130_475_648,
    "dit-b/8": 130_881_536,
    "dit-l/2": 458_102_816,
    "dit-l/4": 458_053_760,
    "dit-l/8": 458_594_816,
    "dit-xl/2": 675_129_632,
    "dit-xl/4": 675_074_432,
    "dit-xl/8": 675_683_072,
    "dit-xl/2-512": 676_014_368,
    "sd1": 859_520_964,
    "sd1-inpaint": 859_535_364,
    "sd1-pix2pix": 859_532_484,
    "sd2": 865_910_724,
    "sd2-inpaint": 865_925_124,
    "sd2-depth": 865_913_604,
    "sd2-unclip-h": 870_173_124,
    "sd2-unclip-l": 869_517_764,
    "sd-x4": 473_398_020,
    "sdxl": 2_567_463_684,
    "sdxl-inpaint": 2_567_478_084,
    "sdxl-refiner": 2_259_526_660,
    "ldm-celebahq": 274_056_163,
    "ldm-churches": 294_966_916,
    "ldm-imagenet": 400_920_579,
    "ldm-imagenet-f8": 394_984_196,
    "ldm-text2img": 872_300_484,
    "ldm-text2img-256": 403_623_939,
    "ldm-layout2img": 246_277_379,
    "ldm-super-resolution": 113_622_563,
    "ldm-inpainting": 387_245_827,
    "ldm-semantic": 215_229_315,
    "rdm": 1_335_480_400,
}
TRAINED = {"dit-s/2": 32_865_056, "dit-b/2": 130_315_808, "dit-xl/2": 674_834_720}


def count(network: nets.Network, trained: bool = False) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trained)


def test_every_preset_has_a_published_count():
    assert COUNTS.keys() == nets.PRESETS.keys()


@pytest.mark.parametrize("name", COUNTS)
def test_published_parameter_counts(name):
    network = nets.build(name, device="meta")
    assert count(network) == COUNTS[name]
    # Positions and Fourier frequencies are all that does not train.
    if name in TRAINED:
        assert count(network, trained=True) == TRAINED[name]
    elif not name.startswith("dit"):
        assert count(network, trained=True) == COUNTS[name]
    assert sum(b.numel() for b in network.buffers()) == (128 if name.startswith("ncsn") else 0)


@pytest.mark.parametrize(
    ("name", "wide"),
    [
        ("adm-512", {"channels": 2**17}),
        ("adm-classifier-512", {"channels": 2**17}),
        ("ncsn++", {"channels": 2**17}),
        ("dit-xl/2", {"width": 2**17}),
    ],
)
def test_on_the_meta_device_no_memory_is_needed(name, wide):
    network = nets.build(nets.PRESETS[name]() | wide, device="meta")
    assert sum(p.numel() * p.element_size() for p in network.parameters()) > 2**42
    assert {value.device.type for value in network.state_dict().values()} == {"meta"}


def test_without_a_learned_variance_three_channels_come_out():
    flags = nets.FLAGS["iddpm-64"].model_copy(update={"learn_sigma": False})
    assert count(nets.build(flags.config(), device="meta")) == 121_060_483


def test_flags_are_read_as_published():
    # guided-diffusion's page, the 64×64 model: values come as text.
    published = """--attention_resolutions 32,16,8 --class_cond True --dropout 0.1
        --image_size 64 --learn_sigma True --num_channels 192 --num_head_channels 64
        --num_res_blocks 3 --resblock_updown True --use_new_attention_order True
        --use_scale_shift_norm True""".replace("--", "").split()
    given = dict(zip(published[::2], published[1::2], strict=True))
    flags = nets.Flags.model_validate(given)
    assert flags.config() == nets.PRESETS["adm-64"]()
    assert flags.order == "new"
    assert nets.FLAGS["adm-256"].order == "legacy"
    five = nets.Flags(image_size=128, channel_mult="0.5,1,2").config()["multipliers"]
    assert five == [0.5, 1, 2]
    assert isinstance(five[1], int)


def test_each_flag_does_something():
    base = nets.Flags(attention_resolutions=(32,))
    changes = {
        "num_channels": 64,
        "num_res_blocks": 1,
        "channel_mult": (1, 2),
        "num_heads": 2,
        "num_head_channels": 32,
        "attention_resolutions": (16,),
        "dropout": 0.2,
        "class_cond": True,
        "learn_sigma": True,
        "use_scale_shift_norm": False,
        "resblock_updown": True,
        "small_size": 16,
        "image_size": 128,
    }
    assert {"use_new_attention_order", *changes} == set(nets.Flags.model_fields)
    for name, value in changes.items():
        changed = nets.Flags.model_validate(base.model_dump() | {name: value})
        assert changed.config() != base.config(), name


def test_an_upsampler_is_told_the_small_picture_as_channels():
    network = nets.build("adm-64-256", device="meta")
    assert network.accepts.channels == {"low_res": 3}
    assert network.accepts.vector == {"label": 1000}
    assert network.state_dict()["enter.weight"].shape == (192, 6, 3, 3)


def test_a_size_nobody_published():
    with pytest.raises(UsageError, match="size 48"):
        nets.Flags(image_size=48).config()
    with pytest.raises(UsageError, match="size 48"):
        nets.ClassifierFlags(image_size=48).config()
