"""A classifier of noisy samples learns p(y | x_t), and its run is a run like any other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from training import toy

from fromnoise import schedules
from fromnoise.core.errors import UsageError
from fromnoise.data import Dataset
from fromnoise.denoisers import NetworkDenoiser
from fromnoise.encoders import Conditioning, Label
from fromnoise.nets import build
from fromnoise.parameterizations import PARAMETERIZATIONS
from fromnoise.training import Draws, Run, Task, TrainSettings
from fromnoise.training.classifier import NoisyClassification, classifier
from fromnoise.training.settings import ClassifierSettings

READING = {"kind": "eps"}
NET = {
    "kind": "classifier",
    "in_channels": 1,
    "classes": 2,
    "size": 4,
    "channels": 16,
    "multipliers": [1],
    "blocks": 1,
    "attention": {"middle": False},
    "style": {"groups": 4},
}


class Signs(Dataset):
    """One pattern and its negative with a little noise, two classes: p(y | x_t) is logistic."""

    SPREAD = 0.5
    PATTERN = torch.tensor([0.6, -0.2, 0.1, 0.4]).repeat(4).reshape(1, 4, 4)

    def __init__(self, count: int = 1024, seed: int = 0) -> None:
        self.name, self.shape, self.levels = "signs", (1, 4, 4), None
        self.classes = ("minus", "plus")
        self.labels = torch.arange(count) % 2
        generator = torch.Generator().manual_seed(seed)
        noise = self.SPREAD * torch.randn(count, 1, 4, 4, generator=generator)
        self.x = noise + (2.0 * self.labels - 1.0).reshape(-1, 1, 1, 1) * self.PATTERN

    def __len__(self) -> int:
        return len(self.x)

    def samples(self, indices: "np.ndarray[Any, np.dtype[np.int64]]") -> Tensor:
        return self.x[torch.from_numpy(indices)]

    @classmethod
    def exact(cls, x: Tensor, t: Tensor) -> Tensor:
        """p(plus | x_t): x_t is ±α·m + N(0, α²·s² + σ²)."""
        alpha, sigma = (s.reshape(-1, 1, 1, 1) for s in schedules.cosine()(t))
        odds = 2 * alpha * cls.PATTERN * x / (alpha**2 * cls.SPREAD**2 + sigma**2)
        return torch.sigmoid(odds.flatten(1).sum(1))


def objective(net: dict[str, Any] | None = None, **choices: Any) -> NoisyClassification:
    torch.manual_seed(0)
    reader = NetworkDenoiser(
        build(net or NET), schedules.cosine(), PARAMETERIZATIONS.build(READING)
    )
    return classifier(reader, Conditioning({}), ClassifierSettings(**choices), None)


def draws(size: int = 8) -> Draws:
    return Draws.of_step(0, 0, range(size), size)


def test_the_loss_is_the_cross_entropy_of_noisy_samples_at_their_times() -> None:
    made, batch = objective(), Signs().batch(range(8))
    again = draws()
    t = made.time_sampling(again, made.reader.process.clock)
    x = made.reader.process.corrupt(batch.x, t, again.noise.normal(batch.x))
    expected = cross_entropy(made.reader.output(x, t), batch.label)
    (phase,) = made.phases(batch, draws())
    torch.testing.assert_close(phase.loss, expected)
    assert t.unique().numel() == 8


def test_labels_are_smoothed_in_training_alone() -> None:
    plain, smooth = objective(), objective(label_smoothing=0.2)
    batch = Signs().batch(range(8))

    def loss(made: NoisyClassification) -> float:
        (phase,) = made.phases(batch, draws())
        return phase.loss.item()

    assert loss(smooth) != pytest.approx(loss(plain), rel=1e-4)
    plain.eval(), smooth.eval()
    assert loss(smooth) == loss(plain)


def test_times_that_adapt_see_their_losses() -> None:
    made = objective(time_sampling="loss_second_moment")
    (phase,) = made.phases(Signs().batch(range(8)), draws())
    assert phase.each is not None and phase.each.shape == (8, 2)
    made.observed(torch.arange(8), phase.each)
    (phase,) = objective().phases(Signs().batch(range(8)), draws())
    assert phase.each is None


def _run(folder: Path, made: NoisyClassification, steps: int, **more: Any) -> Run:
    settings = {**toy.SMALL, "steps": steps, "learning_rate": 3e-3, **more}
    train = TrainSettings(**settings).model_dump(mode="json")
    return Run(folder, {"recipe": "toy", "train": train}, Task(made, Signs(), Signs(64, seed=1)))


def test_what_it_learns_is_the_posterior_at_every_noise(tmp_path: Path) -> None:
    made = objective()
    held_out = Signs(256, seed=2)
    noise = torch.randn(held_out.x.shape, generator=torch.Generator().manual_seed(3))

    def error(t: float) -> float:
        time = torch.full((256,), t, dtype=torch.float64)
        x = made.reader.process.corrupt(held_out.x, time, noise)
        with torch.no_grad():
            found = made.reader.output(x, time).softmax(1)[:, 1]
        return (found - Signs.exact(x, time)).abs().mean().item()

    times = (0.1, 0.5, 0.8)
    untrained = [error(t) for t in times]
    events = list(_run(tmp_path / "run", made, 120, batch_size=64, validate_every=120).train())
    made.eval()
    # Told nothing, it could only guess: log 2 = 0.69.
    assert events[-1].validation is not None and events[-1].validation < 0.4
    for before, t in zip(untrained, times, strict=True):
        assert error(t) < 0.07 < before


def test_a_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    net = {**NET, "style": {"groups": 4, "dropout": 0.2}}
    whole = objective(net, label_smoothing=0.1)
    list(_run(tmp_path / "whole", whole, 12).train())
    loop = _run(tmp_path / "half", objective(net, label_smoothing=0.1), 12).train()
    for _ in range(6):
        next(loop)
    loop.close()
    rest = objective(net, label_smoothing=0.1)
    list(_run(tmp_path / "half", rest, 12).train())
    assert toy.digest(rest) == toy.digest(whole)


def test_micro_steps_change_only_the_rounding(tmp_path: Path) -> None:
    one, two = objective(), objective()
    first = [e.loss for e in _run(tmp_path / "one", one, 6).train()]
    second = [e.loss for e in _run(tmp_path / "two", two, 6, accumulation=3).train()]
    assert first == pytest.approx(second, rel=1e-4)


def test_what_cannot_be_classified_is_refused() -> None:
    reading = PARAMETERIZATIONS.build(READING)
    drawing = NetworkDenoiser(toy.network(), schedules.cosine(), reading)
    with pytest.raises(UsageError, match="needs a network classifier"):
        classifier(drawing, Conditioning({}), ClassifierSettings(), None)
    told = Conditioning({"label": Label(2)})
    with pytest.raises(UsageError, match="told nothing but the time"):
        classifier(objective().reader, told, ClassifierSettings(), None)
    unlabelled = Signs()
    unlabelled.labels = None
    with pytest.raises(UsageError, match="no labels"):
        list(objective().phases(unlabelled.batch(range(8)), draws()))
    more = Signs()
    more.labels = more.labels + 1
    with pytest.raises(UsageError, match="a class 2, and the network knows 2"):
        list(objective().phases(more.batch(range(8)), draws()))
