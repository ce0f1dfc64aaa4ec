"""Loss-aware times: unbiased, of less variance, and the same after a checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training import toy

from fromnoise import schedules
from fromnoise.core.errors import UsageError
from fromnoise.training import TIME_SAMPLINGS, Draws, ObjectiveSettings, Run, Task, TrainSettings
from fromnoise.training.resampling import History
from fromnoise.training.time_sampling import LossSecondMoment

STEPS = 50
SCHEDULE = schedules.linear(STEPS)
SAMPLING = {"kind": "loss_second_moment", "steps": STEPS}


def skewed(t: Tensor) -> Tensor:
    """A loss that is large at a few times only, as that of the bound is."""
    return 0.01 + torch.exp(-8.0 * t.double())


def warm(history: int = 10) -> LossSecondMoment:
    made = LossSecondMoment(STEPS, history)
    t = (torch.arange(STEPS).repeat(history) + 1.0) / STEPS
    made.observe(t, skewed(t))
    return made


def estimates(sampling: LossSecondMoment, count: int = 20_000) -> Tensor:
    t = sampling(Draws.of_step(0, 1, range(count), count), SCHEDULE)
    return skewed(t) * sampling.importance(t)


def test_the_weighted_loss_is_unbiased_and_varies_less() -> None:
    every = skewed((torch.arange(STEPS) + 1.0) / STEPS)
    aware, uniform = estimates(warm()), estimates(LossSecondMoment(STEPS))
    for found in (aware, uniform):
        assert abs(found.mean() - every.mean()) < 4 * found.std() / len(found) ** 0.5 + 1e-12
    assert aware.std() < 0.1 * uniform.std()


def test_without_its_weights_it_would_be_biased() -> None:
    """The control: the same draws, every one counted alike."""
    sampling = warm()
    t = sampling(Draws.of_step(0, 1, range(20_000), 20_000), SCHEDULE)
    assert skewed(t).mean() > 2 * skewed((torch.arange(STEPS) + 1.0) / STEPS).mean()


def test_probabilities_are_the_roots_of_second_moments_mixed_with_a_thousandth() -> None:
    history = History(3, 2)
    history.observe(torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([3.0, 4.0, 0.0, 1.0, 2.0, 2.0]))
    size = torch.tensor([12.5, 0.5, 4.0], dtype=torch.float64).sqrt()
    expected = 0.999 * size / size.sum() + 0.001 / 3
    torch.testing.assert_close(history.probabilities(), expected)


def test_times_are_uniform_until_every_one_is_known() -> None:
    history = History(4, 3)
    uniform = torch.full((4,), 0.25, dtype=torch.float64)
    for _ in range(3):
        assert torch.equal(history.probabilities(), uniform)
        history.observe(torch.arange(4), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert history.probabilities()[3] > history.probabilities()[0]
    history = History(4, 3)
    history.observe(torch.tensor([0, 1, 2]).repeat(9), torch.rand(27))
    assert torch.equal(history.probabilities(), uniform)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_history_holds_the_last_losses_in_order(batch: int) -> None:
    """Against a list for each time, where one may come more often than it has room."""
    generator = torch.Generator().manual_seed(batch)
    history, lists = History(3, 4), [[0.0] * 4 for _ in range(3)]
    for _ in range(40 // batch + 3):
        index = torch.randint(0, 3, (batch,), generator=generator)
        losses = torch.rand(batch, generator=generator, dtype=torch.float64)
        history.observe(index, losses)
        for k, loss in zip(index.tolist(), losses.tolist(), strict=True):
            lists[k] = [*lists[k][1:], loss]
    for k in range(3):
        assert sorted(history.losses[k].tolist()) == sorted(lists[k])


def test_held_out_losses_are_at_uniform_times() -> None:
    sampling = warm().eval()
    t = sampling(Draws.of_step(0, 1, range(5000), 5000), SCHEDULE)
    assert torch.equal(sampling.importance(t), torch.ones(5000, dtype=torch.float64))
    assert abs(t.mean() - 0.51) < 0.02


def test_other_steps_than_the_schedules_are_refused() -> None:
    with pytest.raises(UsageError, match="steps 1000"):
        LossSecondMoment(50)(Draws.of_step(0, 1, range(2), 2), schedules.linear(1000))
    for wrong in ({"steps": 0}, {"history": 0}):
        with pytest.raises(UsageError, match="1 or more"):
            TIME_SAMPLINGS.build({"kind": "loss_second_moment", **wrong})


def _run(folder: Path, steps: int = 30, **train: Any) -> Run:
    sampling = {"kind": "loss_second_moment", "steps": 4, "history": 2}
    objective = toy.objective(ObjectiveSettings(time_sampling=sampling), dropout=0.0)
    objective.denoiser.process = toy.NetworkDenoiser(
        objective.denoiser.net, schedules.linear(4), objective.denoiser.parameterization
    ).process
    settings = TrainSettings(
        **{**toy.SMALL, "steps": steps, "schedule": "constant", "checkpoint_every": 10, **train}
    )
    task = Task(objective, toy.Points(), toy.Points(16, seed=1))
    return Run(folder, {"recipe": "toy", "train": settings.model_dump(mode="json")}, task)


@pytest.mark.slow
def test_it_goes_on_bit_for_bit_and_micro_steps_see_the_same(tmp_path: Path) -> None:
    whole = [toy.trace(event, run) for run in [_run(tmp_path / "a")] for event in run.train()]
    first = _run(tmp_path / "b", steps=10)
    for _ in first.train():
        pass
    rest = _run(tmp_path / "b")
    assert [toy.trace(event, rest) for event in rest.train()] == whole[10:]
    history = rest.task.objective.time_sampling.history
    assert int(history.seen.sum()) == 30 * 8 and history.probabilities().std() > 0

    split = _run(tmp_path / "c", accumulation=3)
    list(split.train())
    seen = split.task.objective.time_sampling.history
    assert torch.equal(seen.seen, history.seen)


def test_a_history_that_is_lost_is_noticed(tmp_path: Path) -> None:
    """The control: going on with an empty history takes another way."""
    whole = [toy.trace(event, run) for run in [_run(tmp_path / "a")] for event in run.train()]
    for _ in _run(tmp_path / "b", steps=10).train():
        pass
    rest = _run(tmp_path / "b")
    loop = rest.train()
    traces = [toy.trace(next(loop), rest)]
    rest.task.objective.time_sampling.history.losses.zero_()
    traces += [toy.trace(event, rest) for event in loop]
    assert traces[0] == whole[10] and traces[1:] != whole[11:]
