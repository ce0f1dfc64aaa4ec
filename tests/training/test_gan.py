"""Generator against discriminator: the penalty, the phases, a toy that is matched, resuming."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training import toy

from fromnoise.core.errors import UsageError
from fromnoise.data import Dataset
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning, Label
from fromnoise.layers.condition import Condition
from fromnoise.nets import build
from fromnoise.nets.base import Accepts, Network
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.schedules import flow
from fromnoise.training import Draws, Run, Task, TrainSettings
from fromnoise.training.gan import DISCRIMINATOR, GENERATOR, Adversarial, gan
from fromnoise.training.settings import GanSettings


def denoiser(net: Network) -> NetworkDenoiser:
    reading = PARAMETERIZATIONS.build({"kind": "x0", "clock": "time", "clock_scale": 1.0})
    return NetworkDenoiser(net, flow(), reading)


def adversarial(shape: list[int], labels: int = 0, **choices: Any) -> Adversarial:
    torch.manual_seed(0)
    accepts = {"vector": {"label": labels}} if labels else {}
    size = {"shape": shape, "width": 32, "depth": 2, "accepts": accepts}
    settings = GanSettings(discriminator={"kind": "discriminator", **size}, **choices)
    conditioning = Conditioning({"label": Label(labels)} if labels else {})
    return gan(denoiser(build({"kind": "gan", **size})), conditioning, settings, None)


class Plane(Network):
    """D(x) = w·x, whose slope is w everywhere."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.in_channels, self.out_channels, self.spatial_dims = len(weight), 1, 0
        self.divisor, self.accepts = 1, Accepts()

    def compute(self, x: Tensor, time: Tensor, condition: Condition) -> Tensor:
        return x @ self.weight


def test_the_penalty_of_a_linear_discriminator_is_its_weights_square() -> None:
    made = adversarial([2], penalty=3.0)
    made.discriminator = Plane(torch.tensor([0.6, -0.8]))
    slope = made.slope(torch.randn(5, 2), None)
    torch.testing.assert_close(slope, torch.ones(5))
    (gradient,) = torch.autograd.grad(slope.mean(), made.discriminator.weight)
    torch.testing.assert_close(gradient, torch.tensor([1.2, -1.6]))


def test_the_penalty_enters_in_training_only() -> None:
    batch, draws = toy.Points(8).batch(range(8)), Draws.of_step(0, 0, range(8), 8)
    losses = {}
    for penalty in (0.0, 2.0):
        made = adversarial([2], penalty=penalty)
        first = next(iter(made.phases(batch, draws)))
        with torch.no_grad():
            quiet = next(iter(made.eval().phases(batch, Draws.of_step(0, 0, range(8), 8))))
        draws = Draws.of_step(0, 0, range(8), 8)
        losses[penalty] = (first.loss.item(), quiet.loss.item(), made.slope(batch.x, None).mean())
    assert losses[0.0][0] == pytest.approx(losses[0.0][1], rel=1e-6)
    assert losses[2.0][1] == pytest.approx(losses[0.0][1], rel=1e-6)
    assert losses[2.0][0] - losses[2.0][1] == pytest.approx(losses[2.0][2].item(), rel=1e-4)


def test_two_phases_train_two_groups_that_share_nothing() -> None:
    made = adversarial([2], labels=2)
    groups = made.groups()
    assert list(groups) == [DISCRIMINATOR, GENERATOR]
    names = [n for named in groups.values() for n, _ in named]
    assert sorted(names) == sorted(n for n, _ in made.named_parameters())
    assert len(names) == len(set(names))
    batch = toy.Points(8).batch(range(8))
    phases = list(made.phases(batch, Draws.of_step(0, 0, range(8), 8)))
    assert [(p.name, p.group) for p in phases] == [
        (DISCRIMINATOR, DISCRIMINATOR), (GENERATOR, GENERATOR),
    ]  # fmt: skip
    # The discriminator is judged on samples it cannot change by way of the generator.
    own = [p for _, p in groups[GENERATOR]]
    assert all(g is None for g in torch.autograd.grad(phases[0].loss, own, allow_unused=True))


class Line(Dataset):
    """One number, normal with mean 0.3 and standard deviation 0.15."""

    def __init__(self) -> None:
        self.name, self.shape, self.levels, self.classes = "line", (1,), None, ()
        generator = torch.Generator().manual_seed(0)
        self.x = 0.3 + 0.15 * torch.randn(2000, 1, generator=generator)
        self.labels = None

    def __len__(self) -> int:
        return len(self.x)

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        return self.x[torch.from_numpy(indices)]


def _run(folder: Path, made: Adversarial, data: Dataset, **choices: Any) -> Run:
    settings = {
        "steps": 12, "batch_size": 8, "warmup": 0, "checkpoint_every": 4, "validate_every": 0,
        "learning_rate": 1e-3, "clip": 0.0, "ema": 0.9,
        "optimizer": {"kind": "adamw", "beta1": 0.0, "beta2": 0.99}, **choices,
    }  # fmt: skip
    train = TrainSettings(**settings).model_dump(mode="json")
    return Run(folder, {"recipe": "toy", "train": train}, Task(made, data))


@pytest.mark.slow
def test_a_line_of_numbers_is_matched(tmp_path: Path) -> None:
    made = adversarial([1], penalty=1.0)
    noise = torch.randn(4000, 1, generator=torch.Generator().manual_seed(9))
    one = torch.ones(4000, dtype=torch.float64)
    with torch.no_grad():
        before = made.denoiser(noise, one).x0
    run = _run(
        tmp_path / "run", made, Line(), steps=1500, batch_size=128, learning_rate=2e-3,
        checkpoint_every=0, schedule="cosine",
    )  # fmt: skip
    list(run.train())
    with torch.no_grad():
        after = made.denoiser(noise, one).x0
    assert after.mean().item() == pytest.approx(0.3, abs=0.05)
    assert after.std().item() == pytest.approx(0.15, abs=0.05)
    # The control: it was not so before.
    assert abs(before.mean() - 0.3) > 0.1 or abs(before.std() - 0.15) > 0.1


def test_a_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = adversarial([2], labels=2, condition_dropout=0.2)
    list(_run(tmp_path / "whole", whole, toy.Points()).train())
    half = _run(tmp_path / "half", adversarial([2], labels=2, condition_dropout=0.2), toy.Points())
    loop = half.train()
    for _ in range(6):
        next(loop)
    loop.close()
    rest = adversarial([2], labels=2, condition_dropout=0.2)
    events = list(_run(tmp_path / "half", rest, toy.Points()).train())
    assert events[0].step == 5
    assert set(events[0].losses) == {DISCRIMINATOR, GENERATOR}
    assert toy.digest(rest) == toy.digest(whole)
    assert all(a.step + 1 == b.step for a, b in pairwise(events))


def test_a_network_of_many_steps_is_refused() -> None:
    settings = GanSettings(discriminator={"kind": "discriminator"})
    with pytest.raises(UsageError, match="does not draw in one step"):
        gan(denoiser(toy.network()), Conditioning({}), settings, None)
