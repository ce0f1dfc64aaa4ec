"""Gradient checkpointing: the same numbers, fewer activations."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from training import toy

from fromnoise.nets import NETS, Network
from fromnoise.training import checkpoint

UNET = {
    "kind": "unet", "in_channels": 1, "channels": 16, "multipliers": [1, 2], "blocks": 2,
    "attention": {"at": [2]}, "style": {"groups": 4, "dropout": 0.3},
}  # fmt: skip
DIT = {
    "kind": "dit", "in_channels": 1, "size": 8, "patch": 2, "width": 32, "depth": 4, "heads": 2,
}  # fmt: skip
MLP = {"kind": "mlp", "in_channels": 2, "width": 64, "depth": 4, "dropout": 0.3}


def _net(config: dict[str, object], checkpointing: bool) -> Network:
    net = NETS.build(config).train()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.1 * torch.randn(p.shape, generator=generator))
    net.checkpointing = checkpointing
    return net


def _step(config: dict[str, object], checkpointing: bool) -> tuple[Tensor, list[Tensor], int]:
    """The loss, all gradients, and the bytes that autograd kept for the backward pass."""
    net = _net(config, checkpointing)
    shape = (16, 2) if config["kind"] == "mlp" else (16, 1, 8, 8)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    kept: dict[int, int] = {}

    def pack(saved: Tensor) -> Tensor:
        kept[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
        return saved

    torch.manual_seed(5)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        loss = net(x, torch.linspace(0, 1, 16)).square().mean()
    held = sum(kept.values())
    loss.backward()
    return loss.detach(), [p.grad for p in net.parameters() if p.grad is not None], held


@pytest.mark.parametrize("config", [UNET, DIT, MLP], ids=lambda c: str(c["kind"]))
def test_the_same_loss_and_gradients_bit_for_bit_with_less_kept(config: dict[str, object]) -> None:
    loss, gradients, held = _step(config, checkpointing=False)
    again, others, less = _step(config, checkpointing=True)
    assert torch.equal(again, loss)
    assert len(others) == len(gradients) > 0
    assert all(torch.equal(a, b) for a, b in zip(gradients, others, strict=True))
    assert less < 0.6 * held


def test_a_dropout_that_is_drawn_anew_would_be_noticed() -> None:
    """The control: another seed gives another loss, so equal losses mean equal masks."""
    net = _net(UNET, checkpointing=True)
    x, t = torch.ones(4, 1, 8, 8), torch.linspace(0, 1, 4)
    losses = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        losses.append(net(x, t).square().mean().item())
    assert losses[0] == losses[1] != losses[2]


def test_the_setting_reaches_the_network_and_may_change_when_a_run_goes_on(tmp_path: Path) -> None:
    traces = []
    for name, on in (("off", False), ("on", True)):
        made = toy.run(tmp_path / name, {"gradient_checkpointing": on, "schedule": "constant"})
        traces.append([toy.trace(event, made) for event in made.train()])
        assert made.task.objective.denoiser.net.checkpointing is on
    assert traces[0] == traces[1]
    longer = {"gradient_checkpointing": True, "schedule": "constant", "steps": 14}
    assert len(list(toy.run(tmp_path / "off", longer).train())) == 2
    assert checkpoint.latest(tmp_path / "off") is not None
