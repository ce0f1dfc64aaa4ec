import pytest
import torch
from nets.filling import filled
from torch import nn

from fromnoise import nets
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.layers.attention import ReadMaps, hooked
from fromnoise.nets.classifier import AttentionPool

SMALL = {
    "kind": "classifier",
    "in_channels": 2,
    "classes": 5,
    "size": 8,
    "channels": 8,
    "multipliers": [1, 2],
    "blocks": 1,
    "attention": {"at": [2], "head_channels": 4},
    "style": {"groups": 4, "scale_shift": True, "resample": "block"},
}


def ask(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(batch, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    return x, torch.linspace(3, 500, batch)


@pytest.mark.parametrize(
    "change",
    [{}, {"style": {"groups": 4}}, {"style": {"groups": 4, "pyramid": "residual"}}],
)
def test_every_parameter_gets_a_gradient(change):
    network = filled(SMALL | change).train()
    answer = network(*ask())
    assert answer.shape == (2, 5)
    answer.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_the_config_makes_it_again():
    network = nets.build(SMALL)
    assert nets.build(network.config, device="meta").config == network.config


def test_the_pool_is_attention_of_the_mean():
    """torch's own attention with the same weights, of which the first answer counts."""
    torch.manual_seed(0)
    pool = AttentionPool(6, 8, 2, 3, "pool").double()
    outside = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    own = pool.attention
    parts = (own.query, own.key, own.value)
    outside.in_proj_weight.data = torch.cat([part.weight for part in parts]).detach()
    outside.in_proj_bias.data = torch.randn(24, dtype=torch.float64)
    for part, bias in zip(parts, outside.in_proj_bias.chunk(3), strict=True):
        part.bias.data = bias.detach().clone()
    outside.out_proj.weight.data = torch.eye(8, dtype=torch.float64)
    outside.out_proj.bias.data.zero_()
    x = torch.randn(4, 8, 2, 3, dtype=torch.float64)
    cells = x.reshape(4, 8, 6).transpose(1, 2)
    tokens = torch.cat([cells.mean(1, keepdim=True), cells], dim=1) + pool.position
    expected = own.out(outside(tokens, tokens, tokens)[0][:, 0])
    torch.testing.assert_close(pool(x), expected, atol=1e-12, rtol=1e-12)


def test_the_seam_shows_where_it_looks():
    network = filled(SMALL)
    with hooked(read := ReadMaps()):
        network(*ask())
    assert set(read.maps_at) == {
        "down.1.attentions.0.own",
        "middle.attentions.0.own",
        "pool.attention",
    }
    assert read.maps_at["pool.attention"][0].shape == (2, 4, 1, 17)


def test_it_can_learn_which_half_is_bright():
    torch.manual_seed(0)
    network = nets.build(SMALL | {"in_channels": 1, "classes": 2})
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    bright = torch.zeros(2, 1, 8, 8)
    bright[0, :, :4] = 1
    bright[1, :, 4:] = 1
    labels = torch.tensor([0, 1]).repeat(8)
    for _ in range(40):
        x = bright.repeat(8, 1, 1, 1) + 0.5 * torch.randn(16, 1, 8, 8)
        loss = nn.functional.cross_entropy(network(x, torch.full((16,), 100.0)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


def test_what_it_cannot_be_or_take():
    with pytest.raises(UsageError, match="multiple of 2"):
        nets.build(SMALL | {"size": 7})
    with pytest.raises(ShapeError, match="8 by 8"):
        nets.build(SMALL)(torch.zeros(1, 2, 16, 16), torch.zeros(1))
