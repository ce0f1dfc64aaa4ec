"""The optimizer, the learning rate by step, clipping and decay."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from fromnoise.core.errors import FileError, UsageError
from fromnoise.core.files import load_tensors, save_tensors
from fromnoise.training import Optimization, TrainSettings
from fromnoise.training.optimizers import OPTIMIZERS, learning_rate


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


def _both(net: nn.Module, settings: dict[str, object]) -> tuple[nn.Module, Optimization]:
    """A copy of a network, and an optimization of it without clipping."""
    own = copy.deepcopy(net)
    return own, _optimization(own, clip=0, **settings)


class _Mixed(nn.Module):
    """A kernel, a matrix, an embedding and vectors, by the names that networks give them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.ModuleDict({"label": nn.Linear(3, 4, bias=False)})
        self.middle = nn.Conv2d(4, 6, 3)
        self.inner = nn.Linear(8, 12)


def _mixed() -> nn.Module:
    torch.manual_seed(0)
    return _Mixed()


def _walked(net: nn.Module, optimization: Optimization, steps: range, rate: float = 0.01) -> None:
    for step in steps:
        _gradients(net, step)
        optimization.step("main", optimization.norm("main"), rate)


def test_lion_moves_by_the_sign_of_the_momentum() -> None:
    net, optimization = _both(_mixed(), {"optimizer": "lion", "weight_decay": 0.1})
    weights = {n: p.detach().clone() for n, p in net.named_parameters()}
    momenta = {n: torch.zeros_like(w) for n, w in weights.items()}
    for step in range(6):
        _gradients(net, step)
        gradients = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
        optimization.step("main", optimization.norm("main"), 0.01)
        for name, w in weights.items():
            g, m = gradients[name], momenta[name]
            w *= 1 - 0.01 * 0.1 * (w.ndim > 1)
            w -= 0.01 * torch.sign(0.9 * m + 0.1 * g)
            momenta[name] = 0.99 * m + 0.01 * g
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.detach(), weights[name], rtol=1e-6, atol=1e-7)


def test_adafactor_follows_its_formula_on_kernels_as_matrices() -> None:
    net, optimization = _both(_mixed(), {"optimizer": "adafactor"})
    kernel = net.middle.weight.detach().clone().view(6, -1)
    row, column = torch.zeros(6, 1), torch.zeros(1, 36)
    for step in range(1, 6):
        _gradients(net, step)
        g = net.middle.weight.grad.clone().view(6, -1)
        optimization.step("main", optimization.norm("main"), 0.3)
        share = step**-0.8
        row += share * ((g * g).mean(dim=1, keepdim=True) - row)
        column += share * ((g * g).mean(dim=0, keepdim=True) - column)
        update = g / (row @ column / row.mean()).sqrt()
        update /= max(1.0, update.square().mean().sqrt().item())
        size = max(1e-3, kernel.square().mean().sqrt().item()) * min(0.3, step**-0.5)
        kernel -= size * update
    torch.testing.assert_close(net.middle.weight.detach().view(6, -1), kernel)


def test_muon_makes_the_step_of_a_kernel_orthogonal() -> None:
    net, optimization = _both(_mixed(), {"optimizer": "muon"})
    before = net.middle.weight.detach().clone().view(6, -1)
    _gradients(net, 0)
    g = net.middle.weight.grad.clone().view(6, -1)
    optimization.step("main", optimization.norm("main"), 0.01)
    moved = (before - net.middle.weight.detach().view(6, -1)) / (0.01 * 0.2 * math.sqrt(36))
    # Five steps of the published iteration bring singular values to 0.7 … 1.2, not to 1 exactly.
    assert all(0.6 < s < 1.3 for s in torch.linalg.svdvals(moved))
    u, _, v = torch.linalg.svd(g, full_matrices=False)
    torch.testing.assert_close((u @ v * moved).sum(), torch.tensor(6.0), rtol=0.15, atol=0.0)


def test_muon_leaves_embeddings_and_vectors_to_adamw() -> None:
    net, optimization = _both(_mixed(), {"optimizer": "muon"})
    other, reference = _both(_mixed(), {"optimizer": "adamw"})
    _walked(net, optimization, range(4))
    _walked(other, reference, range(4))
    assert torch.equal(net.embedding["label"].weight, other.embedding["label"].weight)
    assert torch.equal(net.middle.bias, other.middle.bias)
    assert not torch.equal(net.middle.weight, other.middle.weight)
    held = {key.split("/", 1)[1] for key in optimization.state()}
    assert "middle.weight/momentum_buffer" in held
    assert "embedding.label.weight/exp_avg_sq" in held
    assert not any(key.startswith("middle.weight/exp_avg") for key in held)
    every, chosen = _both(_mixed(), {"optimizer": {"kind": "muon", "others": []}})
    _walked(every, chosen, range(1))
    assert "main/embedding.label.weight/momentum_buffer" in chosen.state()


