"""The optimizer, the learning rate by step, clipping and decay."""

import math

import pytest
import torch
from torch import nn

from fromnoise.core.errors import UsageError
from fromnoise.training import Optimization, TrainSettings
from fromnoise.training.optimizers import learning_rate


def _optimization(module: nn.Module, **settings: object) -> Optimization:
    groups = {"main": list(module.named_parameters())}
    return Optimization(groups, TrainSettings.model_validate({"warmup": 0, **settings}))


def _gradients(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_it_is_torchs_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    optimization = _optimization(ours, weight_decay=0.1, clip=0)
    groups = [{"params": [theirs.weight], "weight_decay": 0.1}]
    reference = torch.optim.AdamW(
        [*groups, {"params": [theirs.bias], "weight_decay": 0.0}], lr=0.01, fused=False
    )
    for step in range(20):
        _gradients(ours, step)
        _gradients(theirs, step)
        optimization.step("main", optimization.norm("main"), 0.01)
        reference.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-5, atol=1e-7)


def test_gradients_are_clipped_to_the_norm_and_short_ones_are_left() -> None:
    module = nn.Linear(5, 3)
    optimization = _optimization(module, clip=0.5)
    _gradients(module, 0)
    before = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    norm = optimization.norm("main")
    assert norm.item() == pytest.approx(math.sqrt(sum(float(g.square().sum()) for g in before)))
    optimization.step("main", norm, 0.0)
    assert optimization.norm("main").item() == pytest.approx(0.5, rel=1e-4)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimization.step("main", optimization.norm("main"), 0.0)
    assert all(bool((p.grad == 1e-3).all()) for p in module.parameters() if p.grad is not None)


def test_the_learning_rate_rises_then_falls_as_a_cosine() -> None:
    settings = TrainSettings(learning_rate=0.5, warmup=10, schedule="cosine")
    rates = [learning_rate(step, 100, settings) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[4] == pytest.approx(0.25 * 0.5 * (1 + math.cos(math.pi * 0.04)))
    assert rates[50] == pytest.approx(0.25)
    assert 0 < rates[-1] < 1e-3
    assert rates[9:] == sorted(rates[9:], reverse=True)
    constant = settings.model_copy(update={"schedule": "constant"})
    assert [learning_rate(step, 100, constant) for step in (1, 10, 100)] == [0.05, 0.5, 0.5]


def test_state_goes_through_tensors_and_back() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(5, 3), nn.Linear(5, 3)
    one, other = _optimization(first), _optimization(second)
    for step in range(3):
        _gradients(first, step)
        one.step("main", one.norm("main"), 0.01)
    second.load_state_dict(first.state_dict())
    assert set(one.state()) == {
        f"main/{name}/{key}"
        for name in ("weight", "bias")
        for key in ("step", "exp_avg", "exp_avg_sq")
    }
    other.load({key: value.clone() for key, value in one.state().items()})
    for optimization, module in ((one, first), (other, second)):
        _gradients(module, 7)
        optimization.step("main", optimization.norm("main"), 0.02)
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)


def test_unknown_optimizers_and_impossible_betas_are_refused() -> None:
    with pytest.raises(UsageError, match="adamw"):
        _optimization(nn.Linear(2, 2), optimizer="adam")
    with pytest.raises(UsageError, match="betas"):
        _optimization(nn.Linear(2, 2), optimizer={"kind": "adamw", "beta1": 1.0})
