"""The published networks' names and shapes, written down from the published construction."""

import math
from collections.abc import Iterator

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from torch import nn

from fromnoise import nets
from fromnoise.core.errors import FileError
from fromnoise.interop import unet2d_keys
from fromnoise.interop.guided_diffusion_keys import to_guided_diffusion, to_ours
from fromnoise.nets.guided_diffusion import ClassifierFlags, Flags

Shapes = dict[str, tuple[int, ...]]
LEVELS = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    32: (1, 2, 2, 2),
}
SMALL = {
    "kind": "unet",
    "out_channels": 6,
    "channels": 8,
    "multipliers": [0.5, 1],
    "blocks": 2,
    "attention": {"at": [1, 2], "heads": 2},
    "style": {"groups": 2, "scale_shift": True, "resample": "block"},
    "time": "adm",
    "accepts": {"vector": {"label": 5}},
}
PLAIN = SMALL | {"style": {"groups": 2}, "attention": {"at": [2], "middle": True}}
CLASSIFIER = {
    "kind": "classifier",
    "classes": 5,
    "size": 8,
    "channels": 8,
    "multipliers": [1, 2],
    "blocks": 1,
    "attention": {"at": [2], "head_channels": 4},
    "style": {"groups": 4, "scale_shift": True, "resample": "block"},
}


