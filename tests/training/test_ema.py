"""The averaged weights: closed form, warm-up, precision, and a swap that leaves no trace."""

import pytest
import torch
from torch import nn

from fromnoise.core.errors import FileError
from fromnoise.training import EMA


def _module(value: float, dtype: torch.dtype = torch.float32) -> nn.Module:
    module = nn.Linear(3, 2).to(dtype)
    for parameter in module.parameters():
        parameter.data.fill_(value)
    return module


def test_the_average_of_a_constant_has_its_closed_form() -> None:
    module = _module(0.0)
    ema = EMA(module, 0.99)
    for parameter in module.parameters():
        parameter.data.fill_(1.0)
    left = 1.0
    for step in range(1, 2001):
        ema.update(step)
        left *= min(0.99, (1 + step) / (10 + step))
    for value in ema.shadow.values():
        assert value.flatten()[0].item() == pytest.approx(1 - left, abs=1e-5)


def test_without_warm_up_left_it_is_geometric() -> None:
    module = _module(0.0)
    ema = EMA(module, 0.9)
    start = 10_000
    for parameter in module.parameters():
        parameter.data.fill_(1.0)
    for step in range(start, start + 20):
        ema.update(step)
    assert ema.shadow["weight"][0, 0].item() == pytest.approx(1 - 0.9**20, rel=1e-5)


def test_decay_zero_is_the_weights_themselves() -> None:
    module = _module(0.0)
    ema = EMA(module, 0.0)
    for step, value in enumerate((0.3, -2.7), start=1):
        for parameter in module.parameters():
            parameter.data.fill_(value)
        ema.update(step)
        assert all(
            torch.equal(v, dict(module.named_parameters())[k]) for k, v in ema.shadow.items()
        )


def test_low_precision_weights_are_averaged_in_float32() -> None:
    """In bfloat16 an average with decay 0.9999 stands still; in float32 it does not."""
    module = _module(0.0, torch.bfloat16)
    ema = EMA(module, 0.9999)
    for parameter in module.parameters():
        parameter.data.fill_(1.0)
    for step in range(100_000, 102_000):
        ema.update(step)
    value = ema.shadow["weight"]
    assert value.dtype == torch.float32
    assert value[0, 0].item() == pytest.approx(1 - 0.9999**2000, rel=1e-3)
    frozen = torch.zeros((), dtype=torch.bfloat16)
    for _ in range(2000):
        frozen.lerp_(torch.ones((), dtype=torch.bfloat16), 1e-4)
    assert frozen.item() != pytest.approx(1 - 0.9999**2000, rel=0.05)


def test_swapping_in_and_out_leaves_the_weights_bit_for_bit() -> None:
    module = nn.Linear(4, 4)
    ema = EMA(module, 0.9)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    module.weight.data.mul_(3.0)
    changed = module.weight.detach().clone()
    identity = module.weight
    with ema.swap():
        assert torch.equal(module.weight, before["weight"])
    with pytest.raises(RuntimeError, match="inside"), ema.swap():
        raise RuntimeError("inside")
    assert torch.equal(module.weight, changed)
    assert module.weight is identity


def test_an_average_of_another_network_is_refused() -> None:
    ema = EMA(nn.Linear(4, 4), 0.9)
    with pytest.raises(FileError, match="bias"):
        ema.load({"weight": torch.zeros(4, 4)})
    with pytest.raises(FileError, match="shape"):
        ema.load({"weight": torch.zeros(4, 5), "bias": torch.zeros(4)})
