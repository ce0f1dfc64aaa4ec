"""diffusers' UNet2DConditionModel of every family, with random weights, against our network."""

import json
import math
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from interop.foreign import filled
from torch import Tensor, nn

from fromnoise import nets
from fromnoise.core.errors import FileError, UsageError
from fromnoise.interop import unet_condition
from fromnoise.interop.unet_condition_keys import to_diffusers, to_ours
from fromnoise.layers.condition import Condition, Tokens

TINY = {
    "sample_size": 8,
    "block_out_channels": (8, 16, 16),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 12,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
SD2 = TINY | {"attention_head_dim": (2, 4, 4), "use_linear_projection": True}
LATE = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
JOINED = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "sd1": TINY,
    "sd1 inpainting": TINY | {"in_channels": 9},
    "sd2": SD2,
    "sd2 depth": SD2 | {"in_channels": 5},
    "unclip": SD2 | {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 10},
    "x4": TINY
    | LATE
    | {
        "in_channels": 7,
        "use_linear_projection": True,
        "only_cross_attention": (True, True, False),
        "num_class_embeds": 5,
    },
    "sdxl": SD2
    | LATE
    | JOINED
    | {
        "transformer_layers_per_block": (1, 2, 3),
        "projection_class_embeddings_input_dim": 10 + 6 * 8,
    },
    "refiner": SD2
    | JOINED
    | {
        "block_out_channels": (8, 16, 32, 32),
        "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
        "attention_head_dim": (2, 4, 8, 8),
        "transformer_layers_per_block": 4,
        "projection_class_embeddings_input_dim": 1280 + 5 * 8,
    },
}
WHERE = "unet/config.json"


def theirs(family: str) -> UNet2DConditionModel:
    return filled(UNet2DConditionModel(**FAMILIES[family]))


def ours(family: str, **changed: Any) -> nets.UNet:
    raw = dict(theirs(family).config)
    config, size = unet_condition.config(json.loads(json.dumps(raw)) | changed, WHERE)
    assert size == (8, 8)
    network = nets.build(config).eval()
    assert isinstance(network, nets.UNet)
    return network