class Manifest:
    """Names and shapes as the published code registers them, from its flags alone."""

    def __init__(self, flags: Flags | ClassifierFlags, classifier: bool) -> None:
        self.shapes: Shapes = {}
        self.size = flags.image_size
        if classifier:
            self.base, self.blocks = flags.classifier_width, flags.classifier_depth
            self.at = [self.size // r for r in flags.classifier_attention_resolutions]
            self.film, self.updown = True, True
        else:
            self.base, self.blocks = flags.num_channels, flags.num_res_blocks
            self.at = [self.size // r for r in flags.attention_resolutions]
            self.film, self.updown = flags.use_scale_shift_norm, flags.resblock_updown
        upsampler = not classifier and flags.small_size is not None
        self.levels = LEVELS[min(self.size, 256) if upsampler else self.size]
        self.emb = 4 * self.base
        self.add("time_embed.0", self.emb, self.base)
        self.add("time_embed.2", self.emb, self.emb)
        if not classifier and flags.class_cond:
            self.shapes["label_emb.weight"] = (1000, self.emb)
        self.channels = int(self.levels[0] * self.base)
        self.add("input_blocks.0.0", self.channels, 6 if upsampler else 3, 3, 3)
        self.stack = [self.channels]
        self.ds = 1
        self.go_down()
        self.residual("middle_block.0", self.channels, self.channels)
        self.attention("middle_block.1", self.channels)
        self.residual("middle_block.2", self.channels, self.channels)
        if classifier:
            self.pool(1000)
            return
        self.go_up()
        self.norm("out.0", self.channels)
        self.add("out.2", 6 if flags.learn_sigma else 3, int(self.levels[0] * self.base), 3, 3)

    def add(self, name: str, *weight: int) -> None:
        self.shapes |= {f"{name}.weight": weight, f"{name}.bias": weight[:1]}

    def norm(self, name: str, channels: int) -> None:
        self.add(name, channels)

    def residual(self, name: str, into: int, out: int) -> None:
        self.norm(f"{name}.in_layers.0", into)
        self.add(f"{name}.in_layers.2", out, into, 3, 3)
        self.add(f"{name}.emb_layers.1", 2 * out if self.film else out, self.emb)
        self.norm(f"{name}.out_layers.0", out)
        self.add(f"{name}.out_layers.3", out, out, 3, 3)
        if into != out:
            self.add(f"{name}.skip_connection", out, into, 1, 1)

    def attention(self, name: str, channels: int) -> None:
        self.norm(f"{name}.norm", channels)
        self.add(f"{name}.qkv", 3 * channels, channels, 1)
        self.add(f"{name}.proj_out", channels, channels, 1)

    def go_down(self) -> None:
        number = 1
        for level, multiplier in enumerate(self.levels):
            for _ in range(self.blocks):
                out = int(multiplier * self.base)
                self.residual(f"input_blocks.{number}.0", self.channels, out)
                self.channels = out
                if self.ds in self.at:
                    self.attention(f"input_blocks.{number}.1", out)
                self.stack.append(out)
                number += 1
            if level != len(self.levels) - 1:
                if self.updown:
                    self.residual(f"input_blocks.{number}.0", self.channels, self.channels)
                else:
                    self.add(f"input_blocks.{number}.0.op", self.channels, self.channels, 3, 3)
                self.stack.append(self.channels)
                number += 1
                self.ds *= 2

    def go_up(self) -> None:
        number = 0
        for level, multiplier in reversed(list(enumerate(self.levels))):
            for index in range(self.blocks + 1):
                out = int(multiplier * self.base)
                inside: Iterator[int] = iter(range(3))
                place = f"output_blocks.{number}"
                self.residual(f"{place}.{next(inside)}", self.channels + self.stack.pop(), out)
                self.channels = out
                if self.ds in self.at:
                    self.attention(f"{place}.{next(inside)}", out)
                if level and index == self.blocks:
                    if self.updown:
                        self.residual(f"{place}.{next(inside)}", out, out)
                    else:
                        self.add(f"{place}.{next(inside)}.conv", out, out, 3, 3)
                    self.ds //= 2
                number += 1

    def pool(self, classes: int) -> None:
        self.norm("out.0", self.channels)
        cells = (self.size // self.ds) ** 2
        self.shapes["out.2.positional_embedding"] = (self.channels, cells + 1)
        self.add("out.2.qkv_proj", 3 * self.channels, self.channels, 1)
        self.add("out.2.c_proj", classes, self.channels, 1)


@pytest.mark.parametrize("name", [*nets.FLAGS, *nets.CLASSIFIERS])
def test_every_published_network_has_the_published_names_and_shapes(name):
    flags = (nets.FLAGS | nets.CLASSIFIERS)[name]
    manifest = Manifest(flags, classifier=name in nets.CLASSIFIERS).shapes
    network = nets.build(name, device="meta")
    theirs = to_guided_diffusion(network.state_dict(), network, flags.order)
    assert {key: tuple(value.shape) for key, value in theirs.items()} == manifest
    assert sum(math.prod(shape) for shape in manifest.values()) == sum(
        p.numel() for p in network.parameters()
    )
    published = {key: torch.empty(shape, device="meta") for key, shape in manifest.items()}
    network.load_state_dict(to_ours(published, network, flags.order), assign=True)


@pytest.mark.parametrize("order", ["legacy", "new"])
@pytest.mark.parametrize("config", [SMALL, PLAIN, CLASSIFIER])
def test_weights_come_back_bit_for_bit(config, order):
    torch.manual_seed(0)
    network = nets.build(config)
    state = {key: torch.randn_like(value) for key, value in network.state_dict().items()}
    theirs = to_guided_diffusion(state, network, order)
    back = to_ours(theirs, network, order)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    again = to_guided_diffusion(back, network, order)
    assert all(torch.equal(again[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("order", ["legacy", "new"])
def test_attention_reads_query_key_and_value_of_each_head(order):
    """torch's own attention holds all queries, all keys, all values: the new order."""
    torch.manual_seed(0)
    network = nets.build(SMALL).double()
    heads, width, each = 2, 8, 4
    fused = torch.randn(3 * width, width, 1).double()
    bias = torch.randn(3 * width).double()
    theirs = to_guided_diffusion(network.state_dict(), network, order)
    theirs |= {"middle_block.1.qkv.weight": fused, "middle_block.1.qkv.bias": bias}
    theirs["middle_block.1.proj_out.weight"] = torch.randn(width, width, 1).double()
    network.load_state_dict(to_ours(theirs, network, order))
    rows = [
        (head * 3 * each + part * each if order == "legacy" else part * width + head * each) + c
        for part in range(3)
        for head in range(heads)
        for c in range(each)
    ]
    outside = nn.MultiheadAttention(width, heads, batch_first=True, dtype=torch.float64)
    outside.in_proj_weight.data, outside.in_proj_bias.data = fused[rows, :, 0], bias[rows]
    outside.out_proj.weight.data = theirs["middle_block.1.proj_out.weight"][..., 0]
    outside.out_proj.bias.data = theirs["middle_block.1.proj_out.bias"]
    block = network.middle.attentions[0]
    x = torch.randn(2, width, 2, 3).double()
    tokens = block.own.norm(x).flatten(2).transpose(1, 2)
    expected = x + outside(tokens, tokens, tokens)[0].transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(block(x), expected, atol=1e-12, rtol=1e-12)


def test_the_two_orders_are_not_the_same():
    network = nets.build(SMALL)
    state = network.state_dict()
    wrong = to_ours(to_guided_diffusion(state, network, "new"), network, "legacy")
    assert not all(torch.equal(wrong[key], state[key]) for key in state)


def test_the_pool_of_a_classifier_is_in_the_new_order_whatever_the_rest():
    network = nets.build(CLASSIFIER)
    state = network.state_dict()
    whole = to_guided_diffusion(state, network, "legacy")["out.2.qkv_proj.weight"]
    parts = [state[f"pool.attention.{part}.weight"] for part in ("query", "key", "value")]
    assert torch.equal(whole[..., 0], torch.cat(parts))


@pytest.mark.parametrize("name", ["iddpm-64-cond", "iddpm-lsun-256"])
def test_block_numbers_follow_diffusers_converter(name):
    """diffusers converts latent diffusion's U-Nets, whose blocks carry the same names."""
    network = nets.build(name, device="meta")
    state = network.state_dict()
    theirs = to_guided_diffusion(state, network, nets.FLAGS[name].order)
    depth = {"layers_per_block": nets.FLAGS[name].num_res_blocks, "num_class_embeds": 1000}
    prefixed = {f"model.diffusion_model.{key}": value for key, value in theirs.items()}
    converted = convert_ldm_unet_checkpoint(prefixed, depth)
    direct = unet2d_keys.to_diffusers(state)
    blocks = {key for key in direct if "attentions" not in key}
    assert {key for key in converted if "attentions" not in key} == blocks
    untouched = blocks - {"class_embedding.weight"}
    assert len(untouched) > 300
    assert all(converted[key] is direct[key] for key in untouched)
    norms = [key for key in direct if key.endswith("group_norm.weight")]
    assert all(converted[key.replace("group_norm", "norm")] is direct[key] for key in norms)


def test_what_is_missing_or_has_no_place_is_named():
    network = nets.build(SMALL)
    theirs = to_guided_diffusion(network.state_dict(), network)
    theirs["stranger.weight"] = theirs.pop("out.2.weight")
    with pytest.raises(FileError, match=r"lacks out\.2\.weight and has no place for stranger"):
        to_ours(theirs, network)
    crossed = nets.build(SMALL | {"accepts": {"tokens": 4}})
    with pytest.raises(FileError, match=r"no name for down\.0\.attentions\.0\.cross"):
        to_guided_diffusion(crossed.state_dict(), crossed)
