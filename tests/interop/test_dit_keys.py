"""DiT: the published names and shapes, and diffusers' network with the same weights."""

import math

import pytest
import torch
from diffusers import DiTTransformer2DModel
from nets.filling import filled
from torch import nn

from fromnoise import nets
from fromnoise.core.errors import FileError
from fromnoise.interop.dit_keys import from_diffusers, to_diffusers, to_dit, to_ours
from fromnoise.layers.condition import Condition

THEIRS = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 2,
    "out_channels": 4,
    "num_layers": 2,
    "sample_size": 8,
    "patch_size": 2,
    "num_embeds_ada_norm": 3,
    "norm_eps": 1e-6,
}
OURS = {
    "kind": "dit",
    "in_channels": 2,
    "out_channels": 4,
    "size": 8,
    "patch": 2,
    "width": 16,
    "depth": 2,
    "heads": 2,
    "time": "closed",
    "accepts": {"vector": {"label": 3}},
}


class ExactTime(nn.Module):
    """diffusers takes its time features in float32 always; these are the same in float64."""

    def __init__(self, closed: bool) -> None:
        super().__init__()
        self.last = 127 if closed else 128

    def forward(self, time: torch.Tensor) -> torch.Tensor:
        index = torch.arange(128, dtype=torch.float64)
        angles = time.double()[:, None] * 10000.0 ** (-index / self.last)
        return torch.cat([angles.cos(), angles.sin()], dim=1)


def reference() -> DiTTransformer2DModel:
    """Random weights, with one embedding for all blocks, as in every published file."""
    model = DiTTransformer2DModel(**THEIRS).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        scale = 0.2 if parameter.ndim == 1 else 1 / math.sqrt(parameter[0].numel())
        parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    shared = model.transformer_blocks[0].norm1.emb.state_dict()
    for block in model.transformer_blocks:
        block.norm1.emb.load_state_dict(shared)
    return model


@torch.no_grad()
def worst(model: DiTTransformer2DModel, network: nets.Network, dtype: torch.dtype) -> float:
    x = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(1)).to(dtype)
    time = torch.tensor([3.0, 500.0, 977.0], dtype=dtype)
    # The last is the null label: a row of its own there, zeros here.
    labels, raw = torch.tensor([2, 0, 3]), torch.eye(4)[[2, 0, 3], :3]
    expected = model(x, time, labels).sample
    assert expected.std() > 0.1
    error = network(x, time, Condition(vector={"label": raw})) - expected
    return (error.abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("time", ["closed", "adm"])
def test_follows_diffusers(time):
    model = reference()
    network = nets.build(OURS | {"time": time}).eval()
    network.load_state_dict(from_diffusers(model.state_dict(), network))
    if time == "closed":
        assert worst(model, network, torch.float32) < 2e-5
    model, network = model.double(), network.double()
    # diffusers keeps the positions in float32; ours are those, too.
    for block in model.transformer_blocks:
        block.norm1.emb.time_proj = ExactTime(time == "closed")
    assert worst(model, network, torch.float64) < 1e-6
    model.pos_embed.pos_embed.copy_(network.position)
    assert worst(model, network, torch.float64) < 1e-10


def test_a_wrong_time_would_be_seen():
    model = reference()
    network = nets.build(OURS | {"time": "adm"}).eval()
    network.load_state_dict(from_diffusers(model.state_dict(), network))
    assert worst(model, network, torch.float32) > 1e-3


def test_weights_come_back_bit_for_bit():
    network = filled(OURS)
    state = network.state_dict()
    back = to_ours(to_dit(state, network), network)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)
    fresh = nets.build(OURS)
    state["position"] = fresh.position
    theirs = to_diffusers(state, network)
    assert theirs.keys() == DiTTransformer2DModel(**THEIRS).state_dict().keys()
    back = from_diffusers(theirs, network)
    assert all(torch.equal(back[key], state[key]) for key in state)
    again = to_diffusers(back, network)
    assert all(torch.equal(again[key], theirs[key]) for key in theirs)


def manifest(depth: int, width: int, patch: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes as the published code registers them."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, *weight: int) -> None:
        shapes.update({f"{name}.weight": weight, f"{name}.bias": weight[:1]})

    shapes["pos_embed"] = (1, (32 // patch) ** 2, width)
    add("x_embedder.proj", width, 4, patch, patch)
    add("t_embedder.mlp.0", width, 256)
    add("t_embedder.mlp.2", width, width)
    shapes["y_embedder.embedding_table.weight"] = (1001, width)
    for i in range(depth):
        add(f"blocks.{i}.attn.qkv", 3 * width, width)
        add(f"blocks.{i}.attn.proj", width, width)
        add(f"blocks.{i}.mlp.fc1", 4 * width, width)
        add(f"blocks.{i}.mlp.fc2", width, 4 * width)
        add(f"blocks.{i}.adaLN_modulation.1", 6 * width, width)
    add("final_layer.linear", patch**2 * 8, width)
    add("final_layer.adaLN_modulation.1", 2 * width, width)
    return shapes


@pytest.mark.parametrize(
    ("name", "shape"),
    [("dit-s/8", (12, 384, 8)), ("dit-b/4", (12, 768, 4)), ("dit-xl/2", (28, 1152, 2))],
)
def test_published_names_and_shapes(name, shape):
    network = nets.build(name, device="meta")
    theirs = to_dit(network.state_dict(), network)
    assert {key: tuple(value.shape) for key, value in theirs.items()} == manifest(*shape)


def test_embeddings_that_differ_are_refused():
    network = nets.build(OURS)
    theirs = to_diffusers(network.state_dict(), network)
    name = "transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.bias"
    theirs[name] = theirs[name] + 1
    with pytest.raises(FileError, match="copies of a shared embedding differ"):
        from_diffusers(theirs, network)
