"""The loop: what one step does, in how many pieces, and what it refuses to do."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training import toy

from fromnoise.core.errors import TrainingError
from fromnoise.data import Batch, Loader
from fromnoise.training import (
    EMA,
    Denoising,
    Draws,
    Event,
    Objective,
    ObjectiveSettings,
    Optimization,
    Phase,
    TrainSettings,
    train,
)
from fromnoise.training.loop import held_out_loss


class Faulty:
    """The batches of a loader with a broken value in the one of a given step."""

    def __init__(self, loader: Loader, step: int, value: float) -> None:
        self.loader, self.step, self.value = loader, step, value

    def start(self, step: int) -> Iterator[Batch]:
        for number, batch in enumerate(self.loader.start(step), start=step + 1):
            x = batch.x.clone()
            x[3, 0] = self.value if number == self.step else x[3, 0]
            yield replace(batch, x=x)


def _settings(**given: Any) -> TrainSettings:
    return TrainSettings(**{**toy.SMALL, **given})


def _loader(settings: TrainSettings) -> Loader:
    return Loader(toy.Points(), settings.batch_size, settings.seed)


def _train(
    objective: Objective, settings: TrainSettings, batches: Any = None
) -> tuple[list[Event], Optimization, EMA]:
    optimization = Optimization(objective.groups(), settings)
    ema = EMA(objective, settings.ema)
    loop = train(objective, batches or _loader(settings), optimization, ema, settings.steps or 0)
    return list(loop), optimization, ema


def _everything(objective: Objective, optimization: Optimization, ema: EMA) -> dict[str, Tensor]:
    state = {**objective.state_dict(), **optimization.state()}
    return {
        k: v.clone() for k, v in {**state, **{f"ema {k}": v for k, v in ema.shadow.items()}}.items()
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_broken_value_stops_before_anything_changes(value: float, precision: Any) -> None:
    settings = _settings(precision=precision, log_every=10)
    objective = toy.objective()
    optimization = Optimization(objective.groups(), settings)
    ema = EMA(objective, settings.ema)
    loop = train(objective, Faulty(_loader(settings), 6, value), optimization, ema, 12)
    for _ in range(5):
        next(loop)
    before = _everything(objective, optimization, ema)
    with pytest.raises(TrainingError, match=r"step 6: .*--train.learning-rate"):
        next(loop)
    after = _everything(objective, optimization, ema)
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    healthy = toy.objective()
    events, *_ = _train(healthy, settings)
    assert len(events) == 12


class Exploding(Denoising):
    """A finite loss whose gradient is not."""

    def phases(self, batch: Any, draws: Draws) -> Iterator[Phase]:
        weight = next(self.parameters())
        for phase in super().phases(batch, draws):
            yield replace(phase, loss=phase.loss + torch.sqrt((weight * 0.0).sum()))


def test_a_finite_loss_with_a_broken_gradient_stops_too() -> None:
    made = toy.objective()
    objective = Exploding(made.denoiser, made.conditioning, made.weighting, made.time_sampling)
    before = {k: v.clone() for k, v in objective.state_dict().items()}
    with pytest.raises(TrainingError, match="step 1: its gradient is nan"):
        _train(objective, _settings())
    assert all(torch.equal(v, before[k]) for k, v in objective.state_dict().items())


@pytest.mark.parametrize("parts", [2, 3, 8, 20])
def test_micro_steps_change_only_the_rounding(parts: int) -> None:
    time_sampling = "low_discrepancy"
    given = ObjectiveSettings(time_sampling=time_sampling, condition_dropout=0.3)
    whole, split = (toy.objective(given, dropout=0.0).double() for _ in range(2))
    data = toy.Points()
    data.x = data.x.double()
    first, *_ = _train(whole, _settings(), Loader(data, 8, 0))
    second, *_ = _train(split, _settings(accumulation=parts), Loader(data, 8, 0))
    for one, other in zip(first, second, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-9)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-9)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(split.state_dict()[name], value, rtol=1e-8, atol=1e-10)


def test_the_callers_random_state_is_neither_used_nor_changed() -> None:
    traces = []
    for seed in (1, 2):
        objective = toy.objective()
        torch.manual_seed(seed)
        expected = torch.get_rng_state()
        events, *_ = _train(objective, _settings())
        assert torch.equal(torch.get_rng_state(), expected)
        traces.append([event.loss for event in events])
    assert traces[0] == traces[1]
    events, *_ = _train(toy.objective(), _settings(seed=1))
    assert [event.loss for event in events] != traces[0]


def test_held_out_loss_is_the_same_every_time_and_changes_nothing() -> None:
    objective = toy.counting().train()
    data = toy.Points(16, seed=1)
    state = torch.get_rng_state()
    losses = {held_out_loss(objective, data.batches(5), seed=3) for _ in range(3)}
    assert len(losses) == 1
    assert objective.training
    assert torch.equal(torch.get_rng_state(), state)
    assert held_out_loss(objective, data.batches(5), seed=4) not in losses
    assert all(p.grad is None for p in objective.parameters())


class Adversaries(Objective):
    """Two players: `first` is stepped before `second` computes its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.ones(1)) for _ in range(2))
        self.seen: list[float] = []

    def phases(self, batch: Any, draws: Draws) -> Iterator[Phase]:
        yield Phase("one", (self.first * self.second).sum() * 2.0, "first")
        self.seen.append(self.first.item())
        yield Phase("two", (self.first * self.second).sum() * 3.0, "second")

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        return {"first": [("first", self.first)], "second": [("second", self.second)]}


def test_phases_step_in_order_each_only_its_own_group() -> None:
    objective = Adversaries()
    settings = _settings(steps=1, warmup=0, learning_rate=0.1, clip=0)
    events, optimization, _ = _train(objective, settings)
    # Adam's first step is the learning rate times the sign of the gradient.
    assert objective.seen == [pytest.approx(0.9)]
    assert objective.first.item() == pytest.approx(0.9)
    assert objective.second.item() == pytest.approx(0.9)
    assert events[0].losses == {"one": pytest.approx(2.0), "two": pytest.approx(2.7)}
    assert events[0].loss == pytest.approx(4.7)
    state = optimization.state()
    assert state["first/first/exp_avg"].item() == pytest.approx(0.1 * 2.0)
    assert state["second/second/exp_avg"].item() == pytest.approx(0.1 * 3.0 * 0.9)


def test_data_that_ends_is_an_error() -> None:
    class Ending:
        def start(self, step: int) -> Iterator[Batch]:
            yield toy.Points().batch(range(8))

    with pytest.raises(TrainingError, match="came to an end"):
        _train(toy.objective(), _settings(), Ending())


class Hungry(Denoising):
    """Asks for more memory than there is."""

    def phases(self, batch: Any, draws: Draws) -> Iterator[Phase]:
        torch.empty(1 << 52)
        return super().phases(batch, draws)


def test_running_out_of_memory_says_what_to_change() -> None:
    made = toy.objective()
    objective = Hungry(made.denoiser, made.conditioning, made.weighting, made.time_sampling)
    with pytest.raises(TrainingError, match="8 samples a step.*--train.accumulation"):
        _train(objective, _settings())


class Broken(Denoising):
    """Fails with an error of its own."""

    def phases(self, batch: Any, draws: Draws) -> Iterator[Phase]:
        raise RuntimeError("the network is broken")


def test_other_errors_keep_their_names() -> None:
    made = toy.objective()
    objective = Broken(made.denoiser, made.conditioning, made.weighting, made.time_sampling)
    with pytest.raises(RuntimeError, match="the network is broken"):
        _train(objective, _settings())
