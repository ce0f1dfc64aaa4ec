"""NCSN++ and DDPM++: names and shapes, and their order of layers walked with diffusers' parts."""

import math

import pytest
import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import FirDownsample2D
from diffusers.models.resnet import ResnetBlock2D
from nets.filling import filled
from torch import nn
from torch.nn.functional import silu

from fromnoise import nets
from fromnoise.core.errors import FileError
from fromnoise.interop.score_sde_keys import to_ours, to_score_sde

SMALL = {
    "kind": "unet",
    "channels": 8,
    "multipliers": [1, 2, 2],
    "blocks": 2,
    "attention": {"at": [2], "up": "last"},
    "style": {
        "groups": 4,
        "eps": 1e-6,
        "resample": "block",
        "shortcut": "projected",
        "residual_scale": 0.5**0.5,
    },
}
CASES = {
    "ddpm++": SMALL,
    "ncsn++": SMALL
    | {"style": SMALL["style"] | {"filter": "fir", "pyramid": "residual"}, "time": "ncsnpp"},
}
RESNET = {
    "GroupNorm_0": "norm1",
    "Conv_0": "conv1",
    "Dense_0": "time_emb_proj",
    "GroupNorm_1": "norm2",
    "Conv_1": "conv2",
    "Conv_2": "conv_shortcut",
}
ATTENTION = {"NIN_0": "to_q", "NIN_1": "to_k", "NIN_2": "to_v", "NIN_3": "to_out.0"}


class Published:
    """The published walk through `all_modules`, one after the other, in diffusers' layers."""

    def __init__(self, state: dict[str, torch.Tensor], fir: bool) -> None:
        self.state = state
        self.fir = fir
        self.number = 0

    def part(self) -> dict[str, torch.Tensor]:
        prefix = f"all_modules.{self.number}."
        self.number += 1
        found = {k.removeprefix(prefix): v for k, v in self.state.items() if k.startswith(prefix)}
        assert found, prefix
        return found

    def load(self, module: nn.Module, state: dict[str, torch.Tensor]) -> nn.Module:
        module = module.double().eval()
        module.load_state_dict(state)
        return module

    def linear(self, x: torch.Tensor) -> torch.Tensor:
        part = self.part()
        return nn.functional.linear(x, part["weight"], part["bias"])

    def conv(self, x: torch.Tensor) -> torch.Tensor:
        part = self.part()
        return nn.functional.conv2d(x, part["weight"], part["bias"], padding=1)

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        part = self.part()
        return nn.functional.group_norm(x, 4, part["weight"], part["bias"], 1e-6)

    def resnet(self, x: torch.Tensor, temb: torch.Tensor, change: str = "") -> torch.Tensor:
        part = {}
        for key, value in self.part().items():
            layer, kind = key.split(".")
            part[f"{RESNET[layer]}.{kind}"] = value
        block = ResnetBlock2D(
            in_channels=x.shape[1],
            out_channels=len(part["conv1.bias"]),
            temb_channels=temb.shape[1],
            groups=4,
            eps=1e-6,
            output_scale_factor=math.sqrt(2),
            kernel="fir" if self.fir else "sde_vp",
            use_in_shortcut="conv_shortcut.bias" in part,
            up=change == "up",
            down=change == "down",
        )
        return self.load(block, part)(x, temb)

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        part = self.part()
        state = {f"group_norm.{k}": part[f"GroupNorm_0.{k}"] for k in ("weight", "bias")}
        for theirs, name in ATTENTION.items():
            state |= {f"{name}.weight": part[f"{theirs}.W"].T, f"{name}.bias": part[f"{theirs}.b"]}
        layer = Attention(
            x.shape[1],
            heads=1,
            dim_head=x.shape[1],
            norm_num_groups=4,
            eps=1e-6,
            bias=True,
            rescale_output_factor=math.sqrt(2),
            residual_connection=True,
        )
        return self.load(layer, state)(x)

    def pyramid(self, x: torch.Tensor) -> torch.Tensor:
        part = self.part()
        out = len(part["Conv2d_0.bias"])
        return self.load(FirDownsample2D(x.shape[1], out, use_conv=True), part)(x)

    def __call__(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        half = torch.arange(4, dtype=torch.float64)
        angles = time[:, None] * 10000.0 ** (-half / 3)
        if self.fir:
            angles = time[:, None] * self.part()["W"] * 2 * math.pi
        temb = torch.cat([angles.sin(), angles.cos()], dim=1)
        temb = self.linear(silu(self.linear(temb)))
        picture = x
        h = self.conv(x)
        skips = [h]
        for level in range(3):
            for _ in range(2):
                h = self.resnet(h, temb)
                h = self.attention(h) if level == 1 else h
                skips.append(h)
            if level < 2:
                h = self.resnet(h, temb, "down")
                if self.fir:
                    h = picture = (self.pyramid(picture) + h) / math.sqrt(2)
                skips.append(h)
        h = self.resnet(self.attention(self.resnet(h, temb)), temb)
        for level in (2, 1, 0):
            for _ in range(3):
                h = self.resnet(torch.cat([h, skips.pop()], dim=1), temb)
            h = self.attention(h) if level == 1 else h
            h = self.resnet(h, temb, "up") if level else h
        answer = self.conv(silu(self.norm(h)))
        assert not skips
        assert f"all_modules.{self.number}.weight" not in self.state
        return answer


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_follows_the_published_walk(case):
    network = filled(CASES[case]).double()
    state = to_score_sde(network.state_dict(), network)
    x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1)).double()
    time = torch.tensor([0.3, 1.7]).double()
    expected = Published(state, fir=case == "ncsn++")(x, time)
    assert expected.std() > 0.1
    error = (network(x, time) - expected).abs().max() / expected.abs().max()
    assert error < 1e-10