class Exact(nn.Module):
    """diffusers makes the features of time in float32 whatever the type of the network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, time: Tensor) -> Tensor:
        index = torch.arange(self.width // 2, dtype=torch.float64)
        angles = time.double()[:, None] * torch.exp(-math.log(10000) * index / (self.width // 2))
        return torch.cat([angles.cos(), angles.sin()], dim=1)


@torch.no_grad()
def difference(
    family: str,
    model: UNet2DConditionModel,
    network: nets.UNet,
    space: tuple[int, int] = (8, 16),
) -> float:
    dtype = next(network.parameters()).dtype
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(shape, generator=generator).to(dtype)  # noqa: E731
    accepts = network.accepts
    x, tokens = draw(3, network.in_channels, *space), draw(3, 5, 12)
    time = torch.tensor([3.0, 500.0, 977.0], dtype=dtype)
    channels = {name: draw(3, count, *space) for name, count in accepts.channels.items()}
    vector = {name: draw(3, width) for name, width in accepts.vector.items()}
    given: dict[str, Any] = {}
    if "label" in vector:
        vector["label"] = torch.eye(5, dtype=dtype)[[0, 3, 4]]
        given["class_labels"] = torch.tensor([0, 3, 4])
    elif "sizes" in vector:
        vector["sizes"] = (500 + 300 * vector["sizes"]).round()
        told = {"text_embeds": vector["pooled"], "time_ids": vector["sizes"]}
        given["added_cond_kwargs"] = told
    elif vector:
        given["class_labels"] = vector["pooled"]
    whole = torch.cat([x, *channels.values()], dim=1)
    expected = model(whole, time, tokens, **given).sample
    assert expected.std() > 0.1
    answer = network(x, time, Condition(channels, vector, Tokens(tokens)))
    return ((answer - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("family", FAMILIES)
def test_follows_diffusers(family: str) -> None:
    model, network = theirs(family), ours(family)
    network.load_state_dict(to_ours(model.state_dict(), network))
    assert difference(family, model, network) < 1e-5
    model, network = model.double(), network.double()
    model.time_proj = Exact(8)
    if network.accepts.vector.keys() > {"pooled"}:
        model.add_time_proj = Exact(8)
    assert difference(family, model, network) < 1e-10


@pytest.mark.parametrize("space", [(9, 11), (10, 5), (7, 16), (1, 3)])
def test_sizes_that_cannot_be_halved_are_taken_as_there(space: tuple[int, int]) -> None:
    model, network = theirs("sd2 depth"), ours("sd2 depth")
    network.load_state_dict(to_ours(model.state_dict(), network))
    assert network.divisor == 1
    assert difference("sd2 depth", model, network, space) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_and_configuration_come_back(family: str) -> None:
    network = ours(family)
    state = theirs(family).state_dict()
    back = to_diffusers(to_ours(state, network), network)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    written = unet_condition.settings(network.config, (8, 8))
    opened = UNet2DConditionModel.from_config(json.loads(json.dumps(written)))
    opened.load_state_dict(back)
    network.load_state_dict(to_ours(state, network))
    assert difference(family, opened.eval(), network) < 1e-5
    again, _ = unet_condition.config(written, WHERE)
    assert nets.build(again).config == network.config


def test_a_wrong_head_or_level_would_be_seen() -> None:
    model = theirs("sdxl")
    for changed in (
        {"attention_head_dim": 1},
        {"flip_sin_to_cos": False, "freq_shift": 1},
        {"norm_eps": 1e-2},
    ):
        network = ours("sdxl", **changed)
        network.load_state_dict(to_ours(model.state_dict(), network))
        assert difference("sdxl", model, network) > 1e-4, changed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"act_fn": "mish"}, "act_fn"),
        ({"dual_cross_attention": True}, "dual_cross_attention"),
        ({"encoder_hid_dim": 4}, "unknown key 'encoder_hid_dim'"),
        ({"time_cond_proj_dim": 256}, "unknown key 'time_cond_proj_dim'"),
        ({"mid_block_type": None}, "mid_block_type"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"class_embed_type": "projection"}, "need projection_class_embeddings_input_dim"),
        (JOINED | {"projection_class_embeddings_input_dim": 48}, "leaves no room for the text"),
        ({"conv_in_kernel": 1}, "conv_in_kernel"),
        ({"down_block_types": ["SimpleCrossAttnDownBlock2D"] * 3}, "down_block_types"),
        ({"up_block_types": ["UpBlock2D"] * 3}, "attend at different levels"),
        ({"block_out_channels": [8, 16]}, "there must be as many of each"),
        ({"attention_head_dim": [2, 2]}, "attention_head_dim has 2 values for 3 levels"),
        ({"attention_head_dim": [2, 8, 4]}, "neither one number of heads nor one width"),
        ({"layers_per_block": [1, 2, 1]}, "layers_per_block .*differs between levels"),
        ({"transformer_layers_per_block": [[1], [1], [1]]}, "transformer_layers_per_block"),
        ({"time_embedding_dim": 64}, "time_embedding_dim 64"),
        ({"freq_shift": 0, "flip_sin_to_cos": False}, "freq_shift 0 with flip_sin_to_cos false"),
        ({"surprise": 3}, "unknown key 'surprise'"),
    ],
)
def test_what_ours_has_not_is_refused_by_name(changed: dict[str, Any], message: str) -> None:
    raw = json.loads(json.dumps(dict(theirs("sd1").config))) | changed
    with pytest.raises(FileError, match=message) as caught:
        unet_condition.config(raw, WHERE)
    assert WHERE in str(caught.value) and "\n" not in str(caught.value)


SMALL = {
    "kind": "unet",
    "in_channels": 4,
    "channels": 8,
    "multipliers": [1, 2],
    "attention": {"at": [1, 2], "transformer": {}},
    "style": {"groups": 4},
    "accepts": {"tokens": 6},
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"attention": {"at": [1]}}, "attention.transformer is missing"),
        ({"spatial_dims": 3}, "3 spatial dimensions"),
        ({"style": {"groups": 4, "resample": "block"}}, "use 'layer'"),
        ({"style": {"groups": 4, "patch": 2}}, "style.patch is 2"),
        ({"attention": SMALL["attention"] | {"up": "last"}}, "attention.up='every'"),
        ({"attention": SMALL["attention"] | {"middle": False}}, "its middle must attend"),
        ({"attention": {"at": [2], "transformer": {"depth": [2]}}}, "transformer.middle=2"),
        ({"accepts": {"tokens": 6, "vector": {"age": 2}}}, "it is told .'age'."),
    ],
)
def test_what_diffusers_has_not_is_refused(changed: dict[str, Any], message: str) -> None:
    network = nets.build(SMALL | changed, device="meta")
    with pytest.raises(UsageError, match=message):
        unet_condition.settings(network.config, (8, 8))


def test_weights_of_another_network_are_refused() -> None:
    network, state = ours("sd1"), theirs("sd1").state_dict()
    del state["conv_in.weight"]
    with pytest.raises(FileError, match=r"lacks conv_in\.weight"):
        to_ours(state, network)
    with pytest.raises(FileError, match=r"has no place for .*class_embedding\.weight"):
        to_ours(theirs("x4").state_dict(), network)
    told = nets.build(SMALL | {"accepts": {"tokens": 6, "vector": {"age": 2}}})
    assert isinstance(told, nets.UNet)
    with pytest.raises(FileError, match=r"no name for embedding\.vector\.age\.weight"):
        to_diffusers(told.state_dict(), told)
