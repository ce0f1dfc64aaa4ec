import pytest
import torch
from torch import nn

from fromnoise import nets
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.layers.condition import Condition

TOLD = {"channels": {"self": 2}, "vector": {"label": 3}}


def filled(config: dict) -> nets.Network:
    network = nets.build({"kind": "mlp", "width": 16, **config})
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"accepts": TOLD},
        {"time": "fourier"},
        {"in_channels": 5, "out_channels": 10},
    ],
)
def test_every_parameter_gets_a_gradient(config):
    network = filled(config)
    vector = {name: torch.randn(4, width) for name, width in network.accepts.vector.items()}
    x = torch.randn(4, network.in_channels)
    answer = network(x, torch.arange(4.0), Condition(vector=vector))
    assert answer.shape == (4, network.out_channels)
    answer.square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in network.parameters())


def test_it_starts_at_zero_and_remembers_how_it_was_made():
    network = nets.build({"kind": "mlp", "accepts": TOLD})
    x = torch.randn(4, 2)
    assert network(x, torch.ones(4), Condition(vector={"label": torch.eye(4, 3)})).abs().max() == 0
    assert network.config["accepts"]["vector"] == {"label": 3}
    assert nets.build(network.config).config == network.config


def test_it_can_learn_a_point_of_each_label():
    torch.manual_seed(0)
    network = nets.build({"kind": "mlp", "width": 32, "accepts": {"vector": {"label": 3}}})
    label = torch.eye(3)
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(150):
        answer = network(torch.randn(3, 2), torch.zeros(3), Condition(vector={"label": label}))
        loss = (answer - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02


def test_what_it_cannot_take():
    network = filled({})
    with pytest.raises(ShapeError, match=r"\(batch, 2\), not \(4, 3\)"):
        network(torch.zeros(4, 3), torch.zeros(4))
    with pytest.raises(UsageError, match="no tokens"):
        nets.build({"kind": "mlp", "accepts": {"tokens": 4}})
    with pytest.raises(UsageError, match="dropout"):
        nets.build({"kind": "mlp", "dropout": 1.0})