def manifest(fourier: bool, blocks: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the CIFAR-10 networks as the published code registers them."""
    shapes: dict[str, tuple[int, ...]] = {}
    number = 0

    def put(**layers: tuple[int, ...]) -> None:
        nonlocal number
        for name, shape in layers.items():
            key = f"all_modules.{number}{name and '.' + name}"
            shapes[f"{key}.weight"] = shape
            shapes[f"{key}.bias"] = shape[:1]
        number += 1

    def residual(into: int, out: int, change: bool = False) -> None:
        layers = {
            "GroupNorm_0": (into,),
            "Conv_0": (out, into, 3, 3),
            "Dense_0": (out, 512),
            "GroupNorm_1": (out,),
            "Conv_1": (out, out, 3, 3),
        }
        put(**layers, **({"Conv_2": (out, into, 1, 1)} if change or into != out else {}))

    def attention(channels: int) -> None:
        place = f"all_modules.{number}"
        put(GroupNorm_0=(channels,))
        for index in range(4):
            shapes[f"{place}.NIN_{index}.W"] = (channels, channels)
            shapes[f"{place}.NIN_{index}.b"] = (channels,)

    if fourier:
        shapes["all_modules.0.W"] = (128,)
        number = 1
    put(**{"": (512, 256 if fourier else 128)})
    put(**{"": (512, 512)})
    put(**{"": (128, 3, 3, 3)})
    stack, channels, picture = [128], 128, 3
    for level, width in enumerate((128, 256, 256, 256)):
        for _ in range(blocks):
            residual(channels, width)
            channels = width
            if level == 1:
                attention(width)
            stack.append(width)
        if level < 3:
            residual(width, width, change=True)
            if fourier:
                put(Conv2d_0=(width, picture, 3, 3))
                picture = width
            stack.append(width)
    residual(256, 256)
    attention(256)
    residual(256, 256)
    for level, width in ((3, 256), (2, 256), (1, 256), (0, 128)):
        for _ in range(blocks + 1):
            residual(channels + stack.pop(), width)
            channels = width
        if level == 1:
            attention(width)
        if level:
            residual(width, width, change=True)
    put(**{"": (128,)})
    put(**{"": (3, 128, 3, 3)})
    return shapes


@pytest.mark.parametrize(
    ("name", "fourier", "blocks", "count"),
    [
        ("ddpm++", False, 4, 61_804_419),
        ("ddpm++-deep", False, 8, 106_632_579),
        ("ncsn++", True, 4, 62_758_787 + 128),
        ("ncsn++-deep", True, 8, 107_586_947 + 128),
    ],
)
def test_published_names_and_shapes(name, fourier, blocks, count):
    network = nets.build(name, device="meta")
    expected = manifest(fourier, blocks)
    theirs = to_score_sde(network.state_dict(), network)
    assert {key: tuple(value.shape) for key, value in theirs.items()} == expected
    assert sum(math.prod(shape) for shape in expected.values()) == count
    published = {key: torch.empty(shape, device="meta") for key, shape in expected.items()}
    published["sigmas"] = torch.empty(1000, device="meta")
    network.load_state_dict(to_ours(published, network), assign=True)


@pytest.mark.parametrize("case", CASES)
def test_weights_come_back_bit_for_bit(case):
    network = filled(CASES[case])
    state = network.state_dict()
    theirs = to_score_sde(state, network)
    back = to_ours(theirs, network)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    again = to_score_sde(back, network)
    assert all(torch.equal(again[key], theirs[key]) for key in theirs)


def test_networks_they_cannot_write_are_refused():
    often = nets.build(SMALL | {"attention": {"at": [2]}})
    with pytest.raises(FileError, match=r"attention\.up = last"):
        to_score_sde(often.state_dict(), often)
    labelled = nets.build(SMALL | {"accepts": {"vector": {"label": 2}}})
    with pytest.raises(FileError, match=r"no name for embedding\.vector\.label"):
        to_score_sde(labelled.state_dict(), labelled)