@pytest.mark.parametrize("kind", list(OPTIMIZERS))
def test_decay_is_apart_from_the_gradient_and_the_same_for_all(kind: str) -> None:
    net, optimization = _both(_mixed(), {"optimizer": kind, "weight_decay": 0.5})
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimization.step("main", optimization.norm("main"), 0.1)
    for name, parameter in net.named_parameters():
        factor = 0.95 if parameter.ndim > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


@pytest.mark.parametrize("kind", list(OPTIMIZERS))
def test_steps_saved_and_taken_up_again_are_the_same_bits(kind: str, tmp_path: Path) -> None:
    whole, one = _both(_mixed(), {"optimizer": kind, "weight_decay": 0.1})
    _walked(whole, one, range(10))
    parts, other = _both(_mixed(), {"optimizer": kind, "weight_decay": 0.1})
    _walked(parts, other, range(5))
    save_tensors(tmp_path / "state", other.state())
    again, third = _both(parts, {"optimizer": kind, "weight_decay": 0.1})
    third.load(load_tensors(tmp_path / "state")[0])
    _walked(again, third, range(5, 10))
    for (name, ours), theirs in zip(whole.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert all(torch.equal(v, third.state()[k]) for k, v in one.state().items())
    # The control: every quantity matters, so one that is lost is seen.
    for quantity in {key.rsplit("/", 1)[1] for key in other.state()}:
        damaged, fourth = _both(parts, {"optimizer": kind, "weight_decay": 0.1})
        held = load_tensors(tmp_path / "state")[0]
        fourth.load({k: v.mul(k.rsplit("/", 1)[1] != quantity) for k, v in held.items()})
        _walked(damaged, fourth, range(5, 10))
        pairs = zip(whole.parameters(), damaged.parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs), quantity


@pytest.mark.parametrize("kind", list(OPTIMIZERS))
def test_what_is_remembered_is_what_is_declared_and_checked(kind: str) -> None:
    net, optimization = _both(_mixed(), {"optimizer": kind})
    assert optimization.state() == {}
    _walked(net, optimization, range(2))
    held = optimization.state()
    assert {key.split("/")[1] for key in held} == {n for n, _ in net.named_parameters()}
    _, fresh = _both(_mixed(), {"optimizer": kind})
    fresh.load(held)
    for key in held:
        left = {k: v for k, v in held.items() if k != key}
        if len(_of(key, held)) > 1:
            with pytest.raises(FileError, match="missing"):
                fresh.load(left)
    shapes = {k: torch.zeros(7, 7, 7) if v.ndim else v for k, v in held.items()}
    with pytest.raises(FileError, match="another shape"):
        fresh.load(shapes)
    kinds = [other for other in OPTIMIZERS if other != kind]
    _, stranger = _both(_mixed(), {"optimizer": kinds[0]})
    with pytest.raises(FileError, match="missing|of another optimizer"):
        stranger.load(held)


def _of(key: str, held: dict[str, torch.Tensor]) -> list[str]:
    return [k for k in held if k.rsplit("/", 1)[0] == key.rsplit("/", 1)[0]]


def _bytes(kind: str) -> int:
    torch.manual_seed(0)
    net, optimization = _both(nn.Conv2d(32, 64, 3), {"optimizer": kind})
    _walked(net, optimization, range(1))
    return sum(v.numel() * v.element_size() for v in optimization.state().values())


def test_what_each_remembers_in_bytes() -> None:
    kernel, bias = 64 * 32 * 9, 64
    assert _bytes("adamw") == 4 * (2 * (kernel + bias) + 2)
    assert _bytes("lion") == 4 * (kernel + bias)
    assert _bytes("adafactor") == 4 * (64 + 32 * 9 + bias + 2)
    assert _bytes("muon") == 4 * (kernel + 2 * bias + 1)


def test_a_network_moved_after_the_optimizer_was_made_is_still_the_one_stepped() -> None:
    """Matrices are views of kernels; moving a module gives its parameters other memory."""
    net, optimization = _both(_mixed(), {"optimizer": "muon"})
    for parameter in net.parameters():
        parameter.data = parameter.data.clone()
    before = net.middle.weight.detach().clone()
    _walked(net, optimization, range(1))
    assert not torch.equal(net.middle.weight, before)


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing is left to train"):
        Optimization({"main": []}, TrainSettings())


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("adafactor", {"decay": 0.0}),
        ("adafactor", {"clip": 0.5}),
        ("lion", {"beta1": 1.0}),
        ("muon", {"momentum": 1.0}),
        ("muon", {"nesterov": True}),
    ],
)
def test_impossible_arguments_are_refused(kind: str, arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(arguments)).rstrip("1")):
        _optimization(nn.Linear(2, 2), optimizer={"kind": kind, **arguments})


def test_unknown_optimizers_and_impossible_betas_are_refused() -> None:
    with pytest.raises(UsageError, match="adamw"):
        _optimization(nn.Linear(2, 2), optimizer="adam")
    with pytest.raises(UsageError, match="betas"):
        _optimization(nn.Linear(2, 2), optimizer={"kind": "adamw", "beta1": 1.0})
