"""The generator and the discriminator: what they are told, and that all of them trains."""

import pytest
import torch

from fromnoise.core.errors import UsageError
from fromnoise.layers.condition import Condition
from fromnoise.nets import build

SMALL = {"shape": [2, 3], "width": 8, "depth": 2, "accepts": {"vector": {"label": 3}}}


def told(*labels: int) -> Condition:
    return Condition(vector={"label": torch.eye(3)[list(labels)]})


def test_samples_lie_within_the_range_of_data() -> None:
    net = build({"kind": "gan", **SMALL})
    sample = net(100 * torch.randn(50, 2, 3), torch.ones(50), told(*[0] * 50))
    assert sample.shape == (50, 2, 3)
    assert sample.abs().max() <= 1
    with pytest.raises(UsageError, match="steps=1"):
        net(torch.randn(1, 2, 3), torch.zeros(1), told(0))


def test_the_verdict_is_affine_in_the_label_and_a_null_of_zeros_adds_nothing() -> None:
    net, x = build({"kind": "discriminator", **SMALL}), torch.randn(1, 2, 3)
    verdicts = [net(x, torch.zeros(1), told(k)) for k in range(3)]
    assert all(v.shape == (1,) for v in verdicts)
    null = net(x, torch.zeros(1), Condition(vector={"label": torch.zeros(1, 3)}))
    mixed = net(x, torch.zeros(1), Condition(vector={"label": torch.tensor([[0.5, 0.5, 0.0]])}))
    torch.testing.assert_close(mixed, 0.5 * (verdicts[0] + verdicts[1]))
    assert not torch.allclose(null, verdicts[0])
    plain = build({"kind": "discriminator", **SMALL, "accepts": {}})
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if "tables" not in k})
    assert torch.equal(plain(x, torch.zeros(1)), null)


@pytest.mark.parametrize("kind", ["gan", "discriminator"])
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    net = build({"kind": kind, **SMALL})
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    net(torch.randn(3, 2, 3), torch.ones(3), told(0, 1, 2)).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.parameters())
