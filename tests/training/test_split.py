"""However a step is split, over micro-steps or processes, every objective has the same losses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training import toy
from training.group import Group

from fromnoise import schedules
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning, Label
from fromnoise.nets import build
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.training import Draws, Objective, Run, Task, TrainSettings
from fromnoise.training.gan import gan
from fromnoise.training.settings import GanSettings, VaeSettings, VdmSettings
from fromnoise.training.vae import Variational, vae
from fromnoise.training.vdm import FEWER, VariationalDiffusion, vdm

LABEL = {"vector": {"label": 2}}
SIZE: dict[str, Any] = {"shape": [2], "width": 16, "depth": 1, "accepts": LABEL}
SETTINGS = {"steps": 8, "batch_size": 6, "validate_every": 0, "checkpoint_every": 0}


def _filled(net: Any) -> Any:
    """Layers that start at zero are filled, so that each loss counts from the first step."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return net


def _told() -> Conditioning:
    return Conditioning({"label": Label(2)})


def _at_once(kind: str, **choices: Any) -> NetworkDenoiser:
    reading = PARAMETERIZATIONS.build({"kind": "x0", "clock": "time", "clock_scale": 1.0})
    net = _filled(build({"kind": kind, **SIZE, **choices}))
    return NetworkDenoiser(net, schedules.flow(), reading)


def variational_diffusion() -> VariationalDiffusion:
    reading = PARAMETERIZATIONS.build({"kind": "eps", "clock": "log_ratio", "clock_scale": 10.0})
    schedule = schedules.learned(-8.0, 4.0, learn_ends=True)
    made = NetworkDenoiser(toy.network(0.0), schedule, reading)
    return vdm(made, _told(), VdmSettings(condition_dropout=0.2), None)


def hierarchical() -> Variational:
    made = _at_once("hvae", groups=[1, 1])
    return vae(made, _told(), VaeSettings(free_nats=0.5, warmup=4, condition_dropout=0.2), None)


def adversarial() -> Objective:
    settings = GanSettings(discriminator={"kind": "discriminator", **SIZE}, condition_dropout=0.2)
    made = gan(_at_once("gan"), _told(), settings, None)
    _filled(made.discriminator)
    return made


OBJECTIVES = [variational_diffusion, hierarchical, adversarial]


def _run(folder: Path, objective: Objective, **settings: Any) -> Run:
    train = TrainSettings(**{**toy.SMALL, **SETTINGS, **settings}).model_dump(mode="json")
    return Run(folder, {"recipe": "toy", "train": train}, Task(objective, toy.Points()))


def _losses(made: Run) -> list[list[float]]:
    return [list(event.losses.values()) for event in made.train()]


def _close(one: list[list[float]], other: list[list[float]]) -> bool:
    return len(one) == len(other) == 8 and all(
        first == pytest.approx(second, rel=1e-5, abs=1e-5)
        for first, second in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("make", OBJECTIVES)
def test_micro_steps_change_only_the_rounding(
    tmp_path: Path, make: Callable[[], Objective]
) -> None:
    """Parts of 3 samples, and of 1 or 2: most of these hold no place the schedule learns from."""
    whole = _losses(_run(tmp_path / "whole", make()))
    for parts in (2, 4):
        split = _losses(_run(tmp_path / f"{parts}", make(), accumulation=parts))
        assert _close(whole, split)


@pytest.mark.slow
@pytest.mark.parametrize("make", OBJECTIVES)
def test_two_processes_have_the_losses_of_one(
    tmp_path: Path, make: Callable[[], Objective]
) -> None:
    whole = _losses(_run(tmp_path / "whole", make()))

    def work(rank: int) -> None:
        for losses in _losses(_run(tmp_path / "two", make(), accumulation=2)):
            print(*(loss.hex() for loss in losses), flush=True)

    group = Group(tmp_path / "g", work)
    assert group.end() == [0, 0], group.said(0)
    assert group.lines(0) == group.lines(1)
    two = [[float.fromhex(word) for word in line.split()] for line in group.lines(0)]
    assert _close(whole, two)


def test_rows_counted_within_a_part_would_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the schedule learns from every fourth row of what a micro-step has."""
    whole = _losses(_run(tmp_path / "whole", variational_diffusion()))
    right = VariationalDiffusion._second_moment

    def local(self: Any, x0: Any, condition: Any, draws: Draws) -> Any:
        rows = torch.arange(len(x0)) % FEWER != 0
        moved = torch.where(rows, FEWER * draws.total + 1, FEWER * (draws.positions // FEWER))
        return right(self, x0, condition, Draws(draws.noise, draws.shared, moved, draws.total))

    monkeypatch.setattr(VariationalDiffusion, "_second_moment", local)
    assert not _close(
        whole, _losses(_run(tmp_path / "two", variational_diffusion(), accumulation=2))
    )


def test_divergence_free_for_a_mean_would_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what costs nothing is told from the mean over a micro-step."""
    monkeypatch.setattr(
        Variational, "_charged", lambda self, kl: kl.mean().clamp(min=self.settings.free_nats)
    )
    whole = _losses(_run(tmp_path / "whole", hierarchical()))
    assert not _close(whole, _losses(_run(tmp_path / "four", hierarchical(), accumulation=4)))


def test_a_part_without_a_place_the_schedule_learns_from_has_no_loss_there() -> None:
    made = variational_diffusion()
    batch, span = toy.Points().batch(range(1, 4)), range(1, 4)
    phases = {p.name: p for p in made.phases(batch, Draws.of_step(0, 0, span, 6))}
    loss = phases["second_moment"].loss
    weights: list[nn.Parameter] = list(made.denoiser.process.schedule.path.interior)
    gradients = torch.autograd.grad(loss, weights)
    assert loss.item() == 0.0
    assert not any(bool(g.any()) for g in gradients)
