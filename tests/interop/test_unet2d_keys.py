"""diffusers' UNet2DModel, with random weights, against our network with the same weights."""

import pytest
import torch
from diffusers import UNet2DModel
from interop.foreign import filled
from torch import nn

from fromnoise import nets
from fromnoise.core.errors import FileError
from fromnoise.interop.unet2d_keys import to_diffusers, to_ours
from fromnoise.layers.condition import Condition

CIFAR = {
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": (
        "DownBlock2D",
        "AttnDownBlock2D",
        "DownBlock2D",
        "DownBlock2D",
    ),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "act_fn": "silu",
}
TINY = CIFAR | {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
OURS = {
    "kind": "unet",
    "channels": 8,
    "multipliers": [1, 2],
    "blocks": 1,
    "attention": {"at": [2]},
    "style": {"groups": 4, "eps": 1e-6, "down": "asymmetric"},
}
RESNET = {
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "resnet_time_scale_shift": "scale_shift",
    "attn_norm_num_groups": 4,
}
CASES = {
    "asymmetric": (TINY, OURS),
    "symmetric": (
        TINY | {"downsample_padding": 1},
        OURS | {"style": {"groups": 4, "eps": 1e-6}},
    ),
    "heads": (
        TINY | {"attention_head_dim": 4},
        OURS | {"attention": {"at": [2], "head_channels": 4}},
    ),
    "adm": (
        TINY | {"flip_sin_to_cos": True, "freq_shift": 0},
        OURS | {"time": "adm"},
    ),
    "scale_shift": (
        TINY | {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4},
        OURS | {"style": OURS["style"] | {"scale_shift": True}},
    ),
    "blocks": (
        TINY
        | {
            "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        }
        | RESNET,
        OURS | {"style": OURS["style"] | {"scale_shift": True, "resample": "block"}},
    ),
    "blocks beside attention": (
        TINY
        | {
            "block_out_channels": (8, 16, 16),
            "layers_per_block": 2,
            "down_block_types": ("AttnDownBlock2D",) * 2 + ("ResnetDownsampleBlock2D",),
            "up_block_types": ("ResnetUpsampleBlock2D",) + ("AttnUpBlock2D",) * 2,
            "attention_head_dim": 4,
        }
        | RESNET,
        OURS
        | {
            "multipliers": [1, 2, 2],
            "blocks": 2,
            "attention": {"at": [1, 2], "head_channels": 4},
            "style": OURS["style"] | {"scale_shift": True, "resample": "block"},
        },
    ),
    "labels": (
        TINY | {"num_class_embeds": 5},
        OURS | {"accepts": {"vector": {"label": 5}}},
    ),
}


class ExactTime(nn.Module):
    """diffusers takes its time features in float32 always; these are the same in float64."""

    def __init__(self, width: int, adm: bool) -> None:
        super().__init__()
        self.half = width // 2
        self.adm = adm

    def forward(self, time: torch.Tensor) -> torch.Tensor:
        index = torch.arange(self.half, dtype=torch.float64)
        last = self.half if self.adm else self.half - 1
        angles = time.double()[:, None] * (10000.0 ** (-index / last))
        pair = [angles.cos(), angles.sin()] if self.adm else [angles.sin(), angles.cos()]
        return torch.cat(pair, dim=1)


def pair(theirs: dict, ours: str | dict) -> tuple[UNet2DModel, nets.Network]:
    reference = filled(UNet2DModel(**theirs))
    network = nets.build(ours).eval()
    network.load_state_dict(to_ours(reference.state_dict()))
    return reference, network


@torch.no_grad()
def worst(reference: UNet2DModel, network: nets.Network, x: torch.Tensor) -> float:
    time = torch.tensor([3.0, 977.0], dtype=x.dtype)
    labels = torch.tensor([4, 1]) if reference.class_embedding is not None else None
    expected = reference(x, time, class_labels=labels).sample
    assert expected.std() > 0.1
    raw = {} if labels is None else {"label": nn.functional.one_hot(labels, 5)}
    return (
        (network(x, time, Condition(vector=raw)) - expected).abs().max() / expected.abs().max()
    ).item()


@pytest.mark.parametrize("case", CASES)
def test_follows_diffusers(case):
    reference, network = pair(*CASES[case])
    x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    assert worst(reference, network, x) < 2e-5
    reference.double().time_proj = ExactTime(8, adm=case == "adm")
    assert worst(reference, network.double(), x.double()) < 1e-10


def test_ddpm_cifar10_follows_diffusers():
    reference, network = pair(CIFAR, "ddpm-cifar10")
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert worst(reference, network, x) < 2e-5


def test_a_wrong_convention_would_be_seen():
    theirs, ours = CASES["asymmetric"]
    reference, network = pair(theirs, ours | {"style": {"groups": 4, "eps": 1e-6}})
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert worst(reference, network, x) > 1e-3


@pytest.mark.parametrize("name", ["ddpm-cifar10", "ddpm-256"])
def test_names_are_two_way(name):
    state = nets.build(name, device="meta").state_dict()
    there = to_diffusers(state)
    back = to_ours(there)
    assert list(back) == list(state)
    assert all(back[key] is state[key] for key in state)
    assert to_diffusers(back) == there


@pytest.mark.parametrize("case", ["blocks", "labels"])
def test_weights_come_back_bit_for_bit(case):
    state = nets.build(CASES[case][1]).state_dict()
    back = to_ours(to_diffusers(state))
    assert list(back) == list(state)
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_old_attention_names_are_read():
    state = to_diffusers(nets.build(OURS).state_dict())
    old = {
        name.replace("to_out.0", "proj_attn")
        .replace("to_q", "query")
        .replace("to_k", "key")
        .replace("to_v", "value"): value
        for name, value in state.items()
    }
    assert any("proj_attn" in name for name in old)
    assert to_ours(old).keys() == to_ours(state).keys()


def test_an_unknown_name_is_refused():
    with pytest.raises(FileError, match="add_embedding"):
        to_ours({"add_embedding.weight": torch.zeros(1)})
    network = nets.build(OURS | {"accepts": {"vector": {"size": 3}}})
    with pytest.raises(FileError, match=r"embedding\.vector\.size"):
        to_diffusers(network.state_dict())
