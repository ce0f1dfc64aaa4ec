"""A transformer of one vector: masks, order of tokens, gradients, and what it refuses."""

import pytest
import torch
from torch import nn

from fromnoise import nets
from fromnoise.core.errors import ShapeError, UsageError
from fromnoise.layers.condition import Condition, Tokens

TOLD = {"tokens": 6, "vector": {"prompt": 3}, "channels": {"self": 5}}


def filled(**config: object) -> nets.Network:
    network = nets.build(
        {"kind": "vector_transformer", "in_channels": 5, "width": 16, "depth": 2, **config}
    )
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return network.eval()


def told(batch: int = 4, length: int = 7, seed: int = 1) -> Condition:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(batch, length, 6, generator=generator)
    mask = torch.arange(length) < torch.tensor([[7], [3], [1], [5]])[:batch]
    return Condition(
        vector={"prompt": torch.randn(batch, 3, generator=generator)}, tokens=Tokens(values, mask)
    )


def test_every_parameter_gets_a_gradient() -> None:
    network = filled(accepts=TOLD)
    answer = network(torch.randn(4, 5), torch.arange(4.0), told())
    assert answer.shape == (4, 5)
    answer.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_masked_tokens_change_nothing_and_the_others_do() -> None:
    network, x, t = filled(accepts=TOLD), torch.randn(4, 5), torch.arange(4.0)
    condition = told()
    assert condition.tokens is not None and condition.tokens.mask is not None
    values, mask = condition.tokens.values, condition.tokens.mask
    other = torch.where(mask[..., None], values, torch.randn_like(values))
    same = Condition(vector=condition.vector, tokens=Tokens(other, mask))
    torch.testing.assert_close(network(x, t, condition), network(x, t, same))
    heard = Condition(vector=condition.vector, tokens=Tokens(values + mask[..., None], mask))
    assert (network(x, t, condition) - network(x, t, heard)).abs().amin(1).min() > 1e-6


def test_it_works_without_tokens_and_starts_at_zero() -> None:
    network = nets.build({"kind": "vector_transformer", "in_channels": 5, "accepts": {}})
    assert network(torch.randn(2, 5), torch.ones(2)).abs().max() == 0
    assert nets.build(network.config).config == network.config
    assert filled(accepts={}, out_channels=10)(torch.randn(2, 5), torch.ones(2)).shape == (2, 10)


def test_what_cannot_be_is_said() -> None:
    for wrong in ({"depth": 0}, {"width": 0}, {"heads": 3}, {"in_channels": 0}):
        with pytest.raises(UsageError):
            nets.build({"kind": "vector_transformer", **wrong})
    network = filled(accepts={"tokens": 6})
    with pytest.raises(ShapeError, match="tokens"):
        network(torch.randn(1, 5), torch.ones(1), Condition(tokens=Tokens(torch.randn(1, 2, 4))))
